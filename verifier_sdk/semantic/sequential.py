"""The sequential judge: evidence over many sessions of one provider, weighed at any time.

Each audited session gives a conformal p-value. A calibrator turns it into a bet against "this
provider is honest", and the product of the bets is a nonnegative supermartingale while the
provider is: by Ville's inequality it ever reaches `1 / alpha` with probability `alpha` at most,
no matter when one looks or stops.

What holds, and with which probability. Suppose that the scores of honest sessions, those of the
calibration set and those of the provider, are independent draws from one distribution, and that
nobody whom the audit concerns chooses which sessions are audited. All p-values are of one fixed
calibration set, so they are not independent of each other: given that set, honest p-values of
`k / (n + 1)` or less come with a probability that is not `k / (n + 1)` but the k-th smallest of
n uniform numbers. So a bet that is fair over all calibration sets is better than fair for some
half of them. Every bet is therefore divided by a number that its mean, given the calibration
set, exceeds for a share `doubt` of calibration sets at most (`e_values`). Then:

* with probability `1 - doubt` or more over the calibration set, an honest provider is ever
  failed with probability `alpha` at most;
* over calibration and sessions together, with probability `alpha + doubt` at most.

If the calibration set is one of the unlucky ones, it is so for all providers together. And
where honest sessions of a provider differ from those of the calibration set (another domain,
another model, one prompt again and again), nothing is promised.

Sources: Vovk and Wang, "E-values: calibration, combination and applications" (2021), for the
calibrator; Bates and others, "Testing for outliers with conformal p-values" (2023), for what
conformal p-values are given their calibration set; Ville (1939).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import InvalidInputError
from coin_protocol.v1 import receipt_pb2

Numbers = npt.NDArray[np.float64]

STATE_FORMAT: Final = "coin.sequential-state.v1"

FRACTIONS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of the capital that are bet on each session. A provider that inflates few of its
sessions is found by small ones; `(1.0,)` alone is the plain product of all bets."""

DOUBT: Final = 0.01
"""Share of calibration sets for which nothing is promised."""

PASS_BELOW: Final = 0.25
"""PASS wants a value that is this low or lower: honest sessions lose the bets."""

LEAST_SESSIONS: Final = 50
"""PASS wants so many sessions."""

MAX_HONEST_SESSIONS: Final = 100_000
"""More would not sharpen a bet any further, and cost seconds at each start."""

_POOLED: Final = 3
"""The smallest p-values, so many, count alike: the first alone would be worth more, and would
have to be divided by more."""

_HALVINGS: Final = 50
_SMALL: Final = 1e-9


@dataclass(frozen=True, slots=True)
class State:
    """What the sessions of one provider add up to so far.

    Attributes:
        sessions: How many were weighed.
        log_capitals: Natural logarithm of what each fraction's bettor has, who began with 1.
        highest: Highest `log_value` at any time.
    """

    sessions: int
    log_capitals: tuple[float, ...]
    highest: float

    @property
    def log_value(self) -> float:
        """Natural logarithm of the martingale: of the bettors' mean capital."""
        return float(_log_mean(np.array(self.log_capitals)))


