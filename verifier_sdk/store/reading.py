"""Read audits: one, or a page of them, and what the figures of a node are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, func, select

from coin_protocol.database.engine import reading
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.log.outbox import waiting
from verifier_sdk.store.clock import database_time
from verifier_sdk.store.tables import AUDIT, DECIDED, EVIDENCE, FILE, QUEUED, RUNNING, WORKER

MOST_LISTED: Final = 1000
"""Audits on one page of a list."""

_RECORD: Final = 100
"""Latest audits of a provider that make its record."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which audits to list; what is None does not matter.

    Attributes:
        provider: By name.
        state: As in the table.
        outcome: A number of `receipt_pb2.Outcome`.
        below: Only those with a smaller number.
    """

    provider: str | None = None
    state: str | None = None
    outcome: int | None = None
    below: int | None = None


@dataclass(frozen=True)
class Backlog:
    """What waits.

    Attributes:
        queued: Audits that are due or will be.
        later: Of these, such as are not due yet: their next attempt, or a day with budget, is to
            come.
        running: Audits that a worker holds.
        oldest_seconds: For how long the one that is due for longest has been; 0 where none is.
        workers: That showed a sign of life within the last minute.
        entries: For the log, without a place in its tree.
        evidence: Objects that are kept.
    """

    queued: int
    later: int
    running: int
    oldest_seconds: float
    workers: int
    entries: int
    evidence: int


def find_audit(engine: Engine, audit_id: bytes) -> Row[Any] | None:
    """Return the row of an audit, or None.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with reading(engine) as connection:
        return connection.execute(select(AUDIT).where(AUDIT.c.audit_id == audit_id)).one_or_none()


def find_bundle(engine: Engine, audit_id: bytes) -> bytes | None:
    """Return the bundle of a decided audit; None where there is none, or no more.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with reading(engine) as connection:
        found = connection.execute(
            select(FILE.c.bundle)
            .join(AUDIT, AUDIT.c.number == FILE.c.number)
            .where(AUDIT.c.audit_id == audit_id)
        )
        raw: bytes | None = found.scalar()
        return raw


def list_audits(engine: Engine, wanted: Filter, *, most: int) -> Sequence[Row[Any]]:
    """Return audits, newest first.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    query = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(min(most, MOST_LISTED))
    for column, value in (
        (AUDIT.c.provider, wanted.provider),
        (AUDIT.c.state, wanted.state),
        (AUDIT.c.outcome, wanted.outcome),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.below is not None:
        query = query.where(AUDIT.c.number < wanted.below)
    with reading(engine) as connection:
        return connection.execute(query).all()


def failed_share(engine: Engine, provider: str) -> float:
    """Return the share of a provider's latest audits that failed; 0 where there are none.

    A failure that is nobody's fault does not count: clients can make as many as they like.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    latest = (
        select(AUDIT.c.outcome, AUDIT.c.fault)
        .where(AUDIT.c.provider == provider, AUDIT.c.state == DECIDED)
        .order_by(AUDIT.c.number.desc())
        .limit(_RECORD)
    )
    with reading(engine) as connection:
        found = connection.execute(latest).all()
    failed = sum(
        one.outcome == receipt_pb2.OUTCOME_FAIL and one.fault != receipt_pb2.FAULT_UNATTRIBUTED
        for one in found
    )
    return failed / len(found) if found else 0.0


def answers(engine: Engine) -> None:
    """Return if the database does.

    Raises:
        StoreUnavailableError: It does not.
    """
    with reading(engine) as connection:
        connection.execute(select(1))


def backlog(engine: Engine) -> Backlog:
    """Return what waits.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with reading(engine) as connection:
        now = database_time(connection)
        waits, due = AUDIT.c.state == QUEUED, AUDIT.c.due_at <= now
        found = connection.execute(
            select(
                func.count().filter(waits).label("queued"),
                func.count().filter(waits, ~due).label("later"),
                func.count().filter(AUDIT.c.state == RUNNING).label("running"),
                func.min(AUDIT.c.due_at).filter(waits, due).label("oldest"),
            ).where(AUDIT.c.state.in_((QUEUED, RUNNING)))
        ).one()
        return Backlog(
            queued=found.queued,
            later=found.later,
            running=found.running,
            oldest_seconds=0.0 if found.oldest is None else now - found.oldest,
            workers=_living(connection, now),
            entries=waiting(connection),
            evidence=int(
                connection.execute(select(func.count()).select_from(EVIDENCE)).scalar_one()
            ),
        )


def _living(connection: Connection, now: float) -> int:
    query = select(func.count()).select_from(WORKER).where(WORKER.c.beat_at > now - 60.0)
    return int(connection.execute(query).scalar_one())
