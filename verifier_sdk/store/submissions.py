"""Keep receipts: many in one transaction, so that one sync of the disk serves them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, func, insert, select, tuple_, update

from coin_protocol.database.engine import writing
from verifier_sdk.log.outbox import enqueue_all, take_turns
from verifier_sdk.store.clock import database_time
from verifier_sdk.store.quota import Books, Quota, Refused
from verifier_sdk.store.storable import storable
from verifier_sdk.store.tables import (
    ASKED,
    AUDIT,
    ERROR,
    EVIDENCE,
    FILE,
    PURGED,
    QUEUED,
    SUBMITTED,
)

_COMPARED: Final = 8
"""Commitments to one session that a further one is compared with: one pair is proof."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A receipt whose commitment the provider signed, and what the node makes of it.

    Attributes:
        audit_id: SHA-256 of commitment and receipt, 32 bytes.
        provider: Who signed.
        model: As the commitment names it.
        session_id: Of the commitment, 16 bytes.
        commitment_sha256: 32 bytes.
        request_sha256: Of the receipt's request, 32 bytes.
        reasoning_tokens: Committed.
        submitted_by: Who called; empty where nobody was authenticated.
        drawn: `share`, `risk`, or None where it is kept only.
        priority: The greater is audited first.
        receipt: Exact bytes.
        leaf: The log's entry for the commitment.
    """

    audit_id: bytes
    provider: str
    model: str
    session_id: bytes
    commitment_sha256: bytes
    request_sha256: bytes
    reasoning_tokens: int
    submitted_by: str
    drawn: str | None
    priority: int
    receipt: bytes
    leaf: bytes


@dataclass(frozen=True)
class FoundEvidence:
    """Two signed statements that no honest party signs both.

    Attributes:
        evidence_id: SHA-256 of the file, 32 bytes.
        kind: `commitments` or `heads`.
        provider: Whom it is against, where it is a provider.
        sentence: For people.
        file: An `Evidence` message.
    """

    evidence_id: bytes
    kind: str
    provider: str | None
    sentence: str
    file: bytes


Conflict = Callable[[bytes, bytes], FoundEvidence | None]
"""Takes two receipts or bundles of one session; returns what they prove, if they prove anything."""


def keep(
    engine: Engine, batch: Sequence[Submission], conflict: Conflict, *, quota: Quota
) -> list[str | Refused]:
    """Write receipts, durably, in one transaction; one that is there already is left as it is.

    Args:
        engine: Of the node's database.
        batch: What was submitted, in order.
        conflict: Asked about each pair of different commitments to one session.
        quota: Of each client. What is there already costs nothing.

    Returns:
        The state of each, as it then is, or why it was not kept.

    Raises:
        StoreUnavailableError: The database does not answer; all may be submitted again.
    """
    with writing(engine) as connection:
        # First, since it waits for others who speak of the same sessions: what they wrote is seen
        # from here on.
        take_turns(connection, [one.leaf for one in batch])
        known = _states(connection, batch)
        new = list({one.audit_id: one for one in batch if one.audit_id not in known}.values())
        refused = _refused(connection, quota, new) if new else {}
        kept = [one for one in new if one.audit_id not in refused]
        if kept:
            enqueue_all(connection, [one.leaf for one in kept])
            _note_conflicts(connection, kept, conflict)
            _insert(connection, kept)
        return [
            refused.get(one.audit_id) or known.get(one.audit_id) or _first_state(one)
            for one in batch
        ]


def ask_for(engine: Engine, audit_id: bytes, *, priority: int) -> bool:
    """Queue an audit that was not drawn, or was given up, and have one that waits come earlier.

    One that is being made or is decided is left as it is.

    Returns:
        Whether there is such an audit.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        now = database_time(connection)
        connection.execute(
            update(AUDIT)
            .where(AUDIT.c.audit_id == audit_id, AUDIT.c.state.in_((SUBMITTED, ERROR)))
            .values(
                state=QUEUED,
                drawn=ASKED,
                priority=priority,
                due_at=now,
                announced_at=None,
                attempts=0,
                failure=None,
            )
        )
        # Drawn at random it stays: that somebody asks, too, is no choice of theirs.
        connection.execute(
            update(AUDIT)
            .where(AUDIT.c.audit_id == audit_id, AUDIT.c.state == QUEUED)
            .where(AUDIT.c.priority < priority)
            .values(priority=priority, announced_at=None)
        )
        found = connection.execute(select(AUDIT.c.number).where(AUDIT.c.audit_id == audit_id))
        return found.first() is not None


