"""Receipts and audits that are kept together: in folders, or in files with one a line.

A line, or a JSON file, is a receipt or a bundle; or it is an object that holds a receipt beside
what was noted of it, `{"response_id": …, "model": …, "received_at": …, "receipt": {…}}`, in
protobuf's own JSON mapping. One without a receipt is a note of what a server asserts of a
reply that came without.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from coin_protocol.errors import InvalidInputError
from coin_protocol.limits import MAX_COLLECTED_BYTES, MAX_NOTED_CHARACTERS
from coin_protocol.receipt import BUNDLE_FORMAT, check_parts, read_bundle, read_receipt
from coin_protocol.v1 import receipt_pb2

LINES: Final = frozenset({".jsonl", ".ndjson"})
_FILES: Final = frozenset({".json", ".binpb", ".receipt", ".bundle"}) | LINES
_OF_NOTES: Final = frozenset({"response_id", "usage"})
_DELIVERY: Final = "coin.delivery."
_BUNDLE_HEAD: Final = b"\n" + bytes([len(BUNDLE_FORMAT)]) + BUNDLE_FORMAT.encode()
"""The first field of a bundle as protobuf."""


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a collection. With neither message nor problem it is a note.

    Attributes:
        name: Of its file, and the line in it.
        response_id: Of the reply, where it was noted.
        message: A receipt, or an audit with its receipt; parsed, and nothing of it checked.
        problem: Why it is neither.
    """

    name: str
    response_id: str = ""
    message: receipt_pb2.Receipt | receipt_pb2.Bundle | None = field(default=None, repr=False)
    problem: str = ""

    @property
    def receipt(self) -> receipt_pb2.Receipt | None:
        """The receipt, an audit's included."""
        message = self.message
        return message.receipt if isinstance(message, receipt_pb2.Bundle) else message


def is_collection(path: Path) -> bool:
    """Whether there may be several receipts at a path."""
    return path.suffix.lower() in LINES or path.is_dir()


def collected(paths: Sequence[Path]) -> Iterator[Found]:
    """Yield what is kept at paths, one after another: a month of it need not fit into memory.

    Args:
        paths: Files whose names end in `.json`, `.binpb`, `.receipt`, `.bundle`, or, with one a
            line, in `.jsonl`, `.ndjson`; and folders of such, with those below them. Hidden ones,
            and files that are still being written, are left alone.

    Raises:
        InvalidInputError: A path leads nowhere.
    """
    for path in paths:
        if path.is_dir():
            yield from _folder(path)
        elif path.exists():
            yield from _file(path)
        else:
            msg = f"cannot read {path}: there is no such file or folder"
            raise InvalidInputError(msg)


def _folder(path: Path) -> Iterator[Found]:
    unread: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=unread.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in _FILES and not name.startswith("."):
                yield from _file(Path(folder, name))
    for error in unread:
        yield Found(str(error.filename), problem=f"cannot be read: {error.strerror}")


def _file(path: Path) -> Iterator[Found]:
    if not path.is_file():
        # A pipe would be waited for.
        yield Found(str(path), problem="it is no file")
        return
    try:
        with path.open("rb") as file:
            if path.suffix.lower() not in LINES:
                yield _entry(str(path), file.read(MAX_COLLECTED_BYTES + 1))
                return
            number = 0
            while line := file.readline(MAX_COLLECTED_BYTES + 1):
                number += 1
                if line.strip():
                    yield _entry(f"{path}:{number}", line)
                while len(line) > MAX_COLLECTED_BYTES and not line.endswith(b"\n"):
                    line = file.readline(MAX_COLLECTED_BYTES + 1)
    except OSError as error:
        yield Found(str(path), problem=f"cannot be read: {error.strerror}")


def _entry(name: str, raw: bytes) -> Found:
    """Return what a file, or a line, holds."""
    if len(raw) > MAX_COLLECTED_BYTES:
        return Found(name, problem=f"more than {MAX_COLLECTED_BYTES} bytes")
    response_id, bundle = "", raw.startswith(_BUNDLE_HEAD)
    try:
        if raw.lstrip()[:1] == b"{":
            document = _parsed(raw)
            response_id = _noted(document)
            if not document.keys() & {"receipt", "format"} and document.keys() & _OF_NOTES:
                return Found(name, response_id)
            raw, bundle = _unwrapped(raw, document)
        return Found(name, response_id, read_bundle(raw) if bundle else read_receipt(raw))
    except InvalidInputError as error:
        return Found(name, response_id, problem=str(error))


def _parsed(raw: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InvalidInputError: It is none, or has too many parts.
    """
    check_parts(raw)
    try:
        document: dict[str, Any] = json.loads(raw)
    except (ValueError, RecursionError) as error:
        msg = f"it is no JSON, or was cut off: {str(error).splitlines()[0][:120]}"
        raise InvalidInputError(msg) from error
    return document


def _noted(document: dict[str, Any]) -> str:
    """Return the reply's id.

    Raises:
        InvalidInputError: What is noted is none.
    """
    noted = document.get("response_id")
    if noted is None:
        return ""
    if not isinstance(noted, str) or len(noted) > MAX_NOTED_CHARACTERS:
        msg = f"`response_id` is no text of at most {MAX_NOTED_CHARACTERS} characters"
        raise InvalidInputError(msg)
    return noted


def _unwrapped(raw: bytes, document: dict[str, Any]) -> tuple[bytes, bool]:
    """Return what was kept, without what was noted beside it, and whether it is a bundle.

    Raises:
        InvalidInputError: It cannot hold a receipt.
    """
    inner = document.get("receipt")
    # A bundle has a field of that name, too, but says what it is.
    if "format" in document or not isinstance(inner, dict):
        inner = document
    else:
        raw = json.dumps(inner).encode()
    kind = inner.get("format")
    if isinstance(kind, str) and kind.startswith(_DELIVERY):
        msg = (
            "it is a gateway's delivery, which lacks what the client sent and saw; keep the "
            "receipt that the client makes of it"
        )
        raise InvalidInputError(msg)
    return raw, kind == BUNDLE_FORMAT
