"""What a round may ask for: as large a share of every block, within the caps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.draw import draw
from coin_protocol.exposure import Caps, ExposureLedger
from coin_protocol.v1 import profile_pb2
from verifier_sdk.rounds import affordable_round

PLAN = profile_pb2.RoundPlan(
    max_rounds=3,
    blocks_first_round=4,
    blocks_per_round=6,
    tokens_per_block=8,
    token_blocks_first_round=64,
)
TOTAL = 100


def caps(block_size: int, *, tokens: float = 1.0, embeddings: int = TOTAL) -> Caps:
    """Return the caps of a reply of 100 blocks: this share of its tokens, so many embeddings."""
    return Caps(int(TOTAL * block_size * tokens), embeddings, 0, TOTAL * block_size, TOTAL, 4)


def asked(block_size: int, *, number: int = 1, of: Caps | None = None) -> tuple[int, int, int]:
    return affordable_round(
        ExposureLedger(), of or caps(block_size), PLAN, number=number, block_size=block_size
    )


@pytest.mark.parametrize(
    ("block_size", "tokens"),
    [
        (256, 8), (512, 16), (1024, 32), (4096, 128), (128, 4),
        # A share is rounded down, to one run at least, or the whole block.
        (300, 9), (255, 7), (32, 4), (31, 4), (1, 1),
    ],
)  # fmt: skip
def test_of_each_block_as_large_a_share_is_asked_for(block_size: int, tokens: int) -> None:
    assert asked(block_size) == (4, 64, tokens)
    assert asked(block_size, number=2) == asked(block_size, number=3) == (6, 0, tokens)


@pytest.mark.parametrize(("block_size", "tokens"), [(256, 4), (512, 12), (1024, 28)])
def test_what_the_cap_on_tokens_lacks_is_taken_in_whole_runs(block_size: int, tokens: int) -> None:
    # Two tokens in a hundred are 7.5 in 256 for each of the 68 blocks asked for.
    assert asked(block_size, of=caps(block_size, tokens=0.02)) == (4, 64, tokens)


def test_a_cap_on_embeddings_is_kept_and_the_tokens_still_asked_for() -> None:
    assert asked(256, of=caps(256, embeddings=3)) == (3, 64, 8)
    assert asked(256, number=2, of=caps(256, embeddings=3)) == (3, 0, 8)
    assert asked(256, number=2, of=caps(256, embeddings=0)) == (0, 0, 0)


@given(
    block_size=st.integers(1, 4096),
    last=st.integers(1, 4096),
    blocks=st.integers(1, 90),
    shares=st.tuples(st.integers(0, 1_000_000), st.integers(0, 1_000_000)),
    run=st.integers(1, 8),
)
def test_rounds_never_pass_the_caps(
    block_size: int, last: int, blocks: int, shares: tuple[int, int], run: int
) -> None:
    counts = [block_size] * (blocks - 1) + [min(last, block_size)]
    agreed = profile_pb2.ExposureCaps(
        tokens_ppm=shares[0], blocks_ppm=shares[1], min_tokens=1, run_tokens=run
    )
    allowed = Caps.of(agreed, tokens=sum(counts), blocks=blocks)
    ledger = ExposureLedger()
    for number in range(1, PLAN.max_rounds + 1):
        wanted, token_blocks, tokens = affordable_round(
            ledger, allowed, PLAN, number=number, block_size=block_size
        )
        if not wanted and not token_blocks:
            break
        ledger.require(allowed, blocks=wanted, token_blocks=token_blocks, tokens_per_block=tokens)
        found = draw(
            bytes([number]) * 32, counts, blocks=wanted, token_blocks=token_blocks,
            tokens_per_block=tokens, run_tokens=run,
        )  # fmt: skip
        ledger.add(found, edge=(blocks - 1, counts[-1] - 1))
        assert len(ledger.tokens) <= allowed.tokens
        assert len(ledger.block_embeddings) <= allowed.block_embeddings
