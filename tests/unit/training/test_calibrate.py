"""Calibrated on honest sessions, a judge accuses no more of fresh ones than it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from coin_protocol.errors import InvalidInputError
from verifier_sdk.semantic.calibration import Calibration
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.training.calibrate import (
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
) -> Audited:
    return Audited(domain, qid, inflated, rounds, NOTHING)


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


def rates(calibration: Calibration, fresh: Sequence[Audited]) -> list[float]:
    p_values = np.array(
        [calibration.combined.p_value(statistic_of(calibration, one)) for one in fresh]
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
    assert 0 < fitted.combined.p_value(100.0) <= 1


@pytest.mark.parametrize(("honest", "inflated"), [(0, 3), (3, 0), (0, 0)])
def test_too_few_sessions_are_counted(honest: int, inflated: int) -> None:
    rng = np.random.default_rng(12)
    found = [one for at in range(honest) for one in session(rng, f"{at}")]
    found += [one for at in range(inflated) for one in session(rng, f"{at}", odd=1.0)]
    with pytest.raises(InvalidInputError, match=f"{honest} honest and {inflated} inflated"):
        calibrate(found)


# Domains


def test_the_smallest_domain_is_counted_in_questions() -> None:
    large = [audited("math", f"m{at % 30}") for at in range(90)]
    small = [audited("code", f"c{at % 12}") for at in range(60)]
    tiny = [audited("chat", f"t{at}") for at in range(20)]
    assert smallest_domain([*large, *small, *tiny]) == 12
    assert smallest_domain([*large, *tiny]) == 30
    assert smallest_domain(tiny) == 20


def test_small_domains_have_no_distribution_of_their_own() -> None:
    large = [(float(at), audited("math", f"m{at}")) for at in range(100)]
    tiny = [(1000.0, audited("chat", f"t{at}")) for at in range(20)]
    several = [(1000.0, audited("code", f"c{at}")) for at in range(60)]
    assert worst_null([*large, *tiny]).p_value(999.0) < 0.2
    assert worst_null([*large, *several]).p_value(999.0) == 1.0 / DOMAIN_ALLOWANCE


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
