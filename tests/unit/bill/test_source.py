"""Files from anywhere: read within limits, refused with file and line, never half believed."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coin_protocol.errors import InvalidInputError, LimitError
from tests.unit.bill.making import chat, line, write_lines
from verifier_sdk.bill import BillCheck, Verdict, source
from verifier_sdk.bill.fields import Fields
from verifier_sdk.bill.source import Row, Source, Unreadable

HEADER = "generation_id,created_at,cost_total,tokens_prompt,tokens_completion,tokens_reasoning"


def made(folder: Path, text: str | bytes, name: str = "bill.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(path: Path) -> list[Row]:
    return list(Source(path).rows())


def values(path: Path) -> list[dict[str, object]]:
    found = []
    for row in rows(path):
        assert isinstance(row, Fields)
        found.append(dict(row.values))
    return found


def reasons(path: Path) -> list[tuple[int, str]]:
    return [(row.number, row.reason) for row in rows(path) if isinstance(row, Unreadable)]


# CSV


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4\n",
        "a,b\r\n1,2\r\n3,4\r\n",
        "\ufeffa,b\n1,2\n\n3,4",
        "\n\na,b\n1,2\n3,4\n",
        "a;b\n1;2\n3;4\n",
        "a\tb\n1\t2\n3\t4\n",
        '"a", b \n"1","2"\n3,4\n',
    ],
    ids=["plain", "CRLF", "BOM, blank line", "blank first", "semicolons", "tabs", "quotes"],
)
def test_csv_reads_alike_however_it_was_written(tmp_path: Path, text: str) -> None:
    assert values(made(tmp_path, text)) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_quoted_newline_does_not_end_a_line(tmp_path: Path) -> None:
    path = made(tmp_path, 'a,b\n"1\n""x""\n",2\n3,4\n')
    assert values(path) == [{"a": '1\n"x"\n', "b": "2"}, {"a": "3", "b": "4"}]
    assert [row.number for row in rows(path)] == [2, 5]


def test_a_row_of_another_length_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = made(tmp_path, "a,b\n1\n1,2,3\n3,4\n")
    assert reasons(path) == [
        (2, "it has 1 fields, the header 2"),
        (3, "it has 3 fields, the header 2"),
    ]
    assert len(rows(path)) == 3


def test_a_quote_out_of_place_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = made(tmp_path, 'a,b\n"1"x,2\n3,4\n')
    ((number, reason),) = reasons(path)
    assert number == 2
    assert reason.startswith("it is no CSV: ")


def test_a_quote_that_is_not_closed_takes_no_more_than_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_RECORD_BYTES", 1000)
    path = made(tmp_path, 'a,b\n1,"2\n' + "3,4\n" * 1000)
    with pytest.raises(LimitError, match=r"bill.csv, line 2: a record has more than 1000"):
        rows(path)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'b' stands twice in the header"):
        rows(made(tmp_path, "a,b,b\n1,2,3\n"))


def test_too_many_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="1001 columns; at most 1000"):
        rows(made(tmp_path, ",".join(f"c{i}" for i in range(1001)) + "\n"))


def test_the_limit_of_the_csv_module_is_only_ever_raised(tmp_path: Path) -> None:
    before = csv.field_size_limit(1 << 17) and csv.field_size_limit()
    long = "x" * (before + 1)
    assert values(made(tmp_path, f"a,b\n{long},2\n")) == [{"a": long, "b": "2"}]
    raised = csv.field_size_limit(1 << 30)
    assert raised > before
    assert values(made(tmp_path, "a\n1\n")) == [{"a": "1"}]
    assert csv.field_size_limit(raised) == 1 << 30


# JSON


def test_json_lines_and_a_document_read_alike(tmp_path: Path) -> None:
    wanted = [{"a": 1}, {"a": 2}]
    assert values(made(tmp_path, '{"a": 1}\n\n{"a": 2}\n', "bill.jsonl")) == wanted
    assert values(made(tmp_path, '{"a": 1}\n{"a": 2}\n', "bill.json")) == wanted
    assert values(made(tmp_path, '[{"a": 1}, {"a": 2}]', "bill.json")) == wanted
    assert values(made(tmp_path, '{\n"data": [{"a": 1}, {"a": 2}]}', "bill.json")) == wanted
    assert values(made(tmp_path, '{"a": 1}', "one.json")) == [{"a": 1}]


def test_one_long_line_is_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an API sends it, and longer than any line of JSON Lines may be."""
    text = json.dumps({"data": [{"a": number} for number in range(1000)]})
    monkeypatch.setattr(source, "MAX_RECORD_BYTES", 1000)
    for name in ("bill.json", "bill.txt"):
        assert len(values(made(tmp_path, f"\n{text}\n", name))) == 1000


