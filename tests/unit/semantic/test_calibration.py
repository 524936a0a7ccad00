"""P-values that never say too much, their worst over domains, and probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coin_protocol.errors import ConfigurationError
from tests.support.judges import SUBJECTS, calibration
from verifier_sdk.semantic.calibration import (
    GROUPS,
    SIZES,
    TIERS,
    Calibration,
    Null,
    group_of,
    size_of,
    surprise_of,
)
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT

few_values = st.lists(st.integers(-3, 3), min_size=1, max_size=60)
values = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=400)


def null(found: list[Any]) -> Null:
    return Null.of(np.array(found, np.float64), np.ones(len(found)))


# P-values


@given(st.one_of(values, few_values), st.floats(-60, 60))
def test_a_p_value_is_no_less_than_the_conformal_one(found: list[float], value: float) -> None:
    exact = (1 + sum(one >= value for one in found)) / (1 + len(found))
    assert null(found).p_value(value) >= exact - 1e-6


@given(st.one_of(values, few_values), st.data())
def test_of_equal_values_none_is_odder_than_another(
    found: list[float], data: st.DataObject
) -> None:
    value = data.draw(st.sampled_from(found))
    exact = (1 + sum(one >= value for one in found)) / (1 + len(found))
    assert null(found).p_value(value) >= exact - 1e-6


def test_where_all_are_alike_nobody_is_odd() -> None:
    assert null([0.0] * 100).p_value(0.0) == 1.0
    assert null([0.0] * 100 + [5.0]).p_value(0.0) == 1.0
    assert null([0.0] * 100 + [5.0]).p_value(5.0) == pytest.approx(2 / 102)


@given(st.one_of(values, few_values), st.lists(st.floats(-60, 60), min_size=2, max_size=8))
def test_p_values_fall_as_evidence_grows_and_are_never_zero(
    found: list[float], at: list[float]
) -> None:
    tested = [null(found).p_value(value) for value in sorted(at)]
    assert tested == sorted(tested, reverse=True)
    assert all(0 < one <= 1 for one in tested)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["normal", "exponential", "ties"]),
    st.integers(20, 600),
    st.integers(0, 2**32 - 1),
)
def test_p_values_of_exchangeable_data_are_no_smaller_than_uniform(
    shape: str, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shapes: dict[str, Callable[[int], Any]] = {
        "normal": lambda size: rng.normal(size=size),
        "exponential": lambda size: rng.exponential(size=size),
        "ties": lambda size: rng.integers(0, 4, size).astype(float),
    }
    draw = shapes[shape]
    tries = 60
    found = []
    for _ in range(tries):
        fitted = null(draw(count).tolist())
        found += [fitted.p_value(value) for value in draw(5)]
    for level in (0.02, 0.05, 0.2, 0.5):
        rate = np.mean(np.array(found) <= level)
        # Values of one fit hang together: a wide margin, a bug is far past it.
        assert rate <= level + 5 * (level * (1 - level) / tries) ** 0.5


def test_the_greatest_value_of_all_is_as_odd_as_a_number_of_sessions_can_show() -> None:
    fitted = null(list(range(999)))
    assert fitted.p_value(998.0) == pytest.approx(2 / 1000)
    assert fitted.p_value(999.0) == pytest.approx(1 / 1000)
    assert fitted.p_value(1e30) == fitted.p_value(float("inf")) == pytest.approx(1 / 1000)
    assert fitted.p_value(-1e30) == fitted.p_value(0.0) == 1.0


@pytest.mark.parametrize("count", [1, 2, 100, 5000])
def test_p_values_are_near_the_conformal_ones_where_it_matters(count: int) -> None:
    rng = np.random.default_rng(count)
    found = np.sort(rng.normal(size=count))
    fitted = null(found.tolist())
    for share in (0.5, 0.1, 0.04, 0.01):
        value = float(found[int((1 - share) * (count - 1))])
        exact = (1 + np.count_nonzero(found >= value)) / (1 + count)
        assert exact - 1e-6 <= fitted.p_value(value) <= exact * 1.1 + 1e-6


def test_weights_count_as_so_many_sessions() -> None:
    weights = np.array([1.0, 1.0, 2.0])
    fitted = Null.of(np.array([1.0, 2.0, 3.0]), weights)
    assert fitted.p_value(3.0) == pytest.approx((1 + 3 * 0.5) / 4)
    assert fitted.p_value(2.0) == pytest.approx((1 + 3 * 0.75) / 4)


# Smoothed shares, which no rate rests on


@given(st.one_of(values, few_values), st.lists(st.floats(-60, 1e4), min_size=2, max_size=8))
def test_smoothed_shares_fall_without_end_and_are_never_zero(
    found: list[float], at: list[float]
) -> None:
    tested = [null(found).smoothed(value) for value in sorted(at)]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(tested))
    assert all(0 < one <= 1 for one in tested)


@given(st.one_of(values, few_values))
def test_smoothed_shares_are_the_tails_at_knots_and_no_more_between(found: list[float]) -> None:
    fitted = null(found)
    for knot, tail in zip(fitted.knots.tolist(), fitted.tails.tolist(), strict=True):
        assert fitted.smoothed(knot) == pytest.approx(tail, rel=1e-5)
    middle = (fitted.knots[1:] + fitted.knots[:-1]) / 2
    for value in middle.tolist():
        assert fitted.smoothed(value) <= fitted.p_value(value) * (1 + 1e-6)


def test_far_beyond_all_sessions_there_is_still_a_difference() -> None:
    fitted = null(np.random.default_rng(1).exponential(size=2000).tolist())
    # The tail of an exponential goes on as a straight line of logarithms.
    assert fitted.smoothed(20.0) == pytest.approx(np.exp(-20.0), rel=20.0)
    assert fitted.smoothed(20.0) < fitted.smoothed(12.0) < fitted.smoothed(9.0)
    assert fitted.smoothed(1e6) > 0


def test_a_tail_can_be_scaled() -> None:
    fitted = null(list(range(99)))
    for value in (-1.0, 30.5, 98.0, 200.0):
        assert fitted.scaled(0.5).p_value(value) == pytest.approx(fitted.p_value(value) / 2)


# The worst


@given(st.lists(st.one_of(values, few_values), min_size=1, max_size=4), st.floats(-60, 60))
def test_the_worst_is_the_greatest_p_value_of_all(parts: list[list[float]], value: float) -> None:
    nulls = [null(part) for part in parts]
    assert Null.worst(nulls).p_value(value) == max(one.p_value(value) for one in nulls)


# Calibrations

SOME = calibration()


def test_sessions_are_compared_with_those_of_about_as_many_blocks() -> None:
    groups = [group_of(blocks) for blocks in range(1, 200)]
    assert groups == sorted(groups)
    assert set(groups) == set(range(GROUPS))
    one = replace(calibration(), subjects=())
    evidence = np.full(len(FAMILIES), 6.0)
    for blocks in (1, 5, 10, 60):
        expected = [fitted.smoothed(6.0) for fitted in one.families[0][group_of(blocks)]]
        assert one.family_p_values(evidence, blocks, 256).tolist() == expected


def test_sessions_are_compared_with_those_of_about_as_large_blocks() -> None:
    assert [size_of(size) for size in (1, 8, 128, 256, 384)] == [0] * 5
    assert [size_of(size) for size in (385, 512, 768)] == [1] * 3
    assert [size_of(size) for size in (769, 1024, 4096)] == [SIZES - 1] * 3
    one = replace(calibration(), subjects=())
    evidence = np.full(len(FAMILIES), 6.0)
    for at, size in enumerate((256, 512, 1024)):
        expected = [fitted.smoothed(6.0) for fitted in one.families[at][group_of(5)]]
        assert one.family_p_values(evidence, 5, size).tolist() == expected
        # Nothing odd: no domain says more, and nothing is asked about code.
        assert one.p_value(2.0, size, code=False) == one.combined[at].p_value(2.0)
    assert len({one.p_value(4.0, size, code=False) for size in (256, 512, 1024)}) == SIZES


@given(st.floats(-5, 40), st.sampled_from([256, 512, 1024]), st.sampled_from(range(SUBJECTS)))
def test_a_p_value_is_the_largest_of_all_that_a_session_is_compared_with(
    statistic: float, size: int, subject: int
) -> None:
    overall = SOME.combined[size_of(size)].p_value(statistic)
    alike = SOME.subjects[subject].p_value(surprise_of(overall))
    domains, code = (found.p_value(surprise_of(alike)) for found in (SOME.domains, SOME.code))
    about = partial(SOME.p_value, statistic, size, subject=subject)
    assert about(code=False) == max(alike, domains)
    assert about(code=True) == max(alike, domains, code)


@given(st.floats(-5, 40), st.booleans())
def test_an_unseen_question_is_taken_for_what_speaks_most_for_the_provider(
    statistic: float, code: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    known = [SOME.p_value(statistic, 256, code=code, subject=one) for one in range(SUBJECTS)]
    assert SOME.p_value(statistic, 256, code=code) == max(known)


def test_without_subjects_all_are_compared_with_all() -> None:
    one = replace(SOME, subjects=(), domains=null([0.0]).scaled(1e-9))
    for subject in (UNKNOWN_SUBJECT, 0, 7):
        found = one.p_value(4.0, 256, code=False, subject=subject)
        assert found == one.combined[0].p_value(4.0)


def test_each_comparison_can_be_the_one_that_counts() -> None:
    one = replace(calibration(), subjects=())
    overall = one.combined[0].p_value(14.0)
    ordinary, code = (one.p_value(14.0, 256, code=code) for code in (False, True))
    assert overall < ordinary < code
    assert replace(one, domains=one.code).p_value(14.0, 256, code=False) == code


@given(st.lists(st.floats(-5, 40), min_size=2, max_size=10), st.booleans())
def test_p_values_of_sessions_fall_with_the_statistic(at: list[float], code: bool) -> None:  # noqa: FBT001
    found = [SOME.p_value(value, 256, code=code) for value in sorted(at)]
    assert found == sorted(found, reverse=True)
    assert all(0 < one <= 1 for one in found)


@pytest.mark.parametrize("code", [False, True], ids=["plain", "code"])
@pytest.mark.parametrize("subject", [UNKNOWN_SUBJECT, *range(SUBJECTS)])
def test_few_questions_accuse_by_nothing_that_an_honest_session_showed(
    subject: int, *, code: bool
) -> None:
    one = calibration()

    def accusable(calibrated: Calibration, statistic: float) -> bool:
        p_value = calibrated.p_value(statistic, 256, code=code, subject=subject)
        return calibrated.accusable(p_value, 256, code=code, subject=subject)

    asked = [*([0] if code else []), *([subject + 1] if subject != UNKNOWN_SUBJECT else [])]
    for at in range(1 + SUBJECTS):
        questions = one.questions.copy()
        questions[at] -= 1
        few = replace(one, questions=questions)
        assert accusable(one, 5.0)
        assert accusable(few, 5.0) == (at not in asked)
        assert accusable(few, 1e30)


def test_the_least_weighted_p_value_is_the_statistic() -> None:
    p_values = np.full(len(FAMILIES), 0.8)
    p_values[3] = 0.01
    wanted = -np.log(0.01 * len(FAMILIES))
    assert calibration().statistic(p_values) == pytest.approx(wanted, rel=1e-5)


@given(st.lists(st.floats(-5, 20), min_size=2, max_size=10))
def test_probabilities_rise_with_the_statistic(at: list[float]) -> None:
    found = [SOME.probability(value) for value in sorted(at)]
    assert found == sorted(found)
    assert all(0 < one < 1 for one in found)


@pytest.mark.parametrize("tier", TIERS)
def test_tensors_make_the_same_calibration_again(tier: str) -> None:
    one = calibration()
    again = Calibration.read(one.tensors(tier), tier)
    evidence = np.linspace(0, 12, len(FAMILIES))
    p_values = one.family_p_values(evidence, 9, 256)
    for size in (256, 512, 1024):
        expected = one.family_p_values(evidence, 9, size)
        assert np.array_equal(again.family_p_values(evidence, 9, size), expected)
        for code in (False, True):
            for subject in range(UNKNOWN_SUBJECT, SUBJECTS):
                same, before = (
                    either.p_value(3.0, size, code=code, subject=subject) for either in (again, one)
                )
                assert same == before
    statistic = one.statistic(p_values)
    assert again.statistic(p_values) == statistic
    assert again.probability(statistic) == one.probability(statistic)


@pytest.mark.parametrize(
    "name",
    [
        "weights",
        "odds",
        "0.combined",
        f"{SIZES - 1}.combined",
        "domains",
        "code",
        "questions",
        "0.0.random",
        f"{SIZES - 1}.{GROUPS - 1}.{FAMILIES[-1]}",
    ],
)
def test_a_missing_part_is_named(name: str) -> None:
    tensors = calibration().tensors("opened")
    del tensors[f"opened.{name}"]
    with pytest.raises(ConfigurationError, match=rf"no tensor 'opened\.{name}'"):
        Calibration.read(tensors, "opened")
    with pytest.raises(ConfigurationError, match="no tensor 'committed"):
        Calibration.read(calibration().tensors("opened"), "committed")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("weights", (3,)),
        ("weights", (len(FAMILIES), 1)),
        ("odds", (2, 2, 1)),
        ("odds", (3, 2)),
        ("odds", (4,)),
        ("odds", (2, 0)),
        ("odds", ()),
        ("0.combined", (2, 0)),
        ("1.combined", (3, 5)),
        ("2.combined", (2,)),
        ("domains", (2, 0)),
        ("code", (3, 5)),
        ("questions", (1,)),
        ("questions", (SUBJECTS + 1, 1)),
        ("0.0.random", (5,)),
    ],
)
def test_parts_of_other_shapes_are_of_another_version(name: str, shape: tuple[int, ...]) -> None:
    tensors = calibration().tensors("opened")
    tensors[f"opened.{name}"] = np.ones(shape, np.float32)
    with pytest.raises(ConfigurationError, match="another version"):
        Calibration.read(tensors, "opened")


def test_every_family_has_a_weight() -> None:
    tensors = calibration().tensors("opened")
    tensors["opened.weights"] = np.eye(len(FAMILIES), dtype=np.float32)[0]
    with pytest.raises(ConfigurationError, match="another version"):
        Calibration.read(tensors, "opened")
