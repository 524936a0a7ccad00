"""The witness over SQLite, asked by several threads at once and killed between its writes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from coin_protocol.database.engine import open_engine
from coin_protocol.errors import TryLaterError
from coin_protocol.note import NoteSignature, NoteSigner, NoteVerifier
from coin_protocol.testing.machines.witness_system import LATER, Answer
from tests.machines.systems.witness_pure import KEY, refused
from tests.support.witnesses import NOW
from verifier_sdk.witness.rules import Refused
from verifier_sdk.witness.store import WitnessStore
from verifier_sdk.witness.witness import Witness, parse_logs


class Dead(BaseException):
    """The process died here."""


class DyingSigner(NoteSigner):
    """Dies when it is asked to sign: what is to be signed is on disk by then."""

    def __init__(self) -> None:
        super().__init__(KEY._signer, KEY.key.algorithm)

    def sign(self, text: str, at: int | None = None) -> NoteSignature:
        del text, at
        raise Dead


@cache
def new_database() -> bytes:
    """Return a database as `coin witness init` makes it."""
    with TemporaryDirectory(prefix="coin-witness-") as folder:
        path = Path(folder) / "witness.db"
        engine = open_engine(f"sqlite:///{path}")
        WitnessStore.initialise(engine, KEY.verifier.vkey)
        engine.dispose()
        return path.read_bytes()


class SqliteWitness:
    """A witness in a file."""

    def __init__(self, logs: Mapping[str, str]) -> None:
        self._logs = parse_logs({origin: [vkey] for origin, vkey in logs.items()})
        self._folder = TemporaryDirectory(prefix="coin-witness-")
        self._path = Path(self._folder.name) / "witness.db"
        self._path.write_bytes(new_database())
        self._now = NOW
        self._deaths = 0
        self._start()

    def _start(self) -> None:
        self._engine = open_engine(f"sqlite:///{self._path}")
        self._store = WitnessStore(self._engine, KEY.verifier.vkey, self._logs)
        self._witness = self._of(KEY)

    def _of(self, signer: NoteSigner) -> Witness:
        return Witness(signer, self._logs, self._store, clock=lambda: self._now)

    @property
    def key(self) -> NoteVerifier:
        return KEY.verifier

    def ask(self, bodies: Sequence[bytes]) -> Sequence[Answer]:
        if len(bodies) == 1:
            return [self._ask(bodies[0])]
        with ThreadPoolExecutor(len(bodies)) as threads:
            return list(threads.map(self._ask, bodies))

    def _ask(self, body: bytes) -> Answer:
        try:
            result = self._witness.add_checkpoint(body).result
        except TryLaterError as error:
            return Answer(LATER, str(error).encode())
        if isinstance(result, Refused):
            return refused(result.why, result.size)
        return Answer(200, result.line.encode())

    def ask_and_die(self, body: bytes) -> None:
        self._deaths += 1
        if self._deaths % 3:
            dying = self._of(DyingSigner() if self._deaths % 3 == 1 else KEY)
            with suppress(Dead, TryLaterError):
                dying.add_checkpoint(body)
        self.restart()

    def restart(self) -> None:
        """Take what is in the file and its write-ahead log at this moment, as a kill leaves it."""
        for name in ("witness.db", "witness.db-wal"):
            if (left := self._path.with_name(name)).exists():
                shutil.copy(left, left.with_name(f"left-{name}"))
        self._engine.dispose()
        self._path.unlink()
        for name in ("witness.db", "witness.db-wal"):
            if (left := self._path.with_name(f"left-{name}")).exists():
                left.rename(left.with_name(name))
        self._start()

    def jump(self, seconds: int) -> None:
        self._now += seconds

    def close(self) -> None:
        self._engine.dispose()
        self._folder.cleanup()
