"""From an assessment to an outcome, and which judge a policy asks for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coin_protocol.errors import ConfigurationError, ModelMismatchError
from coin_protocol.v1 import receipt_pb2
from tests.support.judges import (
    calibration,
    evidence,
    judge,
    numbers,
    policy_naming,
    write_model,
)
from tests.support.laboratory import LabModels, profile, traces
from tests.support.parties import Parties
from verifier_sdk.auditor import Auditor
from verifier_sdk.semantic import CosineJudge
from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.semantic.detectors import ShareEstimate
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.judge import OpenedEvidence, Visible
from verifier_sdk.semantic.learned import (
    EARLY_PASS,
    FALSE_ALARMS,
    GUARD,
    LEAST_BLOCKS,
    Assessment,
    LearnedJudge,
    decide,
)

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE


def assessment(p_value: float, *, blocks: int = 8, family: str = "bag") -> Assessment:
    estimate = ShareEstimate(7.0, 0.4, (0.25, 0.625))
    return Assessment(TIERS[0], p_value, 0.5, family, estimate, [p_value], blocks, 3.0)


def shown(*, rounds: int = 3, last: bool = True) -> OpenedEvidence:
    return OpenedEvidence([], Visible(None, None), 40, 256, rounds=rounds, last=last)


@pytest.mark.parametrize(
    ("p_value", "blocks", "rounds", "last", "outcome"),
    [
        # However early, however few blocks: what honest sessions hardly ever show is failed.
        (0.001, 8, 3, True, FAIL),
        (FALSE_ALARMS, 8, 1, False, FAIL),
        (FALSE_ALARMS, 1, 1, True, FAIL),
        # Between the two nothing is decided.
        (FALSE_ALARMS + 1e-6, 8, 3, True, INCONCLUSIVE),
        (GUARD, 8, 3, True, INCONCLUSIVE),
        (GUARD + 1e-6, 8, 3, True, PASS),
        (1.0, 8, 3, True, PASS),
        # Too few blocks pass nothing.
        (1.0, LEAST_BLOCKS - 1, 3, True, INCONCLUSIVE),
        (1.0, LEAST_BLOCKS - 1, 1, False, INCONCLUSIVE),
        (1.0, LEAST_BLOCKS, 3, True, PASS),
        # While more can be opened, more is wanted.
        (EARLY_PASS[0], 8, 1, False, INCONCLUSIVE),
        (EARLY_PASS[0] + 1e-6, 8, 1, False, PASS),
        (EARLY_PASS[1], 8, 2, False, INCONCLUSIVE),
        (EARLY_PASS[1] + 1e-6, 8, 2, False, PASS),
        (EARLY_PASS[0], 8, 1, True, PASS),
        (GUARD + 1e-6, 8, 1, True, PASS),
        # A plan of many rounds.
        (GUARD + 1e-6, 8, 3, False, PASS),
        (GUARD + 1e-6, 8, 9, False, PASS),
    ],
)
def test_outcomes(
    p_value: float,
    blocks: int,
    rounds: int,
    *,
    last: bool,
    outcome: receipt_pb2.Outcome.ValueType,
) -> None:
    found, _ = decide(assessment(p_value, blocks=blocks), shown(rounds=rounds, last=last))
    assert found == outcome


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("p_value", [0.01, 0.1, 0.9])
def test_every_reason_is_one_sentence_for_people(family: str, p_value: float) -> None:
    _, reason = decide(assessment(p_value, family=family), shown())
    assert re.fullmatch(r"[^\n.]*(\d\.\d+[^\n.]*)*", reason)
    assert reason[0].isalnum()
    assert "_" not in reason
    assert 20 < len(reason) < 200
    assert "8 opened blocks" in reason


def test_a_failed_session_is_told_what_it_looks_like_how_often_and_how_much() -> None:
    _, reason = decide(assessment(0.0123, family="retrieved"), shown())
    assert reason == (
        "the blocks look like text taken from other questions: 0.012 of honest sessions look so "
        "at most, on 8 opened blocks; inflated share 25% to 62%"
    )


def test_too_few_blocks_are_counted_in_good_english() -> None:
    _, reason = decide(assessment(1.0, blocks=1), shown())
    assert reason == "it takes 3 to judge by; found 1 opened block"
    _, reason = decide(assessment(1.0, blocks=2), shown())
    assert reason == "it takes 3 to judge by; found 2 opened blocks"
    _, reason = decide(assessment(0.01, blocks=1), shown())
    assert "on 1 opened block;" in reason


def test_a_small_share_of_sessions_is_not_rounded_to_none() -> None:
    _, reason = decide(assessment(0.00042), shown())
    assert "0.00042 of honest sessions" in reason


# The judge around it


def test_where_nothing_was_opened_nothing_is_judged() -> None:
    found = judge().judge(shown())
    assert found.outcome == INCONCLUSIVE
    assert found.reason == "nothing was opened"
    assert found.probability is None
    assert found.interval is None


def test_a_judgement_says_all_that_was_found() -> None:
    seen = evidence(traces()[1])
    found, assessed = judge().judge(seen), judge().assess(seen)
    scores = {score.name: score.value for score in found.scores}
    assert set(scores) == {"p_value", *(f"p_value_{family}" for family in FAMILIES)}
    assert scores["p_value"] == assessed.p_value
    assert found.probability == assessed.probability
    assert found.interval == assessed.estimate.interval
    assert assessed.blocks == len(seen.blocks) + len(seen.token_blocks)
    assert judge().judge(seen) == found


def test_whole_blocks_are_judged_at_their_own_tier() -> None:
    one = judge()
    tiers = {TIERS[0]: calibration(seed=1), TIERS[1]: calibration(seed=2)}
    one = replace(one, calibrations=tiers)
    assert one.assess(evidence(traces()[1])).tier == TIERS[0]
    found = one.assess(evidence(traces()[1], whole=2))
    assert found.tier == TIERS[1]
    assert found.p_value == tiers[TIERS[1]].combined.p_value(found.statistic)


def test_the_family_named_is_the_one_with_the_least_weighted_p_value() -> None:
    one = judge()
    for seed in range(20):
        ratios = np.clip(numbers(9, len(FAMILIES), seed=seed, scale=4.0), -6, 6)
        found = one.assess_ratios(ratios, whole=0)
        assert found.p_values[FAMILIES.index(found.family)] == min(found.p_values)


def test_ratios_of_no_blocks_are_assessed() -> None:
    found = judge().assess_ratios(np.empty((0, len(FAMILIES)), np.float32), whole=0)
    assert found.blocks == 0
    assert decide(found, shown())[0] in (INCONCLUSIVE, FAIL)


# Which judge a policy asks for


@pytest.fixture
def models() -> LabModels:
    """The models of the laboratory."""
    return LabModels(profile())


def test_a_policy_that_names_no_judge_asks_for_its_rules(models: LabModels) -> None:
    assert isinstance(judge_for(policy_naming(), models), CosineJudge)


def test_a_policy_gets_the_judge_that_it_names(models: LabModels, tmp_path: Path) -> None:
    file = write_model(tmp_path / "judge")
    found = judge_for(policy_naming(file.digest), models, tmp_path / "judge")
    assert isinstance(found, LearnedJudge)


@pytest.mark.parametrize("named", [(), (b"\x05" * 32,)], ids=["none", "another"])
def test_a_file_that_the_policy_does_not_name_is_refused(
    models: LabModels, tmp_path: Path, named: tuple[bytes, ...]
) -> None:
    file = write_model(tmp_path / "judge")
    with pytest.raises(ModelMismatchError) as refused:
        judge_for(policy_naming(*named), models, tmp_path / "judge")
    assert file.digest.hex() in str(refused.value)
    assert (named[0].hex() if named else "none") in str(refused.value)


def test_a_judge_of_another_profile_is_refused(tmp_path: Path) -> None:
    file = write_model(tmp_path / "judge")
    other = LabModels(profile(projection=8))
    with pytest.raises(ConfigurationError, match="dimension 12, the profile has 8"):
        judge_for(policy_naming(file.digest), other, tmp_path / "judge")


def test_an_auditor_judges_as_its_policy_says(parties: Parties) -> None:
    policy = policy_naming(b"\x06" * 32)
    with pytest.raises(ConfigurationError):
        parties.auditor(policy=policy)
    assert isinstance(parties.auditor(policy=policy, judge=judge()), Auditor)
    assert isinstance(parties.auditor(policy=policy_naming()), Auditor)
