"""Delete what is past its retention: conversations go, figures and log entries stay."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, delete, select, update

from coin_protocol.database.engine import empty_log, writing
from verifier_sdk.memory.queries import delete_blocks
from verifier_sdk.store.clock import DAY_SECONDS, database_time
from verifier_sdk.store.tables import (
    AUDIT,
    DECIDED,
    ERROR,
    FILE,
    HANDED_IN,
    PURGED,
    QUEUED,
    SPENT,
    SUBMITTED,
)

_DAYS_KEPT: Final = 7
_AT_ONCE: Final = 200
_BLOCKS_AT_ONCE: Final = 10_000


def purge(engine: Engine, *, days: float) -> int:
    """Delete what holds conversations, of audits that were decided, or handed in, so long ago.

    That is receipts, bundles and remembered blocks. What is made of blocks on a worker's machine
    vanishes with its next upkeep.

    Args:
        engine: Of the node's database.
        days: From verdict to purge; without a verdict, from submission.

    Returns:
        How many audits were purged.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    purged = 0
    while count := _purge_some(engine, days):
        purged += count
    while True:
        with writing(engine) as connection:
            before = database_time(connection) - days * DAY_SECONDS
            if not delete_blocks(connection, before=before, at_most=_BLOCKS_AT_ONCE):
                break
    with writing(engine) as connection:
        _close_days(connection)
    # Whatever was deleted, here or by a purge that did not come so far.
    empty_log(engine)
    return purged


def _close_days(connection: Connection) -> None:
    """Delete what was counted on days that are over."""
    today = int(database_time(connection) // DAY_SECONDS)
    for table in (SPENT, HANDED_IN):
        connection.execute(delete(table).where(table.c.day < today - _DAYS_KEPT))


def _purge_some(engine: Engine, days: float) -> int:
    with writing(engine) as connection:
        before = database_time(connection) - days * DAY_SECONDS
        decided = select(AUDIT.c.number).where(
            AUDIT.c.state == DECIDED, AUDIT.c.decided_at < before
        )
        left = select(AUDIT.c.number).where(
            # What waits for so long is of sessions that providers have purged, too.
            AUDIT.c.state.in_((SUBMITTED, QUEUED, ERROR)),
            AUDIT.c.submitted_at < before,
        )
        numbers: list[int] = []
        for query in (decided, left):
            locked = query.limit(_AT_ONCE - len(numbers)).with_for_update(skip_locked=True)
            numbers += connection.execute(locked).scalars().all()
        if numbers:
            connection.execute(delete(FILE).where(FILE.c.number.in_(numbers)))
            connection.execute(
                update(AUDIT)
                .where(AUDIT.c.number.in_(numbers))
                .values(state=PURGED, due_at=None, failure=None)
            )
        return len(numbers)
