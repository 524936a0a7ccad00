"""Draws and flips, for any seed, population and challenge."""

from __future__ import annotations

from hashlib import shake_256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol import draw
from coin_protocol.errors import VerificationError
from tests.support.examples import examples

SEEDS = st.binary(min_size=32, max_size=32)
COUNTS = st.lists(st.integers(1, 40), max_size=40)
ASKED = st.integers(0, 60)
RUNS = st.integers(1, 9)


def all_of(drawn: draw.Drawn) -> tuple[draw.DrawnBlock, ...]:
    return (*drawn.blocks, *drawn.token_blocks)


def shuffled_prefix(words: list[int], population: int, count: int) -> list[int]:
    """Return the first places of a Fisher-Yates shuffle that takes `words` off the front."""
    places = list(range(population))
    for at in range(min(count, population)):
        bound = population - at
        while (word := words.pop(0)) >= 2**64 // bound * bound:
            pass
        pick = at + word % bound
        places[at], places[pick] = places[pick], places[at]
    return places[: min(count, population)]


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, more=ASKED, tokens=ASKED)
@examples(100)
def test_a_draw_is_a_shuffle_by_the_words_of_the_stream(
    seed: bytes, counts: list[int], blocks: int, more: int, tokens: int
) -> None:
    raw = shake_256(seed).digest(8 * 4000)
    words = [int.from_bytes(raw[at : at + 8], "big") for at in range(0, len(raw), 8)]
    wanted = [
        (block, sorted(shuffled_prefix(words, counts[block], tokens)))
        for block in shuffled_prefix(words, len(counts), blocks + more)
    ]
    drawn = draw.draw(seed, counts, blocks=blocks, tokens_per_block=tokens, token_blocks=more)
    found = [(block.index, list(block.positions)) for block in all_of(drawn)]
    assert found == wanted
    assert len(drawn.blocks) == min(blocks, len(counts))


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, more=ASKED, tokens=ASKED, run=RUNS)
@examples(300)
def test_a_draw_opens_as_much_as_asked_for_once_and_inside(
    seed: bytes, counts: list[int], blocks: int, more: int, tokens: int, run: int
) -> None:
    drawn = draw.draw(
        seed, counts, blocks=blocks, tokens_per_block=tokens, token_blocks=more, run_tokens=run
    )
    assert len(drawn.blocks) == min(blocks, len(counts))
    assert len(all_of(drawn)) == min(blocks + more, len(counts))
    assert len({block.index for block in all_of(drawn)}) == len(all_of(drawn))
    for block in all_of(drawn):
        assert 0 <= block.index < len(counts)
        positions = block.positions
        assert len(positions) <= draw.most_tokens(tokens, run) <= tokens
        assert list(positions) == sorted(set(positions))
        assert all(0 <= position < counts[block.index] for position in positions)


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, more=ASKED, tokens=ASKED, run=RUNS)
@examples(300)
def test_positions_are_whole_aligned_runs_but_for_the_end_of_a_block(
    seed: bytes, counts: list[int], blocks: int, more: int, tokens: int, run: int
) -> None:
    drawn = draw.draw(
        seed, counts, blocks=blocks, tokens_per_block=tokens, token_blocks=more, run_tokens=run
    )
    run = min(run, tokens)
    for block in all_of(drawn):
        count = counts[block.index]
        cells = {position // run for position in block.positions}
        assert len(cells) == (min(tokens // run, -(-count // run)) if run else 0)
        whole = {at for cell in cells for at in range(cell * run, (cell + 1) * run) if at < count}
        assert set(block.positions) == whole


@given(seed=SEEDS, population=st.integers(0, 1 << 30), blocks=ASKED)
@examples(200)
def test_whole_blocks_are_distinct_and_inside(seed: bytes, population: int, blocks: int) -> None:
    drawn = draw.draw_whole(seed, population, blocks=blocks)
    assert len(set(drawn)) == len(drawn) == min(blocks, population)
    assert all(0 <= block < population for block in drawn)


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, more=ASKED, tokens=ASKED)
@examples(100)
def test_asking_for_more_blocks_draws_the_same_ones_first(
    seed: bytes, counts: list[int], blocks: int, more: int, tokens: int
) -> None:
    few = draw.draw(seed, counts, blocks=blocks, tokens_per_block=tokens)
    many = draw.draw(seed, counts, blocks=blocks + more, tokens_per_block=tokens)
    assert [b.index for b in few.blocks] == [b.index for b in many.blocks][: len(few.blocks)]


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, more=ASKED, tokens=ASKED, run=RUNS)
@examples(100)
def test_token_blocks_are_those_that_more_blocks_would_have_been(
    seed: bytes, counts: list[int], blocks: int, more: int, tokens: int, run: int
) -> None:
    apart = draw.draw(
        seed, counts, blocks=blocks, tokens_per_block=tokens, token_blocks=more, run_tokens=run
    )
    together = draw.draw(
        seed, counts, blocks=blocks + more, tokens_per_block=tokens, run_tokens=run
    )
    assert all_of(apart) == together.blocks
    assert together.token_blocks == ()


@given(secret=SEEDS, index=st.integers(1, 64), bit=st.integers(0, 255))
@examples(100)
def test_no_bit_of_flip_or_anchor_can_be_changed(secret: bytes, index: int, bit: int) -> None:
    anchor, flip = draw.flip_anchor(secret), draw.flip_for(secret, index)
    draw.verify_flip(flip=flip, index=index, anchor=anchor)
    for changed in (
        {"flip": _flipped(flip, bit), "anchor": anchor},
        {"flip": flip, "anchor": _flipped(anchor, bit)},
    ):
        with pytest.raises(VerificationError):
            draw.verify_flip(index=index, **changed)


@given(flip=st.binary(max_size=70), index=st.integers(), anchor=st.binary(max_size=40))
@examples(200)
def test_no_made_up_flip_verifies(flip: bytes, index: int, anchor: bytes) -> None:
    with pytest.raises(VerificationError):
        draw.verify_flip(flip=flip, index=index, anchor=anchor)


def _flipped(value: bytes, bit: int) -> bytes:
    at, shift = divmod(bit, 8)
    return value[:at] + bytes((value[at] ^ 1 << shift,)) + value[at + 1 :]
