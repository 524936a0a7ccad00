"""The last head that left, kept in a file: what a database restored from a backup has forgotten."""

from __future__ import annotations

from pathlib import Path

from coin_protocol.checkpoint import Checkpoint, verify_checkpoint
from coin_protocol.errors import LimitError, VerificationError
from coin_protocol.files import make_folder, read_file, replace_file
from coin_protocol.note import NoteVerifier
from coin_protocol.signer import sync_folder
from verifier_sdk.log.errors import LogForkError


class HeadFile:
    """A file beside the database, and in none of its backups."""

    def __init__(self, path: Path) -> None:
        """Use `path`; the file is made when the first head is signed."""
        self._path = path

    def keep(self, note: bytes) -> None:
        """Keep a head; it is on disk when this returns.

        Raises:
            InvalidInputError: The file cannot be written.
        """
        make_folder(self._path.parent)
        replace_file(self._path, note)
        sync_folder(self._path.parent)

    def read(self, keys: tuple[NoteVerifier, ...], origin: str) -> Checkpoint | None:
        """Return the head that is kept, if there is one.

        Raises:
            LogForkError: The file holds something else than a head of this log.
            InvalidInputError: The file cannot be read.
        """
        if not self._path.exists():
            return None
        try:
            return own_head(read_file(self._path), keys, origin)
        except (VerificationError, LimitError) as error:
            msg = f"{self._path} holds no head of this log: {error}"
            raise LogForkError(msg) from error


def own_head(note: bytes, keys: tuple[NoteVerifier, ...], origin: str) -> Checkpoint:
    """Return a head that one of the log's own keys signed.

    Raises:
        VerificationError: None did, or it is another log's.
        LimitError: It is too large.
    """
    *others, last = keys
    for key in others:
        try:
            return verify_checkpoint(note, key, origin=origin).checkpoint
        except VerificationError:
            continue
    return verify_checkpoint(note, last, origin=origin).checkpoint
