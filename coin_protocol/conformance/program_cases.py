"""Openings for programs that make what a provider makes, out of a whole run in memory.

A program is given all that it needs, so that it may know nothing of models: hashes, salts, secrets,
rows and windows in hex, the challenge in base64.

* `open`: `session_id`, `session_secret`, `block_size`, `token_ids`, `windows` (of each block),
  `rows` (of all ids, from 0), `run_tokens`, `challenge` (its payload), `challenge_sha256`,
  `flip_index`, `flip` -> `opening`, in protobuf's JSON form; `provider_time` is not compared
* `open_whole`: the same, and `token_bytes` (of all ids) -> `opening`
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf import json_format

from coin_protocol.conformance.case import Case, Kind
from coin_protocol.encoding import digest
from coin_protocol.testing.small import small_profile, small_table
from coin_protocol.testing.world import Audit, World
from coin_protocol.v1 import opening_pb2, receipt_pb2

_RUNS: Final = small_profile(run_tokens=3)
_ASKED: Final = (
    ("one-block", 1, 0, 2),
    ("embeddings-alone", 2, 0, 0),
    ("token-blocks-alone", 0, 2, 2),
    ("both-kinds", 1, 2, 3),
)
"""Name, blocks, token blocks, tokens in each."""


class ProgramCases:
    """Made of the small models and a world's seed; the same on every machine."""

    def cases(self) -> Iterator[Case]:
        """Make them."""
        for what, blocks, token_blocks, tokens in _ASKED:
            yield _opened(
                f"open/{what}",
                _audit(World()).ask(
                    blocks=blocks, token_blocks=token_blocks, tokens_per_block=tokens
                ),
            )
        runs = _audit(World(profile=_RUNS)).ask(blocks=1, token_blocks=2, tokens_per_block=6)
        yield _opened("open/runs", runs)
        yield _opened_whole("open-whole/two-blocks", _audit(World()).ask_whole(blocks=2))


def _audit(world: World) -> Audit:
    return world.audit(world.reply())


def _opened(name: str, audit: Audit) -> Case:
    (entry,) = audit.rounds
    opening = opening_pb2.Opening.FromString(entry.opening.payload)
    return _case(name, "open", _given(audit, entry, opening), opening)


def _opened_whole(name: str, audit: Audit) -> Case:
    (entry,) = audit.whole_rounds
    opening = opening_pb2.WholeBlockOpening.FromString(entry.opening.payload)
    tokenizer = audit.world.models.tokenizer
    spelled = [tokenizer.token_bytes(token).hex() for token in range(tokenizer.vocabulary_size)]
    given = {**_given(audit, entry, opening), "token_bytes": spelled}
    return _case(name, "open_whole", given, opening)


def _case(
    name: str,
    operation: str,
    given: dict[str, Any],
    opening: opening_pb2.Opening | opening_pb2.WholeBlockOpening,
) -> Case:
    return Case(
        name=name,
        about="The challenge is opened as nonce and flip draw, with all proofs.",
        kind=Kind.PROVIDER_PROGRAM,
        operation=operation,
        given={"input": given},
        expect={"opening": json_format.MessageToDict(opening, preserving_proto_field_name=True)},
        advice="Compare with the protocol, sections 4 and 6, byte by byte.",
    )


def _given(
    audit: Audit,
    entry: receipt_pb2.Round,
    opening: opening_pb2.Opening | opening_pb2.WholeBlockOpening,
) -> dict[str, Any]:
    """Return what a provider keeps of a reply, and what it is asked."""
    opener, world, payload = audit.reply.opener, audit.world, entry.challenge.payload
    table = small_table()
    return {
        "session_id": opener.session.session_id.hex(),
        "session_secret": opener.session.secret.hex(),
        "block_size": world.profile.block_size,
        "token_ids": opener.tree.token_ids.slice(0, opener.tree.reasoning_tokens).tolist(),
        "windows": [[row.hex() for row in block] for block in opener.windows],
        "rows": [table.row(token).hex() for token in range(len(table))],
        "run_tokens": world.profile.run_tokens,
        "challenge": b64encode(payload).decode(),
        "challenge_sha256": digest(payload).hex(),
        "flip_index": opening.flip_index,
        "flip": opening.flip.hex(),
    }