def test_results_have_what_their_bucket_says(tmp_path: Path) -> None:
    text = (
        '{"data": [{"object": "bucket", "s": 1, "results": [{"a": 1, "object": "r"}, {"a": 2}]}]}'
    )
    assert values(made(tmp_path, text, "bill.json")) == [
        {"s": 1, "a": 1, "object": "r"},
        {"s": 1, "a": 2},
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ('{"a": 1, "a": 2}', "a name stands twice"),
        ('{"a": 1', "it is no JSON"),
        ('{"a": ' + "[" * 100_000, "it is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "it is no JSON"),
        ('{"a": 1e99999999999999999999}', "out of range"),
        ("[1, 2]", "of type int; wanted an object"),
        ('"text"', "of type str; wanted an object"),
    ],
)
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = made(tmp_path, '{"a": 0}\n' + text + '\n{"a": 3}\n', "bill.jsonl")
    found = reasons(path)
    assert {number for number, _ in found} == {2}
    assert reason in found[0][1]
    assert len(found[0][1]) < 200
    assert rows(path)[-1].number == 3


def test_lists_within_lists_end_somewhere(tmp_path: Path) -> None:
    path = made(tmp_path, "[" * 500 + "]" * 500, "bill.json")
    assert [reason for _, reason in reasons(path)] == ["it is of type list; wanted an object"]


@pytest.mark.parametrize("text", ["[1, 2", "[NaN]", '[{"a": 1, "a": 2}]', "[" * 100_000])
def test_a_document_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"bill.json.* is no JSON"):
        rows(made(tmp_path, text, "bill.json"))


def test_a_line_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_RECORD_BYTES", 50)
    path = made(tmp_path, '{"a": 1}\n{"a": "' + "x" * 50 + '"}\n', "bill.jsonl")
    with pytest.raises(LimitError, match=r"bill.jsonl, line 2"):
        rows(path)


# Any


@pytest.mark.parametrize("name", ["bill.csv", "bill.jsonl"])
def test_bytes_that_are_no_utf8_are_refused_with_their_line(tmp_path: Path, name: str) -> None:
    begin = b"a,b\n1,2\n" if name == "bill.csv" else b'{"a": 1}\n{"a": 2}\n'
    with pytest.raises(InvalidInputError, match="line 3 is not UTF-8"):
        rows(made(tmp_path, begin + b"\xff\xfe,1\n", name))


def test_utf16_is_told_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="UTF-16; save it as UTF-8"):
        Source(made(tmp_path, "a,b\n1,2\n".encode("utf-16")))


@pytest.mark.parametrize(
    ("limit", "text", "name"),
    [
        ("MAX_BILL_BYTES", "a,b\n1,2\n", "bill.csv"),
        ("MAX_DOCUMENT_BYTES", '[{"a": 1}]', "bill.json"),
    ],
)
def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, text: str, name: str
) -> None:
    monkeypatch.setattr(source, limit, 5)
    with pytest.raises(LimitError, match="at most 5 are read"):
        Source(made(tmp_path, text, name))


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LINES", 2)
    with pytest.raises(LimitError, match="more than 2 rows"):
        rows(made(tmp_path, "a\n1\n2\n3\n"))


