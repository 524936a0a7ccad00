"""Traces from files, and their split by question."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from tests.support.laboratory import trace
from verifier_sdk.lab import read_traces, split
from verifier_sdk.lab import trace as trace_module
from verifier_sdk.lab.trace import SPLITS

LINE = {
    "id": "a-01",
    "qid": "a",
    "domain": "math",
    "model": "m",
    "question": "why?",
    "reasoning": "because it is so",
    "answer": "so",
}


def write(path: Path, *documents: object) -> Path:
    raw = "".join(json.dumps(document) + "\n" for document in documents).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


# Files


@pytest.mark.parametrize("name", ["traces.jsonl", "traces.jsonl.gz"])
def test_files_are_read_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    (found,) = read_traces([write(tmp_path / name, LINE | {"licence": "MIT"})])
    assert {field: getattr(found, field) for field in LINE} == LINE


def test_several_files_are_one_set(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.jsonl", LINE | {"id": f"a-{n}"}) for n in range(3)]
    assert [found.id for found in read_traces(paths)] == ["a-0", "a-1", "a-2"]


def test_a_missing_answer_is_empty(tmp_path: Path) -> None:
    without = {name: value for name, value in LINE.items() if name != "answer"}
    found = read_traces([write(tmp_path / "t.jsonl", LINE | {"answer": None}, without)])
    assert [one.answer for one in found] == ["", ""]


def test_a_trace_without_reasoning_is_left_out(tmp_path: Path) -> None:
    blank = LINE | {"reasoning": " \n"}
    assert len(read_traces([write(tmp_path / "t.jsonl", blank, LINE, blank)])) == 1


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(LINE) + "\n\n \nno JSON\n")
    with pytest.raises(InvalidInputError, match=r"t\.jsonl, line 4: "):
        read_traces([path])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "wanted a JSON object, found list"),
        ("text", "wanted a JSON object, found str"),
        *(
            ({name: value for name, value in LINE.items() if name != gone}, f"'{gone}' must be")
            for gone in LINE
            if gone in ("id", "question", "reasoning")
        ),
        (LINE | {"reasoning": None}, "'reasoning' must be a string; found NoneType"),
        (LINE | {"answer": 7}, "'answer' must be a string; found int"),
        (LINE | {"id": 7}, "'id' must be a string; found int"),
    ],
)
def test_a_line_that_is_no_trace_is_named(tmp_path: Path, document: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"t\.jsonl, line 2: .*{said}"):
        read_traces([write(tmp_path / "t.jsonl", LINE, document)])


@pytest.mark.parametrize("raw", [b"\xff\xfe{}\n", b"{\n", b"\x1f\x8b", b'{"id": "\\ud800\n'])
def test_garbage_is_a_sentence(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(raw)
    with pytest.raises(InvalidInputError, match=r"t\.jsonl, line 1: "):
        read_traces([path])


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    (found,) = read_traces([write(tmp_path / "t.jsonl", LINE | {"reasoning": "half \ud83d of it"})])
    assert found.reasoning == "half ? of it"


def test_a_cut_gzip_file_is_a_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl.gz", *[LINE | {"id": str(n)} for n in range(2_000)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidInputError, match="cannot read traces from"):
        read_traces([path])


@pytest.mark.parametrize("raw", [b"no gzip", b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 50])
def test_a_file_that_is_no_gzip_is_a_sentence(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(raw)
    with pytest.raises(InvalidInputError, match="cannot read traces from"):
        read_traces([path])


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read traces from"):
        read_traces([tmp_path / "none.jsonl"])


@pytest.mark.parametrize("documents", [[], [LINE | {"reasoning": ""}]])
def test_no_traces_are_a_sentence(tmp_path: Path, documents: list[object]) -> None:
    with pytest.raises(InvalidInputError, match="no traces with reasoning"):
        read_traces([write(tmp_path / "t.jsonl", *documents)])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_line_without_end_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(trace_module, "MAX_LINE_BYTES", 300)
    path = write(tmp_path / f"t.jsonl{suffix}", LINE, LINE | {"reasoning": "so " * 200})
    with pytest.raises(InvalidInputError, match=r"line 2: longer than 300 bytes"):
        read_traces([path])


def test_too_many_traces_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "MAX_TRACES", 2)
    assert len(read_traces([write(tmp_path / "2.jsonl", LINE, LINE)])) == 2
    with pytest.raises(InvalidInputError, match="more than 2 traces: give fewer files"):
        read_traces([write(tmp_path / "3.jsonl", LINE, LINE, LINE)])


# Splits

found_traces = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["math", "code", "logic"])), max_size=80
).map(
    lambda rows: [
        trace(f"text {number}", qid=f"q{qid}", domain=domain)
        for number, (qid, domain) in enumerate(rows)
    ]
)


@given(found_traces)
def test_every_trace_is_in_one_part_and_no_question_in_two(found: list[trace_module.Trace]) -> None:
    parts = split(found)
    assert tuple(parts) == SPLITS
    assert sorted(one.id for part in parts.values() for one in part) == sorted(
        one.id for one in found
    )
    for name in SPLITS:
        others = {one.qid for other in SPLITS if other != name for one in parts[other]}
        assert not others & {one.qid for one in parts[name]}


@given(found_traces)
def test_order_does_not_decide(found: list[trace_module.Trace]) -> None:
    def where(traces: list[trace_module.Trace]) -> dict[str, str]:
        return {one.id: name for name, part in split(traces).items() for one in part}

    assert where(found) == where(found[::-1])


def test_a_domain_of_ten_questions_is_in_every_part() -> None:
    found = [
        trace(f"{domain} {n}", qid=f"{domain} {n}", domain=domain)
        for domain in ("math", "code")
        for n in range(10)
    ]
    parts = split(found)
    for domain in ("math", "code"):
        counts = [sum(one.domain == domain for one in parts[name]) for name in SPLITS]
        assert counts == [4, 2, 2, 2]


def test_a_trace_without_question_cluster_domain_and_model_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    kept = ("id", "question", "reasoning", "answer")
    path.write_text(json.dumps({name: LINE[name] for name in kept}))
    (found,) = read_traces([path])
    assert (found.qid, found.domain, found.model) == (found.id, "unknown", "unknown")