def keep_evidence(connection: Connection, found: FoundEvidence) -> None:
    """Keep evidence, once."""
    there = select(EVIDENCE.c.kind).where(EVIDENCE.c.evidence_id == found.evidence_id)
    if connection.execute(there).first() is None:
        connection.execute(
            insert(EVIDENCE).values(
                evidence_id=found.evidence_id,
                kind=found.kind,
                provider=found.provider,
                found_at=database_time(connection),
                sentence=storable(found.sentence),
                file=found.file,
            )
        )


def _insert(connection: Connection, batch: Sequence[Submission]) -> None:
    now = database_time(connection)
    connection.execute(
        insert(AUDIT),
        [
            {
                "audit_id": one.audit_id,
                "provider": one.provider,
                "model": storable(one.model),
                "session_id": one.session_id,
                "commitment_sha256": one.commitment_sha256,
                "request_sha256": one.request_sha256,
                "reasoning_tokens": one.reasoning_tokens,
                "submitted_at": now,
                "submitted_by": storable(one.submitted_by),
                "state": _first_state(one),
                "drawn": one.drawn,
                "priority": one.priority,
                "due_at": None if one.drawn is None else now,
            }
            for one in batch
        ],
    )
    ids = [one.audit_id for one in batch]
    rows = connection.execute(
        select(AUDIT.c.audit_id, AUDIT.c.number).where(AUDIT.c.audit_id.in_(ids))
    )
    numbers = dict(rows.tuples().all())
    connection.execute(
        insert(FILE),
        [{"number": numbers[one.audit_id], "receipt": one.receipt} for one in batch],
    )


def _refused(
    connection: Connection, quota: Quota, new: Sequence[Submission]
) -> dict[bytes, Refused]:
    """Count receipts against the quotas of their clients; return which are not kept, and why."""
    books = Books(connection, quota, new)
    found = {one.audit_id: books.take(one) for one in new}
    books.close()
    return {audit_id: why for audit_id, why in found.items() if why is not None}


def _states(connection: Connection, batch: Sequence[Submission]) -> dict[bytes, str]:
    ids = [one.audit_id for one in batch]
    found = connection.execute(
        select(AUDIT.c.audit_id, AUDIT.c.state).where(AUDIT.c.audit_id.in_(ids))
    )
    return dict(found.tuples().all())


def _first_state(one: Submission) -> str:
    return SUBMITTED if one.drawn is None else QUEUED


def _note_conflicts(
    connection: Connection, batch: Sequence[Submission], conflict: Conflict
) -> None:
    """Keep evidence of each session that has another commitment, here or in the batch itself.

    A commitment is compared when it first comes, with one receipt of each other one: a session's
    receipts, of which anyone can make many, are not read again for each further one.
    """
    pair = tuple_(AUDIT.c.provider, AUDIT.c.session_id)
    rows = connection.execute(
        select(
            AUDIT.c.provider,
            AUDIT.c.session_id,
            AUDIT.c.commitment_sha256,
            func.max(AUDIT.c.number).label("number"),
        )
        .where(pair.in_({(one.provider, one.session_id) for one in batch}), AUDIT.c.state != PURGED)
        .group_by(AUDIT.c.provider, AUDIT.c.session_id, AUDIT.c.commitment_sha256)
    ).all()
    seen: dict[tuple[str, bytes], dict[bytes, int | bytes]] = {}
    for row in rows:
        seen.setdefault((row.provider, row.session_id), {})[row.commitment_sha256] = row.number
    for one in batch:
        commitments = seen.setdefault((one.provider, one.session_id), {})
        if one.commitment_sha256 in commitments:
            continue
        for other in list(commitments.values())[:_COMPARED]:
            found = conflict(_file(connection, other), one.receipt)
            if found is not None:
                keep_evidence(connection, found)
        commitments[one.commitment_sha256] = one.receipt


def _file(connection: Connection, other: int | bytes) -> bytes:
    """Return a receipt, or the bundle that holds it by now, by the number of its audit."""
    if isinstance(other, bytes):
        return other
    row = connection.execute(
        select(FILE.c.receipt, FILE.c.bundle).where(FILE.c.number == other)
    ).one_or_none()
    return b"" if row is None else row.receipt or row.bundle or b""
