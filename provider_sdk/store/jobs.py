"""What has to be done to sessions later: fingerprints, closing those of the dead, deleting."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    and_,
    delete,
    func,
    or_,
    select,
    update,
)

from coin_protocol.database.engine import empty_log, reading, writing
from coin_protocol.v1 import envelope_pb2
from provider_sdk.store.sql import SqlStore, block_rows
from provider_sdk.store.tables import BLOCK, COMMITTED, OPEN, PROCESS, PURGED, READY, SESSION

MOST_ATTEMPTS: Final = 10
"""Attempts at a session's fingerprints; then it waits for an operator."""
_AT_ONCE: Final = 200
"""Sessions purged in one transaction."""


@dataclass(frozen=True)
class Lag:
    """How far fingerprints are behind.

    Attributes:
        sessions: That wait, failed ones included.
        blocks: In them.
        seconds: Since the oldest of them was committed; 0 where none waits.
        failed: Sessions that no worker tries any more.
    """

    sessions: int
    blocks: int
    seconds: float
    failed: int


@dataclass(frozen=True)
class Claim:
    """A session whose fingerprints this worker makes. Nothing of it is unsealed yet.

    Attributes:
        session_id: Public id, 16 bytes.
        row: Its row of `session`, as it was before.
        block_rows: Its rows of `block`, in order; those of an earlier attempt have windows.
        attempts: This one included.
    """

    session_id: bytes
    row: Row[Any] = field(repr=False)
    block_rows: Sequence[Row[Any]] = field(repr=False)
    attempts: int = 1


@dataclass(frozen=True)
class MadeBlock:
    """What a worker makes of a block.

    Attributes:
        windows: Its quantised window embeddings, one after the other.
        nodes: Of its tree (`Opener.kept_nodes`).
    """

    windows: bytes = field(repr=False)
    nodes: bytes = field(repr=False)


@dataclass(frozen=True)
class Abandoned:
    """A session that its process left behind, held by this process now. Nothing is unsealed yet.

    Attributes:
        session_id: Public id, 16 bytes.
        row: Its row of `session`.
        block_rows: Its rows of `block`, full ones, in order.
    """

    session_id: bytes
    row: Row[Any] = field(repr=False)
    block_rows: Sequence[Row[Any]] = field(repr=False)


def lag(store: SqlStore) -> Lag:
    """Return how far fingerprints are behind."""
    with reading(store.engine) as connection:
        row = connection.execute(
            select(
                func.count(),
                func.coalesce(func.sum(SESSION.c.block_count), 0),
                func.min(SESSION.c.committed_at),
                func.count().filter(SESSION.c.attempts >= MOST_ATTEMPTS),
            ).where(SESSION.c.state == COMMITTED)
        ).one()
    sessions, blocks, oldest, failed = row
    seconds = 0.0 if oldest is None else max(0.0, time.time() - oldest)
    return Lag(int(sessions), int(blocks), seconds, int(failed))


