"""Receipts out of folders and files, within limits; what is none is named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from coin_protocol.errors import InvalidInputError
from coin_protocol.receipt import BUNDLE_FORMAT, read_bundle, read_receipt
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.bill.limits import MAX_NAME_CHARACTERS, MAX_RECEIPT_BYTES

_LINE_SUFFIXES: Final = frozenset({".jsonl", ".ndjson"})
_SUFFIXES: Final = frozenset({".json", ".binpb", ".receipt", ".bundle"}) | _LINE_SUFFIXES
_DELIVERY: Final = "coin.delivery."
_BUNDLE_HEAD: Final = b"\n" + bytes([len(BUNDLE_FORMAT)]) + BUNDLE_FORMAT.encode()
"""The first field of a bundle as protobuf."""


@dataclass(frozen=True, slots=True)
class Found:
    """A receipt, or an audit with its receipt, as it was kept.

    Attributes:
        origin: File, and line where there are several.
        response_id: Noted beside it; empty where nothing was.
        message: Parsed, and nothing about it checked but its form.
    """

    origin: str
    response_id: str
    message: receipt_pb2.Receipt | receipt_pb2.Bundle


@dataclass(frozen=True, slots=True)
class Problem:
    """A receipt that does not count.

    Attributes:
        origin: File, and line where there are several.
        reason: Why.
    """

    origin: str
    reason: str


def read_receipts(path: Path) -> Iterator[Found | Problem]:
    """Yield the receipts in a folder and those below it, or in a file.

    Args:
        path: A folder with files `.json`, `.binpb`, `.receipt`, `.bundle`, `.jsonl`, `.ndjson`;
            or one such file. A line, or JSON file, is a receipt or bundle, or an object with
            `response_id` and `receipt`.

    Raises:
        InvalidInputError: There is no such file or folder.
    """
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                if Path(name).suffix.lower() in _SUFFIXES:
                    yield from _file(Path(folder, name))
    elif path.is_file():
        yield from _file(path)
    else:
        msg = f"{path} is no file and no folder"
        raise InvalidInputError(msg)


def _file(path: Path) -> Iterator[Found | Problem]:
    by_line = path.suffix.lower() in _LINE_SUFFIXES
    if not path.is_file():
        # A pipe would be waited for.
        yield Problem(str(path), "it is no file")
        return
    try:
        with path.open("rb") as file:
            number = 0
            while raw := (
                file.readline(MAX_RECEIPT_BYTES + 1)
                if by_line
                else file.read(MAX_RECEIPT_BYTES + 1)
            ):
                number += 1
                origin = f"{path}, line {number}" if by_line else str(path)
                if len(raw) > MAX_RECEIPT_BYTES:
                    # Where the next line begins nobody knows without reading on.
                    yield Problem(origin, f"more than {MAX_RECEIPT_BYTES} bytes; not read further")
                    return
                if raw.strip() and (found := _one(origin, raw)) is not None:
                    yield found
    except OSError as error:
        yield Problem(str(path), f"cannot be read: {error.strerror}")


def _one(origin: str, raw: bytes) -> Found | Problem | None:
    """Return what an entry holds; None for a note, which holds what was told and no receipt."""
    response_id, bundle = "", raw.startswith(_BUNDLE_HEAD)
    try:
        if raw.lstrip()[:1] == b"{":
            document = _parsed(raw)
            if "receipt" not in document and "usage" in document:
                return None
            response_id, raw, bundle = _unwrapped(raw, document)
        message = read_bundle(raw) if bundle else read_receipt(raw)
    except InvalidInputError as error:
        return Problem(origin, str(error))
    return Found(origin, response_id, message)


def _parsed(raw: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        document: dict[str, Any] = json.loads(raw)
    except (ValueError, RecursionError) as error:
        msg = f"it is no JSON: {str(error).splitlines()[0][:120]}"
        raise InvalidInputError(msg) from error
    return document


def _unwrapped(raw: bytes, document: dict[str, Any]) -> tuple[str, bytes, bool]:
    """Return the id noted beside what was kept, this alone, and whether it is a bundle.

    Raises:
        InvalidInputError: It cannot hold a receipt.
    """
    inner, noted = document.get("receipt"), document.get("response_id")
    # A bundle has a field of that name, too, but says what it is.
    if "format" in document or not isinstance(inner, dict):
        inner, noted = document, ""
    else:
        raw = json.dumps(inner).encode()
    kind = inner.get("format")
    if isinstance(kind, str) and kind.startswith(_DELIVERY):
        msg = (
            "it is a gateway's delivery, which lacks what the client sent and saw; keep the "
            "receipt that the client makes of it"
        )
        raise InvalidInputError(msg)
    if noted is not None and (not isinstance(noted, str) or len(noted) > MAX_NAME_CHARACTERS):
        msg = f"`response_id` is no text of at most {MAX_NAME_CHARACTERS} characters"
        raise InvalidInputError(msg)
    return noted or "", raw, kind == BUNDLE_FORMAT
