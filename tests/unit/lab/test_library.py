"""What an attacker can look up."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.laboratory import (
    CODE,
    GERMAN,
    JAPANESE,
    embed,
    library,
    tokenizer,
    trace,
    traces,
)
from verifier_sdk.lab import Library, sentences

# Sentences


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (GERMAN, re.split(r"(?<=[.!]) ", GERMAN)),
        ("first line\nsecond line\n\n\n  third", ["first line", "second line", "third"]),
        (CODE, [line.strip() for line in CODE.splitlines() if line.strip()]),
        ("一。二\uff01三\uff1f四", ["一。", "二\uff01", "三\uff1f", "四"]),
        ("x" * 900, ["x" * 400, "x" * 400, "x" * 100]),
        (" \n . \n", ["."]),
        ("", []),
    ],
)
def test_text_is_cut_into_sentences_and_lines(text: str, found: list[str]) -> None:
    assert sentences(text) == found


def test_japanese_is_cut_without_spaces() -> None:
    assert len(sentences(JAPANESE)) == 5


@given(st.text("ab.!? \n\u3002", max_size=1_000))
def test_no_sentence_is_empty_or_long_and_no_word_is_lost(text: str) -> None:
    found = sentences(text)
    assert all(0 < len(part) <= 400 and part == part.strip() for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_spaces_without_end_are_cut_in_no_time() -> None:
    assert sentences("a" + " " * 200_000 + "b") != []


# Traces


def test_ids_are_canonical() -> None:
    target = traces()[0]
    assert library().ids(target).tolist() == tokenizer().encode(target.reasoning)


def test_traces_of_one_name_are_not_confused() -> None:
    found = library()
    one, other = trace("one text", id="same"), trace("another text", id="same")
    assert found.ids(one).tolist() != found.ids(other).tolist()
    assert found.kept(one, "name", lambda: 1) == 1
    assert found.kept(other, "name", lambda: 2) == 2
    assert found.kept(one, "name", lambda: 3) == 1


def test_the_same_question_is_answered_by_other_models() -> None:
    question = [trace("a.", model="a"), trace("b.", model="b"), trace("c.", model="a")]
    found = library([*question, trace("d.", qid="another", model="c")])
    assert found.same_question(question[0]) == [question[1]]
    assert found.same_question(trace("e.", qid="unknown")) == []


def test_other_questions_are_those_with_another_qid() -> None:
    found = library()
    target = traces()[0]
    assert {one.qid for one in found.other_questions(target)} == {one.qid for one in traces()} - {
        target.qid
    }


# Nearest sentences


def slowly(found: Library, qid: str, vector: npt.NDArray[np.float32], count: int) -> list[str]:
    texts, qids, vectors = found._sentences
    number = found._question_number[qid]
    scores = vectors @ vector
    order = sorted(range(len(texts)), key=lambda at: (-scores[at], at))
    return [texts[at] for at in order if qids[at] != number][:count]


@given(st.integers(0, 9), st.integers(1, 400), st.integers(0, 99))
def test_nearest_are_those_that_sorting_all_would_find(number: int, count: int, seed: int) -> None:
    found, target = SHARED, traces()[number]
    vector = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    assert found.nearest_sentences(target, vector, count) == slowly(
        found, target.qid, vector, count
    )


SHARED = library()


def test_the_question_itself_is_left_out() -> None:
    target = traces()[0]
    own = {text for one in traces() if one.qid == target.qid for text in sentences(one.reasoning)}
    vector = embed([target.reasoning])[0]
    found = SHARED.nearest_sentences(target, vector, 10**6)
    shared = own & {
        text for one in SHARED.other_questions(target) for text in sentences(one.reasoning)
    }
    assert own & set(found) <= shared


def test_each_question_gives_24_sentences_at_most() -> None:
    vector = np.ones(16, np.float32)
    target = trace("none.", qid="unknown")
    questions = {one.qid for one in traces()}
    assert len(SHARED.nearest_sentences(target, vector, 10**6)) == 24 * len(questions)


def test_a_longer_list_begins_with_the_shorter() -> None:
    vectors = np.eye(16, dtype=np.float32)[:3]
    short = SHARED.nearest_to_each(traces()[0], vectors, 5)
    long = SHARED.nearest_to_each(traces()[0], vectors, 50)
    assert [found[:5] for found in long] == short


def test_a_lonely_trace_has_no_neighbours() -> None:
    target = trace("alone.")
    found = library([target])
    assert found.nearest_sentences(target, np.ones(16, np.float32), 5) == []
    assert library([]).nearest_sentences(target, np.ones(16, np.float32), 5) == []


def test_sentences_are_embedded_once() -> None:
    calls = []

    def counting(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        calls.append(len(texts))
        return embed(texts)

    found = library(embed=counting)
    for number in range(3):
        found.nearest_sentences(traces()[number], np.ones(16, np.float32), 5)
    assert len(calls) == 1
