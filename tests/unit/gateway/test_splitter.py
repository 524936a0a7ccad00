"""Splitting: on ids and on text, however they are cut."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.tokenizer import text_of
from provider_sdk.gateway.markers import BUILTIN, MarkerIds, markers_from
from provider_sdk.gateway.splitter import Flag, Run, Side, Splitter, TextSplitter
from tests.support.marked import PLAIN, TOKENIZER, cut, cuttings, ids

# Marks as special ids, spelled out, cut short and doubled, between a few words.
WORDS = (
    *("<think>", "</think>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|return|>"),
    *("[THINK]", "[/THINK]", "<|im_end|>", "analysis", "final", " to=f", "a", "word ", "\n", "<"),
    *("<th", "<t", "</", "</think", ">", "x<think>y", "</think></think>", "é", "🎉"),
)
REPLIES = st.lists(st.sampled_from(WORDS), max_size=16)
NAMES = st.sampled_from(sorted(BUILTIN))


def split(
    name: str, chunks: Iterable[list[int]], *, opened: bool | None = None, special: bool = True
) -> tuple[list[Run], frozenset[Flag]]:
    marks = MarkerIds.resolve(markers_from(name), TOKENIZER if special else PLAIN)
    splitter = Splitter(marks, opened=opened)
    runs = [run for chunk in chunks for run in splitter.feed(chunk)] + splitter.finish()
    return runs, frozenset(splitter.flags)


def by_side(runs: Iterable[Run]) -> list[tuple[Side, int]]:
    return [(run.side, token_id) for run in runs for token_id in run.ids]


def reasoning(runs: Iterable[Run]) -> list[int]:
    return [each for run in runs if run.side is Side.REASONING for each in run.ids]


@given(st.data())
def test_however_ids_are_cut_they_are_split_alike_and_none_is_lost(data: st.DataObject) -> None:
    special = data.draw(st.booleans())
    name, opened = data.draw(NAMES), data.draw(st.sampled_from([None, True, False]))
    words = data.draw(REPLIES)
    reply = ids(*words) if special else PLAIN.encode("".join(words))
    whole, flags = split(name, [reply], opened=opened, special=special)
    chunks = cut(reply, data.draw(cuttings(len(reply))))
    runs, same_flags = split(name, chunks, opened=opened, special=special)
    assert by_side(runs) == by_side(whole)
    assert [token_id for _, token_id in by_side(runs)] == reply
    assert same_flags == flags


@given(st.data())
def test_however_text_is_cut_it_is_split_alike_and_none_is_lost(data: st.DataObject) -> None:
    markers = markers_from(data.draw(NAMES))
    text = "".join(data.draw(REPLIES))
    results = []
    for ends in ([len(text)], data.draw(cuttings(len(text)))):
        turns = Splitter(MarkerIds.resolve(markers, PLAIN), opened=None)
        splitter = TextSplitter(turns, markers)
        parts = [part for piece in cut(text, ends) for part in splitter.feed(piece)]
        parts += splitter.finish()
        assert "".join(part for _, part in parts) == text
        results.append(([(side, char) for side, part in parts for char in part], turns.flags))
    assert results[0] == results[1]


@given(st.data())
def test_marks_of_ordinary_ids_split_as_their_text_does(data: st.DataObject) -> None:
    # Bytes alone, so that no id holds more than one character.
    words = data.draw(st.lists(st.sampled_from(["<think>", "</think>", "A", "<", "/", ">"])))
    text = "".join(words)
    marks = MarkerIds.resolve(markers_from("think-interleaved"), PLAIN)
    turns = Splitter(marks, opened=None)
    parser = TextSplitter(turns, marks.markers)
    parts = [*parser.feed(text), *parser.finish()]
    runs, flags = split("think-interleaved", [list(text.encode())], special=False)
    assert by_side(runs) == [(side, ord(char)) for side, part in parts for char in part]
    assert flags == turns.flags


@pytest.mark.parametrize(
    ("name", "opened", "reply", "expected", "flags"),
    [
        ("think", None, ("<think>", "why", "</think>", "so"), "why", set()),
        ("think-in-prompt", None, ("why", "</think>", "so"), "why", set()),
        ("think-in-prompt", None, ("<think>", "why", "</think>", "so"), "why", set()),
        ("think-in-prompt", False, ("so",), "", set()),
        ("think", True, ("why", "</think>", "so"), "why", set()),
        ("think", None, ("so",), "", set()),
        ("think", None, (), "", set()),
        ("think-in-prompt", None, (), "", set()),
        ("mistral", None, ("[THINK]", "why", "[/THINK]", "so"), "why", set()),
        ("think", None, ("<think>", "why"), "why", {Flag.UNCLOSED}),
        ("think-in-prompt", None, ("why",), "why", {Flag.UNCLOSED}),
        ("think", None, ("so", "</think>", "so"), "", {Flag.STRAY_CLOSE}),
        (
            "think",
            None,
            ("<think>", "why", "</think>", "so", "<think>", "yet", "</think>", "so"),
            "whyyet",
            {Flag.REOPENED},
        ),
        (
            "think-interleaved",
            None,
            ("<think>", "why", "</think>", "so", "<think>", "yet", "</think>"),
            "whyyet",
            set(),
        ),
        (
            "think",
            None,
            ("<think>", "why oh", "<think>", "why", "</think>"),
            "why ohwhy",
            {Flag.NESTED},
        ),
        (
            "gpt-oss",
            None,
            (
                *("<|channel|>", "analysis", "<|message|>", "why", "<|end|>"),
                *("<|start|>", "assistant", "<|channel|>", "commentary to=f", "<|message|>", "{}"),
                *("<|call|>", "<|start|>", "assistant", "<|channel|>", "analysis", "<|message|>"),
                *("yet", "<|end|>", "<|start|>", "assistant", "<|channel|>", "final"),
                *("<|message|>", "so", "<|return|>"),
            ),
            "whyyet",
            set(),
        ),
        (
            "gpt-oss",
            None,
            ("<|channel|>", "analysis to=python", "<|message|>", "1", "<|call|>"),
            "",
            set(),
        ),
        (
            "gpt-oss",
            True,
            ("why", "<|end|>", "<|start|>", "assistant", "<|channel|>", "final", "<|message|>"),
            "why",
            set(),
        ),
    ],
)
def test_each_model_marks_its_own_way(
    *, name: str, opened: bool | None, reply: tuple[str, ...], expected: str, flags: set[Flag]
) -> None:
    runs, found = split(name, [ids(*reply)], opened=opened)
    assert text_of(TOKENIZER, reasoning(runs)) == expected
    assert found == flags


def test_a_mark_spelled_out_is_text_where_the_tokenizer_has_it_as_one_id() -> None:
    runs, flags = split("think", [TOKENIZER.encode("print <think> and </think>")])
    assert not reasoning(runs)
    assert not flags


def test_marks_count_as_answer() -> None:
    runs, _ = split("think", [ids("<think>", "why", "</think>", "so", "<|im_end|>")])
    others = [token_id for side, token_id in by_side(runs) if side is not Side.REASONING]
    assert others == ids("<think>", "</think>", "so", "<|im_end|>")


def test_an_upstream_is_believed_until_a_mark_shows() -> None:
    marks = MarkerIds.resolve(markers_from("think"), TOKENIZER)
    splitter = Splitter(marks, opened=None)
    splitter.told(Side.REASONING)
    assert splitter.feed(ids("why"))[0].side is Side.REASONING
    assert splitter.feed(ids("</think>"))[0].side is Side.MARK
    splitter.told(Side.REASONING)
    assert splitter.feed(ids("so"))[0].side is Side.ANSWER
    assert not splitter.flags
