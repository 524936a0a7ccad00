"""Calibrate a judge on honest sessions of questions that nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import InvalidInputError
from verifier_sdk.semantic.calibration import (
    GROUPS,
    LEAST_QUESTIONS,
    SIZES,
    Calibration,
    Null,
    group_of,
    size_of,
    surprise_of,
)
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT
from verifier_sdk.semantic.mlp import Floats

SHARES_OF_ALARMS = {
    "random": 1.0, "bag": 0.3, "scattered": 0.2, "retrieved": 2.0, "repeated": 2.0,
    "echoed": 1.2, "shuffled": 1.2, "ngram": 0.8, "replayed": 0.6, "split": 0.4,
}  # fmt: skip
"""How the false-alarm rate is divided among families, before scaling to 1: most where most is
to be won."""

_FOLDS = 20
"""Parts of the questions: each one's statistics are taken among the sessions of the others."""

DOMAIN_ALLOWANCE = 2.0
"""How many times the overall rate of false alarms the worst domain may have."""

_SMALLEST_DOMAIN = 60
"""Sessions that a domain needs for a distribution of its own, beside `LEAST_QUESTIONS`."""

_SUBJECT_QUESTIONS = 15
"""Questions that a subject needs for a distribution of its own."""

_FEW = 40
"""Sessions, or rounds of them, without which a class or group has no distribution of its own."""

_FEW_QUESTIONS = 30
"""Domains with fewer questions count as one for what many sessions add up to."""

_BINS = 24

T = TypeVar("T")

_NOBODY = Null(np.zeros(1, np.float32), np.full(1, np.finfo(np.float32).tiny))
"""A distribution that makes no p-value larger."""


@dataclass(frozen=True)
class Audited:
    """One session of the calibration questions, audited to the end.

    Attributes:
        domain: Of its trace.
        qid: Of its trace.
        block_size: Tokens in a full block.
        code: Whether its prompt or answer has code.
        subject: That its prompt is most like.
        inflated: Whether filler was put in.
        rounds: After each round, the evidence for each family (families,), and the blocks
            that it is of.
        scores: Of the baseline at the end, float32 (blocks, scores).
    """

    domain: str
    qid: str
    block_size: int
    code: bool
    inflated: bool
    rounds: Sequence[tuple[Floats, int]]
    scores: Floats
    subject: int = UNKNOWN_SUBJECT


def calibrate(audited: Sequence[Audited], *, subjects: int = 0) -> Calibration:
    """Calibrate one tier on honest and inflated sessions.

    Args:
        audited: To the end, at this tier.
        subjects: How many there are.

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
        (),
        _NOBODY,
        _NOBODY,
        np.zeros((2, 1), np.float32),
        _questions(honest, subjects),
    )
    statistics = _held_out(draft, honest)
    draft = replace(draft, families=_families(honest))
    filler = np.array([statistic_of(draft, one) for one in inflated])
    found = list(zip(statistics, honest, strict=True))
    draft = replace(draft, combined=tuple(_null(_of_size(found, size)) for size in range(SIZES)))
    # Against all sizes together: on a subject, or in a domain, few sessions have blocks of each.
    draft = replace(draft, subjects=_subjects(_surprises(draft, found), subjects))
    surprises = _surprises(draft, found)
    return replace(
        draft,
        domains=_worst_domain(surprises),
        code=_null_of_code(surprises),
        odds=_odds(np.array(statistics), filler),
    )


def _surprises(
    draft: Calibration, found: Sequence[tuple[float, Audited]]
) -> list[tuple[float, Audited]]:
    """Return how surprising each session's statistic is so far."""
    return [
        (surprise_of(draft.p_value(value, one.block_size, code=False, subject=one.subject)), one)
        for value, one in found
    ]


def statistic_of(calibration: Calibration, one: Audited) -> float:
    """Return the greatest combined statistic over a session's rounds."""
    return max(
        calibration.statistic(calibration.family_p_values(evidence, blocks, one.block_size))
        for evidence, blocks in one.rounds
    )


