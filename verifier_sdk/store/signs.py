"""Which workers live: each writes a sign of life into the database."""

from __future__ import annotations

from sqlalchemy import Engine, delete, insert, update

from coin_protocol.database.engine import writing
from verifier_sdk.store.clock import database_time
from verifier_sdk.store.tables import WORKER

_FORGOTTEN_SECONDS = 7 * 86_400.0


def sign(engine: Engine, worker_id: str) -> None:
    """Write down that a worker lives; the first time, that it is there.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        now = database_time(connection)
        mine = WORKER.c.worker_id == worker_id
        if not connection.execute(update(WORKER).where(mine).values(beat_at=now)).rowcount:
            connection.execute(
                insert(WORKER).values(worker_id=worker_id, started_at=now, beat_at=now)
            )
            connection.execute(delete(WORKER).where(WORKER.c.beat_at < now - _FORGOTTEN_SECONDS))


def leave(engine: Engine, worker_id: str) -> None:
    """Take a worker off the list.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        connection.execute(delete(WORKER).where(WORKER.c.worker_id == worker_id))
