"""From an assessment to an outcome, and which judge a policy asks for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coin_protocol.errors import ConfigurationError, ModelMismatchError
from coin_protocol.profile import Policy
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.v1 import profile_pb2, receipt_pb2
from tests.support.judges import (
    SUBJECTS,
    accusing,
    calibration,
    evidence,
    judge,
    learned_rules,
    numbers,
    policy_naming,
    session_ratios,
    visible,
    write_model,
)
from tests.support.laboratory import LabModels, profile, trace, traces
from tests.support.parties import Parties
from verifier_sdk.auditor import Auditor
from verifier_sdk.semantic import CosineJudge
from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.semantic.detectors import ShareEstimate
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT
from verifier_sdk.semantic.judge import OpenedEvidence, Visible
from verifier_sdk.semantic.learned import Assessment, LearnedJudge, decide

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE

RULES = learned_rules()
FALSE_ALARMS, GUARD = RULES.false_alarms, RULES.guard
EARLY_PASS, LEAST_BLOCKS = RULES.early_pass, RULES.least_blocks


def assessment(
    p_value: float, *, blocks: int = 8, family: str = "bag", accusable: bool = True
) -> Assessment:
    estimate = ShareEstimate(7.0, 0.4, (0.25, 0.625))
    ratios = session_ratios(np.zeros((blocks, len(FAMILIES)), np.float32))
    return Assessment(TIERS[0], p_value, 0.5, family, estimate, [p_value], 3.0, accusable, ratios)


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
    found, _ = decide(assessment(p_value, blocks=blocks), shown(rounds=rounds, last=last), RULES)
    assert found == outcome


def test_outcomes_are_by_the_policys_own_rules() -> None:
    rules = profile_pb2.LearnedRules(false_alarms=0.2, guard=0.3, early_pass=[0.9], least_blocks=9)

    def outcome(p_value: float, **seen: Any) -> receipt_pb2.Outcome.ValueType:
        return decide(assessment(p_value, blocks=9), shown(**seen), rules)[0]

    assert outcome(0.2) == FAIL
    assert outcome(0.25) == outcome(0.3) == INCONCLUSIVE
    assert outcome(0.31) == PASS
    assert outcome(0.9, rounds=1, last=False) == INCONCLUSIVE
    # Rounds that early_pass has no number for pass as the last one does.
    assert outcome(0.31, rounds=2, last=False) == PASS
    found, reason = decide(assessment(1.0, blocks=8), shown(), rules)
    assert (found, reason) == (INCONCLUSIVE, "it takes 9 to judge by; found 8 opened blocks")


def test_a_judge_decides_by_the_rules_that_it_was_given() -> None:
    seen = evidence(traces()[1])
    p_value = judge().assess(seen).p_value
    lax = profile_pb2.LearnedRules(false_alarms=p_value, guard=1.0, least_blocks=1)
    assert replace(judge(), rules=lax).judge(seen).outcome == FAIL
    kind = profile_pb2.LearnedRules(false_alarms=p_value / 3, guard=p_value / 2, least_blocks=1)
    assert replace(judge(), rules=kind).judge(seen).outcome == PASS


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("p_value", [0.01, 0.1, 0.9])
def test_every_reason_is_one_sentence_for_people(family: str, p_value: float) -> None:
    _, reason = decide(assessment(p_value, family=family), shown(), RULES)
    assert re.fullmatch(r"[^\n.]*(\d\.\d+[^\n.]*)*", reason)
    assert reason[0].isalnum()
    assert "_" not in reason
    assert 20 < len(reason) < 200
    assert "8 opened blocks" in reason


def test_a_failed_session_is_told_what_it_looks_like_how_often_and_how_much() -> None:
    _, reason = decide(assessment(0.0123, family="retrieved"), shown(), RULES)
    assert reason == (
        "the blocks look like text taken from other questions: 0.012 of honest sessions look so "
        "at most, on 8 opened blocks; inflated share 25% to 62%"
    )


def test_too_few_blocks_are_counted_in_good_english() -> None:
    _, reason = decide(assessment(1.0, blocks=1), shown(), RULES)
    assert reason == "it takes 3 to judge by; found 1 opened block"
    _, reason = decide(assessment(1.0, blocks=2), shown(), RULES)
    assert reason == "it takes 3 to judge by; found 2 opened blocks"
    _, reason = decide(assessment(0.01, blocks=1), shown(), RULES)
    assert "on 1 opened block;" in reason


def test_a_small_share_of_sessions_is_not_rounded_to_none() -> None:
    _, reason = decide(assessment(0.00042), shown(), RULES)
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
    assert found.p_value == tiers[TIERS[1]].p_value(found.statistic, 256, code=False)


def test_p_values_are_among_sessions_of_blocks_of_this_size() -> None:
    one = judge()
    values = np.clip(numbers(9, len(FAMILIES), scale=4.0), -6, 6)
    found = [one.assess_ratios(session_ratios(values, block_size=size)) for size in (256, 1024)]
    own = one.calibrations[TIERS[0]]
    for assessed, size in zip(found, (256, 1024), strict=True):
        assert assessed.p_value == own.p_value(assessed.statistic, size, code=False)
    assert found[0].p_values != found[1].p_values


def test_sessions_about_code_are_compared_with_others_about_code() -> None:
    one = judge()
    values = np.clip(numbers(9, len(FAMILIES), scale=4.0), -6, 6)
    plain, code = (one.assess_ratios(session_ratios(values, code=code)) for code in (False, True))
    own = one.calibrations[TIERS[0]]
    assert plain.p_value == own.p_value(plain.statistic, 256, code=False)
    assert code.p_value == own.p_value(plain.statistic, 256, code=True)
    # Nothing else depends on it.
    assert replace(code, p_value=plain.p_value) == plain


def test_sessions_are_compared_with_those_on_questions_like_their_own() -> None:
    one = judge()
    own = one.calibrations[TIERS[0]]
    values = np.clip(numbers(9, len(FAMILIES), scale=4.0), -6, 6)
    statistic = one.assess_ratios(session_ratios(values)).statistic
    for subject in (UNKNOWN_SUBJECT, *range(SUBJECTS)):
        found = one.assess_ratios(session_ratios(values, subject=subject))
        assert found.p_value == own.p_value(statistic, 256, code=False, subject=subject)
    asked = replace(evidence(traces()[1]), visible=visible(traces()[1]))
    prompt = asked.visible.prompt
    assert prompt is not None
    assert judge().ratios(asked).subject == judge().heads.subject_of(prompt.embedding)
    unseen = replace(asked, visible=replace(asked.visible, prompt=None))
    assert judge().ratios(unseen).subject == UNKNOWN_SUBJECT


def test_a_session_of_a_kind_that_is_little_known_fails_by_what_no_honest_one_showed() -> None:
    one = judge()
    own = one.calibrations[TIERS[0]]
    few = replace(own, questions=own.questions - np.eye(1 + SUBJECTS, dtype=np.float32)[0])
    one = replace(one, calibrations={**one.calibrations, TIERS[0]: few})
    values = np.clip(numbers(9, len(FAMILIES), scale=4.0), -6, 6)
    plain, code = (one.assess_ratios(session_ratios(values, code=code)) for code in (False, True))
    assert plain.accusable
    assert not code.accusable
    assert decide(replace(code, p_value=FALSE_ALARMS), shown(), RULES)[0] == INCONCLUSIVE
    assert decide(replace(code, p_value=FALSE_ALARMS, accusable=True), shown(), RULES)[0] == FAIL


@pytest.mark.parametrize("p_value", [FALSE_ALARMS, GUARD, 1.0])
def test_who_cannot_be_accused_is_only_spared_a_fail(p_value: float) -> None:
    outcome, reason = decide(assessment(p_value, accusable=False), shown(), RULES)
    known, said = decide(assessment(p_value), shown(), RULES)
    if known == FAIL:
        assert outcome == INCONCLUSIVE
        assert reason.startswith("the judge knows too few questions like this one")
        assert reason.endswith(said)
    else:
        assert (outcome, reason) == (known, said)


def test_an_answer_in_code_makes_a_session_one_about_code() -> None:
    seen = evidence(traces()[1])
    answered = replace(seen, visible=visible(trace("", answer="```\nx = 1\n```", question="")))
    assert not judge().ratios(seen).code
    assert judge().ratios(answered).code
    found = judge().assess(answered)
    own = judge().calibrations[TIERS[0]]
    assert found.p_value == own.p_value(found.statistic, 256, code=True)


def test_the_family_named_is_the_one_with_the_least_weighted_p_value() -> None:
    one = judge()
    for seed in range(20):
        values = np.clip(numbers(9, len(FAMILIES), seed=seed, scale=4.0), -6, 6)
        found = one.assess_ratios(session_ratios(values))
        assert found.p_values[FAMILIES.index(found.family)] == min(found.p_values)


def test_ratios_of_no_blocks_are_assessed() -> None:
    found = judge().assess_ratios(session_ratios(np.empty((0, len(FAMILIES)), np.float32)))
    assert found.blocks == 0
    assert decide(found, shown(), RULES)[0] in (INCONCLUSIVE, FAIL)


# Styles that the reader of blocks does not know

REAL_TEXT = ("retrieved", "shuffled", "ngram", "replayed")

ANSWER = " ".join(traces()[1].reasoning.split()[:400])


def answered(text: str = ANSWER, *, whole: int = 0) -> OpenedEvidence:
    return replace(
        evidence(traces()[1], whole=whole), visible=visible(trace("", answer=text, question=""))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_is_accused_of_real_text_where_the_answers_style_is_unknown(family: str) -> None:
    one, seen = accusing(**{family: 50.0}), answered()
    found = one.assess(seen)
    assert found.family == family
    assert replace(one, answer_limit=13.0).decide(found, seen) == decide(found, seen, RULES)
    outcome, reason = replace(one, answer_limit=-13.0).decide(found, seen)
    if family in REAL_TEXT:
        assert outcome == INCONCLUSIVE
        assert "style" in reason
    else:
        assert (outcome, reason) == decide(found, seen, RULES)
        assert outcome == FAIL


@pytest.mark.parametrize("family", REAL_TEXT)
def test_other_filler_is_found_whatever_the_answers_style(family: str) -> None:
    one, seen = replace(accusing(**{family: 60.0, "echoed": 40.0}), answer_limit=-13.0), answered()
    found = one.assess(seen)
    assert found.family == family
    outcome, reason = one.decide(found, seen)
    assert outcome == FAIL
    assert "look like the prompt or answer repeated" in reason


def test_spared_families_are_accused_of_nothing() -> None:
    one = accusing(retrieved=60.0, echoed=40.0)
    ratios = session_ratios(np.zeros((9, len(FAMILIES)), np.float32))
    every, others = one.assess_ratios(ratios), one.assess_ratios(ratios, spared=REAL_TEXT)
    assert (every.family, others.family) == ("retrieved", "echoed")
    assert every.p_values[FAMILIES.index("echoed")] == others.p_values[FAMILIES.index("echoed")]
    assert all(others.p_values[FAMILIES.index(family)] == 1.0 for family in REAL_TEXT)
    assert one.assess_ratios(ratios, spared=FAMILIES).p_value == 1.0


def test_an_unknown_style_fails_nobody_who_would_pass() -> None:
    found = assessment(1.0, family="retrieved")
    assert replace(judge(), answer_limit=-13.0).decide(found, answered())[0] == PASS


@pytest.mark.parametrize("text", ["", "42 it is."])
def test_an_answer_too_short_to_tell_is_of_no_unknown_style(text: str) -> None:
    one = replace(accusing(retrieved=50.0), answer_limit=-13.0)
    assert one.decide(one.assess(answered(text)), answered(text))[0] == FAIL
    assert one.assess(answered(text, whole=2)).tier == TIERS[1]


def test_blocks_are_not_read_whole_where_the_answers_style_is_unknown() -> None:
    seen = answered(whole=2)
    one = replace(judge(), answer_limit=-13.0)
    assert judge().assess(seen).tier == TIERS[1]
    assert one.assess(seen) == one.assess(replace(seen, whole_blocks=()))
    assert one.assess(seen).tier == TIERS[0]


# Which judge a policy asks for


@pytest.fixture
def models() -> LabModels:
    """The models of the laboratory."""
    return LabModels(profile())


def test_a_policy_that_names_no_judge_asks_for_its_rules(models: LabModels) -> None:
    assert isinstance(judge_for(policy_naming(), models), CosineJudge)
    assert isinstance(judge_for(Policy(b"", rules_policy()), models), CosineJudge)


def test_a_policy_gets_the_judge_that_it_names(models: LabModels, tmp_path: Path) -> None:
    file = write_model(tmp_path / "judge")
    policy = policy_naming(file.digest)
    found = judge_for(policy, models, tmp_path / "judge")
    assert isinstance(found, LearnedJudge)
    assert found.rules == policy.message.learned_rules == RULES


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


def test_a_judge_of_other_rounds_is_refused(models: LabModels, tmp_path: Path) -> None:
    file = write_model(tmp_path / "judge")
    message = policy_naming(file.digest).message
    message.rounds.blocks_per_round = 7
    policy = Policy.from_bytes(message.SerializeToString())
    with pytest.raises(ConfigurationError, match=r"blocks_per_round=6 .* blocks_per_round=7"):
        judge_for(policy, models, tmp_path / "judge")


def test_an_auditor_judges_as_its_policy_says(parties: Parties) -> None:
    policy = policy_naming(b"\x06" * 32)
    with pytest.raises(ConfigurationError):
        parties.auditor(policy=policy)
    assert isinstance(parties.auditor(policy=policy, judge=judge()), Auditor)
    assert isinstance(parties.auditor(policy=policy_naming()), Auditor)
