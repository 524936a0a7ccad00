"""What a refusal says of the caps, and that a cap on everything there is refuses nothing.

That no sequence of challenges passes a cap is in `tests/property/test_exposure_properties.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from coin_protocol.draw import Drawn, DrawnBlock
from coin_protocol.errors import ExposureCapError
from coin_protocol.exposure import Caps, ExposureLedger, affordable

CAPS = Caps(tokens=9, block_embeddings=2, whole_blocks=1, total_tokens=80, total_blocks=10)
OPENED = Drawn(blocks=(DrawnBlock(3, (0, 1)),), token_blocks=(DrawnBlock(4, (7,)),))
"""Three tokens and the last one, and one embedding."""


def opened_before() -> ExposureLedger:
    ledger = ExposureLedger()
    ledger.add(OPENED, edge=(9, 7))
    ledger.add_whole([5])
    return ledger


def challenge(*asked: int) -> Callable[[], None]:
    """Return what asks for blocks, token blocks and tokens in each."""
    blocks, token_blocks, per_block = asked
    return lambda: opened_before().require(
        CAPS, blocks=blocks, token_blocks=token_blocks, tokens_per_block=per_block
    )


REFUSED: dict[str, tuple[Callable[[], None], str]] = {
    "tokens": (challenge(1, 1, 3), "tokens to 10, past the cap of 9"),
    "embeddings": (challenge(2, 0, 1), "block embeddings to 3, past the cap of 2"),
    "tokens before embeddings": (challenge(2, 1, 2), "tokens to 10, past the cap of 9"),
    "whole blocks": (
        lambda: opened_before().require_whole(CAPS, blocks=1),
        "whole blocks to 2, past the cap of 1",
    ),
}


@pytest.mark.parametrize(("asks", "says"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_cap_and_what_would_come_to_pass_it(
    asks: Callable[[], None], says: str
) -> None:
    sentence = f"the challenge could bring the exposed {says}"
    with pytest.raises(ExposureCapError, match=f"^{re.escape(sentence)}$"):
        asks()


def test_at_the_caps_nothing_is_refused() -> None:
    challenge(1, 0, 5)()
    ExposureLedger().require_whole(CAPS, blocks=1)


@pytest.mark.parametrize(
    ("tokens", "embeddings", "wanted"),
    [(80, 10, (10, 0, 8)), (79, 10, (10, 0, 0)), (80, 9, (0, 10, 8))],
    ids=["all", "all-tokens-but-one", "all-embeddings-but-one"],
)
def test_where_all_may_be_opened_what_is_open_is_afforded_again(
    tokens: int, embeddings: int, wanted: tuple[int, int, int]
) -> None:
    caps = Caps(tokens, embeddings, whole_blocks=0, total_tokens=80, total_blocks=10)
    all_but_one = {(block, at) for block in range(10) for at in range(8)} - {(0, 0)}
    ledger = ExposureLedger(tokens=all_but_one, block_embeddings=set(range(9)))
    blocks, token_blocks, per_block = wanted
    ledger.require(caps, blocks=blocks, token_blocks=token_blocks, tokens_per_block=per_block)
    assert affordable(ledger, caps, blocks=10, token_blocks=10, tokens_per_block=8) == wanted
