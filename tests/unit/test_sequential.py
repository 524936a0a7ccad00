"""Evidence over many sessions: no honest provider is failed more often than promised."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.semantic.sequential import (
    FRACTIONS,
    SequentialJudge,
    State,
    e_values,
    fair_e_values,
)

SESSIONS = 300

Numbers = npt.NDArray[np.float64]


def judge(**changes: Any) -> SequentialJudge:
    return SequentialJudge(**{"alpha": 0.01, "honest_sessions": 400, **changes})


def after(which: SequentialJudge, p_values: list[float]) -> State:
    state = which.start()
    for p in p_values:
        state = which.update(state, p)
    return state


def conformal(scores: npt.ArrayLike, calibration: npt.ArrayLike) -> Numbers:
    ordered = np.sort(np.asarray(calibration))
    above = len(ordered) - np.searchsorted(ordered, np.asarray(scores), "left")
    return np.asarray((1 + above) / (len(ordered) + 1), np.float64)


# The bets


def test_the_calibrator_integrates_to_one() -> None:
    # With p = exp(-x) the integral of e(p) over (0, 1) is that of (1 - exp(-x) (1 + x)) / x^2.
    def integrand(x: Numbers) -> Numbers:
        values: Numbers = (1.0 - np.exp(-x) * (1.0 + x)) / x**2
        return values

    # Simpson's rule up to 1,000, in the logarithm of x; 1/x^2 is all that is left beyond.
    u = np.linspace(math.log(1e-4), math.log(1_000.0), 20_001)
    weights = np.where(np.arange(len(u)) % 2 == 1, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    inside = float((weights * integrand(np.exp(u)) * np.exp(u)).sum()) * (u[1] - u[0]) / 3
    # Near 0 the integrand is 1/2 - x/3.
    assert inside + 1e-4 / 2 + 1e-3 == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 400, 5_000])
def test_each_step_is_the_calibrators_mean_over_it(size: int) -> None:
    table = fair_e_values(size)
    assert table.mean() == pytest.approx(1.0, abs=1e-9)
    assert (np.diff(table) <= 1e-9).all()
    last = 1.0 - 0.5 / (size + 1)
    middle = (1 - last + last * math.log(last)) / (last * math.log(last) ** 2)
    if size > 10:
        assert table[-1] == pytest.approx(middle, rel=1e-5)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_uniform_p_values_make_a_supermartingale(fraction: float) -> None:
    table = e_values(400, 0.01)
    assert (1 - fraction + fraction * table).mean() <= 1.0
    assert (1 - fraction + fraction * table).min() > 0.0


@pytest.mark.parametrize("size", [3, 30, 400])
@pytest.mark.parametrize("doubt", [0.3, 0.05])
def test_given_the_calibration_set_bets_are_fair_but_for_the_doubt(size: int, doubt: float) -> None:
    rng = np.random.default_rng(size)
    gaps = rng.exponential(size=(20_000, size + 1))
    gaps /= gaps.sum(axis=1, keepdims=True)
    unfair = (gaps @ e_values(size, doubt) > 1.0).mean()
    assert unfair <= doubt
    # Without the division about half of all calibration sets would be unfair.
    assert (gaps @ fair_e_values(size) > 1.0).mean() > 0.3


def test_less_doubt_costs_more() -> None:
    assert (e_values(400, 0.001) < e_values(400, 0.1)).all()


# Honest providers


@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_exact_p_values_raise_few_alarms_at_any_time(alpha: float) -> None:
    which = judge(alpha=alpha)
    paths = which.paths(np.random.default_rng(1).random((4_000, SESSIONS)))
    assert (paths.max(axis=1) >= which.log_threshold).mean() <= alpha


@pytest.mark.parametrize("size", [100, 400])
def test_one_calibration_set_for_all_raises_few_alarms_at_any_time(size: int) -> None:
    """Few calibration sets raise more alarms than promised, and few alarms are raised in all."""
    which = judge(alpha=0.1, honest_sessions=size, doubt=0.1)
    rng = np.random.default_rng(size)
    rates = []
    for _ in range(40):
        calibration = rng.random(size)
        paths = which.paths(conformal(rng.random((100, SESSIONS)), calibration))
        rates.append(float((paths.max(axis=1) >= which.log_threshold).mean()))
    assert np.mean(rates) <= which.alpha
    assert np.mean(np.array(rates) > which.alpha) <= which.doubt


def test_scores_with_many_ties_raise_no_more_alarms() -> None:
    which = judge(alpha=0.1)
    rng = np.random.default_rng(3)
    paths = [
        which.paths(conformal(rng.integers(0, 5, (100, SESSIONS)), rng.integers(0, 5, 400)))
        for _ in range(20)
    ]
    assert (np.concatenate(paths).max(axis=1) >= which.log_threshold).mean() <= which.alpha


def test_most_honest_providers_pass_in_time() -> None:
    which = judge()
    rng = np.random.default_rng(4)
    passed = 0
    for _ in range(50):
        p_values = conformal(rng.random(100), rng.random(400))
        passed += which.outcome(after(which, p_values.tolist())) == receipt_pb2.OUTCOME_PASS
    assert passed >= 40


# Providers that inflate


def first_alarm(which: SequentialJudge, p_values: Numbers) -> Numbers:
    hit = which.paths(p_values) >= which.log_threshold
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf)


def test_a_provider_that_inflates_is_failed_after_few_sessions() -> None:
    which = judge()
    p_values = np.random.default_rng(5).beta(0.1, 1.0, (400, 200)).clip(1 / 401)
    found = first_alarm(which, p_values)
    assert np.median(found) <= 6
    assert np.isfinite(found).all()


def test_small_fractions_find_whoever_inflates_one_session_in_five() -> None:
    rng = np.random.default_rng(6)
    p_values = rng.random((400, 400))
    some = rng.random(p_values.shape) < 0.2
    p_values[some] = rng.beta(0.05, 1.0, int(some.sum()))
    p_values = p_values.clip(1 / 401)
    assert np.median(first_alarm(judge(), p_values)) <= 60
    assert np.median(first_alarm(judge(fractions=(1.0,)), p_values)) > 200


# States


@given(st.lists(st.floats(0.0025, 1.0), max_size=30))
def test_one_by_one_and_at_once_are_the_same(p_values: list[float]) -> None:
    which = judge()
    state = after(which, p_values)
    assert state.sessions == len(p_values)
    if p_values:
        path = which.paths(p_values)
        assert state.log_value == pytest.approx(path[-1], abs=1e-9)
        assert state.highest == pytest.approx(max(0.0, path.max()), abs=1e-9)


def test_updating_leaves_the_old_state_alone() -> None:
    which = judge()
    first = which.update(which.start(), 0.01)
    kept = (first.sessions, first.log_capitals, first.highest)
    which.update(first, 0.5)
    assert (first.sessions, first.log_capitals, first.highest) == kept


def test_p_values_between_two_steps_count_as_the_upper_one() -> None:
    which = judge()
    between, upper = (after(which, [p / 401]).log_value for p in (4.5, 5.0))
    assert between == upper
    assert after(which, [1e-9]).log_value == after(which, [1 / 401]).log_value


def test_what_failed_once_stays_failed() -> None:
    which = judge()
    failed = after(which, [1 / 401] * 5)
    assert which.outcome(failed) == receipt_pb2.OUTCOME_FAIL
    state = failed
    for _ in range(400):
        state = which.update(state, 1.0)
    assert state.log_value < 0.0
    assert which.outcome(state) == receipt_pb2.OUTCOME_FAIL
    assert "past the 100 to 1" in which.reason(state)


def test_pass_wants_both_sessions_and_a_low_value() -> None:
    which = judge(least_sessions=20)
    nineteen = after(which, [1.0] * 19)
    assert nineteen.log_value < math.log(which.pass_below)
    assert which.outcome(nineteen) == receipt_pb2.OUTCOME_INCONCLUSIVE
    assert "after 20 sessions" in which.reason(nineteen)
    twenty = which.update(nineteen, 1.0)
    assert which.outcome(twenty) == receipt_pb2.OUTCOME_PASS
    assert which.reason(twenty).startswith("no evidence against the provider")
    assert which.outcome(which.update(twenty, 1 / 401)) == receipt_pb2.OUTCOME_INCONCLUSIVE
    assert which.outcome(which.start()) == receipt_pb2.OUTCOME_INCONCLUSIVE


@pytest.mark.parametrize("p", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_what_is_no_p_value_is_refused(p: float) -> None:
    which = judge()
    with pytest.raises(InvalidInputError, match="conformal p-value"):
        which.update(which.start(), p)
    with pytest.raises(InvalidInputError):
        which.paths([0.5, p])


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"alpha": math.nan},
        {"honest_sessions": 0},
        {"honest_sessions": 10**9},
        {"doubt": 0.0},
        {"doubt": 1.0},
        {"fractions": ()},
        {"fractions": (0.5, 1.5)},
        {"pass_below": 0.0},
        {"least_sessions": 0},
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        judge(**changes)


# Storing


def test_states_survive_json() -> None:
    which = judge()
    for state in (which.start(), after(which, [0.01, 0.7, 0.2])):
        assert which.from_dict(json.loads(json.dumps(which.to_dict(state)))) == state


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "coin.sequential-state.v2"},
        {"alpha": 0.05},
        {"honest_sessions": 500},
        {"doubt": 0.2},
        {"fractions": [1.0]},
        {"sessions": -1},
        {"sessions": True},
        {"sessions": 1.5},
        {"sessions": 0},
        {"log_capitals": [0.0]},
        {"log_capitals": None},
        {"log_capitals": [math.nan] * len(FRACTIONS)},
        {"log_capitals": ["1"] * len(FRACTIONS)},
        {"highest": None},
        {"highest": math.inf},
        {"highest": 0.1},
        {"highest": -1.0},
    ],
)
def test_changed_states_are_refused(changes: dict[str, Any]) -> None:
    which = judge()
    document = which.to_dict(after(which, [1 / 401]))
    with pytest.raises(InvalidInputError):
        which.from_dict({**document, **changes})


@pytest.mark.parametrize("document", [None, [], "state", {}])
def test_other_documents_are_refused(document: object) -> None:
    with pytest.raises(InvalidInputError, match=r"coin\.sequential-state\.v1"):
        judge().from_dict(document)


def test_a_state_of_another_judge_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="start again"):
        judge(fractions=(1.0,)).update(judge().start(), 0.5)