def claim(store: SqlStore, worker: str, seconds: float) -> Claim | None:
    """Take the oldest session that waits for its fingerprints and that no worker holds.

    Args:
        store: Where sessions are kept.
        worker: Under which name it is held; it begins with the process of its store.
        seconds: For how long, unless `renew` is called; less where that process dies.
    """
    now = time.time()
    # A worker's name begins with its process: what a killed one held waits for no clock.
    process = func.substr(SESSION.c.claimed_by, 1, len(store.process_id))
    with writing(store.engine) as connection:
        row = connection.execute(
            select(SESSION)
            .where(
                SESSION.c.state == COMMITTED,
                SESSION.c.attempts < MOST_ATTEMPTS,
                or_(
                    SESSION.c.claimed_until.is_(None),
                    SESSION.c.claimed_until < now,
                    process.not_in(store.leases.living(connection)),
                ),
            )
            .order_by(SESSION.c.committed_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return None
        connection.execute(
            update(SESSION)
            .where(SESSION.c.session_id == row.session_id)
            .values(claimed_by=worker, claimed_until=now + seconds, attempts=SESSION.c.attempts + 1)
        )
        blocks = block_rows(connection, row.session_id)
    return Claim(row.session_id, row, blocks, row.attempts + 1)


def keep_windows(
    store: SqlStore,
    session_id: bytes,
    made: Mapping[int, MadeBlock],
    *,
    worker: str,
    seconds: float,
) -> bool:
    """Keep the windows of some blocks and hold the session for longer.

    Args:
        store: Where sessions are kept.
        session_id: Held by `worker`.
        made: By the block's index.
        worker: As claimed.
        seconds: From now.

    Returns:
        Whether the worker still held it; if not, another makes them, and these are dropped.
    """
    with writing(store.engine) as connection:
        held = connection.execute(
            update(SESSION)
            .where(_held(session_id, worker))
            .values(claimed_until=time.time() + seconds)
        )
        if not held.rowcount:
            return False
        for index, block in made.items():
            sealed = store.safe.windows(session_id, index, [block.windows])
            connection.execute(
                update(BLOCK)
                .where(BLOCK.c.session_id == session_id, BLOCK.c.block_index == index)
                .values(windows=sealed, nodes=block.nodes)
            )
    return True


def keep_fingerprints(
    store: SqlStore, session_id: bytes, signed: envelope_pb2.Envelope, *, worker: str
) -> bool:
    """Keep the signed fingerprints; return whether the worker still held the session."""
    with writing(store.engine) as connection:
        held = connection.execute(
            update(SESSION)
            .where(_held(session_id, worker))
            .values(
                state=READY,
                fingerprints=signed.SerializeToString(),
                claimed_by=None,
                claimed_until=None,
                failure=None,
            )
        )
    return bool(held.rowcount)


def put_off(
    store: SqlStore, session_id: bytes, *, worker: str, failure: str, seconds: float
) -> None:
    """Note why an attempt failed, and let nobody try again for some seconds."""
    with writing(store.engine) as connection:
        connection.execute(
            update(SESSION)
            .where(_held(session_id, worker))
            .values(failure=failure[:256], claimed_by=None, claimed_until=time.time() + seconds)
        )


def retry(engine: Engine) -> int:
    """Have those sessions' fingerprints tried again that no worker tries any more.

    Returns:
        How many there were.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        found = connection.execute(
            update(SESSION)
            .where(SESSION.c.state == COMMITTED, SESSION.c.attempts >= MOST_ATTEMPTS)
            .values(attempts=0, claimed_until=None, failure=None)
        )
    return int(found.rowcount)


def let_go(store: SqlStore, worker: str) -> None:
    """Free what a worker still holds, as if it had not tried: it stops, or the database failed."""
    with writing(store.engine) as connection:
        connection.execute(
            update(SESSION)
            .where(SESSION.c.state == COMMITTED, SESSION.c.claimed_by == worker)
            .values(claimed_by=None, claimed_until=None, attempts=SESSION.c.attempts - 1)
        )


def take_abandoned(store: SqlStore, *, besides: Collection[bytes] = ()) -> Abandoned | None:
    """Take over a session whose process shows no sign of life, none of those in `besides`."""
    with writing(store.engine) as connection:
        row = connection.execute(
            select(SESSION)
            .where(_abandoned(store, connection), SESSION.c.session_id.not_in(list(besides)))
            .order_by(SESSION.c.opened_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        # Who began after the living were read is not dead: its sign is there where its session is.
        if row is None or row.process_id in store.leases.living(connection):
            return None
        connection.execute(
            update(SESSION)
            .where(SESSION.c.session_id == row.session_id)
            .values(process_id=store.process_id)
        )
        blocks = block_rows(connection, row.session_id)
    return Abandoned(row.session_id, row, blocks)


def purge(store: SqlStore, *, older_than_seconds: float) -> int:
    """Delete the secrets of sessions that were committed so long ago; keep what was signed.

    Those that were opened so long ago, and given up by whoever tried to close them, lose theirs
    as well.

    Returns:
        Sessions purged now.
    """
    cutoff = time.time() - older_than_seconds
    purged = 0
    while True:
        with writing(store.engine) as connection:
            ended = and_(SESSION.c.state.in_((COMMITTED, READY)), SESSION.c.committed_at < cutoff)
            left = and_(
                SESSION.c.state == OPEN,
                SESSION.c.process_id.is_(None),
                SESSION.c.opened_at < cutoff,
            )
            found = (
                connection.execute(
                    select(SESSION.c.session_id)
                    .where(or_(ended, left))
                    .order_by(SESSION.c.committed_at)
                    .limit(_AT_ONCE)
                    .with_for_update(skip_locked=True)
                )
                .scalars()
                .all()
            )
            if found:
                connection.execute(delete(BLOCK).where(BLOCK.c.session_id.in_(found)))
                connection.execute(
                    update(SESSION)
                    .where(SESSION.c.session_id.in_(found))
                    .values(state=PURGED, secrets=None, claimed_by=None, claimed_until=None)
                )
            connection.execute(
                delete(PROCESS).where(
                    PROCESS.c.beat_at < cutoff,
                    PROCESS.c.process_id.not_in(store.leases.living(connection)),
                )
            )
        purged += len(found)
        if len(found) < _AT_ONCE:
            break
    if purged:
        empty_log(store.engine)
    return purged


def _abandoned(store: SqlStore, connection: Connection) -> ColumnElement[bool]:
    """Return the condition of a session whose process is dead."""
    living = store.leases.living(connection)
    return and_(
        SESSION.c.state == OPEN,
        or_(SESSION.c.process_id.is_(None), SESSION.c.process_id.not_in(living)),
    )


def _held(session_id: bytes, worker: str) -> ColumnElement[bool]:
    return and_(SESSION.c.session_id == session_id, SESSION.c.claimed_by == worker)
