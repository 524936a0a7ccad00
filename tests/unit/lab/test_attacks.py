"""What every attack promises, whatever it injects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from coin_protocol.errors import InvalidInputError
from tests.support.laboratory import (
    BLOCK_SIZE,
    CODE,
    GERMAN,
    JAPANESE,
    SENTENCE,
    library,
    material,
    spelled,
    tokenizer,
    trace,
    traces,
)
from verifier_sdk.lab import (
    ATTACKS,
    RATES,
    Attack,
    Attacked,
    Library,
    Material,
    NotApplicableError,
    apply_attack,
    family_of,
    named_attack,
)
from verifier_sdk.lab import attack as define
from verifier_sdk.lab import filler as define_filler
from verifier_sdk.lab.attack import Ids, injected_tokens
from verifier_sdk.semantic.families import FAMILIES, UNSEEN

CASES = [(name, placement) for name, found in ATTACKS.items() for placement in found.placements]
FILLERS = [(name, placement) for name, placement in CASES if name != "finer_tokenization"]
SEEDLESS = {
    "answer_repeated",
    "prompt_repeated",
    "other_model_same_question",
    "session_replayed",
}
"""There is but one way to repeat a text; and here one other model, and one alike question."""

NOTHING = Attacked(np.empty(0, np.uint32), np.empty(0, np.bool_))
LONG = trace((GERMAN + "\n" + CODE + JAPANESE) * 250, id="long")
ODD = {
    "german": trace(GERMAN),
    "japanese": trace(JAPANESE),
    "code": trace(CODE),
    "one sentence": trace(SENTENCE),
    "one token": trace("a"),
    "emoji": trace("\U0001f642"),
    "spaces": trace(".  \n\n   ."),
    "long": LONG,
    "nothing visible": trace(GERMAN, question="", answer=""),
}


@pytest.fixture(scope="module")
def shared() -> Library:
    """One library for all: what attacks keep there must not change what they do."""
    return library()


def applied(name: str, placement: str, target: Material, rate: float = 1.0) -> Attacked:
    return apply_attack(name, target, rate=rate, placement=placement, block_size=BLOCK_SIZE)


def committed(attacked: Attacked) -> tuple[list[int], list[bool], list[int]]:
    return attacked.ids.tolist(), attacked.injected.tolist(), attacked.embedded.tolist()


# Those that ship


def test_the_attacks_that_ship() -> None:
    assert {(found.name, found.family) for found in ATTACKS.values()} == {
        ("random_vocabulary", "random"),
        ("bag_of_own_tokens", "bag"),
        ("retrieved_near_answer", "retrieved"),
        ("retrieved_near_trace", "retrieved"),
        ("blocks_repeated", "repeated"),
        ("blocks_repeated_edited", "repeated"),
        ("sentences_shuffled", "shuffled"),
        ("ngram_text", "ngram"),
        ("answer_repeated", "echoed"),
        ("prompt_repeated", "echoed"),
        ("other_model_same_question", "other_model"),
        ("session_replayed", "replayed"),
        ("finer_tokenization", "split"),
        ("forged_vectors", "forged"),
        ("adaptive_best_of_64", "adaptive"),
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_explained_in_one_sentence(name: str) -> None:
    summary = ATTACKS[name].summary
    assert summary.endswith(".")
    assert summary.count(". ") == 0
    assert 30 < len(summary) <= 100


def test_every_family_that_detectors_know_has_an_attack() -> None:
    found = {family_of(ATTACKS[name], placement) for name, placement in CASES}
    assert set(FAMILIES) <= found <= {*FAMILIES, *UNSEEN}


def test_only_a_scattered_bag_changes_family() -> None:
    changed = {
        case for case in CASES if family_of(ATTACKS[case[0]], case[1]) != ATTACKS[case[0]].family
    }
    assert changed == {("bag_of_own_tokens", "scattered")}
    assert family_of(ATTACKS["bag_of_own_tokens"], "scattered") == "scattered"


# What each does with an ordinary trace


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("name", "placement"), FILLERS)
def test_a_filler_adds_what_its_rate_says_and_keeps_the_reasoning(
    shared: Library, name: str, placement: str, rate: float
) -> None:
    target = material(among=shared)
    attacked = applied(name, placement, target, rate)
    wanted = injected_tokens(target.ids, rate)
    assert attacked.ids[~attacked.injected].tolist() == target.ids.tolist()
    assert attacked.injected.sum() == wanted
    assert attacked.share == pytest.approx(wanted / (wanted + len(target.ids)))


@pytest.mark.parametrize(("name", "placement"), CASES)
def test_ids_are_of_the_vocabulary_and_none_is_a_control_id(
    shared: Library, name: str, placement: str
) -> None:
    attacked = applied(name, placement, material(among=shared))
    assert attacked.ids.dtype == attacked.embedded.dtype == np.uint32
    assert len(attacked.ids) == len(attacked.injected) == len(attacked.embedded)
    assert attacked.ids.min() >= 4
    assert attacked.ids.max() < tokenizer().vocabulary_size


@pytest.mark.parametrize(("name", "placement"), CASES)
def test_one_trace_seed_rate_and_placement_give_one_attack(
    shared: Library, name: str, placement: str
) -> None:
    first = applied(name, placement, material(seed=5, among=shared))
    again = applied(name, placement, material(seed=5, among=library()))
    assert committed(first) == committed(again)


@pytest.mark.parametrize(("name", "placement"), CASES)
def test_another_seed_gives_another_attack(shared: Library, name: str, placement: str) -> None:
    if name in SEEDLESS and placement == "appended":
        pytest.skip("there is but one filler, and one place for it")
    first = applied(name, placement, material(seed=5, among=shared))
    other = applied(name, placement, material(seed=6, among=shared))
    assert committed(first) != committed(other)


@pytest.mark.parametrize(("name", "placement"), FILLERS)
def test_a_higher_rate_begins_with_the_filler_of_a_lower_one(
    shared: Library, name: str, placement: str
) -> None:
    target = material(seed=3, among=shared)
    least, *more = (applied(name, placement, target, rate) for rate in (0.1, 1.0, 3.0))
    for attacked in more:
        filler = attacked.ids[attacked.injected]
        assert least.ids[least.injected].tolist() == filler[: least.injected.sum()].tolist()


@pytest.mark.parametrize("name", ["random_vocabulary", "ngram_text", "sentences_shuffled"])
def test_two_traces_of_one_text_and_seed_get_filler_of_their_own(
    shared: Library, name: str
) -> None:
    target = material(among=shared)
    other = replace(target, trace=replace(target.trace, id="another"))
    first, second = applied(name, "appended", target), applied(name, "appended", other)
    assert first.ids.tolist() != second.ids.tolist()


@pytest.mark.parametrize(("name", "placement"), CASES)
def test_only_forged_vectors_are_of_other_tokens(
    shared: Library, name: str, placement: str
) -> None:
    attacked = applied(name, placement, material(among=shared))
    assert (attacked.ids.tolist() == attacked.embedded.tolist()) == (name != "forged_vectors")


# Odd traces


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(("name", "placement"), CASES)
def test_an_odd_trace_is_attacked_or_declined(name: str, placement: str, odd: str) -> None:
    target = material(ODD[odd], among=library([*traces(), ODD[odd]]))
    try:
        attacked = applied(name, placement, target)
    except NotApplicableError:
        assert odd in DECLINED.get(name, set())
        return
    if name == "finer_tokenization":
        assert spelled(attacked.ids) == ODD[odd].reasoning.encode()
    else:
        assert attacked.ids[~attacked.injected].tolist() == target.ids.tolist()
        assert attacked.injected.sum() == len(target.ids)


DECLINED: dict[str, set[str]] = {
    "answer_repeated": {"nothing visible"},
    "prompt_repeated": {"nothing visible"},
    "retrieved_near_answer": {"nothing visible"},
    # The odd traces have questions that nobody else answers.
    "other_model_same_question": set(ODD),
    # Text that the vocabulary has no words for is in bytes already.
    "finer_tokenization": set(ODD),
}


@pytest.mark.parametrize(
    "name", ["retrieved_near_answer", "retrieved_near_trace", "session_replayed"]
)
def test_without_other_questions_there_is_nothing_to_take(name: str) -> None:
    alone = traces()[0]
    with pytest.raises(NotApplicableError, match="give more traces"):
        applied(name, "appended", material(alone, among=library([alone])))


def test_without_a_second_model_there_is_no_reasoning_of_one() -> None:
    target = traces()[1]
    with pytest.raises(NotApplicableError, match=f"on question '{target.qid}'"):
        applied("other_model_same_question", "appended", material(target))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("answer_repeated", "answer"),
        ("retrieved_near_answer", "answer"),
        ("prompt_repeated", "prompt"),
    ],
)
@pytest.mark.parametrize("blank", ["", " \n "])
def test_blank_text_is_not_repeated(name: str, what: str, blank: str) -> None:
    target = trace(GERMAN, question=blank, answer=blank)
    with pytest.raises(NotApplicableError, match=f"this trace has no {what}"):
        applied(name, "appended", material(target, among=library([*traces(), target])))


# Asking for an attack


def test_an_unknown_attack_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        InvalidInputError, match="no attack 'magic'; there are adaptive_best_of_64, answer"
    ):
        named_attack("magic")


@pytest.mark.parametrize("rate", [0, -1, 16.1, float("nan"), float("inf")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInputError, match=r"the rate must lie in \(0, 16\]; found"):
        applied("random_vocabulary", "appended", material(), rate)


@pytest.mark.parametrize("placement", ["scattered", "", "prepended"])
def test_a_placement_that_makes_no_sense_is_refused(placement: str) -> None:
    with pytest.raises(InvalidInputError, match="is placed appended, interleaved; found"):
        applied("forged_vectors", placement, material())


def test_a_block_of_no_tokens_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 1 token; found 0"):
        apply_attack("random_vocabulary", material(), rate=1, placement="appended", block_size=0)


# Defining one


def test_a_name_is_given_once() -> None:
    with pytest.raises(InvalidInputError, match="an attack named 'random_vocabulary' exists"):
        define("random_vocabulary", family="random")(lambda *_: NOTHING)


def sevens(target: Material, rng: np.random.Generator) -> Iterator[Ids]:
    """The number seven, for ever.

    What comes later is for those who read the code.
    """
    del target, rng
    while True:
        yield np.array([7], np.uint32)


def test_others_define_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    mine: dict[str, Attack] = {}
    # The package's `attack` is the decorator, not the module of that name.
    monkeypatch.setattr(import_module("verifier_sdk.lab.attack"), "ATTACKS", mine)
    define_filler("sevens", family="random", placements=("appended",))(sevens)
    found = named_attack("sevens", mine)
    assert found.summary == "The number seven, for ever."
    assert found.placements == ("appended",)
    attacked = found.apply(material(), 0.5, "appended", BLOCK_SIZE)
    assert set(attacked.ids[attacked.injected].tolist()) == {7}


def test_a_trace_of_no_tokens_has_no_share() -> None:
    assert NOTHING.share == 0.0
