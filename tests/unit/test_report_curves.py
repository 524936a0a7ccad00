"""Curves of a report: ROC, calibration, sessions needed."""

from __future__ import annotations

import numpy as np
import pytest

from coin_protocol.errors import InvalidInputError
from tests.support.results import honest, inflated
from verifier_sdk.training.curves import calibration, roc, sessions_needed


def test_roc_points_are_shares_at_or_below_a_p_value() -> None:
    results = [
        *[honest(p_value=p) for p in (0.2, 0.4, 0.6, 0.8)],
        *[inflated(p_value=p) for p in (0.1, 0.2)],
    ]
    [curve] = roc(results)
    assert curve["points"] == [[0.0, 0.5], [0.25, 1.0], [0.5, 1.0], [0.75, 1.0], [1.0, 1.0]]
    # Of eight pairs seven are in order, and one is a tie.
    assert curve["area"] == pytest.approx(7.5 / 8)
    assert curve["judged"] == [0.0, 1.0]


def test_roc_leaves_out_what_targets_leave_out() -> None:
    others = [
        honest(original_blocks=3),
        honest(block_size=512),
        inflated(rate=0.25),
        inflated(original_blocks=2),
        inflated(tier="opened"),
    ]
    [curve] = roc([honest(), inflated(), *others])
    assert (curve["honest_sessions"], curve["sessions"]) == (1, 1)


def test_roc_keeps_few_points_of_many_and_still_ends_at_all() -> None:
    rng = np.random.default_rng(1)
    results = [honest(p_value=float(p)) for p in 1 - rng.random(3_000)]
    results += [inflated(p_value=float(p)) for p in 1 - rng.random(3_000)]
    [curve] = roc(results)
    assert len(curve["points"]) <= 200
    assert curve["points"][-1] == [1.0, 1.0]
    assert curve["area"] == pytest.approx(0.5, abs=0.02)


def test_probabilities_that_hold_have_no_error() -> None:
    rng = np.random.default_rng(2)
    results = []
    for _ in range(20_000):
        probability = float(rng.random())
        make = inflated if rng.random() < probability else honest
        results.append(make(probability=probability))
    for item in calibration(results):
        assert item["error"] < 0.02
        assert item["brier"] == pytest.approx(1 / 6, abs=0.01)


def test_calibration_weighs_both_kinds_of_session_alike() -> None:
    results = [honest(probability=0.25)] * 3 + [inflated(probability=0.25)] * 1_000
    item = calibration([*results, honest(probability=1.0), inflated(probability=1.0)])[0]
    low, high = item["bins"][2], item["bins"][9]
    assert (low["honest"], low["inflated"]) == (3, 1_000)
    assert low["share"] == pytest.approx((1_000 / 1_001) / (1_000 / 1_001 + 3 / 4))
    assert high["probability"] == 1.0
    assert sum(one["weight"] for one in item["bins"]) == pytest.approx(1.0)
    assert item["bins"][5]["share"] is None


def test_families_that_no_detector_is_trained_for_stand_apart() -> None:
    other = inflated(attack="other_model_same_question", family="other_model", probability=0.1)
    trained, everything = calibration([honest(), inflated(), other])
    assert (trained["families"], trained["sessions"]) == ("trained", 2)
    assert (everything["families"], everything["sessions"]) == ("all", 3)


def test_a_tier_without_both_kinds_has_no_calibration() -> None:
    assert calibration([honest(), inflated(tier="opened")]) == []


def test_plain_inflation_needs_few_sessions_and_hidden_inflation_never_ends() -> None:
    rng = np.random.default_rng(3)
    uniform = np.ceil(rng.random(60) * 501) / 501
    results = [honest(p_value=float(p)) for p in uniform]
    results += [inflated(p_value=1 / 501)] * 30
    results += [
        inflated(attack="other_model_same_question", family="other_model", p_value=float(p))
        for p in uniform
    ]
    needed = sessions_needed(results, 500)
    found = {(one["family"], one["inflated_share"]): one for one in needed["providers"]}
    assert set(found) == {
        ("none", 0.0), ("bag", 1.0), ("bag", 0.2), ("other_model", 1.0), ("other_model", 0.2),
    }  # fmt: skip
    assert found["bag", 1.0]["median"] <= 3
    assert found["bag", 1.0]["median"] <= found["bag", 0.2]["median"] <= found["bag", 0.2]["p90"]
    assert found["other_model", 1.0]["median"] is None
    assert found["none", 0.0]["failed"] <= needed["alpha"]


def test_few_sessions_are_not_resampled() -> None:
    assert sessions_needed([honest()] * 30 + [inflated()] * 19, 500)["providers"][0][
        "family"
    ] == "none"  # fmt: skip
    assert sessions_needed([honest()] * 19 + [inflated()] * 30, 500)["providers"] == []


def test_a_calibration_set_of_nobody_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="honest sessions"):
        sessions_needed([honest()], 0)