def worst_null(found: Sequence[tuple[float, Audited]]) -> Null:
    """Return the distribution of a statistic that keeps the rate overall, and in each domain."""
    return Null.worst([_null(found), _worst_domain(found)])


def _worst_domain(found: Sequence[tuple[float, Audited]]) -> Null:
    """Return the heaviest tail of any domain, divided by `DOMAIN_ALLOWANCE`."""
    domains: dict[str, list[tuple[float, Audited]]] = {}
    for pair in found:
        domains.setdefault(pair[1].domain, []).append(pair)
    own = [
        _null(pairs).scaled(1.0 / DOMAIN_ALLOWANCE)
        for pairs in domains.values()
        if len(pairs) >= _SMALLEST_DOMAIN and len({one.qid for _, one in pairs}) >= LEAST_QUESTIONS
    ]
    return Null.worst(own) if own else _NOBODY


def _null_of_code(found: Sequence[tuple[float, Audited]]) -> Null:
    """Return the tail in sessions about code; nobody's where there are few.

    Not divided: it rests on so few questions that it is not known well enough to halve.
    """
    own = [pair for pair in found if pair[1].code]
    return _null(own) if len(own) >= _FEW else _NOBODY


def _subjects(found: Sequence[tuple[float, Audited]], count: int) -> tuple[Null, ...]:
    """Return the distribution on each subject; that on all of them where one has few questions."""
    own = [[pair for pair in found if pair[1].subject == number] for number in range(count)]
    return tuple(
        _null(pairs if len({one.qid for _, one in pairs}) >= _SUBJECT_QUESTIONS else found)
        for pairs in own
    )


def _questions(honest: Sequence[Audited], subjects: int) -> Floats:
    """Return how many questions are about code, and on each subject, float32 (1 + subjects,)."""
    kinds = [[one for one in honest if one.code]]
    kinds += [[one for one in honest if one.subject == number] for number in range(subjects)]
    return np.array([len({one.qid for one in kind}) for kind in kinds], np.float32)


def smallest_domain(audited: Sequence[Audited]) -> int:
    """Return the questions of the smallest domain, those with few taken for one together."""
    domains: dict[str, set[str]] = {}
    for one in audited:
        if not one.inflated:
            domains.setdefault(one.domain, set()).add(one.qid)
    few = {name for name, qids in domains.items() if len(qids) < _FEW_QUESTIONS}
    pooled = sum(len(domains[name]) for name in few)
    return min([*(len(domains[name]) for name in domains.keys() - few), *([pooled] if few else [])])


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


def _of_size(found: Sequence[tuple[T, Audited]], size: int) -> list[tuple[T, Audited]]:
    """Return what is of sessions with blocks of this class of sizes; all, if there are few."""
    own = [pair for pair in found if size_of(pair[1].block_size) == size]
    return own if len(own) >= _FEW else list(found)


def _families(honest: Sequence[Audited]) -> tuple[tuple[tuple[Null, ...], ...], ...]:
    """Return the distribution of each family's evidence, by block size and number of blocks."""
    everyone = [(stage, one) for one in honest for stage in one.rounds]
    made: dict[tuple[int, int], tuple[Null, ...]] = {}

    def nulls(size: int, group: int) -> tuple[Null, ...]:
        stages = _of_size(everyone, size)
        alike = [pair for pair in stages if group_of(pair[0][1]) == group]
        if len(alike) < _FEW:
            # The same for all groups, and all classes, that fall back on it.
            alike, size, group = stages, size if len(stages) < len(everyone) else -1, -1
        if (size, group) not in made:
            made[size, group] = tuple(
                _null([(float(evidence[at]), one) for (evidence, _), one in alike])
                for at in range(len(FAMILIES))
            )
        return made[size, group]

    return tuple(tuple(nulls(size, group) for group in range(GROUPS)) for size in range(SIZES))


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
