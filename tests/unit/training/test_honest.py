"""Kinds of honest reasoning, by text alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.laboratory import CODE, GERMAN, JAPANESE, trace, traces
from verifier_sdk.training.honest import KINDS, condensed, kinds_of

STEPS = [
    f"step {number} takes the {word} of {number + 3} and {other} it with what was found there"
    for number, (word, other) in enumerate(
        [("sum", "compares"), ("root", "divides"), ("square", "weighs"), ("half", "joins"),
         ("third", "holds"), ("rest", "puts"), ("edge", "draws"), ("line", "cuts")] * 4
    )
]  # fmt: skip
PLAIN = ". ".join(STEPS)
GREEK = "μπλε ήλιος είναι ψηλά και μετά ουρανός είναι γαλάζιος σήμερα. "
VIETNAMESE = "bầu trời hôm nay rất xanh vì ánh sáng mặt trời bị tán xạ ở khắp mọi nơi trên cao. "


def kinds(reasoning: str, answer: str = "Three.") -> set[str]:
    return set(kinds_of(trace(reasoning, answer=answer)))


def test_plain_reasoning_is_of_no_kind() -> None:
    assert kinds(PLAIN) == set()
    assert kinds(GERMAN) == set()
    assert kinds("yes") == set()


def test_every_kind_is_described() -> None:
    found = {
        *kinds(PLAIN * 2), *kinds(PLAIN, PLAIN), *kinds(JAPANESE), *kinds(CODE * 3),
    }  # fmt: skip
    assert found | {"noncanonical_ids"} == set(KINDS)
    assert all(text[0].islower() and "\n" not in text for text in KINDS.values())


@pytest.mark.parametrize(
    ("reasoning", "loops"),
    [
        (PLAIN + ". " + PLAIN, True),
        ("wait, let me check that once more. " * 40, True),
        ("no " * 500, True),
        (PLAIN + ". " + STEPS[0], False),
        ("one two three four five six seven eight nine ten eleven", False),
    ],
)
def test_reasoning_that_repeats_itself_loops(reasoning: str, *, loops: bool) -> None:
    assert ("loops" in kinds(reasoning)) == loops


@pytest.mark.parametrize(
    ("answer", "drafts"),
    [
        (". ".join(STEPS[3:9]), True),
        ("So this is it: " + ". ".join(STEPS[3:9]), True),
        # Short answers say nothing.
        (" ".join(PLAIN.split()[:20]), False),
        ("the answer is three as all of them were counted " * 4, False),
        ("", False),
    ],
)
def test_an_answer_that_stands_in_the_reasoning_was_drafted(answer: str, *, drafts: bool) -> None:
    assert ("drafts_answer" in kinds(PLAIN, answer)) == drafts


@pytest.mark.parametrize(
    ("reasoning", "other"),
    [
        (JAPANESE, True),
        (GREEK, True),
        (PLAIN + GREEK * 20, True),
        (PLAIN + GREEK, False),
        (GERMAN, False),
        (VIETNAMESE, False),
        ("naïve façade, ångström, žluťoučký kůň", False),
        ("1 + 2 = 3 ≤ 4 → 5 ∑", False),
        ("β + λ = ψ", True),
    ],
)
def test_another_language_is_one_of_other_letters(reasoning: str, *, other: bool) -> None:
    assert ("other_language" in kinds(reasoning)) == other


@pytest.mark.parametrize(
    ("reasoning", "code"),
    [
        (CODE, True),
        ("int main() {\n  return 0;\n}\n", True),
        (PLAIN.replace(". ", ".\n"), False),
        (PLAIN.replace(". ", ".\n") + CODE, False),
        ("Let me see.\nIf so, it holds.\nFor all of them.\nWhile others wait.", False),
        ("", False),
    ],
)
def test_code_is_told_by_its_lines(reasoning: str, *, code: bool) -> None:
    assert ("code" in kinds(reasoning)) == code


def test_the_traces_that_ship_are_told_apart() -> None:
    for one in traces()[:10]:
        assert set(kinds_of(one)) <= set(KINDS)
        assert "other_language" not in kinds_of(one)


# Terser


@pytest.mark.parametrize("between", ["\n\n", "\n"], ids=["paragraphs", "lines"])
def test_condensed_reasoning_lacks_about_half_of_its_parts(between: str) -> None:
    parts = [step + between for step in STEPS]
    kept = condensed("".join(parts), np.random.default_rng(1)).splitlines(keepends=True)
    left = "".join(kept).split(between)[:-1]
    assert 8 < len(left) < 24
    # What is left stands in its order, each part whole.
    assert left == [step for step in STEPS if step in left]


def test_condensing_is_by_the_random_numbers_alone() -> None:
    text = "\n\n".join(STEPS)
    found = [condensed(text, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert condensed("", np.random.default_rng(1)) == ""


def test_blank_lines_of_few_paragraphs_do_not_hide_lines() -> None:
    text = "\n".join(STEPS[:6]) + "\n\n" + "\n".join(STEPS[6:12])
    lines = condensed(text, np.random.default_rng(3)).split("\n")
    assert set(lines) <= {*STEPS, ""}
    assert len(lines) < 12
