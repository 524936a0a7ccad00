"""Calibrated on honest sessions, a judge accuses no more of fresh ones than it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from coin_protocol.errors import InvalidInputError
from verifier_sdk.semantic.calibration import (
    GROUPS,
    LEAST_QUESTIONS,
    SIZES,
    Calibration,
    group_of,
)
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.training.calibrate import (
    _FEW,
    _FEW_QUESTIONS,
    _SMALLEST_DOMAIN,
    _SUBJECT_QUESTIONS,
    DOMAIN_ALLOWANCE,
    SHARES_OF_ALARMS,
    Audited,
    _odds,
    calibrate,
    smallest_domain,
    statistic_of,
    worst_null,
)

NOTHING = np.empty((0, 4), np.float32)
LEVELS = (0.01, 0.04, 0.15)


def audited(
    domain: str,
    qid: str,
    rounds: Sequence[tuple[Floats, int]] = (),
    *,
    inflated: bool = False,
    block_size: int = 256,
    code: bool = False,
    subject: int = UNKNOWN_SUBJECT,
) -> Audited:
    return Audited(domain, qid, block_size, code, inflated, rounds, NOTHING, subject)


def session(
    rng: np.random.Generator,
    qid: str,
    domain: str = "math",
    *,
    odd: float = 0.0,
    draws: int = 1,
    noise: float = 0.3,
    ties: bool = False,
) -> list[Audited]:
    """Return draws of a session whose evidence is that of its question, with some noise.

    Evidence grows with the number of blocks, and the families hang together: neither may
    matter to the rate of false alarms.
    """
    blocks = int(rng.choice([1, 2, 4, 8, 12, 40]))
    own = rng.normal(size=len(FAMILIES)) + rng.normal() + odd
    found = []
    for _ in range(draws):
        rounds = []
        for share in (0.5, 0.75, 1.0):
            count = max(1, round(share * blocks))
            evidence = (own + noise * rng.normal(size=len(FAMILIES))) * np.log2(1 + count)
            evidence = np.maximum(evidence, 0) if ties else evidence
            rounds.append((evidence.astype(np.float32), count))
        found.append(audited(domain, qid, rounds, inflated=odd > 0))
    return found


def odder(
    rng: np.random.Generator,
    name: str,
    count: int,
    shift: float,
    *,
    code: bool = False,
    subject: int = UNKNOWN_SUBJECT,
) -> list[Audited]:
    """Return honest sessions of a kind whose evidence is as much greater than that of others."""
    found = []
    for number in range(count):
        (one,) = session(rng, f"{name} {number}")
        rounds = [(evidence + np.float32(shift), blocks) for evidence, blocks in one.rounds]
        found.append(audited("math", one.qid, rounds, code=code, subject=subject))
    return found


def rates(calibration: Calibration, fresh: Sequence[Audited]) -> list[float]:
    p_values = np.array(
        [
            calibration.p_value(
                statistic_of(calibration, one), one.block_size, code=one.code, subject=one.subject
            )
            for one in fresh
        ]
    )
    return [float((p_values <= level).mean()) for level in LEVELS]


@pytest.mark.parametrize("ties", [False, True], ids=["continuous", "often zero"])
@pytest.mark.parametrize(("questions", "draws"), [(100, 1), (300, 1), (150, 3)])
def test_fresh_honest_sessions_are_accused_no_more_often_than_said(
    questions: int, draws: int, *, ties: bool
) -> None:
    rng = np.random.default_rng([questions, draws, ties])
    found = []
    for _ in range(5):
        honest = [
            one
            for number in range(questions)
            for one in session(rng, f"{number}", draws=draws, ties=ties)
        ]
        inflated = [one for at in range(30) for one in session(rng, f"{at}", odd=4.0)]
        fitted = calibrate([*honest, *inflated])
        fresh = [one for at in range(400) for one in session(rng, f"new {at}", ties=ties)]
        found.append(rates(fitted, fresh))
    for level, rate in zip(LEVELS, np.mean(found, axis=0), strict=True):
        # Chance: of the fresh sessions, and of the thresholds, which rest on the questions.
        noise = (level * (1 - level) * (1 / 2000 + 1 / (5 * questions))) ** 0.5
        assert rate <= level + 3 * noise + 1 / questions


def test_the_rate_holds_overall_and_twice_it_in_the_domain_where_it_is_worst() -> None:
    rng = np.random.default_rng(8)
    domains = {"math": 400, "code": 150}

    def made(domain: str, count: int, name: str) -> list[Audited]:
        # Code is odder, and fewer questions.
        shift = 1.5 if domain == "code" else 0.0
        found = []
        for number in range(count):
            one = session(rng, f"{name}{domain}{number}", domain)[0]
            rounds = [(evidence + np.float32(shift), blocks) for evidence, blocks in one.rounds]
            found.append(audited(domain, one.qid, rounds))
        return found

    honest = [one for domain, count in domains.items() for one in made(domain, count, "")]
    inflated = [one for at in range(60) for one in session(rng, f"{at}", odd=5.0)]
    fitted = calibrate([*honest, *inflated])
    fresh = {domain: made(domain, 3 * count, "new ") for domain, count in domains.items()}
    parts = {**fresh, "all": [one for found in fresh.values() for one in found]}
    for domain, found in parts.items():
        allowed = 1.0 if domain == "all" else DOMAIN_ALLOWANCE
        for level, rate in zip(LEVELS, rates(fitted, found), strict=True):
            wanted, count = allowed * level, len(found) / 3
            noise = (wanted * (1 - wanted) * (1 / len(found) + 1 / count)) ** 0.5
            assert rate <= wanted + 3 * noise + 1 / count, domain


def test_inflated_sessions_have_small_p_values_and_high_probabilities() -> None:
    rng = np.random.default_rng(9)
    honest = [one for at in range(200) for one in session(rng, f"{at}")]
    inflated = [one for at in range(200) for one in session(rng, f"{at}", odd=5.0)]
    fitted = calibrate([*honest, *inflated])
    fresh = [one for at in range(200) for one in session(rng, f"new {at}", odd=5.0)]
    assert rates(fitted, fresh)[1] > 0.5
    own = [fitted.probability(statistic_of(fitted, one)) for one in fresh]
    others = [
        fitted.probability(statistic_of(fitted, session(rng, f"x{at}")[0])) for at in range(200)
    ]
    assert np.mean(own) > 0.7
    assert np.mean(others) < 0.3


def test_shares_of_the_false_alarms_are_weights() -> None:
    assert set(SHARES_OF_ALARMS) == set(FAMILIES)
    rng = np.random.default_rng(10)
    found = [one for at in range(40) for one in session(rng, f"{at}")]
    found += [one for at in range(9) for one in session(rng, f"{at}", odd=2.0)]
    assert calibrate(found).weights.sum() == pytest.approx(1.0)
    assert (calibrate(found).weights > 0).all()


def test_one_question_is_calibrated_on_itself() -> None:
    rng = np.random.default_rng(11)
    found = [*session(rng, "a", draws=3), *session(rng, "a", odd=3.0)]
    fitted = calibrate(found)
    for code in (False, True):
        assert all(0 < fitted.p_value(100.0, size, code=code) <= 1 for size in (256, 512, 1024))


@pytest.mark.parametrize(("honest", "inflated"), [(0, 3), (3, 0), (0, 0)])
def test_too_few_sessions_are_counted(honest: int, inflated: int) -> None:
    rng = np.random.default_rng(12)
    found = [one for at in range(honest) for one in session(rng, f"{at}")]
    found += [one for at in range(inflated) for one in session(rng, f"{at}", odd=1.0)]
    with pytest.raises(InvalidInputError, match=f"{honest} honest and {inflated} inflated"):
        calibrate(found)


# Block sizes


def of_size(
    block_size: int, count: int, evidence: float, *, blocks: int = 5, code: bool = False
) -> list[Audited]:
    rounds = [(np.full(len(FAMILIES), evidence, np.float32), blocks)]
    return [
        audited(
            "math", f"{block_size} {blocks} {code} {at}", rounds, block_size=block_size, code=code
        )
        for at in range(count)
    ]


def test_each_class_of_block_sizes_has_distributions_of_its_own() -> None:
    # What is odd among small blocks is usual among large ones.
    found = [*of_size(256, 60, 0.0), *of_size(1024, 60, 9.0)]
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*found, inflated])
    assert len(fitted.families) == len(fitted.combined) == SIZES
    assert all(len(groups) == GROUPS for groups in fitted.families)
    evidence = np.full(len(FAMILIES), 9.0, np.float32)
    small, large = (fitted.family_p_values(evidence, 5, size) for size in (256, 1024))
    assert (small < 0.05).all()
    assert (large > 0.9).all()
    (odd,), (usual,) = of_size(256, 1, 9.0), of_size(1024, 1, 9.0)
    assert fitted.p_value(statistic_of(fitted, odd), 256, code=False) < 0.05
    assert fitted.p_value(statistic_of(fitted, usual), 1024, code=False) > 0.9


@pytest.mark.parametrize(("count", "own"), [(_FEW - 1, False), (_FEW, True)])
def test_a_class_of_few_sessions_is_compared_with_all(count: int, *, own: bool) -> None:
    found = [*of_size(256, 200, 0.0), *of_size(512, count, 9.0)]
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*found, inflated])
    p_values = fitted.family_p_values(np.full(len(FAMILIES), 9.0), 5, 512)
    assert (p_values > 0.9).all() == own
    # Nothing was seen of this class at all.
    everyone, (one,) = fitted.family_p_values(np.full(len(FAMILIES), 9.0), 5, 1024), p_values[:1]
    assert everyone[0] == pytest.approx((count + 1) / (count + 201), rel=0.02)
    assert (one == everyone[0]) == (not own)


def test_a_group_of_few_rounds_is_compared_with_its_class() -> None:
    found = [
        *of_size(256, 60, 0.0),
        *of_size(256, _FEW - 1, 9.0, blocks=20),
        *of_size(1024, 60, 20.0),
    ]
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*found, inflated])
    evidence = np.full(len(FAMILIES), 9.0)
    few, many = (float(fitted.family_p_values(evidence, blocks, 256)[0]) for blocks in (20, 5))
    assert few == pytest.approx(_FEW / (60 + _FEW), rel=0.02)
    assert many < 0.05


def test_what_falls_back_is_reckoned_once() -> None:
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    found = [*of_size(256, 60, 0.0), *of_size(1024, 60, 20.0), inflated]
    small, middle, large = calibrate(found).families
    others = [group for group in range(GROUPS) if group != group_of(5)]
    for groups in (small, middle, large):
        assert all(groups[group] is groups[others[0]] for group in others)
    # Each class falls back on its own sessions, one without any on those of all.
    p_values = [groups[others[0]][0].p_value(20.0) for groups in (small, middle, large)]
    assert p_values == pytest.approx([1 / 61, 61 / 121, 1.0], abs=0.01)


def test_the_rate_holds_for_each_size_of_blocks() -> None:
    rng = np.random.default_rng(15)
    sizes = {256: 0.0, 512: 1.0, 1024: 3.0}

    def made(size: int, count: int, name: str) -> list[Audited]:
        # The larger the blocks, the odder they look.
        found = []
        for number in range(count):
            (one,) = session(rng, f"{name}{size} {number}")
            rounds = [
                (evidence + np.float32(sizes[size]), blocks) for evidence, blocks in one.rounds
            ]
            found.append(audited("math", one.qid, rounds, block_size=size))
        return found

    honest = [one for size in sizes for one in made(size, 200, "")]
    inflated = [one for at in range(30) for one in session(rng, f"{at}", odd=5.0)]
    fitted = calibrate([*honest, *inflated])
    for size in sizes:
        for level, rate in zip(LEVELS, rates(fitted, made(size, 600, "new ")), strict=True):
            noise = (level * (1 - level) * (1 / 600 + 1 / 200)) ** 0.5
            assert rate <= level + 3 * noise + 1 / 200, size


# Code


def near(
    rng: np.random.Generator,
    name: str,
    count: int,
    evidence: float,
    *,
    domain: str = "math",
    block_size: int = 256,
    code: bool = False,
    subject: int = UNKNOWN_SUBJECT,
) -> list[Audited]:
    """Return sessions of so many questions, their evidence about this for every family."""
    found = []
    for at in range(count):
        own = np.full(len(FAMILIES), evidence + 0.3 * rng.normal(), np.float32)
        qid = f"{name} {domain} {block_size} {at}"
        rounds = [(own, 5)]
        found.append(
            audited(domain, qid, rounds, block_size=block_size, code=code, subject=subject)
        )
    return found


@pytest.mark.parametrize(("count", "own"), [(_FEW - 1, False), (_FEW, True)])
def test_code_has_a_distribution_of_its_own_if_there_is_enough(count: int, *, own: bool) -> None:
    rng = np.random.default_rng(17)
    found = [*near(rng, "a", 200, 0.0), *near(rng, "b", count, 9.0, code=True)]
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*found, inflated])
    fresh = [statistic_of(fitted, one) for one in near(rng, "new", 100, 9.0)]
    plain, code = (
        np.array([fitted.p_value(statistic, 256, code=code) for statistic in fresh])
        for code in (False, True)
    )
    # What is odd elsewhere is usual in code, which is no excuse for others.
    assert np.median(plain) < 0.15
    assert (np.median(code) > 0.3) == own
    assert (code >= plain).all()
    assert np.array_equal(code, plain) != own


def test_sessions_with_code_are_never_judged_by_less_than_others() -> None:
    # Code that looks less odd than all else: what is odd elsewhere is no odder here.
    found = [*of_size(256, 200, 9.0), *of_size(256, 100, 0.0, code=True)]
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*found, inflated])
    for value in np.linspace(-3, 12, 60).tolist():
        plain, code = (fitted.p_value(value, 256, code=code) for code in (False, True))
        assert code >= plain
        # But for what no session showed: the fewer there were, the less can be said of it.
        assert code == plain or code == pytest.approx(1 / 101)


def test_where_all_is_code_others_are_compared_with_it() -> None:
    found = of_size(256, 100, 0.0, code=True)
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*found, inflated])
    (odd,), (usual,) = of_size(256, 1, 9.0), of_size(256, 1, 0.0)
    for code in (False, True):
        assert fitted.p_value(statistic_of(fitted, usual), 256, code=code) == 1.0
        assert fitted.p_value(statistic_of(fitted, odd), 256, code=code) < 0.02


def test_the_rate_holds_with_code_and_without() -> None:
    rng = np.random.default_rng(16)
    kinds = {False: 300, True: 120}

    def made(name: str, count: int, *, code: bool) -> list[Audited]:
        return odder(rng, f"{name}{code}", count, 2.0 * code, code=code)

    honest = [one for code, count in kinds.items() for one in made("", count, code=code)]
    inflated = [one for at in range(30) for one in session(rng, f"{at}", odd=5.0)]
    fitted = calibrate([*honest, *inflated])
    for code, count in kinds.items():
        found = rates(fitted, made("new ", 600, code=code))
        for level, rate in zip(LEVELS, found, strict=True):
            noise = (level * (1 - level) * (1 / 600 + 1 / count)) ** 0.5
            assert rate <= level + 3 * noise + 1 / count, code


# Subjects


@pytest.mark.parametrize(
    ("count", "own"), [(_SUBJECT_QUESTIONS - 1, False), (_SUBJECT_QUESTIONS, True)]
)
def test_a_subject_has_a_distribution_of_its_own_if_it_has_questions_enough(
    count: int, *, own: bool
) -> None:
    rng = np.random.default_rng(18)
    found = [*near(rng, "a", 200, 0.0, subject=0), *near(rng, "b", count, 9.0, subject=1)]
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*found, inflated], subjects=2)
    assert len(fitted.subjects) == 2
    fresh = [statistic_of(fitted, one) for one in near(rng, "new", 100, 9.0)]
    about = [
        np.array([fitted.p_value(value, 256, code=False, subject=one) for value in fresh])
        for one in (0, 1, UNKNOWN_SUBJECT)
    ]
    # What is odd elsewhere is usual there, which is no excuse for others.
    assert np.median(about[0]) < 0.15
    assert (np.median(about[1]) > 0.3) == own
    assert np.array_equal(about[2], np.maximum(about[0], about[1]))


def test_the_rate_holds_on_each_subject() -> None:
    rng = np.random.default_rng(19)
    counts = (300, 120)

    def made(name: str, count: int, subject: int) -> list[Audited]:
        return odder(rng, f"{name}{subject}", count, 2.0 * subject, subject=subject)

    honest = [one for subject, count in enumerate(counts) for one in made("", count, subject)]
    inflated = [one for at in range(30) for one in session(rng, f"{at}", odd=5.0)]
    fitted = calibrate([*honest, *inflated], subjects=2)
    for subject, count in enumerate(counts):
        found = rates(fitted, made("new ", 600, subject))
        for level, rate in zip(LEVELS, found, strict=True):
            noise = (level * (1 - level) * (1 / 600 + 1 / count)) ** 0.5
            assert level / 4 - 3 * noise <= rate <= level + 3 * noise + 1 / count, subject


def test_questions_are_counted_by_kind_whatever_their_sessions() -> None:
    rng = np.random.default_rng(21)
    found = [
        *odder(rng, "a", 3, 0.0, subject=0),
        *odder(rng, "b", 2, 0.0, subject=1, code=True),
        *odder(rng, "b", 1, 0.0, subject=0, code=True),
        *session(rng, "i", odd=3.0),
    ]
    assert calibrate(found, subjects=3).questions.tolist() == [2, 4, 2, 0]
    assert calibrate(found).questions.tolist() == [2]


def test_without_subjects_none_are_told_apart() -> None:
    rng = np.random.default_rng(20)
    found = [*session(rng, "a", draws=3), *session(rng, "a", odd=3.0)]
    assert calibrate(found).subjects == ()


# Domains


def domain(name: str, questions: int) -> list[Audited]:
    """Return three honest sessions of each of so many questions."""
    return [audited(name, f"{name} {at % questions}") for at in range(3 * questions)]


def test_the_smallest_domain_is_counted_in_questions() -> None:
    large, small = domain("math", _FEW_QUESTIONS + 9), domain("code", _FEW_QUESTIONS)
    assert smallest_domain([*large, *small]) == _FEW_QUESTIONS
    assert smallest_domain(large) == _FEW_QUESTIONS + 9
    # Inflated sessions calibrate nothing.
    inflated = [audited("code", f"x{at}", inflated=True) for at in range(90)]
    assert smallest_domain([*large, *small, *inflated]) == _FEW_QUESTIONS


def test_domains_of_few_questions_count_as_one() -> None:
    large, most = domain("math", _FEW_QUESTIONS), domain("chat", _FEW_QUESTIONS - 1)
    few = domain("law", 5)
    assert smallest_domain([*large, *most]) == _FEW_QUESTIONS - 1
    assert smallest_domain([*large, *few]) == smallest_domain(few) == 5
    # Together they are the larger one.
    assert smallest_domain([*large, *most, *few]) == _FEW_QUESTIONS
    assert smallest_domain([*most, *few]) == _FEW_QUESTIONS + 4


def test_small_domains_have_no_distribution_of_their_own() -> None:
    large = [(float(at), audited("math", f"m{at}")) for at in range(100)]
    tiny = [(1000.0, audited("chat", f"t{at}")) for at in range(20)]
    several = [(1000.0, audited("code", f"c{at}")) for at in range(60)]
    assert worst_null([*large, *tiny]).p_value(999.0) < 0.2
    assert worst_null([*large, *several]).p_value(999.0) == 1.0 / DOMAIN_ALLOWANCE


@pytest.mark.parametrize(
    ("sessions", "questions", "own"),
    [
        (_SMALLEST_DOMAIN, LEAST_QUESTIONS, True),
        (_SMALLEST_DOMAIN - 1, LEAST_QUESTIONS, False),
        (_SMALLEST_DOMAIN, LEAST_QUESTIONS - 1, False),
        (_SMALLEST_DOMAIN, 1, False),
    ],
)
def test_a_domain_needs_sessions_and_questions_for_a_distribution_of_its_own(
    sessions: int, questions: int, *, own: bool
) -> None:
    large = [(float(at), audited("math", f"m{at}")) for at in range(600)]
    odd = [(1000.0, audited("code", f"c{at % questions}")) for at in range(sessions)]
    found = worst_null([*large, *odd]).p_value(999.0)
    # Without one it is a part of all sessions, as much as it weighs among them.
    weight = sessions * (sessions / questions) ** -0.5
    share = weight / (weight + 600)
    assert found == pytest.approx(1.0 / DOMAIN_ALLOWANCE if own else share, abs=0.006)


@pytest.mark.parametrize(("count", "own"), [(29, False), (30, True)])
def test_a_domains_sessions_of_all_block_sizes_count_together(count: int, *, own: bool) -> None:
    assert _SMALLEST_DOMAIN == 60
    rng = np.random.default_rng(18)

    def law(name: str, count: int) -> list[Audited]:
        return [
            one
            for size in (256, 1024)
            for one in near(rng, name, count, 9.0, domain="law", block_size=size)
        ]

    large = [one for size in (256, 1024) for one in near(rng, "a", 300, 0.0, block_size=size)]
    inflated = audited("math", "i", [(np.full(len(FAMILIES), 12.0, np.float32), 5)], inflated=True)
    fitted = calibrate([*large, *law("b", count), inflated])
    found = np.median(
        [fitted.p_value(statistic_of(fitted, one), one.block_size, code=False)
         for one in law("new", 50)]
    )  # fmt: skip
    # Among all sessions they are the oddest eleventh; a domain may be accused twice as often.
    assert (found > 0.15) == own
    assert found == pytest.approx(0.5 / DOMAIN_ALLOWANCE if own else 0.045, rel=0.4)


# Probabilities


def test_odds_never_fall_with_the_statistic() -> None:
    rng = np.random.default_rng(13)
    for shift in (0.0, 0.5, 2.0, -2.0):
        found = _odds(rng.normal(size=300), rng.normal(shift, 1, 200))
        assert (np.diff(found[0]) >= 0).all()
        assert (np.diff(found[1]) >= -1e-6).all()
        assert np.isfinite(found).all()


def test_odds_are_those_of_equal_numbers_of_both_kinds() -> None:
    rng = np.random.default_rng(14)
    honest, inflated = rng.normal(0, 1, 4000), rng.normal(2, 1, 500)
    found = _odds(honest, inflated)
    at = np.array([0.0, 1.0, 2.0])
    assert np.allclose(np.interp(at, *found), 2 * at - 2, atol=0.6)


def test_where_all_statistics_are_alike_a_session_says_nothing() -> None:
    assert _odds(np.zeros(9), np.zeros(4)).tolist() == [[0.0], [0.0]]
