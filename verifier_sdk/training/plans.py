"""Which sessions are made of a set of traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from verifier_sdk.lab import ATTACKS, RATES, Trace
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.training.workshop import Plan

BLOCK_SIZES: Final = (256, 512, 1024, 256)
"""Sizes that honest sessions of one trace are cut into, in turn."""

_INFLATED_SIZES: Final = (256, 256, 256, 512, 1024)
"""Sizes that inflated sessions for training are cut into, as often as they stand here."""


def chosen(
    traces: Sequence[Trace], lengths: Sequence[int], *, least: int, per_question: int, seed: int
) -> list[Trace]:
    """Choose traces with `least` tokens or more, so many of each question at most.

    Args:
        traces: To choose from.
        lengths: Reasoning tokens of each.
        least: Fewer are left out.
        per_question: Traces of one question at most; a domain with fewer than 20 questions
            may have as many of each as bring it to 20 questions' worth.
        seed: Of the choice.
    """
    rng = np.random.default_rng([seed, 3])
    by_question: dict[str, list[Trace]] = {}
    for trace, length in zip(traces, lengths, strict=True):
        if length >= least:
            by_question.setdefault(trace.qid, []).append(trace)
    questions: dict[str, int] = {}
    for found in by_question.values():
        questions[found[0].domain] = questions.get(found[0].domain, 0) + 1
    picked = []
    for qid in sorted(by_question):
        found = by_question[qid]
        share = max(1, -(-20 // questions[found[0].domain]))
        at = rng.permutation(len(found))[: per_question * share]
        picked += [found[place] for place in np.sort(at).tolist()]
    return picked


def training_plans(
    traces: Sequence[Trace],
    *,
    seed: int,
    honest: int = 4,
    terse: int = 1,
    rates: Sequence[float] = RATES[1:],
) -> Iterator[Plan]:
    """Yield honest sessions and one of each attack, at rates and in placements drawn.

    Args:
        traces: Of which sessions are made.
        seed: Of rates, placements and block sizes.
        honest: Honest sessions of each trace.
        terse: Further ones of its reasoning condensed.
        rates: That each session's is drawn from.
    """
    rng = np.random.default_rng([seed, 4])
    trained = [attack for _, attack in sorted(ATTACKS.items()) if attack.family in FAMILIES]
    for trace in traces:
        yield from _honest(trace, honest, terse)
        for attack in trained:
            yield Plan(
                trace,
                attack.name,
                float(rng.choice(rates)),
                str(rng.choice(attack.placements)),
                int(rng.choice(_INFLATED_SIZES)),
            )


def honest_plans(traces: Sequence[Trace], *, draws: int, terse: int = 1) -> Iterator[Plan]:
    """Yield each trace as an honest session, so many times with other draws and block sizes.

    And so many times condensed, with the block size of the profile that ships.
    """
    for trace in traces:
        yield from _honest(trace, draws, terse)


def _honest(trace: Trace, draws: int, terse: int) -> Iterator[Plan]:
    for draw in range(draws):
        yield Plan(trace, block_size=BLOCK_SIZES[draw % len(BLOCK_SIZES)], draw=draw)
    for draw in range(terse):
        yield Plan(trace, block_size=BLOCK_SIZES[0], draw=draw, condensed=True)
