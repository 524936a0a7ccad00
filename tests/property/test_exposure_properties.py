"""No sequence of challenges, however they fall, opens more than the caps allow."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.draw import Drawn, DrawnBlock, draw, draw_whole, most_tokens
from coin_protocol.errors import ExposureCapError
from coin_protocol.exposure import Caps, ExposureLedger, affordable
from coin_protocol.v1 import profile_pb2
from tests.support.examples import examples

PPM = st.integers(0, 1_000_000)
AGREED = st.builds(
    profile_pb2.ExposureCaps,
    tokens_ppm=PPM,
    blocks_ppm=PPM,
    min_tokens=st.integers(0, 40),
    min_blocks=st.integers(0, 10),
    whole_blocks_ppm=PPM,
    run_tokens=st.integers(0, 6),
)
ASKED = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
"""Blocks, token blocks and tokens per block, as everywhere below."""

Asked = tuple[int, int, int]
CHALLENGES = st.lists(ASKED, max_size=12)
BLOCK_SIZE = 8


def token_counts(tokens: int) -> list[int]:
    full, rest = divmod(tokens, BLOCK_SIZE)
    return [BLOCK_SIZE] * full + ([rest] if rest else [])


def edge_of(counts: list[int]) -> tuple[int, int]:
    return len(counts) - 1, counts[-1] - 1


def seed(number: int, text: str) -> bytes:
    return sha256(f"{number} {text}".encode()).digest()


def passes(ledger: ExposureLedger, caps: Caps, asked: Asked) -> bool:
    blocks, token_blocks, per_block = asked
    try:
        ledger.require(caps, blocks=blocks, token_blocks=token_blocks, tokens_per_block=per_block)
    except ExposureCapError:
        return False
    return True


def answer(
    ledger: ExposureLedger, caps: Caps, asked: Asked, counts: list[int], luck: bytes
) -> Drawn:
    """Draw what is asked for and enter it."""
    blocks, token_blocks, per_block = asked
    drawn = draw(
        luck,
        counts,
        blocks=blocks,
        tokens_per_block=per_block,
        token_blocks=token_blocks,
        run_tokens=caps.run_tokens,
    )
    ledger.add(drawn, edge=edge_of(counts))
    return drawn


def affords(ledger: ExposureLedger, caps: Caps, asked: Asked) -> Asked:
    blocks, token_blocks, per_block = asked
    return affordable(
        ledger, caps, blocks=blocks, token_blocks=token_blocks, tokens_per_block=per_block
    )


@given(agreed=AGREED, tokens=st.integers(1, 300), challenges=CHALLENGES, luck=st.text(max_size=4))
@examples(300)
def test_challenges_that_pass_never_open_more_than_a_cap(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[Asked],
    luck: str,
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, asked in enumerate(challenges):
        if not passes(ledger, caps, asked):
            continue
        answer(ledger, caps, asked, counts, seed(number, luck))
        exposure = ledger.exposure()
        assert exposure.tokens <= caps.tokens
        assert exposure.block_embeddings <= caps.block_embeddings


@given(
    agreed=AGREED,
    blocks=st.integers(1, 60),
    challenges=st.lists(st.integers(0, 40), max_size=12),
    luck=st.text(max_size=4),
)
@examples(200)
def test_whole_block_challenges_that_pass_never_open_more_than_their_cap(
    agreed: profile_pb2.ExposureCaps, blocks: int, challenges: list[int], luck: str
) -> None:
    caps = Caps.of(agreed, tokens=blocks * BLOCK_SIZE, blocks=blocks)
    ledger = ExposureLedger()
    for number, asked in enumerate(challenges):
        try:
            ledger.require_whole(caps, blocks=asked)
        except ExposureCapError:
            continue
        ledger.add_whole(draw_whole(seed(number, luck), blocks, blocks=asked))
        assert ledger.exposure().whole_blocks <= caps.whole_blocks


@given(
    agreed=AGREED,
    tokens=st.integers(1, 300),
    challenges=CHALLENGES,
    asked=ASKED,
    luck=st.text(max_size=4),
)
@examples(300)
def test_what_is_affordable_passes_and_is_no_more_than_was_asked(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[Asked],
    asked: Asked,
    luck: str,
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, wish in enumerate([*challenges, asked]):
        granted = affords(ledger, caps, wish)
        assert all(0 <= part <= most for part, most in zip(granted, wish, strict=True))
        blocks, token_blocks, per_block = granted
        # What is left is a challenge that a provider may answer, or nothing.
        assert per_block or not token_blocks
        if not blocks and not token_blocks:
            assert per_block == 0
            continue
        assert passes(ledger, caps, granted)
        answer(ledger, caps, granted, counts, seed(number, luck))
        exposure = ledger.exposure()
        assert exposure.tokens <= caps.tokens
        assert exposure.block_embeddings <= caps.block_embeddings


@given(agreed=AGREED, tokens=st.integers(1, 300), challenges=CHALLENGES, asked=ASKED)
@examples(300)
def test_what_passes_is_affordable_as_asked(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[Asked],
    asked: Asked,
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, wish in enumerate([*challenges, asked]):
        there_are = 0 < wish[0] + wish[1] <= len(counts)
        if not passes(ledger, caps, wish) or wish[2] == 0 or not there_are:
            continue
        assert affords(ledger, caps, wish) == wish
        answer(ledger, caps, wish, counts, seed(number, ""))


def test_asking_for_more_blocks_than_there_are_buys_no_fewer_tokens() -> None:
    caps = Caps(tokens=16, block_embeddings=2, whole_blocks=0, total_tokens=500, total_blocks=2)
    wanted = (2, 0, 7)
    for more in ((2, 0, 7), (100, 0, 7), (2, 100, 7), (100, 100, 7)):
        assert affords(ExposureLedger(), caps, more) == wanted


# Ten blocks of 50 tokens, four in a row; one of the tokens goes to the edge.
TIGHT: dict[str, tuple[int, Asked, Asked]] = {
    "all that was asked for": (81, (4, 6, 8), (4, 6, 8)),
    "tokens per block go first, run by run": (80, (4, 6, 8), (4, 6, 4)),
    "and only as far as one run": (41, (4, 6, 8), (4, 6, 4)),
    "with no more blocks than were asked for": (45, (4, 6, 8), (4, 6, 4)),
    "then token blocks": (40, (4, 6, 8), (4, 5, 4)),
    "all of them": (17, (4, 6, 8), (4, 0, 4)),
    "and no part of a run more": (16, (3, 6, 8), (3, 0, 4)),
    "then the run in blocks with embedding": (16, (4, 6, 8), (4, 0, 3)),
    "until embeddings stand alone": (4, (4, 6, 8), (4, 0, 0)),
    "and cost the edge alone": (1, (4, 6, 8), (4, 0, 0)),
    "which must be affordable": (0, (4, 6, 8), (0, 0, 0)),
    "token blocks without others": (14, (0, 6, 8), (0, 3, 4)),
    "a last one with what is left": (4, (0, 6, 8), (0, 1, 3)),
    "and none with nothing": (1, (0, 6, 8), (0, 0, 0)),
    "embeddings are capped apart": (81, (9, 1, 4), (4, 1, 4)),
    "a request below one run is not rounded": (31, (4, 6, 3), (4, 6, 3)),
    "nor is one past whole runs": (81, (4, 6, 10), (4, 6, 10)),
    "no tokens buy no token blocks": (81, (4, 6, 0), (4, 0, 0)),
}


@pytest.mark.parametrize(("tokens", "asked", "wanted"), TIGHT.values(), ids=TIGHT)
def test_a_tight_cap_takes_what_is_worth_least_first(
    tokens: int, asked: Asked, wanted: Asked
) -> None:
    caps = Caps(
        tokens=tokens,
        block_embeddings=4,
        whole_blocks=0,
        total_tokens=500,
        total_blocks=10,
        run_tokens=4,
    )
    assert affords(ExposureLedger(), caps, asked) == wanted


@given(agreed=AGREED, tokens=st.integers(1, 300), challenges=CHALLENGES)
@examples(200)
def test_token_blocks_cost_tokens_and_no_embedding(
    agreed: profile_pb2.ExposureCaps, tokens: int, challenges: list[Asked]
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger, opened = ExposureLedger(), set[int]()
    for number, asked in enumerate(challenges):
        drawn = answer(ledger, caps, asked, counts, seed(number, ""))
        opened |= {block.index for block in drawn.blocks}
        assert ledger.block_embeddings == opened
        for block in drawn.token_blocks:
            assert {(block.index, position) for position in block.positions} <= ledger.tokens


@given(
    agreed=AGREED,
    opened=st.sets(st.integers(0, 255), min_size=1),
    shift=st.integers(0, 255),
    asked=ASKED,
)
@examples(300)
def test_whether_a_challenge_is_refused_depends_on_counts_and_on_no_draw(
    agreed: profile_pb2.ExposureCaps, opened: set[int], shift: int, asked: Asked
) -> None:
    caps = Caps.of(agreed, tokens=256, blocks=32)
    others = {(number + shift) % 256 for number in opened}
    ledgers = [
        ExposureLedger(tokens={divmod(number, BLOCK_SIZE) for number in places})
        for places in (opened, others)
    ]
    assert passes(ledgers[0], caps, asked) == passes(ledgers[1], caps, asked)


@given(agreed=AGREED, tokens=st.integers(1, 300), challenges=CHALLENGES, asked=ASKED)
@examples(200)
def test_a_refused_challenge_asks_for_more_than_is_left(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[Asked],
    asked: Asked,
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, wish in enumerate([*challenges, asked]):
        if passes(ledger, caps, wish):
            answer(ledger, caps, wish, counts, seed(number, ""))
            continue
        blocks, drawn = min(wish[0], len(counts)), min(wish[0] + wish[1], len(counts))
        most = drawn * most_tokens(wish[2], caps.run_tokens)
        tokens_after = len(ledger.tokens) + most + (0 if ledger.tokens else 1)
        past_tokens = tokens_after > caps.tokens
        past_blocks = len(ledger.block_embeddings) + blocks > caps.block_embeddings
        assert past_tokens or past_blocks


@given(agreed=AGREED, tokens=st.integers(0, 1 << 24), block_size=st.integers(1, 4096))
@examples(200)
def test_caps_are_the_shares_agreed_within_the_floor_and_all_there_is(
    agreed: profile_pb2.ExposureCaps, tokens: int, block_size: int
) -> None:
    blocks = -(-tokens // block_size)
    caps = Caps.of(agreed, tokens=tokens, blocks=blocks)
    assert caps.tokens <= tokens
    assert caps.block_embeddings <= blocks
    assert caps.whole_blocks <= blocks
    if caps.tokens > agreed.min_tokens:
        assert caps.tokens * 1_000_000 <= tokens * agreed.tokens_ppm
    if caps.block_embeddings > agreed.min_blocks:
        assert caps.block_embeddings * 1_000_000 <= blocks * agreed.blocks_ppm
    if agreed.whole_blocks_ppm == 0:
        assert caps.whole_blocks == 0


@given(asked=ASKED, tokens=st.integers(1, 300))
@examples(100)
def test_where_everything_may_be_opened_nothing_is_refused(asked: Asked, tokens: int) -> None:
    counts = token_counts(tokens)
    all_of_it = profile_pb2.ExposureCaps(tokens_ppm=1_000_000, blocks_ppm=1_000_000)
    caps = Caps.of(all_of_it, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    ledger.add(draw(seed(0, ""), counts, blocks=999, tokens_per_block=999), edge=edge_of(counts))
    assert passes(ledger, caps, asked)
    assert ledger.exposure().tokens == tokens


PLACES = st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 7))))


@given(drawn=PLACES, of_tokens=PLACES)
@examples(100)
def test_what_was_opened_before_is_not_counted_again(
    drawn: list[tuple[int, set[int]]], of_tokens: list[tuple[int, set[int]]]
) -> None:
    both = Drawn(
        *(
            tuple(DrawnBlock(index, tuple(sorted(positions))) for index, positions in blocks)
            for blocks in (drawn, of_tokens)
        )
    )
    ledger = ExposureLedger()
    ledger.add(both, edge=(5, 7))
    before = ledger.exposure()
    ledger.add(both, edge=(5, 7))
    assert ledger.exposure() == before
    places = {(i, position) for i, positions in (*drawn, *of_tokens) for position in positions}
    assert before.tokens == len(places | {(5, 7)})
    assert before.block_embeddings == len({index for index, _ in drawn})
