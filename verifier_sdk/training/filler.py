"""Filler made fast, for training: runs of each family, a hundred thousand a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.lab.attacks.text import fitting
from verifier_sdk.training.corpus import Corpus, Ids, Places

RUN: Final = 4
"""Tokens of a run."""

_LEAST_DISCOUNT, _MOST_DISCOUNT = 0.1, 0.6
"""Of n-gram text, from such that copies long stretches to such that only keeps pairs."""


def real_runs(
    corpus: Corpus, traces: Places, rng: np.random.Generator, *, length: int = RUN
) -> Ids:
    """Draw runs as they stand in the traces, uint32 (n, length)."""
    at = corpus.draw_places(traces, length, rng)
    places = np.minimum(at[:, None] + np.arange(length), len(corpus.ids) - 1)
    runs: Ids = corpus.ids[places]
    return runs


def filler_runs(family: str, corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    """Make runs of a family's filler, from its traces where it is of them, uint32 (n, 4)."""
    return _RUNS[family](corpus, traces, rng)


def ngram_chain(
    corpus: Corpus, traces: Places, length: int, rng: np.random.Generator
) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Sample from a trigram model with backoff of each trace.

    Absolute discounting: where the place drawn is the first of its n-gram, a shorter context
    is asked with the probability of the discount, which is drawn for each trace.

    Returns:
        Ids, uint32 (n, length), and which of them did not follow in the trace what is before
        them here, bool (n, length).
    """
    discount = rng.uniform(_LEAST_DISCOUNT, _MOST_DISCOUNT, len(traces))
    at = corpus.draw_places(traces, 1, rng)
    tokens, jumps = [corpus.ids[at]], [np.ones(len(at), np.bool_)]
    for _ in range(length - 1):
        following = corpus.after(at, 2, rng)
        shorter = np.ones(len(at), np.bool_)
        for context in (1, 0):
            shorter &= rng.random(len(at)) < discount
            shorter &= corpus.first_of(following, context + 2)
            following[shorter] = corpus.after(at[shorter], context, rng)
        jumps.append(following != at + 1)
        at = following
        tokens.append(corpus.ids[at])
    return np.stack(tokens, axis=1), np.stack(jumps, axis=1)


def finer(
    corpus: Corpus, ids: Ids, share: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[Ids, Places]:
    """Spell ids as two ids each.

    Args:
        corpus: Knows how.
        ids: What to spell, uint32 (n,).
        share: The probability for each, float64 (n,).
        rng: Decides.

    Returns:
        Ids, uint32 (m,), and for each one the place in `ids` that it comes from, int64 (m,).
    """
    table, count = corpus.cuts
    cut = (rng.random(len(ids)) < share) & (count[ids] > 0)
    which = (rng.random(len(ids)) * count[ids]).astype(np.int64)
    origin = np.repeat(np.arange(len(ids)), 1 + cut)
    pairs = table[ids, which]
    second = np.concatenate([[False], origin[1:] == origin[:-1]])
    spelled = np.where(
        cut[origin], np.where(second, pairs[origin, 1], pairs[origin, 0]), ids[origin]
    )
    return spelled.astype(np.uint32), origin


def _random(corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    noise = rng.integers(0, corpus.vocabulary_size, (len(traces), RUN)).astype(np.uint32)
    some = rng.random((len(traces), RUN)) < 0.5
    some[np.arange(len(traces)), rng.integers(0, RUN, len(traces))] = True
    some[rng.random(len(traces)) < 0.75] = True
    return np.where(some, noise, real_runs(corpus, traces, rng))


def _bag(corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    wide = np.repeat(traces, RUN)
    return corpus.ids[corpus.draw_places(wide, 1, rng)].reshape(-1, RUN)


def _scattered(corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    """Own tokens put singly between real ones, at rates from a half to three."""
    rate = rng.choice([1 / 3, 0.5, 0.5, 2 / 3, 0.75], len(traces))
    own = rng.random((len(traces), RUN)) < rate[:, None]
    step = np.maximum(np.cumsum(~own, axis=1) - 1, 0)
    at = corpus.draw_places(traces, RUN, rng)
    return np.where(own, _bag(corpus, traces, rng), corpus.ids[at[:, None] + step])


def _split(corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    rounds = rng.integers(1, 4, len(traces))
    share = rng.choice([0.25, 0.5, 1.0, 1.0], len(traces))
    ids = real_runs(corpus, traces, rng, length=RUN).ravel()
    owner = np.repeat(np.arange(len(traces)), RUN)
    for number in range(3):
        ids, origin = finer(corpus, ids, np.where(rounds > number, share, 0.0)[owner], rng)
        owner = owner[origin]
    lengths = np.bincount(owner, minlength=len(traces))
    start = np.cumsum(lengths) - lengths
    start += (rng.random(len(traces)) * (lengths - RUN + 1)).astype(np.int64)
    return ids[start[:, None] + np.arange(RUN)]


def _ngram(corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    ids, _ = ngram_chain(corpus, traces, RUN, rng)
    return ids


def _joints(corpus: Corpus, traces: Places, others: Places, rng: np.random.Generator) -> Ids:
    """Real runs, where those with a sentence's start go on with another sentence."""
    begins, _, first = corpus.sentences
    at = corpus.draw_places(traces, RUN, rng)
    places = at[:, None] + np.arange(RUN)
    starts = corpus.boundary[places]
    starts[:, 0] = False
    count = first[others + 1] - first[others]
    other = begins[first[others] + (rng.random(len(at)) * count).astype(np.int64)]
    cut = np.argmax(starts, axis=1)
    jumps: npt.NDArray[np.bool_] = np.any(starts, axis=1)
    moved = jumps[:, None] & (np.arange(RUN) >= cut[:, None])
    there = np.minimum(other[:, None] + np.arange(RUN) - cut[:, None], len(corpus.ids) - 1)
    runs = np.where(moved, corpus.ids[there], corpus.ids[places])
    # Half of them with the space that fits, as a careful attacker would.
    edge = np.flatnonzero(jumps & (rng.random(len(at)) < 0.5))
    runs[edge, cut[edge]] = fitting(
        corpus.tokenizer, runs[edge, cut[edge] - 1], runs[edge, cut[edge]]
    )
    return runs


def _shuffled(corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    return _joints(corpus, traces, traces, rng)


def _retrieved(corpus: Corpus, traces: Places, rng: np.random.Generator) -> Ids:
    return _joints(corpus, traces, rng.permutation(traces), rng)


_RUNS: Final[dict[str, Callable[[Corpus, Places, np.random.Generator], Ids]]] = {
    "random": _random,
    "bag": _bag,
    "scattered": _scattered,
    "split": _split,
    "ngram": _ngram,
    "shuffled": _shuffled,
    "retrieved": _retrieved,
}

RUN_FAMILIES: Final = tuple(_RUNS)
