"""Mutations of arbitrary honest audits: what holds of a few fixed plans holds of any."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from coin_protocol.checks import Case, run_checks
from coin_protocol.errors import InvalidInputError
from coin_protocol.testing.mutations import (
    CODES,
    MUTATIONS,
    VERIFIER_FAULTS,
    Departure,
    Mutation,
    Plan,
    evidence,
)
from coin_protocol.testing.mutations.strategies import mutated, plans

EXAMPLES: Final = settings().max_examples
"""Of the profile that is loaded; some tests take a share of them."""

LEAST_SHARE: Final = 0.01
USUAL_SHARE: Final = 0.2


def chosen_by(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - nothing is secret


def require_caught(mutation: Mutation, case: Case) -> None:
    report = run_checks(case)
    assert report.failed is not None, mutation.name
    assert report.failed.code == mutation.code, (mutation.name, report.detail)
    assert (report.fault, report.outcome) == (mutation.fault, mutation.outcome), mutation.name


def fitting(plan: Plan, departures: tuple[Departure, ...]) -> list[Departure]:
    return [departure for departure in departures if departure.applies(plan)]


@given(plan=plans(), data=st.data(), random=st.randoms(use_true_random=False))
def test_an_honest_audit_passes_and_with_one_thing_broken_fails_by_one_check(
    plan: Plan, data: st.DataObject, random: Random
) -> None:
    report = run_checks(plan.honest)
    assert report.failed is None, report.detail
    applicable = [mutation for mutation in MUTATIONS if mutation.applies(plan)]
    chosen = data.draw(st.lists(st.sampled_from(applicable), min_size=1, max_size=2, unique=True))
    for mutation in chosen:
        case = mutation.make(plan, random)
        require_caught(mutation, case)
        assert evidence(case) != evidence(plan.honest), mutation.name


@pytest.mark.parametrize("code", CODES)
def test_what_breaks_a_check_can_be_drawn_for_each_of_them(code: str) -> None:
    @settings(max_examples=max(1, EXAMPLES // 25))
    @given(sample=mutated(code))
    def caught(sample: tuple[Mutation, Case]) -> None:
        mutation, case = sample
        assert mutation.code == code
        require_caught(mutation, case)

    caught()


@settings(max_examples=max(1, EXAMPLES // 4))
@given(plan=plans(), data=st.data(), seed=st.integers(0, 2**32))
def test_the_same_plan_and_the_same_choices_give_the_same_bytes(
    plan: Plan, data: st.DataObject, seed: int
) -> None:
    mutation = data.draw(st.sampled_from(fitting(plan, MUTATIONS)))
    twin = replace(plan)
    assert evidence(plan.honest) == evidence(twin.honest)
    made = (mutation.make(one, chosen_by(seed)) for one in (plan, plan, twin))
    assert len({evidence(case) for case in made}) == 1
    assert evidence(plan.honest) == evidence(twin.honest)


@settings(max_examples=max(1, EXAMPLES // 2))
@given(plan=plans().filter(lambda plan: bool(plan.steps)), data=st.data())
def test_whatever_a_verifier_writes_wrongly_is_no_finding(plan: Plan, data: st.DataObject) -> None:
    fault = data.draw(st.sampled_from(fitting(plan, VERIFIER_FAULTS)))
    case = fault.make(plan, data.draw(st.randoms(use_true_random=False)))
    with pytest.raises(InvalidInputError):
        run_checks(case)


def test_no_mutation_hides_behind_plans_that_never_come() -> None:
    seen: list[Plan] = []

    @settings(max_examples=200, phases=[Phase.generate], database=None, derandomize=True)
    @given(plan=plans())
    def collect(plan: Plan) -> None:
        seen.append(plan)

    collect()
    count = Counter(one.name for plan in seen for one in fitting(plan, MUTATIONS))
    shares = {one.name: count[one.name] / len(seen) for one in MUTATIONS}
    rare = {name: share for name, share in shares.items() if share < LEAST_SHARE}
    assert not rare
    usual = [name for name, share in shares.items() if share >= USUAL_SHARE]
    assert len(usual) > 0.8 * len(shares)
    assert any(plan.tokens == 0 for plan in seen)
    assert {0, 1, -1} <= {(plan.tokens + 1) % plan.block_size - 1 for plan in seen}
    assert any(plan.refusals for plan in seen)
