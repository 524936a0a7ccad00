"""The log of a verifier node over SQLite, killed between its writes and put on old copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TypeVar
from unittest.mock import patch

from coin_protocol.database.engine import open_engine, writing
from coin_protocol.errors import InvalidInputError
from coin_protocol.note import NoteVerifier
from coin_protocol.testing.machines.log import LogStoppedError, Moment, NotInLogError
from tests.machines.systems.log_pure import ORIGIN, SIGNER
from verifier_sdk.log import (
    Log,
    LogForkError,
    NotLoggedYetError,
    NotSignedError,
    Sequencer,
    UnknownEntryError,
    enqueue_all,
)
from verifier_sdk.log import sequencer as sequencing
from verifier_sdk.log.memory import HeadFile
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.store.metadata import METADATA

T = TypeVar("T")


class Dead(BaseException):
    """The process died here."""


class DiesAfterKeeping(HeadFile):
    """Keeps a head, and what comes after is never done."""

    def keep(self, note: bytes) -> None:
        super().keep(note)
        raise Dead


@cache
def new_database() -> bytes:
    """Return a database with the tables of a log, and nothing in them."""
    assert ENTRY.name in METADATA.tables
    with TemporaryDirectory(prefix="coin-log-") as folder:
        path = Path(folder) / "log.db"
        engine = open_engine(f"sqlite:///{path}")
        tables = [table for name, table in METADATA.tables.items() if name.startswith("log_")]
        METADATA.create_all(engine, tables)
        engine.dispose()
        return path.read_bytes()


class SqliteLog:
    """A log in a file, and the file beside it that no backup has."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="coin-log-")
        self._path = Path(self._folder.name) / "log.db"
        self._head_file = Path(self._folder.name) / "head"
        self._ahead = 0.0
        clock = SimpleNamespace(time=lambda: time.time() + self._ahead, monotonic=time.monotonic)
        self._clock = patch.object(sequencing, "time", clock)
        self._clock.start()
        self._path.write_bytes(new_database())
        self._start()

    def _start(self) -> None:
        self._engine = open_engine(f"sqlite:///{self._path}")
        self._sequencer = Sequencer(self._engine, SIGNER, origin=ORIGIN, head_file=self._head_file)
        self._log = Log(self._engine)

    @property
    def key(self) -> NoteVerifier:
        return SIGNER.verifier

    def say(self, entries: Sequence[bytes]) -> None:
        with writing(self._engine) as connection:
            enqueue_all(connection, entries)

    def sign(self) -> bytes:
        try:
            while self._sequencer.run_once().more:
                pass
        except LogForkError as error:
            raise LogStoppedError(str(error)) from error
        return self._log.head().note

    def head(self) -> bytes | None:
        try:
            return self._log.head().note
        except NotLoggedYetError:
            return None

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        found: list[bytes] = []
        while start + len(found) < stop:
            more = self._log.entries(start + len(found), stop - start - len(found))
            if not more:
                break
            found += more
        return found

    def inclusion(self, leaf_hash: bytes, size: int) -> tuple[int, Sequence[bytes]]:
        found = _there(lambda: self._log.inclusion(leaf_hash, size))
        return found.index, found.proof

    def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        return _there(lambda: self._log.consistency(old_size, new_size))

    def crash(self, moment: Moment) -> None:
        if moment is Moment.SIGNED:
            self._sequencer._file = DiesAfterKeeping(self._head_file)
        with suppress(Dead, LogForkError):
            if moment is Moment.PLACED:
                while self._sequencer._sequence():
                    pass
            elif moment is not Moment.IDLE:
                self._sequencer.run_once()
        self._engine.dispose()
        self._start()

    def back_up(self) -> bytes:
        # Closing the last connection empties the write-ahead log.
        self._engine.dispose()
        copy = self._path.read_bytes()
        self._start()
        return copy

    def restore(self, backup: bytes) -> None:
        self._engine.dispose()
        self._path.write_bytes(backup)
        self._start()

    def jump(self, seconds: float) -> None:
        self._ahead += seconds

    def close(self) -> None:
        self._engine.dispose()
        self._clock.stop()
        self._folder.cleanup()


def _there(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (InvalidInputError, NotLoggedYetError, NotSignedError, UnknownEntryError) as error:
        raise NotInLogError(str(error)) from error
