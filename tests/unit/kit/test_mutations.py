"""Mutations: each trips its check alone, of every check there are several, and each is needed."""

from __future__ import annotations

import json
from functools import cache
from random import Random

import pytest

from coin_protocol import checks
from coin_protocol.checks import CHECKS, Case, run_checks
from coin_protocol.errors import InvalidInputError
from coin_protocol.testing.evidence_vectors import ATTACKS, document
from coin_protocol.testing.mutations import (
    CODES,
    MUTATIONS,
    VERIFIER_FAULTS,
    Departure,
    Mutation,
    Party,
    Plan,
    Step,
    as_attack,
    evidence,
    mutations_of,
)
from coin_protocol.v1 import receipt_pb2
from tests.unit.test_evidence_vectors import case_of, tiers_of

PLANS = (
    Plan(
        tokens=35,
        steps=(
            Step(blocks=2),
            Step(whole=True),
            Step(blocks=0, token_blocks=2),
            Step(blocks=5, tokens_per_block=8),
        ),
    ),
    Plan(
        tokens=16,
        block_size=4,
        window_tokens=2,
        run_tokens=2,
        summary=True,
        steps=(Step(), Step(whole=True), Step(whole=True), Step()),
    ),
    Plan(tokens=0),
    Plan(tokens=9, manifest=False),
    Plan(tokens=11, installed=False, steps=(Step(whole=True),)),
)

NETS = {
    "SIGNATURE": {"STATEMENT", "KEY_WINDOW"},
    "STATEMENT": {"KEY_WINDOW"},
    "KEY_WINDOW": {"ARRIVAL_TIME"},
    "PROFILE": {"SIZES", "CHECKPOINT_PREFIX"},
    "MANIFEST_ROOT": {"SIZES", "CHECKPOINT_PREFIX"},
    "SIZES": {"CHECKPOINT_PREFIX", "FINGERPRINTS"},
    "FINGERPRINTS": {"INCLUSION_PROOF"},
    "FLIP": {"DRAW"},
    "DRAW": {"OPENING_PRESENT"},
    "OPENING_PRESENT": {"INCLUSION_PROOF"},
    "INCLUSION_PROOF": {"BLOCK_COUNT", "WINDOW_EMBEDDING"},
    "BLOCK_COUNT": {"WHOLE_LEAVES"},
    "LEAF_REPEATED": {"WHOLE_LEAVES"},
    "TOKEN_ROW": {"WHOLE_LEAVES"},
    "WHOLE_LEAVES": {"WHOLE_TEXT"},
}
"""Later checks that catch some of what a check catches, by its code; of others none does."""

BACKED = {"SIGNATURE"}
"""Checks without which nothing of `PLANS` passes: every signature is asked for again."""


