"""Rows out of a bill's file: CSV, JSON lines or one JSON document, within limits."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from coin_protocol.errors import InvalidInputError, LimitError
from verifier_sdk.bill.fields import Fields, read_json
from verifier_sdk.bill.limits import (
    MAX_BILL_BYTES,
    MAX_COLUMNS,
    MAX_DOCUMENT_BYTES,
    MAX_LINES,
    MAX_RECORD_BYTES,
)

_HEAD_BYTES: Final = 1 << 16
_DELIMITERS: Final = (",", ";", "\t")
_LINE_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})
_DEPTH: Final = 6
_OTHER_ENCODINGS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is none.

    Attributes:
        number: As of a row.
        reason: What is wrong with it.
    """

    number: int
    reason: str


Row = Fields | Unreadable
Told = Callable[[int], object]
"""Is told how many bytes were read so far."""


class Source:
    """A bill's file. Its rows can be read more than once.

    Attributes:
        path: Of the file.
        size: In bytes.
        unit: What the numbers of its rows count.
        by_line: Whether it is read line by line, in bounded memory.
        more: Whether a page in it says that there are more pages; known once rows were read.
    """

    def __init__(self, path: Path) -> None:
        """Look at the beginning of a file to see what it is.

        Raises:
            InvalidInputError: It cannot be read, or is no UTF-8 text.
            LimitError: It is too large.
        """
        self.path = path
        with _opened(path) as file:
            # An API's answer may be one long line.
            head = file.readline(MAX_RECORD_BYTES + 1)
            while head and not head.removeprefix(codecs.BOM_UTF8).strip():
                head = file.readline(MAX_RECORD_BYTES + 1)
            rest = file.read(_HEAD_BYTES)
            self.size = path.stat().st_size
        if head.startswith(_OTHER_ENCODINGS):
            msg = f"{path} is UTF-16; save it as UTF-8"
            raise InvalidInputError(msg)
        begin = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        self._rows: Callable[[Told], Iterator[Row]] = self._csv_rows
        if begin == b"[" or (begin == b"{" and not _in_lines(path, head, rest)):
            self._rows = self._document_rows
        elif begin == b"{":
            self._rows = self._json_rows
        self.by_line = self._rows != self._document_rows
        self.unit = "line" if self.by_line else "record"
        self.more = False
        most = MAX_BILL_BYTES if self.by_line else MAX_DOCUMENT_BYTES
        if self.size > most:
            hint = "" if self.by_line else "; write one record a line, and name it .jsonl"
            msg = f"{path} has {self.size} bytes; at most {most} are read{hint}"
            raise LimitError(msg)

    def rows(self, told: Told = lambda _: None) -> Iterator[Row]:
        """Yield the rows from the beginning; pages and buckets of an API are taken apart.

        Raises:
            InvalidInputError: The file is not the text that it seemed to be.
            LimitError: A row, or the number of rows or columns, passes its limit.
        """
        for count, row in enumerate(self._rows(told), 1):
            if count > MAX_LINES:
                msg = f"{self.path} has more than {MAX_LINES} rows; cut it into several files"
                raise LimitError(msg)
            yield row

    def _csv_rows(self, told: Told) -> Iterator[Row]:
        # The csv module has one limit for the whole process. It is only ever raised here, and
        # the record's own limit comes first.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
        with _opened(self.path) as file:
            lines = _Lines(self.path, file)
            names, delimiter = self._header(lines)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                lines.begin_record()
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Unreadable(lines.first, f"it is no CSV: {error}")
                    continue
                told(lines.position)
                if not any(cells):
                    continue
                if len(cells) != len(names):
                    reason = f"it has {len(cells)} fields, the header {len(names)}"
                    yield Unreadable(lines.first, reason)
                    continue
                yield Fields(lines.first, dict(zip(names, cells, strict=True)))

    def _header(self, lines: _Lines) -> tuple[list[str], str]:
        """Return the names of the columns and what stands between them."""
        lines.begin_record()
        text = next((line for line in lines if line.strip()), "")
        delimiter = max(_DELIMITERS, key=text.count)
        try:
            cells = next(csv.reader([text], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            msg = f"{self.path}, line {lines.number}: the header is no CSV: {error}"
            raise InvalidInputError(msg) from error
        if len(cells) > MAX_COLUMNS:
            msg = f"{self.path} has {len(cells)} columns; at most {MAX_COLUMNS} are read"
            raise LimitError(msg)
        names = [cell.strip() for cell in cells]
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            msg = f"{self.path}: the column {twice[0][:80]!r} stands twice in the header; drop one"
            raise InvalidInputError(msg)
        return names, delimiter

    def _json_rows(self, told: Told) -> Iterator[Row]:
        with _opened(self.path) as file:
            lines = _Lines(self.path, file)
            while True:
                lines.begin_record()
                text = next(lines, None)
                if text is None:
                    return
                told(lines.position)
                if text.strip():
                    yield from self._taken_apart(lines.number, text)

    def _document_rows(self, told: Told) -> Iterator[Row]:
        with _opened(self.path) as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
        try:
            document = read_json(raw.removeprefix(codecs.BOM_UTF8))
        except (ValueError, UnicodeDecodeError) as error:
            where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            msg = f"{self.path}{where} is no JSON: {str(error).splitlines()[0][:120]}"
            raise InvalidInputError(msg) from error
        self._note(document)
        told(len(raw))
        for number, value in enumerate(_records(document, {}), 1):
            yield _row(number, value)

    def _taken_apart(self, number: int, text: str) -> Iterator[Row]:
        try:
            value = read_json(text)
        except ValueError as error:
            yield Unreadable(number, f"it is no JSON: {str(error).splitlines()[0][:120]}")
            return
        self._note(value)
        for record in _records(value, {}):
            yield _row(number, record)

    def _note(self, value: object) -> None:
        if isinstance(value, Mapping) and value.get("has_more") is True:
            self.more = True


class _Lines:
    """Physical lines of a file as text, each record within its limit.

    Attributes:
        number: Of the line read last.
        first: Of the first line of this record.
        position: Bytes read.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._record = 0
        self.number = self.first = self.position = 0

    def begin_record(self) -> None:
        """Count what follows as another record."""
        self._record = 0
        self.first = self.number + 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_RECORD_BYTES + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        self.position += len(raw)
        self._record += len(raw)
        if self._record > MAX_RECORD_BYTES:
            msg = (
                f"{self._path}, line {self.first}: a record has more than {MAX_RECORD_BYTES} "
                f"bytes; leave out columns of text, and look for a quote that is not closed"
            )
            raise LimitError(msg)
        if self.number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            msg = f"{self._path}, line {self.number} is not UTF-8; save the file as UTF-8"
            raise InvalidInputError(msg) from error


def _opened(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            # What cannot be read again cannot be matched: a pipe, say.
            msg = f"{path} is no file"
            raise InvalidInputError(msg)
        return path.open("rb")
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InvalidInputError(msg) from error


def _in_lines(path: Path, first: bytes, rest: bytes) -> bool:
    """Whether a file that begins with an object holds one in each line."""
    if path.suffix.lower() in _LINE_SUFFIXES:
        return True
    try:
        read_json(first.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return False
    return bool(rest.strip())


def _row(number: int, value: object) -> Row:
    if isinstance(value, Mapping):
        return Fields(number, value)
    return Unreadable(number, f"it is of type {type(value).__name__}; wanted an object")


def _records(value: object, around: Mapping[str, object], depth: int = _DEPTH) -> Iterator[object]:
    """Yield the records of a page (`data`), of its buckets (`results`), or of a list.

    Args:
        value: Parsed JSON.
        around: What the bucket says of all its results, such as its period.
        depth: How often it is still looked into; no export nests deeper.
    """
    results = value.get("results") if isinstance(value, Mapping) else None
    data = value.get("data") if isinstance(value, Mapping) else None
    if depth == 0 or not isinstance(value, (list, Mapping)):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _records(each, around, depth - 1)
    elif isinstance(results, list):
        outer = {name: each for name, each in value.items() if name not in {"results", "object"}}
        yield from _records(results, outer, depth - 1)
    elif isinstance(data, (list, Mapping)):
        yield from _records(data, around, depth - 1)
    else:
        yield {**around, **value} if around else value