@dataclass(frozen=True)
class SequentialJudge:
    """Weighs p-values of sessions as they come; changes nothing that it is given.

    Attributes:
        alpha: Chance of ever failing an honest provider, given a calibration set that is not
            among the doubtful ones.
        honest_sessions: Size of the calibration set that the p-values are of.
        doubt: Share of calibration sets for which nothing is promised.
        fractions: What is bet, ascending or not, each in (0, 1].
        pass_below: PASS wants a value of this or less, in (0, 1].
        least_sessions: PASS wants so many sessions or more.
    """

    alpha: float
    honest_sessions: int
    doubt: float = DOUBT
    fractions: tuple[float, ...] = FRACTIONS
    pass_below: float = PASS_BELOW
    least_sessions: int = LEAST_SESSIONS

    def __post_init__(self) -> None:
        """Check all numbers.

        Raises:
            InvalidInputError: One is out of its range.
        """
        if not 0 < self.alpha < 1:
            msg = f"alpha must lie in (0, 1); found {self.alpha}"
            raise InvalidInputError(msg)
        if not self.fractions or not all(0 < one <= 1 for one in self.fractions):
            msg = f"fractions must be one or more numbers in (0, 1]; found {self.fractions}"
            raise InvalidInputError(msg)
        if not 0 < self.pass_below <= 1 or self.least_sessions < 1:
            msg = (
                "PASS wants a bound in (0, 1] and 1 session at least; "
                f"found {self.pass_below} and {self.least_sessions}"
            )
            raise InvalidInputError(msg)
        e_values(self.honest_sessions, self.doubt)

    @property
    def log_threshold(self) -> float:
        """What `log_value` has to reach for FAIL: `ln(1 / alpha)`."""
        return -math.log(self.alpha)

    def start(self) -> State:
        """Return the state of a provider of whom no session was weighed."""
        return State(0, (0.0,) * len(self.fractions), 0.0)

    def update(self, state: State, p: float) -> State:
        """Return the state after one more session.

        Args:
            state: Before.
            p: The session's conformal p-value, in (0, 1]: one more than the calibration
                scores at or above its own, over one more than all of them.

        Raises:
            InvalidInputError: The p-value is not in (0, 1], or the state is another judge's.
        """
        if len(state.log_capitals) != len(self.fractions):
            msg = (
                f"the state holds {len(state.log_capitals)} capitals, this judge bets "
                f"{len(self.fractions)}: start again, or use the judge that made it"
            )
            raise InvalidInputError(msg)
        steps = self._steps(np.array([p]))[:, 0]
        capitals = np.array(state.log_capitals) + steps
        return State(
            state.sessions + 1,
            tuple(capitals.tolist()),
            max(state.highest, float(_log_mean(capitals))),
        )

    def paths(self, p_values: npt.ArrayLike) -> Numbers:
        """Return `log_value` after each session of many providers at once.

        Args:
            p_values: Conformal p-values, (..., sessions).

        Returns:
            float64 of the same shape.

        Raises:
            InvalidInputError: A p-value is not in (0, 1].
        """
        return _log_mean(np.cumsum(self._steps(np.asarray(p_values, np.float64)), axis=-1))

    def outcome(self, state: State) -> receipt_pb2.Outcome.ValueType:
        """Return FAIL, PASS or INCONCLUSIVE.

        FAIL once the value has reached `1 / alpha`, whatever came after. PASS says no more
        than that enough sessions were seen and that betting against the provider lost: a
        provider may begin to inflate later, or inflate in a way that no score sees.
        """
        if state.highest >= self.log_threshold:
            return receipt_pb2.OUTCOME_FAIL
        enough = state.sessions >= self.least_sessions
        if enough and state.log_value <= math.log(self.pass_below):
            return receipt_pb2.OUTCOME_PASS
        return receipt_pb2.OUTCOME_INCONCLUSIVE

    def reason(self, state: State) -> str:
        """Return one sentence on the outcome, for people."""
        count = f"{state.sessions} session{'' if state.sessions == 1 else 's'}"
        outcome = self.outcome(state)
        if outcome == receipt_pb2.OUTCOME_FAIL:
            return (
                f"the evidence of {count} reached {_power(state.highest)} to 1, past the "
                f"{1 / self.alpha:g} to 1 that {self.alpha:g} of honest providers ever reach"
            )
        now = f"the evidence of {count} stands at {_power(state.log_value)} to 1"
        if outcome == receipt_pb2.OUTCOME_PASS:
            return f"no evidence against the provider: {now}"
        return (
            f"{now}: FAIL wants {1 / self.alpha:g}, PASS wants {self.pass_below:g} or less "
            f"after {self.least_sessions} sessions"
        )

    def to_dict(self, state: State) -> dict[str, Any]:
        """Return a state as JSON-ready values, with the judge's numbers beside it."""
        return {
            "format": STATE_FORMAT,
            **self._settings(),
            "sessions": state.sessions,
            "log_capitals": list(state.log_capitals),
            "highest": state.highest,
        }

    def from_dict(self, document: object) -> State:
        """Return a state that `to_dict` wrote.

        Raises:
            InvalidInputError: It is of another version or of a judge with other numbers (a
                false-alarm rate that is chosen after the fact is none), or is no state.
        """
        if not isinstance(document, Mapping) or document.get("format") != STATE_FORMAT:
            found = document.get("format") if isinstance(document, Mapping) else document
            msg = f"wanted an object of format {STATE_FORMAT!r}; found {found!r}"
            raise InvalidInputError(msg)
        for name, wanted in self._settings().items():
            if document.get(name) != wanted:
                msg = f"the state was kept with {name} {document.get(name)}; this judge's: {wanted}"
                raise InvalidInputError(msg)
        sessions, highest = document.get("sessions"), document.get("highest")
        capitals = document.get("log_capitals")
        if not isinstance(sessions, int) or isinstance(sessions, bool) or sessions < 0:
            msg = f"sessions must be a whole number from 0; found {sessions!r}"
            raise InvalidInputError(msg)
        if not isinstance(capitals, list) or len(capitals) != len(self.fractions):
            msg = f"log_capitals must be {len(self.fractions)} numbers; found {capitals!r}"
            raise InvalidInputError(msg)
        if not all(_is_number(value) for value in (*capitals, highest)):
            msg = f"log_capitals and highest must be finite; found {capitals} and {highest}"
            raise InvalidInputError(msg)
        state = State(sessions, tuple(map(float, capitals)), float(highest or 0.0))
        begun = sessions > 0 or state == self.start()
        if not begun or state.highest < max(0.0, state.log_value - _SMALL):
            msg = "the state contradicts itself: its highest value is below the last or the first"
            raise InvalidInputError(msg)
        return state

    def _settings(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "honest_sessions": self.honest_sessions,
            "doubt": self.doubt,
            "fractions": list(self.fractions),
        }

    def _steps(self, p_values: Numbers) -> Numbers:
        """Return what each bettor's log capital gains, float64 (fractions, ...)."""
        require_p_values(p_values)
        table = e_values(self.honest_sessions, self.doubt)
        # A p-value between two steps, rounded or of a larger set, counts as the upper one.
        step = np.ceil(p_values * len(table) - _SMALL * len(table)).astype(np.int64)
        gains = table[np.clip(step, 1, len(table)) - 1] - 1.0
        bets = np.array(self.fractions).reshape(-1, *([1] * gains.ndim))
        result: Numbers = np.log1p(bets * gains)
        return result


