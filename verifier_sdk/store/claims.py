"""Who audits what: claims with a lease, so that the audits of a worker that dies go on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    insert,
    or_,
    select,
    update,
)

from coin_protocol.database.engine import reading, writing
from verifier_sdk.store.clock import DAY_SECONDS, database_time
from verifier_sdk.store.storable import storable
from verifier_sdk.store.tables import AUDIT, BY_SHARE, ERROR, FILE, QUEUED, RUNNING, SPENT

MOST_ATTEMPTS: Final = 32
"""An audit that so many attempts did not decide is given up: it may be what ends the workers. More
than the settings allow pauses for, so that no other audit comes so far."""

_WORN_OUT: Final = "no attempt came to an end; nothing is said of the provider"
_MAX_FAILURE: Final = 1000
_MOMENT_SECONDS: Final = 5.0
"""What is due sooner is waited for: it might be announced while its message is still there."""

_LOOKED_AT: Final = 64
"""Audits that one claim passes over because their provider's budget is spent."""


@dataclass(frozen=True)
class Claim:
    """An audit that this worker makes.

    Attributes:
        number: Of its row.
        audit_id: 32 bytes.
        provider: Whose commitment it is.
        attempts: This one included.
        receipt: Exact bytes.
        progress: A bundle without verdict, where an earlier attempt got so far.
        failure: What the last attempt ended with, if it said so.
    """

    number: int
    audit_id: bytes
    provider: str
    attempts: int
    receipt: bytes
    progress: bytes | None
    failure: str | None = None


@dataclass(frozen=True)
class Budget:
    """Audits of one provider that may be begun in a day (UTC).

    Attributes:
        audits: All of them.
        chosen: Such as were asked for, or looked odd: clients decide on these, and those drawn at
            random, which are what is weighed over sessions, must not wait for them for ever.
    """

    audits: int
    chosen: int

    @classmethod
    def of(cls, audits: int | None, chosen_share: float) -> Self | None:
        """Return a budget, None for any number, a part of which, rounded up, is for the chosen."""
        return None if audits is None else cls(audits, math.ceil(audits * chosen_share))


@dataclass(frozen=True)
class Lease:
    """How audits are claimed.

    Attributes:
        worker: Its id.
        seconds: Without a sign of life for so long, others take its audits over.
        budgets: By provider; None for any number.
        default_budget: Of providers that `budgets` does not name.
    """

    worker: str
    seconds: float
    budgets: Mapping[str, Budget | None]
    default_budget: Budget | None


def claim_next(engine: Engine, lease: Lease) -> Claim | None:
    """Take the audit that is due and comes first, or None where nothing is due.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with reading(engine) as connection:
        # A write transaction would have idle workers take turns on SQLite.
        now = database_time(connection)
        if not any(connection.execute(query.limit(1)).first() for query in _due(now)):
            return None
    with writing(engine) as connection:
        for _ in range(_LOOKED_AT):
            now = database_time(connection)
            row = next(iter(_locked(connection, now, most=1)), None)
            if row is None:
                return None
            if _may_go_on(connection, row, lease, now):
                return _take(connection, row, lease, now)
        return None


def claim_this(engine: Engine, audit_id: bytes, lease: Lease) -> Claim | float | None:
    """Take this audit if it is due.

    Returns:
        The claim; or after how many seconds to ask again, where another worker has it or it is
        due in a moment; or None where nothing is to do now: what is due later is announced by
        then.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        now = database_time(connection)
        this = AUDIT.c.audit_id == audit_id
        row = next(iter(_locked(connection, now, this, most=1)), None)
        if row is not None and _may_go_on(connection, row, lease, now):
            return _take(connection, row, lease, now)
        found = connection.execute(
            select(AUDIT.c.state, AUDIT.c.due_at, AUDIT.c.claimed_until).where(this)
        ).one_or_none()
    if found is None or found.state not in {QUEUED, RUNNING}:
        return None
    until = found.due_at if found.state == QUEUED else found.claimed_until
    seconds = max(1.0, float(until or now) - now)
    return None if found.state == QUEUED and seconds > _MOMENT_SECONDS else seconds


