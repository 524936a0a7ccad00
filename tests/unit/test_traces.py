"""Traces: those that ship are fit to replay, and files that hold none are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coin_protocol.errors import InvalidInputError
from provider_sdk.replay.traces import Trace, parse_traces, read_traces, shipped_traces

TRACE = {
    "id": "a-01",
    "domain": "a",
    "question": "why?",
    "reasoning": "because it is so",
    "answer": "so",
}


def line(**changes: object) -> str:
    return json.dumps(TRACE | changes)


# Those that ship


def test_there_are_enough_traces_of_enough_domains() -> None:
    traces = shipped_traces()
    assert len(traces) >= 8
    assert len({trace.domain for trace in traces}) >= 6


@pytest.mark.parametrize("trace", shipped_traces(), ids=lambda trace: trace.id)
def test_a_shipped_trace_is_long_enough_to_be_audited(trace: Trace) -> None:
    assert len(trace.reasoning.split()) >= 600
    assert trace.answer.strip()
    assert trace.question.strip()
    assert len(trace.answer) < len(trace.reasoning)


@pytest.mark.parametrize("trace", shipped_traces(), ids=lambda trace: trace.id)
def test_a_shipped_trace_is_plain_text_that_does_not_repeat_itself(trace: Trace) -> None:
    assert "\ufffd" not in trace.reasoning + trace.answer
    sentences = [part.strip() for part in trace.reasoning.split(". ") if len(part) > 40]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("name", ["id", "question", "reasoning", "answer"])
def test_no_two_shipped_traces_share_what_tells_them_apart(name: str) -> None:
    found = [getattr(trace, name) for trace in shipped_traces()]
    assert len(set(found)) == len(found)


def test_no_shipped_id_is_another_traces_question() -> None:
    traces = shipped_traces()
    assert not {trace.id for trace in traces} & {trace.question for trace in traces}


# Files


def test_a_file_is_one_trace_a_line_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(f"\n{line()}\n\n  \n{line(id='a-02')}\n", encoding="utf-8")
    traces = read_traces(path)
    assert [trace.id for trace in traces] == ["a-01", "a-02"]
    assert traces[0] == Trace(**TRACE)


def test_fields_that_are_not_known_are_left_out() -> None:
    assert parse_traces(line(source="elsewhere")) == [Trace(**TRACE)]


def test_text_outside_ascii_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(line(answer="née 终"), encoding="utf-8")
    assert read_traces(path)[0].answer == "née 终"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "garbage",
        "[]",
        "1",
        "null",
        '"text"',
        "{}",
        '{"id": "a"}',
        line()[:-1],
        line() + line(),
        line() + "\ngarbage",
    ],
)
def test_what_holds_no_traces_is_invalid_input(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_traces(text)


def test_the_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(f"{line()}\n\n{{}}\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="line 3"):
        read_traces(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "not utf-8"])
def test_a_file_that_cannot_be_read_is_invalid_input(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "traces.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "not utf-8":
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="traces"):
        read_traces(path)


def test_a_line_separator_within_a_text_does_not_end_the_line() -> None:
    # JSON leaves U+2028 as it is where it need not be plain ASCII.
    text = json.dumps(TRACE | {"answer": "one\u2028two"}, ensure_ascii=False)
    assert parse_traces(text)[0].answer == "one\u2028two"


@pytest.mark.parametrize("value", [None, 1, ["a"], {"a": "b"}])
def test_a_field_that_is_no_text_is_invalid_input(value: object) -> None:
    with pytest.raises(InvalidInputError):
        parse_traces(line(answer=value))


def test_nesting_without_end_is_invalid_input() -> None:
    with pytest.raises(InvalidInputError):
        parse_traces("[" * 100_000)
