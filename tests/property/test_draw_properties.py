"""Draws and flips, for any seed, population and challenge."""

from __future__ import annotations

from hashlib import shake_256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coin_protocol import draw
from coin_protocol.errors import VerificationError

SEEDS = st.binary(min_size=32, max_size=32)
COUNTS = st.lists(st.integers(1, 40), max_size=40)
ASKED = st.integers(0, 60)


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


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, tokens=ASKED)
@settings(max_examples=100, deadline=None)
def test_a_draw_is_a_shuffle_by_the_words_of_the_stream(
    seed: bytes, counts: list[int], blocks: int, tokens: int
) -> None:
    raw = shake_256(seed).digest(8 * 4000)
    words = [int.from_bytes(raw[at : at + 8], "big") for at in range(0, len(raw), 8)]
    wanted = [
        (block, sorted(shuffled_prefix(words, counts[block], tokens)))
        for block in shuffled_prefix(words, len(counts), blocks)
    ]
    drawn = draw.draw(seed, counts, blocks=blocks, tokens_per_block=tokens)
    assert [(block.index, list(block.positions)) for block in drawn] == wanted


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, tokens=ASKED)
@settings(max_examples=200, deadline=None)
def test_a_draw_opens_as_much_as_asked_for_once_and_inside(
    seed: bytes, counts: list[int], blocks: int, tokens: int
) -> None:
    drawn = draw.draw(seed, counts, blocks=blocks, tokens_per_block=tokens)
    assert len({block.index for block in drawn}) == len(drawn) == min(blocks, len(counts))
    for block in drawn:
        assert 0 <= block.index < len(counts)
        positions = block.positions
        assert len(positions) == min(tokens, counts[block.index])
        assert list(positions) == sorted(set(positions))
        assert all(0 <= position < counts[block.index] for position in positions)


@given(seed=SEEDS, population=st.integers(0, 1 << 30), blocks=ASKED)
@settings(max_examples=200, deadline=None)
def test_whole_blocks_are_distinct_and_inside(seed: bytes, population: int, blocks: int) -> None:
    drawn = draw.draw_whole(seed, population, blocks=blocks)
    assert len(set(drawn)) == len(drawn) == min(blocks, population)
    assert all(0 <= block < population for block in drawn)


@given(seed=SEEDS, counts=COUNTS, blocks=ASKED, more=ASKED, tokens=ASKED)
@settings(max_examples=100, deadline=None)
def test_asking_for_more_blocks_draws_the_same_ones_first(
    seed: bytes, counts: list[int], blocks: int, more: int, tokens: int
) -> None:
    few = draw.draw(seed, counts, blocks=blocks, tokens_per_block=tokens)
    many = draw.draw(seed, counts, blocks=blocks + more, tokens_per_block=tokens)
    assert [b.index for b in few] == [b.index for b in many][: len(few)]


@given(secret=SEEDS, index=st.integers(1, 64), bit=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
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
@settings(max_examples=200, deadline=None)
def test_no_made_up_flip_verifies(flip: bytes, index: int, anchor: bytes) -> None:
    with pytest.raises(VerificationError):
        draw.verify_flip(flip=flip, index=index, anchor=anchor)


def _flipped(value: bytes, bit: int) -> bytes:
    at, shift = divmod(bit, 8)
    return value[:at] + bytes((value[at] ^ 1 << shift,)) + value[at + 1 :]