def extend(engine: Engine, claim: Claim, lease: Lease) -> bool:
    """Say that the worker lives; False where the audit is no longer its own.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        until = database_time(connection) + lease.seconds
        found = connection.execute(
            update(AUDIT).where(_held(claim, lease)).values(claimed_until=until)
        )
        return found.rowcount == 1


def keep_progress(engine: Engine, claim: Claim, lease: Lease, progress: bytes) -> bool:
    """Write down what was asked and opened so far; False where the audit is another's by now.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        until = database_time(connection) + lease.seconds
        found = connection.execute(
            update(AUDIT).where(_held(claim, lease)).values(claimed_until=until)
        )
        if found.rowcount != 1:
            return False
        connection.execute(
            update(FILE).where(FILE.c.number == claim.number).values(progress=progress)
        )
        return True


def postpone(engine: Engine, claim: Claim, lease: Lease, *, seconds: float, failure: str) -> None:
    """Give an audit back, to be tried again after so many seconds.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        due_at = database_time(connection) + seconds
        _release(connection, claim, lease, state=QUEUED, due_at=due_at, failure=failure)


def give_up(engine: Engine, claim: Claim, lease: Lease, *, failure: str) -> None:
    """Put an audit into state `error`.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        _release(connection, claim, lease, state=ERROR, due_at=None, failure=failure)


def announce_due(engine: Engine, *, seconds: float, most: int) -> list[tuple[bytes, int]]:
    """Return audits that are due and were not announced within `seconds`, and their priority.

    They count as announced from now on. Should the message be lost, they come up again.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        now = database_time(connection)
        old = or_(AUDIT.c.announced_at.is_(None), AUDIT.c.announced_at < now - seconds)
        rows = _locked(connection, now, old, most=most)
        numbers = [row.number for row in rows]
        connection.execute(
            update(AUDIT).where(AUDIT.c.number.in_(numbers)).values(announced_at=now)
        )
        return [(row.audit_id, row.priority) for row in rows]


def announce_again(engine: Engine, audit_ids: Sequence[bytes]) -> None:
    """Take back that audits were announced: the message queue did not take them.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        connection.execute(
            update(AUDIT).where(AUDIT.c.audit_id.in_(audit_ids)).values(announced_at=None)
        )


def _due(now: float) -> tuple[Select[Any], Select[Any]]:
    """Return the queries for audits that a worker left behind, and for those that wait.

    Two, so that each is answered in the order of an index.
    """
    columns = select(
        AUDIT.c.number,
        AUDIT.c.audit_id,
        AUDIT.c.provider,
        AUDIT.c.attempts,
        AUDIT.c.drawn,
        AUDIT.c.priority,
        AUDIT.c.failure,
    )
    abandoned = columns.where(AUDIT.c.state == RUNNING, AUDIT.c.claimed_until < now)
    waiting = columns.where(AUDIT.c.state == QUEUED, AUDIT.c.due_at <= now)
    first = AUDIT.c.priority.desc(), AUDIT.c.due_at, AUDIT.c.number
    return abandoned.order_by(AUDIT.c.claimed_until), waiting.order_by(*first)


def _locked(
    connection: Connection, now: float, *conditions: ColumnElement[bool], most: int
) -> list[Row[Any]]:
    """Return audits that are due, locked until the transaction ends."""
    rows: list[Row[Any]] = []
    for query in _due(now):
        left = query.where(*conditions).limit(most - len(rows))
        rows += connection.execute(left.with_for_update(skip_locked=True)).all()
        if len(rows) == most:
            break
    return rows


def _may_go_on(connection: Connection, row: Row[Any], lease: Lease, now: float) -> bool:
    """Say whether to make another attempt; what is worn out is given up."""
    if row.attempts < MOST_ATTEMPTS:
        return row.attempts > 0 or _may_begin(connection, row, lease, now)
    connection.execute(
        update(AUDIT)
        .where(AUDIT.c.number == row.number)
        .values(
            state=ERROR,
            due_at=None,
            claimed_by=None,
            claimed_until=None,
            failure=row.failure or _WORN_OUT,
        )
    )
    return False


