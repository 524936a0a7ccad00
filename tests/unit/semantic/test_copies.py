"""Copies are found wherever they begin, and pairs of pages are told apart by nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.judges import SPACE, Floats, evidence, heads, mlp, units
from tests.support.laboratory import traces
from verifier_sdk.semantic.copies import COPY_INPUTS, PAGE, copy_inputs, pages_of
from verifier_sdk.semantic.features import ABSENT, BLOCK_FEATURES, block_features
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.judge import OpenedBlock, OpenedEvidence, OpenedTokens, Visible

WINDOW, BLOCK = 64, 256
DIMENSION = 96
HALF = COPY_INPUTS // 2
EXTREMES, OFFSETS = 6, 7
"""Columns before those of alignments, and distances in whole windows that these are at."""

# A text of sixteen windows, each about something of its own: so are its tokens.
TOPICS = units(16, DIMENSION)
TOKENS = np.repeat(TOPICS, WINDOW, axis=0)


def windows(begin: int, tokens: int = BLOCK) -> Floats:
    """Return the windows of a block that begins there: the normalised means of its tokens."""
    part = TOKENS[begin : begin + tokens]
    sums = [part[at : at + WINDOW].sum(axis=0) for at in range(0, len(part), WINDOW)]
    return np.array([row / np.linalg.norm(row) for row in sums], np.float32)


def compared(*blocks: Floats) -> Floats:
    """Return what the first page is judged by with each of the others, (pages - 1, inputs)."""
    pages, _ = pages_of(blocks)
    others = np.arange(1, len(pages))
    return copy_inputs(pages, np.zeros_like(others), others)


def at_least(rows: Floats, windows: int) -> Floats:
    """Return the best alignment that so many windows of the first page take part in."""
    found: Floats = rows[:, HALF - 3 : HALF][:, windows - 1]
    return found


# Pages


def test_blocks_are_cut_into_pages_of_four_windows() -> None:
    blocks = [units(4, SPACE), units(6, SPACE, seed=1), units(1, SPACE, seed=2)]
    pages, owner = pages_of(blocks)
    assert pages.shape == (4, PAGE, SPACE)
    assert pages.dtype == np.float32
    assert owner.tolist() == [0, 1, 1, 2]
    assert np.allclose(pages[0], blocks[0])
    assert np.allclose(np.concatenate([pages[1], pages[2, :2]]), blocks[1])
    assert np.allclose(pages[3, 0], blocks[2][0])
    assert not pages[2, 2:].any()
    assert not pages[3, 1:].any()


# Copies


@given(st.integers(0, BLOCK))
def test_a_copy_is_found_wherever_it_begins(shift: int) -> None:
    rows = compared(windows(shift), windows(0), windows(BLOCK), windows(3 * BLOCK))
    # It begins in the first block, and goes on into the second one.
    assert at_least(rows, 1)[:2].max() > 0.96
    assert at_least(rows, 2)[:2].max() > 0.96
    # It is no copy of another block.
    assert at_least(rows, 1)[2] < 0.5
    assert at_least(rows, 3)[2] < 0.3


@pytest.mark.parametrize("offset", range(-3, 4))
@pytest.mark.parametrize("quarter", range(4))
def test_where_a_copy_begins_is_the_alignment_that_stands_out(offset: int, quarter: int) -> None:
    begin = 2 * BLOCK + WINDOW * offset + WINDOW // 4 * quarter
    found = compared(windows(begin), windows(2 * BLOCK))[0, EXTREMES:HALF]
    alignments = found[: 4 * OFFSETS].reshape(4, OFFSETS)
    if offset == 3 and quarter:
        # Less than a window is shared, and none lies across two of the other page.
        assert alignments[quarter, offset + 3] == 0.0
        return
    assert alignments[quarter, offset + 3] == pytest.approx(1.0, abs=1e-5)
    assert alignments.argmax() == quarter * OFFSETS + offset + 3


def test_a_copy_in_another_order_is_alike_nowhere_but_in_single_windows() -> None:
    rows = compared(windows(0)[::-1], windows(0))
    assert at_least(rows, 1)[0] == pytest.approx(1.0, abs=1e-5)
    assert at_least(rows, 2)[0] < 0.6
    tops = rows[0, :4]
    assert tops == pytest.approx(np.ones(4), abs=1e-5)


# Pages that are short


@pytest.mark.parametrize("shift", [0, 16, 40, 64])
def test_a_copy_in_a_short_last_page_is_found(shift: int) -> None:
    rows = compared(windows(shift), windows(0, 3 * WINDOW), windows(BLOCK, 10))
    assert at_least(rows, 2)[0] > 0.96
    # One window alone is no alignment of two, nor lies anything across it.
    assert at_least(rows, 2)[1] == at_least(rows, 3)[1] == -1.0


def test_windows_that_are_not_there_are_no_windows() -> None:
    short = compared(windows(0, 2 * WINDOW), windows(0, 2 * WINDOW))[0]
    assert at_least(short[None], 2)[0] == pytest.approx(1.0, abs=1e-5)
    assert at_least(short[None], 3)[0] == -1.0
    greatest, mean = short[:4], short[4]
    cosines = np.sort((TOPICS[:2] @ TOPICS[:2].T).ravel())[::-1]
    assert greatest == pytest.approx(cosines, abs=1e-5)
    assert mean == pytest.approx(cosines.mean(), abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pages_of_any_length_give_finite_numbers(count: int) -> None:
    pages, _ = pages_of([units(count, SPACE), units(1, SPACE, seed=1)])
    rows = copy_inputs(pages, np.array([0, 1, 0]), np.array([1, 0, 0]))
    assert rows.shape == (3, COPY_INPUTS)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() <= 1.0 + 1e-5


def test_a_page_alone_has_none_to_be_compared_with() -> None:
    pages, owner = pages_of([units(3, SPACE)])
    nobody = np.empty(0, np.int64)
    assert owner.tolist() == [0]
    assert copy_inputs(pages, nobody, nobody).shape == (0, COPY_INPUTS)


# Pairs


def test_the_order_of_a_pair_swaps_the_halves_and_nothing_else() -> None:
    pages, _ = pages_of([units(count, SPACE, seed=count) for count in (4, 6, 1, 3)])
    first, second = np.triu_indices(len(pages), 1)
    here, there = copy_inputs(pages, first, second), copy_inputs(pages, second, first)
    assert np.array_equal(here[:, :HALF], there[:, HALF:])
    assert np.array_equal(here[:, HALF:], there[:, :HALF])


def test_a_pair_is_judged_by_its_own_pages_alone() -> None:
    blocks = [units(4, SPACE, seed=seed) for seed in range(5)]
    pages, _ = pages_of(blocks)
    alone, _ = pages_of([blocks[3], blocks[1]])
    both = copy_inputs(alone, np.array([0]), np.array([1]))
    assert np.allclose(copy_inputs(pages, np.array([3]), np.array([1])), both, atol=1e-5)


# Features


def opened(*blocks: Floats) -> OpenedEvidence:
    """Return evidence with blocks of these windows."""
    nothing = np.empty((0, blocks[0].shape[1]))
    found = [
        OpenedBlock(
            at,
            rows.astype(np.float64),
            OpenedTokens(at, np.arange(0), np.empty(0, np.uint32)),
            nothing,
        )
        for at, rows in enumerate(blocks)
    ]
    return OpenedEvidence(found, Visible(None, None), len(blocks), BLOCK)


def copies(shown: OpenedEvidence, found: Heads) -> dict[str, Floats]:
    rows = block_features(shown, found)
    return {
        name: rows[:, BLOCK_FEATURES.index(f"copies_{name}")] for name in ("max", "second", "sum")
    }


def test_a_block_looks_like_a_copy_of_the_page_that_it_looks_most_like() -> None:
    shown, found = evidence(traces()[0], whole=2), heads()
    found = replace(found, copies=mlp(COPY_INPUTS, 1, seed=5))
    known = {block.index: block.windows for block in shown.blocks}
    known |= {block.index: block.windows for block in shown.whole_blocks}
    pages, _ = pages_of([known[index] for index in sorted(known)])
    assert len(pages) == len(known) > 3
    logits = np.full((len(pages), len(pages)), -10.0)
    for late in range(len(pages)):
        for early in range(late):
            pair = copy_inputs(pages, np.array([late]), np.array([early]))
            logit = np.clip(found.copies(pair)[0, 0], -10, 10)
            logits[late, early] = logits[early, late] = logit
    ordered = np.sort(logits, axis=1)
    seen = copies(shown, found)
    assert np.allclose(seen["max"], ordered[:, -1], atol=1e-4)
    assert np.allclose(seen["second"], ordered[:, -2], atol=1e-4)
    assert np.allclose(seen["sum"], np.logaddexp(0, logits).sum(axis=1), atol=1e-3)


def test_a_block_of_one_page_alone_is_a_copy_of_nothing() -> None:
    found = copies(opened(units(4, SPACE).astype(np.float32)), heads())
    assert [values.tolist() for values in found.values()] == [[ABSENT]] * 3


def test_a_block_of_several_pages_may_repeat_itself() -> None:
    # A head that says how well the best alignment of three windows fits.
    weights = np.zeros((COPY_INPUTS, 1), np.float32)
    weights[HALF - 1] = 5.0
    best = replace(
        mlp(COPY_INPUTS, 1),
        mean=np.zeros(COPY_INPUTS, np.float32),
        scale=np.ones(COPY_INPUTS, np.float32),
        layers=((weights, np.zeros(1, np.float32)),),
    )
    twice = np.concatenate([windows(0), windows(0)])
    found = copies(
        opened(twice, windows(8 * WINDOW, 2 * BLOCK)), replace(heads(DIMENSION), copies=best)
    )
    assert found["max"][0] == pytest.approx(5.0, abs=1e-3)
    assert found["max"][1] < 2.5
