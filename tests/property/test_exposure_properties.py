"""No sequence of challenges, however they fall, opens more than the caps allow."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coin_protocol.draw import DrawnBlock, draw, draw_whole
from coin_protocol.errors import ExposureCapError
from coin_protocol.exposure import Caps, ExposureLedger, affordable
from coin_protocol.v1 import profile_pb2

PPM = st.integers(0, 1_000_000)
AGREED = st.builds(
    profile_pb2.ExposureCaps,
    tokens_ppm=PPM,
    blocks_ppm=PPM,
    min_tokens=st.integers(0, 40),
    min_blocks=st.integers(0, 10),
    whole_blocks_ppm=PPM,
)
ASKED = st.tuples(st.integers(0, 40), st.integers(0, 40))
CHALLENGES = st.lists(ASKED, max_size=12)
BLOCK_SIZE = 8


def token_counts(tokens: int) -> list[int]:
    full, rest = divmod(tokens, BLOCK_SIZE)
    return [BLOCK_SIZE] * full + ([rest] if rest else [])


def edge_of(counts: list[int]) -> tuple[int, int]:
    return len(counts) - 1, counts[-1] - 1


def seed(number: int, text: str) -> bytes:
    return sha256(f"{number} {text}".encode()).digest()


def passes(ledger: ExposureLedger, caps: Caps, asked: tuple[int, int]) -> bool:
    try:
        ledger.require(caps, blocks=asked[0], tokens_per_block=asked[1])
    except ExposureCapError:
        return False
    return True


@given(agreed=AGREED, tokens=st.integers(1, 300), challenges=CHALLENGES, luck=st.text(max_size=4))
@settings(max_examples=300, deadline=None)
def test_challenges_that_pass_never_open_more_than_a_cap(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[tuple[int, int]],
    luck: str,
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, (blocks, per_block) in enumerate(challenges):
        if not passes(ledger, caps, (blocks, per_block)):
            continue
        drawn = draw(seed(number, luck), counts, blocks=blocks, tokens_per_block=per_block)
        ledger.add(drawn, edge=edge_of(counts))
        exposure = ledger.exposure()
        assert exposure.tokens <= caps.tokens
        assert exposure.block_embeddings <= caps.block_embeddings


@given(
    agreed=AGREED,
    blocks=st.integers(1, 60),
    challenges=st.lists(st.integers(0, 40), max_size=12),
    luck=st.text(max_size=4),
)
@settings(max_examples=200, deadline=None)
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
@settings(max_examples=300, deadline=None)
def test_what_is_affordable_passes_and_is_no_more_than_was_asked(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[tuple[int, int]],
    asked: tuple[int, int],
    luck: str,
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, wish in enumerate([*challenges, asked]):
        blocks, per_block = affordable(ledger, caps, blocks=wish[0], tokens_per_block=wish[1])
        assert 0 <= blocks <= wish[0]
        assert 0 <= per_block <= wish[1]
        if blocks == 0:
            assert per_block == 0
            continue
        ledger.require(caps, blocks=blocks, tokens_per_block=per_block)
        drawn = draw(seed(number, luck), counts, blocks=blocks, tokens_per_block=per_block)
        ledger.add(drawn, edge=edge_of(counts))


@given(agreed=AGREED, tokens=st.integers(1, 300), challenges=CHALLENGES, asked=ASKED)
@settings(max_examples=300, deadline=None)
def test_what_passes_is_affordable_as_asked(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[tuple[int, int]],
    asked: tuple[int, int],
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, wish in enumerate([*challenges, asked]):
        if not passes(ledger, caps, wish) or 0 in wish or wish[0] > len(counts):
            continue
        blocks, per_block = wish
        assert affordable(ledger, caps, blocks=blocks, tokens_per_block=per_block) == wish
        drawn = draw(seed(number, ""), counts, blocks=blocks, tokens_per_block=per_block)
        ledger.add(drawn, edge=edge_of(counts))


def test_asking_for_more_blocks_than_there_are_buys_no_fewer_tokens() -> None:
    caps = Caps(tokens=16, block_embeddings=2, whole_blocks=0, total_tokens=500, total_blocks=2)
    of_all = affordable(ExposureLedger(), caps, blocks=2, tokens_per_block=7)
    of_more = affordable(ExposureLedger(), caps, blocks=100, tokens_per_block=7)
    assert min(of_more[0], 2) * of_more[1] >= of_all[0] * of_all[1]


@given(
    agreed=AGREED,
    opened=st.sets(st.integers(0, 255), min_size=1),
    shift=st.integers(0, 255),
    asked=ASKED,
)
@settings(max_examples=300, deadline=None)
def test_whether_a_challenge_is_refused_depends_on_counts_and_on_no_draw(
    agreed: profile_pb2.ExposureCaps, opened: set[int], shift: int, asked: tuple[int, int]
) -> None:
    caps = Caps.of(agreed, tokens=256, blocks=32)
    others = {(number + shift) % 256 for number in opened}
    ledgers = [
        ExposureLedger(tokens={divmod(number, BLOCK_SIZE) for number in places})
        for places in (opened, others)
    ]
    assert passes(ledgers[0], caps, asked) == passes(ledgers[1], caps, asked)


@given(agreed=AGREED, tokens=st.integers(1, 300), challenges=CHALLENGES, asked=ASKED)
@settings(max_examples=200, deadline=None)
def test_a_refused_challenge_asks_for_more_than_is_left(
    agreed: profile_pb2.ExposureCaps,
    tokens: int,
    challenges: list[tuple[int, int]],
    asked: tuple[int, int],
) -> None:
    counts = token_counts(tokens)
    caps = Caps.of(agreed, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    for number, wish in enumerate([*challenges, asked]):
        if passes(ledger, caps, wish):
            drawn = draw(seed(number, ""), counts, blocks=wish[0], tokens_per_block=wish[1])
            ledger.add(drawn, edge=edge_of(counts))
            continue
        blocks = min(wish[0], len(counts))
        tokens_after = len(ledger.tokens) + blocks * wish[1] + (0 if ledger.tokens else 1)
        past_tokens = tokens_after > caps.tokens
        past_blocks = len(ledger.block_embeddings) + blocks > caps.block_embeddings
        assert past_tokens or past_blocks


@given(agreed=AGREED, tokens=st.integers(0, 1 << 24), block_size=st.integers(1, 4096))
@settings(max_examples=200, deadline=None)
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
@settings(max_examples=100, deadline=None)
def test_where_everything_may_be_opened_nothing_is_refused(
    asked: tuple[int, int], tokens: int
) -> None:
    counts = token_counts(tokens)
    all_of_it = profile_pb2.ExposureCaps(tokens_ppm=1_000_000, blocks_ppm=1_000_000)
    caps = Caps.of(all_of_it, tokens=tokens, blocks=len(counts))
    ledger = ExposureLedger()
    ledger.add(draw(seed(0, ""), counts, blocks=999, tokens_per_block=999), edge=edge_of(counts))
    ledger.require(caps, blocks=asked[0], tokens_per_block=asked[1])
    assert ledger.exposure().tokens == tokens


@given(drawn=st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 7)))))
@settings(max_examples=100, deadline=None)
def test_what_was_opened_before_is_not_counted_again(
    drawn: list[tuple[int, set[int]]],
) -> None:
    assume(drawn)
    blocks = [DrawnBlock(index, tuple(sorted(positions))) for index, positions in drawn]
    ledger = ExposureLedger()
    ledger.add(blocks, edge=(5, 7))
    before = ledger.exposure()
    ledger.add(blocks, edge=(5, 7))
    assert ledger.exposure() == before
    places = {(index, position) for index, positions in drawn for position in positions}
    assert before.tokens == len(places | {(5, 7)})
    assert before.block_embeddings == len({index for index, _ in drawn})