def require_p_values(p_values: Numbers) -> None:
    """Check that all are p-values of conformal tests.

    Raises:
        InvalidInputError: One is 0 or less, above 1, or no number.
    """
    good = (p_values > 0) & (p_values <= 1)
    if not good.all():
        found = p_values[~good].flat[0]
        msg = f"a conformal p-value lies in (0, 1]; found {found}"
        raise InvalidInputError(msg)


@lru_cache(maxsize=8)
def e_values(honest_sessions: int, doubt: float) -> Numbers:
    """Return what each conformal p-value is worth: an e-value given the calibration set.

    Entry k - 1 is the e-value of the p-value `k / (n + 1)`. Start from the mean over kappa in
    (0, 1) of the bets `kappa * p^(kappa - 1)`, `(1 - p + p ln p) / (p (ln p)^2)`: it falls from
    infinity to 1/2, and its integral from 0 to p is `(p - 1) / ln p`, 1 in all (Vovk and Wang,
    section 2). Averaged over each of the n + 1 steps, and over the first three together, its
    mean over all steps is 1.

    Given the calibration set, step k has not the probability `1 / (n + 1)` but that of a gap
    between uniform numbers, or with ties less at its lower end; the n + 1 gaps are independent
    exponential numbers over their sum. That the mean then exceeds c means that
    `sum (e_k - c) x_k > 0` for exponential x, whose probability Chernoff bounds by
    `prod 1 / (1 - t (e_k - c))` for every t. All is divided by the least c for which some t
    brings that down to the doubt.

    Args:
        honest_sessions: Size n of the calibration set.
        doubt: Probability that the mean, given the calibration set, is above 1; in (0, 1).

    Returns:
        float64 (n + 1,), descending, read-only.

    Raises:
        InvalidInputError: A number is out of its range.
    """
    if not 1 <= honest_sessions <= MAX_HONEST_SESSIONS:
        msg = f"calibrate on 1 to {MAX_HONEST_SESSIONS} honest sessions; found {honest_sessions}"
        raise InvalidInputError(msg)
    if not 0 < doubt < 1:
        msg = f"the doubt must lie in (0, 1); found {doubt}"
        raise InvalidInputError(msg)
    table = fair_e_values(honest_sessions)
    table /= _largest_mean(table, doubt)
    table.flags.writeable = False
    return table


def fair_e_values(honest_sessions: int) -> Numbers:
    """Return e-values before they are divided: fair over all calibration sets, float64 (n + 1,)."""
    steps = honest_sessions + 1
    inner = np.arange(1, steps) / steps
    integral = np.concatenate([[0.0], (inner - 1.0) / np.log(inner), [1.0]])
    table: Numbers = np.diff(integral) * steps
    table[:_POOLED] = table[:_POOLED].mean()
    return table


def _largest_mean(table: Numbers, doubt: float) -> float:
    """Return the least c that Chernoff shows the mean to exceed in the doubt's share at most."""
    below, above = 1.0, float(table[0])
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if middle < above and _log_exceeds(table - middle) > math.log(doubt):
            below = middle
        else:
            above = middle
    return above


def _log_exceeds(surplus: Numbers) -> float:
    """Return Chernoff's bound on the log probability that `sum surplus_k x_k > 0`."""
    below, above = 0.0, 1.0 / float(surplus[0])
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if (surplus / (1.0 - middle * surplus)).sum() < 0:
            below = middle
        else:
            above = middle
    return -float(np.log1p(-below * surplus).sum())


def _log_mean(logs: Numbers) -> Numbers:
    """Return the log of the mean of what these are the logs of, over the first axis."""
    top = logs.max(axis=0)
    result: Numbers = top + np.log(np.exp(logs - top).mean(axis=0))
    return result


def _power(log_value: float) -> str:
    return f"{math.exp(log_value):.3g}" if log_value < 500 else f"e^{log_value:.0f}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
