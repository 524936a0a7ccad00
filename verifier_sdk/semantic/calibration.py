"""From evidence to p-values whose false-alarm rate was measured on honest sessions.

Each family's evidence gets a p-value among honest sessions with blocks of about this size, and
about as many of them opened;
the smallest, weighted, is the session's statistic, and has its own distribution among honest
sessions: its p-value is conformal. Compared is the greatest over the rounds of an audit, so the
rate holds whenever the audit stops, and no domain may have more than twice that of all together.
Where few questions like a session's are known, a rate is not: there it takes more than any honest
session showed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import ConfigurationError
from verifier_sdk.semantic import exact
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT
from verifier_sdk.semantic.mlp import Floats

TIERS: Final = ("committed", "opened")

_EDGES: Final = (3.5, 6.5, 12.5)
"""Between groups of sessions by opened blocks, tokens alone counted too."""

GROUPS: Final = len(_EDGES) + 1

_SIZE_EDGES: Final = (384, 768)
"""Between classes of block sizes: about 256, 512 and 1,024 tokens."""

SIZES: Final = len(_SIZE_EDGES) + 1

_UPPER: Final = 0.1
_LEAST_LOG: Final = -30.0

LEAST_QUESTIONS: Final = 10
"""Calibration questions of a kind without which its rate of false alarms is not known."""

KNOTS: Final = 129
"""Points kept of each distribution, closer together in the upper tail."""


def group_of(blocks: int) -> int:
    """Return the group that a session with so many opened blocks is compared with."""
    return bisect_left(_EDGES, blocks)


def size_of(block_size: int) -> int:
    """Return the class of block sizes that a session is compared with."""
    return bisect_left(_SIZE_EDGES, block_size)


def surprise_of(p_value: float) -> float:
    """Return minus the logarithm of a p-value, as distributions keep it."""
    return float(np.float32(-exact.log(p_value)))


@dataclass(frozen=True)
class Null:
    """A distribution among honest sessions.

    Attributes:
        knots: Values, ascending, float32 (k,).
        tails: Share of honest sessions at or above each, descending, float32 (k,).
    """

    knots: Floats
    tails: Floats

    def p_value(self, value: float) -> float:
        """Return the share of honest sessions with as much evidence or more, never 0."""
        at = int(np.searchsorted(self._wide, value, "right"))
        # The share at the next lower knot: never too small.
        return float(self.tails[max(at - 1, 0)])

    def smoothed(self, value: float) -> float:
        """Return about the share of honest sessions with as much evidence or more.

        Between knots the logarithm of the share is a straight line, and beyond the last one
        the line through the upper tenth goes on: families whose filler is far beyond all
        honest sessions are then told from those where it is barely so. No rate rests on it.
        """
        knots, logs = self._wide, self._logs
        last = float(knots[-1])
        if value < last:
            return exact.exp(_on_line(value, knots, logs))
        upper = min(int(np.searchsorted(-self.tails, -_UPPER)), len(logs) - 1)
        span, fall = last - float(knots[upper]), float(logs[upper] - logs[-1])
        beyond = (value - last) * (fall / span if span > 0 else 0.0)
        return exact.exp(max(float(logs[-1]) - beyond, _LEAST_LOG))

    @cached_property
    def _wide(self) -> npt.NDArray[np.float64]:
        return self.knots.astype(np.float64)

    @cached_property
    def _logs(self) -> npt.NDArray[np.float64]:
        return exact.logs(self.tails)

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> Null:
        """Return the weighted distribution of values, with one more beyond them all."""
        order = np.argsort(values, kind="stable")
        ordered, weight = values[order].astype(np.float32), weights[order]
        weight = weight / weights.sum() * len(values)
        above = (np.cumsum(weight[::-1])[::-1] + 1.0) / (len(values) + 1.0)
        # The tail of equal values, such as no evidence at all, is that of the first of them.
        first = np.flatnonzero(np.diff(ordered, prepend=np.float32(-np.inf)) > 0)
        ordered, above = ordered[first], np.minimum(above[first], 1.0)
        beyond = 1.0 / (len(values) + 1.0)
        wanted = np.geomspace(1.0, beyond, KNOTS - 1)
        at = np.unique(np.searchsorted(-above, -wanted, "left").clip(0, len(first) - 1))
        knots = np.append(ordered[at], np.nextafter(ordered[-1], np.float32(np.inf)))
        tails = np.append(above[at], beyond)
        return cls(knots.astype(np.float32), tails.astype(np.float32))

    def scaled(self, factor: float) -> Null:
        """Return the distribution with its tail multiplied."""
        return Null(self.knots, (self.tails * np.float32(factor)).astype(np.float32))

    @classmethod
    def worst(cls, nulls: list[Null]) -> Null:
        """Return the distribution whose tail is the heaviest of all, at every value."""
        values = np.unique(np.concatenate([null.knots for null in nulls]))
        tails = np.max([[null.p_value(float(value)) for value in values] for null in nulls], axis=0)
        keep = np.flatnonzero(np.diff(tails, prepend=2.0) < 0)
        return cls(values[keep].astype(np.float32), tails[keep].astype(np.float32))


@dataclass(frozen=True)
class Calibration:
    """What honest sessions look like at one tier.

    Attributes:
        families: By class of block size, group and family, in this order.
        weights: How much of the false-alarm rate each family may use, float32 (families,),
            all above 0 and 1 together.
        combined: Of the combined statistic over all rounds of an audit, by class of block size.
        domains: Of minus the log of the p-values that these and the session's subject give, in
            the domain where small ones are most frequent; its tail is divided by what a domain
            may have more.
        code: Of the same, in sessions about code.
        odds: Log odds of inflation at knots of the combined statistic, float32 (2, k).
        questions: Calibration questions about code, and then on each subject, float32
            (1 + len(subjects),).
        subjects: Of minus the log of the p-values that `combined` gives, by subject; none where
            all are compared with all.
    """

    families: tuple[tuple[tuple[Null, ...], ...], ...]
    weights: Floats
    combined: tuple[Null, ...]
    domains: Null
    code: Null
    odds: Floats
    questions: Floats
    subjects: tuple[Null, ...] = ()

    def family_p_values(
        self, evidence: npt.NDArray[np.floating], blocks: int, block_size: int
    ) -> npt.NDArray[np.float64]:
        """Return each family's p-value, smoothed, float64 (families,)."""
        nulls = self.families[size_of(block_size)][group_of(blocks)]
        return np.array(
            [null.smoothed(float(value)) for null, value in zip(nulls, evidence, strict=True)]
        )

    def statistic(self, p_values: npt.NDArray[np.float64]) -> float:
        """Return the combined statistic: minus the log of the least weighted p-value."""
        return -exact.log(float(np.min(p_values / self.weights)))

    def p_value(
        self, statistic: float, block_size: int, *, code: bool, subject: int = UNKNOWN_SUBJECT
    ) -> float:
        """Return the conformal p-value of a session's statistic, never 0.

        A session is compared with those on questions like its own, of which the client chose
        one: real reasoning about some looks odder than about others. Where the question was not
        seen, that subject counts which speaks most for the provider. So do sessions about code
        in a session about code.
        """
        found = self.combined[size_of(block_size)].p_value(statistic)
        if self.subjects:
            known = subject != UNKNOWN_SUBJECT
            alike = self.subjects[subject : subject + 1] if known else self.subjects
            surprise = surprise_of(found)
            found = max(null.p_value(surprise) for null in alike)
        surprise = surprise_of(found)
        others = [self.domains, self.code] if code else [self.domains]
        return max([found, *(null.p_value(surprise) for null in others)])

    def accusable(
        self, p_value: float, block_size: int, *, code: bool, subject: int = UNKNOWN_SUBJECT
    ) -> bool:
        """Return whether anybody may be accused by a session's p-value, if it is small enough.

        Not if some honest session showed as much, and questions like this one are too few for
        a rate.
        """
        counts = self.questions[:1].tolist() if code else []
        if subject != UNKNOWN_SUBJECT:
            counts += self.questions[subject + 1 : subject + 2].tolist()
        if min(counts, default=LEAST_QUESTIONS) >= LEAST_QUESTIONS:
            return True
        return p_value <= self.p_value(np.inf, block_size, code=code, subject=subject)

    def probability(self, statistic: float) -> float:
        """Return the probability of inflation, had half of all sessions been inflated."""
        odds = _on_line(statistic, *self.odds.astype(np.float64))
        return 1.0 / (1.0 + exact.exp(-odds))

    def tensors(self, tier: str) -> dict[str, Floats]:
        """Return all tensors, for a file."""
        found = {
            f"{tier}.weights": self.weights,
            f"{tier}.odds": self.odds,
            f"{tier}.questions": self.questions,
        }
        for name, null in self._nulls():
            found[f"{tier}.{name}"] = np.stack([null.knots, null.tails])
        return found

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], tier: str) -> Calibration:
        """Take a tier's calibration out of a file's tensors.

        Raises:
            ConfigurationError: A part is missing or malformed.
        """

        def null(name: str) -> Null:
            pair = tensors[f"{tier}.{name}"].astype(np.float32)
            if pair.ndim != 2 or len(pair) != 2 or not pair.shape[1]:
                msg = f"tensor {tier}.{name} has shape {pair.shape}: another version"
                raise ConfigurationError(msg)
            return Null(pair[0], pair[1])

        try:
            weights, odds = tensors[f"{tier}.weights"], tensors[f"{tier}.odds"]
            questions = tensors[f"{tier}.questions"]
            families = tuple(
                tuple(
                    tuple(null(f"{size}.{group}.{family}") for family in FAMILIES)
                    for group in range(GROUPS)
                )
                for size in range(SIZES)
            )
            combined = tuple(null(f"{size}.combined") for size in range(SIZES))
            domains, code = null("domains"), null("code")
            subjects: list[Null] = []
            while f"{tier}.subject.{len(subjects)}" in tensors:
                subjects.append(null(f"subject.{len(subjects)}"))
        except KeyError as error:
            msg = f"the model file has no tensor {error.args[0]!r}: it is of another version"
            raise ConfigurationError(msg) from error
        good = weights.shape == (len(FAMILIES),) and bool((weights > 0).all())
        good &= questions.shape == (1 + len(subjects),)
        if not good or odds.ndim != 2 or len(odds) != 2 or not odds.shape[1]:
            msg = f"the calibration of tier {tier} is malformed: the file is of another version"
            raise ConfigurationError(msg)
        return cls(
            families,
            weights.astype(np.float32),
            combined,
            domains,
            code,
            odds.astype(np.float32),
            questions.astype(np.float32),
            tuple(subjects),
        )

    def _nulls(self) -> list[tuple[str, Null]]:
        found = [
            (f"{size}.{group}.{family}", null)
            for size, groups in enumerate(self.families)
            for group, nulls in enumerate(groups)
            for family, null in zip(FAMILIES, nulls, strict=True)
        ]
        found += [(f"{size}.combined", null) for size, null in enumerate(self.combined)]
        found += [(f"subject.{number}", null) for number, null in enumerate(self.subjects)]
        return [*found, ("domains", self.domains), ("code", self.code)]


def _on_line(
    value: float, places: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> float:
    """Return what stands at `value` on straight lines between values at ascending places."""
    at = int(np.searchsorted(places, value, "right"))
    if at in (0, len(places)):
        return float(values[min(at, len(places) - 1)])
    left, right = float(places[at - 1]), float(places[at])
    below, above = float(values[at - 1]), float(values[at])
    return below + (value - left) * ((above - below) / (right - left))
