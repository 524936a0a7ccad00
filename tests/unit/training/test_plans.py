"""Which sessions are made of traces: limits by question, and the same plans again."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.laboratory import trace
from verifier_sdk.lab import ATTACKS, RATES, Trace
from verifier_sdk.lab.attack import family_of
from verifier_sdk.semantic.families import FAMILIES, UNSEEN
from verifier_sdk.training.plans import BLOCK_SIZES, chosen, honest_plans, training_plans


def many(questions: int, each: int, domain: str = "math") -> list[Trace]:
    return [
        trace(f"{domain} {question} {model}", qid=f"{domain}{question}", domain=domain,
              id=f"{domain}{question}-{model}", model=str(model))
        for question in range(questions) for model in range(each)
    ]  # fmt: skip


def pick(traces: list[Trace], *, least: int = 1, per_question: int = 2, seed: int = 1) -> list[str]:
    lengths = [100 + at for at in range(len(traces))]
    found = chosen(traces, lengths, least=least, per_question=per_question, seed=seed)
    return [one.id for one in found]


@pytest.mark.parametrize(
    ("questions", "each", "per_question", "wanted"),
    [
        (20, 5, 2, 2),
        (40, 5, 2, 2),
        (20, 5, 1, 1),
        (20, 1, 4, 1),
        # A domain of few questions may have more of each: ten questions twice as many.
        (10, 9, 2, 4),
        (19, 9, 2, 4),
        (7, 9, 2, 6),
        (1, 99, 2, 40),
        (1, 9, 2, 9),
    ],
)
def test_each_question_gives_so_many_traces_at_most(
    questions: int, each: int, per_question: int, wanted: int
) -> None:
    found = pick(many(questions, each), per_question=per_question)
    counts = Counter(one.partition("-")[0] for one in found)
    assert len(counts) == questions
    assert set(counts.values()) == {min(wanted, each)}
    assert len(set(found)) == len(found)


def test_domains_are_counted_apart() -> None:
    found = pick([*many(40, 6), *many(5, 6, "code")], per_question=1)
    counts = Counter("code" if one.startswith("code") else "math" for one in found)
    assert counts == {"math": 40, "code": 20}


def test_short_traces_are_left_out() -> None:
    traces = many(3, 4)
    assert pick(traces, least=104, per_question=9) == [one.id for one in traces[4:]]
    assert pick(traces, least=10_000) == []
    assert pick([]) == []


def test_the_choice_is_that_of_the_seed() -> None:
    traces = many(20, 9)
    assert pick(traces) == pick(traces)
    assert pick(traces) != pick(traces, seed=2)


# Sessions


TRACES = many(12, 1)


def test_every_trained_attack_is_planned_for_each_trace() -> None:
    plans = list(training_plans(TRACES, seed=1))
    trained = {name for name, one in ATTACKS.items() if one.family in FAMILIES}
    assert trained
    for one in TRACES:
        own = [plan for plan in plans if plan.trace is one]
        counts = Counter(plan.attack for plan in own)
        assert counts.pop("none") == 4 + 1
        assert counts == dict.fromkeys(trained, 1)
        honest = [plan for plan in own if plan.attack == "none" and not plan.condensed]
        assert [plan.draw for plan in honest] == [0, 1, 2, 3]


def test_no_unseen_family_is_trained_on() -> None:
    for plan in training_plans(TRACES, seed=1):
        if plan.attack == "none":
            assert (plan.rate, plan.placement) == (0.0, "")
            continue
        found = ATTACKS[plan.attack]
        assert family_of(found, plan.placement) not in UNSEEN
        assert plan.rate in RATES[1:]
        assert plan.placement in found.placements
        assert plan.block_size in (256, 512, 1024)


def test_plans_are_those_of_the_seed_and_distinct() -> None:
    plans = list(training_plans(TRACES, seed=1))
    assert plans == list(training_plans(TRACES, seed=1))
    assert plans != list(training_plans(TRACES, seed=2))
    assert len(set(plans)) == len(plans)


def test_over_many_traces_all_families_are_planned() -> None:
    families = {
        family_of(ATTACKS[plan.attack], plan.placement)
        for plan in training_plans(many(60, 1), seed=1, honest=0, terse=0)
    }
    assert families == set(FAMILIES)


def test_honest_sessions_are_drawn_so_often_at_each_block_size_in_turn() -> None:
    plans = list(honest_plans(TRACES, draws=5, terse=0))
    assert len(plans) == len(set(plans)) == 60
    assert {plan.attack for plan in plans} == {"none"}
    for one in TRACES:
        own = [plan for plan in plans if plan.trace is one]
        assert [plan.draw for plan in own] == [0, 1, 2, 3, 4]
        assert [plan.block_size for plan in own] == [256, 512, 1024, 256, 256]
    assert {plan.block_size for plan in honest_plans(TRACES, draws=1)} == {256}


def test_condensed_sessions_are_honest_ones_of_the_usual_block_size() -> None:
    for plans in (
        list(honest_plans(TRACES, draws=2, terse=3)),
        list(training_plans(TRACES, seed=1, honest=2, terse=3)),
    ):
        found = [plan for plan in plans if plan.condensed]
        assert len(found) == len(set(found)) == 3 * len(TRACES)
        assert {(plan.attack, plan.rate, plan.block_size) for plan in found} == {("none", 0.0, 256)}
        assert Counter(plan.trace for plan in found) == dict.fromkeys(TRACES, 3)


def test_every_block_size_is_trained_on_with_and_without_filler() -> None:
    plans = list(training_plans(TRACES, seed=1))
    for honest in (True, False):
        found = {plan.block_size for plan in plans if (plan.attack == "none") == honest}
        assert found == set(BLOCK_SIZES)
