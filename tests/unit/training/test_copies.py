"""Examples of copies: what is shared is counted in tokens, and honest pairs are called honest."""

from __future__ import annotations

import numpy as np
import pytest

from coin_protocol.errors import InvalidInputError
from coin_protocol.tokenizer import text_of
from tests.support.laboratory import tokenizer, trace, written
from tests.support.workshops import quiet, workshop
from verifier_sdk.lab.attack import Ids
from verifier_sdk.semantic.copies import COPY_INPUTS
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.training.copies import _COPIES, MOST_PAGES, _copy, copy_examples
from verifier_sdk.training.workshop import Workshop

TRACES = written(4)
FULL = 4
"""Full pages of each of them."""

BLOCK = 256
"""Tokens of a page: four windows of the laboratory's profile."""


@pytest.fixture(scope="module")
def shop() -> Workshop:
    """A workshop of four traces."""
    return workshop(TRACES)


def examples(shop: Workshop, count: int = 4, *, seed: int = 1) -> tuple[Floats, Floats, Floats]:
    return copy_examples(shop, TRACES[:count], seed=seed, progress=quiet)


# Copies


def stretches(copy: Ids) -> list[Ids]:
    """Return the parts of a copy of ids that are counted upwards."""
    return np.split(copy, np.flatnonzero(np.diff(copy.astype(np.int64)) != 1) + 1)


@pytest.mark.parametrize("tokens", [2 * BLOCK, 1000, 16 * BLOCK])
def test_what_a_copy_shares_with_each_block_is_counted(shop: Workshop, tokens: int) -> None:
    ids = np.arange(tokens, dtype=np.uint32)
    rng = np.random.default_rng(tokens)
    counts = set()
    for _ in range(60):
        copy, shared = _copy(shop, ids, BLOCK, rng, edit=False)
        parts = stretches(copy)
        counts.add(len(parts))
        assert len(copy) == BLOCK
        full = tokens // BLOCK
        found = [np.bincount(part // BLOCK, minlength=full)[:full] for part in parts]
        assert shared.tolist() == np.max(found, axis=0).tolist()
    assert counts == {1, 2}


def test_an_edited_copy_is_nearly_the_text(shop: Workshop) -> None:
    ids = shop.library.ids(TRACES[0])
    rng = np.random.default_rng(3)
    for _ in range(10):
        copy, shared = _copy(shop, ids, BLOCK, rng, edit=True)
        assert 0 < len(copy) <= BLOCK
        assert shared.shape == (FULL,)
        assert shared.max() <= BLOCK
        own = set(text_of(tokenizer(), ids.tolist()).split())
        words = text_of(tokenizer(), copy.tolist()).split()
        kept = sum(word in own for word in words) / len(words)
        assert kept > 0.6


# Examples


def test_honest_pairs_are_all_pairs_of_blocks_of_a_trace(shop: Workshop) -> None:
    inputs, labels, weights = examples(shop)
    assert inputs.shape == (len(labels), COPY_INPUTS)
    assert labels.shape == weights.shape == (len(labels), 1)
    assert inputs.dtype == labels.dtype == weights.dtype == np.float32
    assert np.isfinite(inputs).all()
    pairs = FULL * (FULL - 1) // 2
    assert (labels == 0).sum() == len(TRACES) * pairs
    assert set(weights[labels == 0].tolist()) == {np.float32(pairs**-0.5)}
    assert set(weights[labels == 1].tolist()) == {1.0}


def test_a_copy_is_an_example_with_each_block_that_it_shares_enough_with(shop: Workshop) -> None:
    _, labels, _ = examples(shop, 1)
    copied = int(labels.sum())
    # A stretch lies in two blocks at most; each of two may be a quarter of a block or more.
    assert _COPIES / 2 <= copied <= 4 * _COPIES


def test_copies_are_told_from_honest_pairs_by_how_well_they_align(shop: Workshop) -> None:
    inputs, labels, _ = examples(shop)
    half = COPY_INPUTS // 2
    best = np.maximum(inputs[:, half - 2], inputs[:, COPY_INPUTS - 2])
    copied = labels[:, 0] == 1
    assert np.median(best[copied]) > np.median(best[~copied])


def test_examples_are_those_of_the_seed(shop: Workshop) -> None:
    one, same, other = examples(shop), examples(shop), examples(shop, seed=2)
    assert all(np.array_equal(left, right) for left, right in zip(one, same, strict=True))
    assert one[0].shape != other[0].shape or not np.array_equal(one[0], other[0])


def test_traces_of_less_than_two_blocks_have_no_pairs(shop: Workshop) -> None:
    short = trace(" ".join(TRACES[0].reasoning.split()[:200]))
    among = workshop([*TRACES, short])
    assert len(among.library.ids(short)) < 2 * BLOCK
    found = copy_examples(among, [TRACES[0], short], seed=1, progress=quiet)
    alone = examples(shop, 1)
    assert all(np.array_equal(left, right) for left, right in zip(found, alone, strict=True))
    with pytest.raises(InvalidInputError, match="longer traces"):
        copy_examples(among, [short], seed=1, progress=quiet)


def test_of_a_long_trace_no_more_than_its_first_blocks_are_compared() -> None:
    long = trace(" ".join(one.reasoning for one in TRACES * 5))
    _, labels, _ = copy_examples(workshop([long]), [long], seed=1, progress=quiet)
    assert (labels == 0).sum() == MOST_PAGES * (MOST_PAGES - 1) // 2


def test_what_is_embedded_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    copy_examples(workshop(TRACES), TRACES[:1], seed=1, progress=lambda *step: told.append(step))
    what, done, total = told[-1]
    assert what == "embedding copies"
    assert done == total > 0