def _may_begin(connection: Connection, row: Row[Any], lease: Lease, now: float) -> bool:
    """Count an audit that begins against its provider's day, or put it off to the next."""
    budget = lease.budgets.get(row.provider, lease.default_budget)
    if budget is None:
        return True
    day = int(now // DAY_SECONDS)
    key = and_(SPENT.c.provider == row.provider, SPENT.c.day == day)
    if connection.execute(select(SPENT.c.audits).where(key)).first() is None:
        _insert_if_absent(connection, provider=row.provider, day=day)
    chosen = row.drawn != BY_SHARE
    room = [SPENT.c.audits < budget.audits]
    if chosen:
        room.append(SPENT.c.chosen < budget.chosen)
    counted = connection.execute(
        update(SPENT)
        .where(key, *room)
        .values(audits=SPENT.c.audits + 1, chosen=SPENT.c.chosen + int(chosen))
    )
    if counted.rowcount == 1:
        return True
    spent = connection.execute(select(SPENT.c.audits).where(key)).scalar_one()
    # Where only the part of the chosen is used up, those drawn at random go on.
    alike = [AUDIT.c.drawn != BY_SHARE] if chosen and spent < budget.audits else []
    others = (
        select(AUDIT.c.number)
        .where(AUDIT.c.provider == row.provider, AUDIT.c.state == QUEUED, AUDIT.c.attempts == 0)
        .where(*alike)
        .where(AUDIT.c.due_at < (day + 1) * DAY_SECONDS)
        # What other workers look at they put off themselves: each would wait for the other.
        .with_for_update(skip_locked=True)
    )
    connection.execute(
        update(AUDIT)
        .where(AUDIT.c.number.in_(others.scalar_subquery()))
        .values(due_at=(day + 1) * DAY_SECONDS, announced_at=None)
    )
    return False


def _insert_if_absent(connection: Connection, *, provider: str, day: int) -> None:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_ignoring

        connection.execute(
            insert_ignoring(SPENT)
            .values(provider=provider, day=day, audits=0, chosen=0)
            .on_conflict_do_nothing()
        )
    else:  # its transaction is the only one that writes
        connection.execute(insert(SPENT).values(provider=provider, day=day, audits=0, chosen=0))


def _take(connection: Connection, row: Row[Any], lease: Lease, now: float) -> Claim:
    connection.execute(
        update(AUDIT)
        .where(AUDIT.c.number == row.number)
        .values(
            state=RUNNING,
            claimed_by=lease.worker,
            claimed_until=now + lease.seconds,
            attempts=AUDIT.c.attempts + 1,
        )
    )
    file = connection.execute(
        select(FILE.c.receipt, FILE.c.progress).where(FILE.c.number == row.number)
    ).one()
    return Claim(
        number=row.number,
        audit_id=row.audit_id,
        provider=row.provider,
        attempts=row.attempts + 1,
        receipt=file.receipt,
        progress=file.progress,
        failure=row.failure,
    )


def _held(claim: Claim, lease: Lease) -> ColumnElement[bool]:
    """Say that the audit is this worker's, by this very claim."""
    return and_(
        AUDIT.c.number == claim.number,
        AUDIT.c.state == RUNNING,
        AUDIT.c.claimed_by == lease.worker,
        AUDIT.c.attempts == claim.attempts,
    )


def _release(
    connection: Connection,
    claim: Claim,
    lease: Lease,
    *,
    state: str,
    due_at: float | None,
    failure: str,
) -> None:
    connection.execute(
        update(AUDIT)
        .where(_held(claim, lease))
        .values(
            state=state,
            due_at=due_at,
            announced_at=None,
            claimed_by=None,
            claimed_until=None,
            failure=storable(failure[:_MAX_FAILURE]),
        )
    )