def chosen_by(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - nothing is secret


def named(departure: Departure) -> str:
    return departure.name


@cache
def samples(code: str) -> list[tuple[Mutation, Plan, Case]]:
    """Return the mutations of a check, made of each plan that they apply to."""
    return [
        (mutation, plan, mutation.make(plan, chosen_by(2)))
        for mutation in mutations_of(code)
        for plan in PLANS
        if mutation.applies(plan)
    ]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_is_an_honest_audit(plan: Plan) -> None:
    report = run_checks(plan.honest)
    assert report.failed is None, report.detail


def test_the_first_plan_runs_every_check_and_has_answers_and_a_refusal() -> None:
    report = run_checks(PLANS[0].honest)
    assert all(report.passed(code) for code in CODES)
    assert PLANS[0].openings
    assert PLANS[0].whole_openings
    assert PLANS[0].refusals


@pytest.mark.parametrize("code", CODES)
def test_a_mutation_trips_its_check_and_no_earlier_one(code: str) -> None:
    for mutation, plan, case in samples(code):
        report = run_checks(case)
        assert report.failed is not None, mutation.name
        assert report.failed.code == code, (mutation.name, report.detail)
        assert (report.fault, report.outcome) == (mutation.fault, mutation.outcome), mutation.name
        assert evidence(case) != evidence(plan.honest), mutation.name


@pytest.mark.parametrize("code", CODES)
def test_a_check_has_mutations_of_several_kinds(code: str) -> None:
    found = mutations_of(code)
    assert len(found) >= 4
    assert {mutation.name for mutation, _, _ in samples(code)} == set(map(named, found))


def test_every_party_of_the_protocol_departs_somewhere() -> None:
    assert {mutation.by for mutation in MUTATIONS} == set(Party)
    blamed = {m.by for m in MUTATIONS if m.fault == receipt_pb2.FAULT_PROVIDER}
    assert blamed == {Party.PROVIDER}


def test_codes_are_those_of_the_checks_and_no_others_are_known() -> None:
    assert tuple(check.code for check in CHECKS) == CODES
    assert {mutation.code for mutation in MUTATIONS} == set(CODES)
    with pytest.raises(InvalidInputError, match="no check 'NONE'"):
        mutations_of("NONE")


def test_departures_have_names_of_their_own_and_say_in_a_sentence_what_is_wrong() -> None:
    found: list[Departure] = [*MUTATIONS, *VERIFIER_FAULTS]
    assert len(set(map(named, found))) == len(found)
    for departure in found:
        assert departure.about.endswith("."), departure.name
        assert departure.about[0].isupper(), departure.name


def test_mutations_go_beyond_the_fixed_attacks() -> None:
    for code in CODES:
        assert len(mutations_of(code)) > len([a for a in ATTACKS if a.failed == code]), code


def test_a_mutation_that_does_not_apply_says_so() -> None:
    (mutation,) = [one for one in MUTATIONS if one.name == "flip-used-twice"]
    plan = Plan(steps=(Step(),))
    assert not mutation.applies(plan)
    with pytest.raises(InvalidInputError, match="flip-used-twice has no site"):
        mutation.make(plan, chosen_by(1))


@pytest.mark.parametrize("missing", [{"tokens": 0}, {"manifest": False}, {"ready": False}])
def test_a_plan_asks_nothing_of_what_cannot_be_asked(missing: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="a plan with challenges needs"):
        Plan(steps=(Step(),), **missing)  # type: ignore[arg-type] # one of several fields


@pytest.mark.parametrize("code", CODES)
def test_without_its_check_a_mutation_passes_or_is_caught_later(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tuple(check for check in CHECKS if check.code != code)
    monkeypatch.setattr(checks, "CHECKS", others)
    reports = [run_checks(case) for _, _, case in samples(code)]
    caught = {report.failed.code for report in reports if report.failed is not None}
    assert caught == NETS.get(code, set())
    assert all(CODES.index(later) > CODES.index(code) for later in caught)
    assert any(report.failed is None for report in reports) == (code not in BACKED)


@pytest.mark.parametrize("fault", VERIFIER_FAULTS, ids=named)
def test_what_a_verifier_writes_wrongly_is_no_finding(fault: Departure) -> None:
    made = [
        fault.make(plan, chosen_by(seed))
        for plan in PLANS
        for seed in (1, 2)
        if fault.applies(plan)
    ]
    assert made
    for case in made:
        with pytest.raises(InvalidInputError):
            run_checks(case)


@pytest.mark.parametrize("code", CODES)
def test_a_mutated_audit_is_a_vector(code: str) -> None:
    for mutation, _, case in samples(code)[:3]:
        vector = json.loads(document(as_attack(mutation, case)))
        read = case_of(vector)
        report = run_checks(read)
        assert evidence(read) == evidence(case)
        assert report.failed is not None
        assert vector["expect"] == {
            "failed": code,
            "outcome": receipt_pb2.Outcome.Name(report.outcome),
            "fault": receipt_pb2.Fault.Name(report.fault),
            "tiers": tiers_of(read, report),
        }


def test_a_manifest_asked_for_in_vain_is_no_vector() -> None:
    (mutation,) = [one for one in MUTATIONS if one.name == "manifest-withheld"]
    with pytest.raises(InvalidInputError, match="in vain"):
        as_attack(mutation, mutation.make(PLANS[0], chosen_by(1)))
