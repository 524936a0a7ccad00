"""Where receipts are kept: a folder with a file for each, or one file with a line for each.

Either may be shared by several processes. Files are readable by their owner alone, for they hold
the conversation; what is told of as kept is on disk.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock, Timeout
from google.protobuf import json_format

from coin_protocol.errors import InvalidInputError
from coin_protocol.files import make_folder
from coin_protocol.receipt import write_file
from verifier_sdk.collecting.reply import Json
from verifier_sdk.collecting.settling import Kept

Form = Literal["json", "binpb"]

NOTES: Final = "asserted.jsonl"
"""In a folder: notes of replies that came without a receipt."""

_LOCK_SECONDS: Final = 30.0
"""Far longer than others take to append a line; a stuck disk is told of, not waited for."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_CHARS: Final = 80


class Keeper(ABC):
    """Keeps receipts, and notes of replies without any."""

    @abstractmethod
    def keep(self, kept: Kept) -> None:
        """Write a receipt down.

        Raises:
            InvalidInputError: It cannot be written.
        """

    @abstractmethod
    def note(self, document: Json) -> None:
        """Write a note down; errors as `keep`."""


class Folder(Keeper):
    """A file for each receipt, named by when it came, and by the reply's id."""

    def __init__(self, path: Path, form: Form) -> None:
        """Make the folder if it is not there.

        Raises:
            InvalidInputError: It cannot be made, or a file is there.
        """
        if not path.exists():
            make_folder(path.parent)
            _make_private(path)
        make_folder(path)
        self._path = path
        self._form = form
        self._notes = Lines(path / NOTES)

    def keep(self, kept: Kept) -> None:
        """Write a receipt as a whole or not at all."""
        at = _UNSAFE.sub("", kept.received_at.partition(".")[0].rstrip("Z"))
        name = _UNSAFE.sub("_", kept.response_id)[:_NAME_CHARS]
        # The server chose the id, and may choose it twice: what was kept is never replaced.
        parts = (at, name, str(kept.choice) if kept.choice else "", secrets.token_hex(4))
        file = "-".join(part for part in parts if part) + f".{self._form}"
        write_file(self._path / file, kept.receipt)
        _sync(self._path)

    def note(self, document: Json) -> None:
        """Append a note to the folder's own file for them."""
        self._notes.note(document)


class Lines(Keeper):
    """A line of JSON for each receipt, in one file that only grows."""

    def __init__(self, path: Path) -> None:
        """Make the folder that it lies in, if that is not there.

        Raises:
            InvalidInputError: The folder cannot be made, or `path` is one.
        """
        if path.is_dir():
            msg = f"{path} is a folder; wanted a file, for its name ends in {path.suffix}"
            raise InvalidInputError(msg)
        make_folder(path.parent)
        self._path = path
        self._lock = path.with_name(f"{path.name}.lock")

    def keep(self, kept: Kept) -> None:
        """Append a receipt, or nothing at all."""
        receipt = json_format.MessageToDict(kept.receipt, preserving_proto_field_name=True)
        named: Json = {
            "response_id": kept.response_id,
            "model": kept.model,
            "choice": kept.choice,
            "received_at": kept.received_at,
        }
        self.note({**named, "receipt": receipt})

    def note(self, document: Json) -> None:
        """Append a line, or nothing at all."""
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        try:
            with FileLock(self._lock, timeout=_LOCK_SECONDS, mode=0o600):
                _append(self._path, line)
        except Timeout as error:
            msg = f"cannot write {self._path}: another process holds {self._lock}"
            raise InvalidInputError(msg) from error
        except OSError as error:
            msg = f"cannot write {self._path}: {error.strerror}"
            raise InvalidInputError(msg) from error


def keeper(to: Path, form: Form) -> Keeper:
    """Return what keeps receipts at a path: lines where its name ends in `.jsonl`, else a folder.

    Raises:
        InvalidInputError: Nothing can be kept there.
    """
    if to.suffix in (".json", ".binpb"):
        msg = f"{to} names a single receipt; wanted a folder, or a file that ends in .jsonl"
        raise InvalidInputError(msg)
    return Lines(to) if to.suffix == ".jsonl" else Folder(to, form)


def _append(path: Path, line: bytes) -> None:
    new = not path.exists()
    with open(path, "ab+", buffering=0, opener=_private) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                # A writer that was killed left half a line: it must not spoil this one.
                line = b"\n" + line
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
    if new:
        _sync(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    except OSError as error:
        msg = f"cannot make the folder {path}: {error.strerror}"
        raise InvalidInputError(msg) from error


def _sync(folder: Path) -> None:
    """Have the names in a folder on disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        msg = f"cannot have what was written in {folder} on disk: {error.strerror}"
        raise InvalidInputError(msg) from error
