"""Receipts that are kept together: in a folder, or in a file with a line of JSON for each.

A line is `{"response_id": …, "model": …, "received_at": …, "receipt": {…}}`, the receipt in
protobuf's own JSON mapping; or it is a receipt itself. A line without one is a note of what a
server asserts of a reply that came without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coin_protocol.errors import InvalidInputError
from coin_protocol.files import read_file
from coin_protocol.limits import MAX_FILE_BYTES
from coin_protocol.receipt import RECEIPT_FORMAT, read_receipt
from coin_protocol.v1 import receipt_pb2

LINES: Final = ".jsonl"
_FILES: Final = frozenset({".json", ".binpb", LINES})


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a collection. With neither receipt nor problem it is a note.

    Attributes:
        name: Of its file, and the line in it.
        response_id: Of the reply, where the line names it.
        receipt: Parsed, and nothing of it checked.
        problem: Why it is none.
    """

    name: str
    response_id: str = ""
    receipt: receipt_pb2.Receipt | None = field(default=None, repr=False)
    problem: str = ""


def is_collection(path: Path) -> bool:
    """Whether there may be several receipts at a path."""
    return path.suffix == LINES or path.is_dir()


def collected(paths: Sequence[Path]) -> Iterator[Found]:
    """Yield what is kept at paths, one after another: a month of it need not fit into memory.

    Args:
        paths: Files of single receipts, files of lines, and folders of either, whose own folders
            are left alone. In a folder, files that are still being written are, too.

    Raises:
        InvalidInputError: A path cannot be read, or a folder holds nothing of the kind.
    """
    for path in paths:
        if not path.is_dir():
            yield from _file(path)
            continue
        files = sorted(
            file
            for file in _listed(path)
            if file.suffix in _FILES and not file.name.startswith(".") and file.is_file()
        )
        if not files:
            msg = (
                f"{path} holds no receipts; wanted files whose names end in .json, .binpb, {LINES}"
            )
            raise InvalidInputError(msg)
        for file in files:
            yield from _file(file)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        msg = f"cannot read {folder}: {error.strerror}"
        raise InvalidInputError(msg) from error


def _file(path: Path) -> Iterator[Found]:
    if path.suffix == LINES:
        yield from _lines(path)
        return
    raw = read_file(path)
    try:
        yield Found(str(path), receipt=read_receipt(raw))
    except InvalidInputError as error:
        yield Found(str(path), problem=str(error))


def _lines(path: Path) -> Iterator[Found]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_FILE_BYTES + 1):
                number += 1
                name = f"{path}:{number}"
                if len(line) > MAX_FILE_BYTES:
                    yield Found(name, problem=f"a line of more than {MAX_FILE_BYTES} bytes")
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_FILE_BYTES)
                elif line.strip():
                    yield _line(name, line)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InvalidInputError(msg) from error


def _line(name: str, line: bytes) -> Found:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        cut = "" if line.endswith(b"\n") else ": its writer was cut off"
        return Found(name, problem=f"a line that is no JSON{cut}")
    if not isinstance(document, dict):
        return Found(name, problem=f"a line is a JSON {type(document).__name__}; wanted an object")
    given = document.get("response_id")
    response_id = given if isinstance(given, str) else ""
    receipt = document if document.get("format") == RECEIPT_FORMAT else document.get("receipt")
    if receipt is None:
        return Found(name, response_id)
    try:
        return Found(name, response_id, read_receipt(json.dumps(receipt).encode()))
    except (InvalidInputError, RecursionError) as error:
        return Found(name, response_id, problem=str(error))
