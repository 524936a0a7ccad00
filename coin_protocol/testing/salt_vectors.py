"""Whole audits of leaves with salts of another length, as JSON files.

As in `evidence_vectors`, `SALT_ATTACKS` states by hand what every vector must come to, and the
files lie in the same folder and have the same form. Each reply has one block of four tokens, which
every challenge draws.
"""

from __future__ import annotations

from typing import Final

from coin_protocol.checks import Case
from coin_protocol.testing.evidence_vectors import FOLDER, Attack, document
from coin_protocol.testing.forgeries import audit
from coin_protocol.testing.salts import salted_block, salted_tokens
from coin_protocol.testing.world import Audit

_EDGE: Final = range(3, 4)
_BEFORE_IT: Final = range(3)
"""Positions of which a challenge for two opens one at least."""


def salt_vectors() -> dict[str, bytes]:
    """Return the files of all vectors, by path below `coin_protocol/`."""
    return {f"{FOLDER}/{attack.name}.json": document(attack) for attack in SALT_ATTACKS}


def _tokens(size: int, positions: range) -> Audit:
    return audit(tokens=4, opener=salted_tokens(0, size, positions))


def _block(size: int) -> Audit:
    return audit(tokens=4, opener=salted_block(0, size))


def _in_a_token_block(size: int) -> Case:
    return _tokens(size, _BEFORE_IT).ask(blocks=0, token_blocks=1).case()


# fmt: off
SALT_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack("token-salts-left-out",
           "Tokens are committed and opened without a salt.",
           "INCLUSION_PROOF", lambda: _tokens(0, _BEFORE_IT).ask().case()),
    Attack("token-salts-too-short",
           "Tokens are committed and opened with 15 bytes of salt.",
           "INCLUSION_PROOF", lambda: _tokens(15, _BEFORE_IT).ask().case()),
    Attack("token-salts-too-long",
           "Tokens are committed and opened with 17 bytes of salt.",
           "INCLUSION_PROOF", lambda: _tokens(17, _BEFORE_IT).ask().case()),
    Attack("token-salts-of-a-token-block-left-out",
           "Tokens of a block without its embedding are committed and opened without a salt.",
           "INCLUSION_PROOF", lambda: _in_a_token_block(0)),
    Attack("last-token-salt-left-out",
           "The last token is committed and opened without a salt; no other one is opened.",
           "INCLUSION_PROOF", lambda: _tokens(0, _EDGE).ask(tokens_per_block=0).case()),
    Attack("last-token-salt-too-long",
           "The last token is committed and opened with 17 bytes of salt; no other one is opened.",
           "INCLUSION_PROOF", lambda: _tokens(17, _EDGE).ask(tokens_per_block=0).case()),
    Attack("block-salt-left-out",
           "A block's embedding is committed and opened without a salt.",
           "INCLUSION_PROOF", lambda: _block(0).ask().case()),
    Attack("block-salt-too-short",
           "A block's embedding is committed and opened with 31 bytes of salt.",
           "INCLUSION_PROOF", lambda: _block(31).ask().case()),
    Attack("block-salt-too-long",
           "A block's embedding is committed and opened with 33 bytes of salt.",
           "INCLUSION_PROOF", lambda: _block(33).ask().case()),
    Attack("whole-block-salt-left-out",
           "A block is committed and opened whole without its salt.",
           "INCLUSION_PROOF", lambda: _block(0).ask_whole().case()),
    Attack("whole-block-salt-too-short",
           "A block is committed and opened whole with 31 bytes of its salt.",
           "INCLUSION_PROOF", lambda: _block(31).ask_whole().case()),
    Attack("whole-block-salt-too-long",
           "A block is committed and opened whole with 33 bytes of its salt.",
           "INCLUSION_PROOF", lambda: _block(33).ask_whole().case()),
    Attack("whole-last-token-salt-too-short",
           "The last token of a block is committed and opened whole with 15 bytes of salt.",
           "WHOLE_LEAVES", lambda: _tokens(15, _EDGE).ask_whole().case()),
)
# fmt: on