def no_file(folder: Path) -> Path:
    return folder / "none.csv"


def a_folder(folder: Path) -> Path:
    return folder


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


@pytest.mark.parametrize("make", [no_file, a_folder, a_pipe])
def test_what_cannot_be_read_twice_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(InvalidInputError, match="is no file"):
        Source(make(tmp_path))


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", HEADER, HEADER + "\n\n"])
def test_an_empty_file_has_no_lines(tmp_path: Path, text: str) -> None:
    bill = BillCheck(made(tmp_path, text))
    assert bill.shape is None
    assert list(bill) == []


def test_a_million_rows_need_no_more_memory_than_a_few(tmp_path: Path) -> None:
    """Rows are made one by one: the first is there before the last is read."""
    path = made(tmp_path, "a\n" + "1\n" * 100_000)
    heard: list[int] = []
    row = next(Source(path).rows(heard.append))
    assert row.number == 2
    assert heard[-1] < path.stat().st_size / 2


# Values in a whole bill


@pytest.mark.parametrize(
    "cell",
    [
        "-1",
        "1.0",
        "NaN",
        "Infinity",
        "1e3",
        "0x10",
        "\uff11\uff12",
        "1_000",
        "1,000",
        " 1",
        "9" * 30,
    ],
)
def test_a_count_that_is_no_whole_number_is_malformed(tmp_path: Path, cell: str) -> None:
    row = f'gen-1,2026-10-01 10:00:00,0.1,10,"{cell}",0'
    (checked,) = BillCheck(made(tmp_path, f"{HEADER}\n{row}\n"))
    assert checked.verdict is Verdict.MALFORMED
    assert "`tokens_completion`" in checked.reason


@pytest.mark.parametrize(
    "cell", ["NaN", "Infinity", "-Infinity", "1.2.3", "$1", "1,5", "1e999", "9" * 30, "\u0663"]
)
def test_money_that_is_no_plain_number_is_malformed(tmp_path: Path, cell: str) -> None:
    row = f'gen-1,2026-10-01 10:00:00,"{cell}",10,5,0'
    (checked,) = BillCheck(made(tmp_path, f"{HEADER}\n{row}\n"))
    assert checked.verdict is Verdict.MALFORMED
    assert "`cost_total`" in checked.reason


@pytest.mark.parametrize(
    "stamp",
    [
        *("2026-13-01", "now", "99999999999999999", "2026-10-01T99:00", "-1", "1e5"),
        *("9999-12-31", "0001-01-01", "1969-12-31", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_a_time_that_is_none_is_malformed(tmp_path: Path, stamp: str) -> None:
    (checked,) = BillCheck(made(tmp_path, f"{HEADER}\ngen-1,{stamp},0.1,10,5,0\n"))
    assert checked.verdict is Verdict.MALFORMED
    assert "`created_at`" in checked.reason


@pytest.mark.parametrize(
    "stamp",
    [
        *("2026-10-01T12:00:00Z", "2026-10-01 12:00:00", "2026-10-01 12:00:00 UTC"),
        *("2026-10-01T14:00:00+02:00", "1790856000", "1790856000000"),
    ],
)
def test_a_time_may_be_written_in_these_ways(tmp_path: Path, stamp: str) -> None:
    (checked,) = BillCheck(made(tmp_path, f"{HEADER}\ngen-1,{stamp},0.1,10,5,0\n"))
    assert checked.line is not None
    assert checked.line.period is not None
    assert checked.line.period.start.isoformat() == "2026-10-01T12:00:00+00:00"


def test_a_bill_can_be_read_again(tmp_path: Path) -> None:
    bill = BillCheck(write_lines(tmp_path / "bill.jsonl", [line(chat(1, 2))] * 3))
    assert [checked.verdict for checked in bill] == [checked.verdict for checked in bill]
