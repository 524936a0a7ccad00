"""Calibrate a judge on honest sessions of questions that nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import InvalidInputError
from verifier_sdk.semantic.calibration import GROUPS, Calibration, Null, group_of
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.mlp import Floats

SHARES_OF_ALARMS = {
    "random": 0.5, "bag": 0.5, "scattered": 0.5, "retrieved": 2.5, "repeated": 1.0,
    "echoed": 1.5, "shuffled": 1.5, "ngram": 1.5, "replayed": 1.0, "split": 0.5,
}  # fmt: skip
"""How the false-alarm rate is divided among families, before scaling to 1: most where most is
to be won."""

_FOLDS = 20
"""Parts of the questions: each one's statistics are taken among the sessions of the others."""

DOMAIN_ALLOWANCE = 2.0
"""How many times the overall rate of false alarms the worst domain may have."""

_SMALLEST_DOMAIN = 60
"""Sessions that a domain needs for a distribution of its own."""

_BINS = 24


@dataclass(frozen=True)
class Audited:
    """One session of the calibration questions, audited to the end.

    Attributes:
        domain: Of its trace.
        qid: Of its trace.
        inflated: Whether filler was put in.
        rounds: After each round, the evidence for each family (families,), and the blocks
            that it is of.
        scores: Of the baseline at the end, float32 (blocks, scores).
    """

    domain: str
    qid: str
    inflated: bool
    rounds: Sequence[tuple[Floats, int]]
    scores: Floats


def calibrate(audited: Sequence[Audited]) -> Calibration:
    """Calibrate one tier on honest and inflated sessions.

    Raises:
        InvalidInputError: There are no honest sessions, or no inflated ones.
    """
    honest = [one for one in audited if not one.inflated]
    inflated = [one for one in audited if one.inflated]
    if not honest or not inflated:
        msg = (
            f"{len(honest)} honest and {len(inflated)} inflated sessions to calibrate on: "
            "give more traces"
        )
        raise InvalidInputError(msg)
    weights = np.array([SHARES_OF_ALARMS[family] for family in FAMILIES], np.float32)
    draft = Calibration(
        (),
        weights / weights.sum(),
        Null(np.zeros(1, np.float32), np.ones(1, np.float32)),
        np.zeros((2, 1), np.float32),
    )
    statistics = _held_out(draft, honest)
    draft = replace(draft, families=_families(honest))
    filler = np.array([statistic_of(draft, one) for one in inflated])
    return replace(
        draft,
        combined=worst_null(list(zip(statistics, honest, strict=True))),
        odds=_odds(np.array(statistics), filler),
    )


def statistic_of(calibration: Calibration, one: Audited) -> float:
    """Return the greatest combined statistic over a session's rounds."""
    return max(
        calibration.statistic(calibration.family_p_values(evidence, blocks))
        for evidence, blocks in one.rounds
    )


def worst_null(found: Sequence[tuple[float, Audited]]) -> Null:
    """Return the distribution of a statistic that keeps the rate overall, and in each domain.

    A domain may have `DOMAIN_ALLOWANCE` times the rate of all sessions together, no more.
    """
    domains: dict[str, list[tuple[float, Audited]]] = {}
    for pair in found:
        domains.setdefault(pair[1].domain, []).append(pair)
    own = [_null(pairs) for pairs in domains.values() if len(pairs) >= _SMALLEST_DOMAIN]
    return Null.worst([_null(found), *(null.scaled(1.0 / DOMAIN_ALLOWANCE) for null in own)])


def smallest_domain(audited: Sequence[Audited]) -> int:
    """Return the questions of the smallest domain that has a distribution of its own."""
    sessions: dict[str, list[str]] = {}
    for one in audited:
        if not one.inflated:
            sessions.setdefault(one.domain, []).append(one.qid)
    counts = [len(set(qids)) for qids in sessions.values() if len(qids) >= _SMALLEST_DOMAIN]
    return min(counts, default=len({one.qid for one in audited}))


def _held_out(draft: Calibration, honest: Sequence[Audited]) -> list[float]:
    """Return each session's statistic among sessions of other questions.

    Among those it is one of itself, a session never looks as odd as a new one can.
    """
    qids = sorted({one.qid for one in honest})
    fold = {qid: place % _FOLDS for place, qid in enumerate(qids)}
    found = [0.0] * len(honest)
    for number in range(min(_FOLDS, len(qids))):
        others = [one for one in honest if fold[one.qid] != number]
        without = replace(draft, families=_families(others or honest))
        for at, one in enumerate(honest):
            if fold[one.qid] == number:
                found[at] = statistic_of(without, one)
    return found


def _families(honest: Sequence[Audited]) -> tuple[tuple[Null, ...], ...]:
    """Return the distribution of each family's evidence, by group of numbers of blocks."""
    everyone = [(*stage, one) for one in honest for stage in one.rounds]
    return tuple(
        tuple(
            _null([(float(evidence[at]), one) for evidence, _, one in found])
            for at in range(len(FAMILIES))
        )
        for found in (
            [stage for stage in everyone if group_of(stage[1]) == group] or everyone
            for group in range(GROUPS)
        )
    )


def _null(found: Sequence[tuple[float, Audited]]) -> Null:
    """Return a distribution in which a question weighs the square root of its sessions."""
    count: dict[str, int] = {}
    for _, one in found:
        count[one.qid] = count.get(one.qid, 0) + 1
    values = np.array([value for value, _ in found], np.float64)
    return Null.of(values, np.array([count[one.qid] ** -0.5 for _, one in found]))


def _odds(honest: npt.NDArray[np.float64], inflated: npt.NDArray[np.float64]) -> Floats:
    """Return knots of the statistic and the log odds of inflation there, never falling.

    Isotonic regression (pool adjacent violators) over bins of like size, both kinds of
    session weighing the same.
    """
    values = np.concatenate([honest, inflated])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)))
    pools: list[list[float]] = []
    for low, high in pairwise(edges.tolist()):
        end = np.inf if high == edges[-1] else high
        filler = ((inflated >= low) & (inflated < end)).mean() + 0.5 / max(len(inflated), 1)
        real = ((honest >= low) & (honest < end)).mean() + 0.5 / max(len(honest), 1)
        pools.append([float(filler), float(real), (low + high) / 2, 1.0])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            before = pools[-1]
            weight = before[3] + last[3]
            pools[-1] = [
                before[0] + last[0], before[1] + last[1],
                (before[2] * before[3] + last[2] * last[3]) / weight, weight,
            ]  # fmt: skip
    if not pools:
        # All are alike: a session says nothing.
        return np.zeros((2, 1), np.float32)
    knots = np.array([[pool[2], np.log(pool[0] / pool[1])] for pool in pools], np.float32)
    return np.ascontiguousarray(knots.T)
