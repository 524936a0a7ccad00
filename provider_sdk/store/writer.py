"""Write sessions down off the path: one thread, many sessions a transaction.

Operations are taken in the order they came and written in batches: while one batch is being
synced the next one gathers. Streams at full speed would still take a transaction for each block,
so that right after one further blocks wait a moment for others; what a reply waits for does not.
Every operation can be written twice with the same outcome, since a connection that dies in a
commit leaves open whether it was made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite

from coin_protocol.database.engine import writing
from coin_protocol.errors import CoinError, StoreUnavailableError
from provider_sdk.store.observe import StoreObserver
from provider_sdk.store.tables import BLOCK, OPEN, PROCESS, SESSION

_LOG = logging.getLogger(__name__)

_MOST_WAITING: Final = 20_000
"""Operations that wait for the disk: about 20 MB. Past it no session begins: their receipts are
missing. What has begun is taken to its end, or its commitment would speak of what is not on disk.
"""
_MOST_AT_ONCE: Final = 500
"""Operations in one transaction: some 10 ms of work, so that others get their turn."""
_GATHERING: Final = 0.005
"""Seconds from one transaction to the next where there are but blocks to write."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One thing to write.

    Attributes:
        session_id: Whose.
        opens: The session's row, for one that begins.
        block: A block's row.
        ends: What changes in the session's row when it ends.
        gives_up: Whether the session is left to whoever recovers it.
        written: Done once it is on disk.
    """

    session_id: bytes
    opens: Row | None = None
    block: Row | None = None
    ends: Row | None = None
    gives_up: bool = False
    written: Future[None] = field(default_factory=Future)

    @property
    def urgent(self) -> bool:
        """Whether a session begins or ends with it, so that somebody may be waiting."""
        return self.opens is not None or self.ends is not None or self.gives_up


class SessionLostError(CoinError):
    """This process does not hold the session any more: it is closed as crashed, or will be."""


class Writer:
    """Writes operations in the background, for as long as the process lives."""

    def __init__(
        self,
        engine: Engine,
        *,
        process_id: str,
        beat_seconds: float,
        beaten: Callable[[], None],
        observer: StoreObserver,
    ) -> None:
        """Start the thread.

        Args:
            engine: Of the database.
            process_id: Under which sessions are held.
            beat_seconds: How often to show that this process lives.
            beaten: Told each time that it has.
            observer: Told of each batch.
        """
        self._engine = engine
        self._process_id = process_id
        self._beat_seconds = beat_seconds
        self._beaten = beaten
        self._observer = observer
        self._waiting: deque[Operation] = deque()
        self._wake = threading.Condition()
        self._gathering = False
        self._closing = False
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="coin-store", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Operations that wait for the disk."""
        return len(self._waiting)

    @property
    def failures(self) -> int:
        """Batches that had to be tried again."""
        return self._failures

    def submit(self, operation: Operation) -> Future[None]:
        """Have an operation written.

        Raises:
            StoreUnavailableError: A session begins and too many operations wait already, or the
                writer is closed.
        """
        with self._wake:
            full = operation.opens is not None and len(self._waiting) >= _MOST_WAITING
            if self._closing or full:
                why = "is closed" if self._closing else f"is {_MOST_WAITING} writes behind"
                msg = f"the store {why}"
                raise StoreUnavailableError(msg)
            self._waiting.append(operation)
            if operation.urgent or not self._gathering:
                self._wake.notify()
        return operation.written

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for some seconds at most, and stop."""
        with self._wake:
            self._closing = True
            self._stopping.set()
            self._wake.notify()
        self._thread.join(seconds)
        with self._wake:
            left = list(self._waiting)
            self._waiting.clear()  # and whatever the thread still does, it settles nothing
        for operation in left:
            msg = "the store was closed before this was written"
            operation.written.set_exception(StoreUnavailableError(msg))

    def _run(self) -> None:
        beaten = 0.0
        while True:
            with self._wake:
                if not self._waiting and not self._closing:
                    self._wake.wait(max(0.0, beaten + self._beat_seconds - time.monotonic()))
                self._gather(beaten + _GATHERING - time.monotonic())
                batch = [self._waiting[at] for at in range(min(_MOST_AT_ONCE, len(self._waiting)))]
                if self._closing and not batch:
                    break
            if batch or time.monotonic() >= beaten + self._beat_seconds:
                if not self._write(batch):
                    break
                beaten = time.monotonic()

    def _gather(self, seconds: float) -> None:
        """Let blocks gather for some time, or until there is more than blocks to write."""
        if seconds <= 0 or self._closing or len(self._waiting) >= _MOST_AT_ONCE:
            return
        if not any(operation.urgent for operation in self._waiting):
            self._gathering = True
            self._wake.wait(seconds)
            self._gathering = False

    def _write(self, batch: list[Operation]) -> bool:
        """Write a batch, however often it takes; return whether to go on."""
        pause = _FIRST_PAUSE
        while True:
            start = time.monotonic()
            try:
                lost = self._transact(batch)
                break
            except StoreUnavailableError as error:
                self._failures += 1
                _LOG.warning("%d writes wait: %s", self.waiting, error)
            except Exception as error:  # noqa: BLE001 - or all other sessions would wait for it
                if len(batch) <= 1:
                    _LOG.exception("a write failed")
                    for operation in batch:
                        self._drop(operation.session_id)
                    self._settle(batch, {operation.session_id for operation in batch}, error)
                    return True
                # One of them cannot be written: find it by writing each alone.
                return all(self._write([operation]) for operation in batch)
            # Whatever comes meanwhile: else many streams would hurry a database that is away.
            if self._stopping.wait(pause):
                return False
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._beaten()
        self._observer.written(len(batch), time.monotonic() - start)
        self._settle(batch, lost, None)
        return True

    def _settle(self, batch: list[Operation], lost: set[bytes], error: Exception | None) -> None:
        with self._wake:
            if not self._waiting:
                return  # closed meanwhile, and settled
            for _ in batch:
                self._waiting.popleft()
        for operation in batch:
            if operation.session_id in lost:
                operation.written.set_exception(error or _lost(operation.session_id))
            else:
                operation.written.set_result(None)

    def _transact(self, batch: list[Operation]) -> set[bytes]:
        """Write a batch in one transaction; return the sessions that this process lost."""
        with writing(self._engine) as connection:
            self._beat(connection)
            opens = [operation.opens for operation in batch if operation.opens is not None]
            if opens:
                _insert(connection, SESSION, opens)
            theirs = {operation.session_id for operation in batch if operation.opens is None}
            held = self._held(connection, theirs)
            lost = theirs - held
            blocks = [
                operation.block
                for operation in batch
                if operation.block is not None and operation.session_id not in lost
            ]
            if blocks:
                _insert(connection, BLOCK, blocks)
            for operation in batch:
                if operation.ends is not None and not self._end(connection, operation):
                    lost.add(operation.session_id)
                elif operation.ends is not None:
                    lost.discard(operation.session_id)
                elif operation.gives_up:
                    self._let_go(connection, operation.session_id)
        return lost

    def _beat(self, connection: Connection) -> None:
        now = time.time()
        row = {"process_id": self._process_id, "beat_at": now}
        statement = _dialect(connection).insert(PROCESS).values(row)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["process_id"], set_={"beat_at": now})
        )

    def _held(self, connection: Connection, session_ids: Iterable[bytes]) -> set[bytes]:
        """Return the sessions that this process still holds, and keep others off them."""
        wanted = list(session_ids)
        if not wanted:
            return set()
        mine = select(SESSION.c.session_id).where(
            SESSION.c.session_id.in_(wanted),
            SESSION.c.state == OPEN,
            SESSION.c.process_id == self._process_id,
        )
        return set(connection.execute(mine.with_for_update()).scalars())

    def _end(self, connection: Connection, operation: Operation) -> bool:
        """End a session; true if it ended so, now or in an attempt before."""
        changes = operation.ends or {}
        found = connection.execute(
            update(SESSION)
            .where(
                SESSION.c.session_id == operation.session_id,
                SESSION.c.state == OPEN,
                SESSION.c.process_id == self._process_id,
            )
            .values(changes)
        )
        if found.rowcount:
            return True
        before = select(SESSION.c.commitment_sha256).where(
            SESSION.c.session_id == operation.session_id
        )
        kept = connection.execute(before).scalar()
        return kept is not None and kept == changes["commitment_sha256"]

    def _drop(self, session_id: bytes) -> None:
        """Leave a session that lacks a write to whoever closes it with what came before that."""
        try:
            with writing(self._engine) as connection:
                self._let_go(connection, session_id)
        except Exception:  # noqa: BLE001 - its own writes fail one by one then, as this one did
            _LOG.exception("session %s could not be given up", session_id.hex())

    def _let_go(self, connection: Connection, session_id: bytes) -> None:
        connection.execute(
            update(SESSION)
            .where(
                SESSION.c.session_id == session_id,
                SESSION.c.state == OPEN,
                SESSION.c.process_id == self._process_id,
            )
            .values(process_id=None)
        )


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Insert rows; those that an attempt before has left are kept as they are."""
    connection.execute(_dialect(connection).insert(table).on_conflict_do_nothing(), rows)


def _dialect(connection: Connection) -> Any:  # noqa: ANN401 - two modules of one shape
    return sqlite if connection.dialect.name == "sqlite" else postgresql


def _lost(session_id: bytes) -> SessionLostError:
    msg = (
        f"session {session_id.hex()} is not this process's any more: one of its writes failed, or "
        "another process took this one for dead"
    )
    return SessionLostError(msg)
