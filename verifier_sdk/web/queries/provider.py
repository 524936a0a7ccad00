"""What is known of one provider over all its audits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from coin_protocol.v1 import receipt_pb2 as pb
from verifier_sdk.store.tables import AUDIT, EVIDENCE
from verifier_sdk.web.queries.portable import whole
from verifier_sdk.web.queries.standing import LN_10

MOST_POINTS: Final = 20_000
"""Sessions on the evidence plot, the newest ones."""

MOST_SHARES: Final = 200
"""Intervals on the plot of inflated shares, the newest ones."""

BINS: Final = 20
"""Bars of the histogram of p-values."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """The inflated share over all audits that have an interval, weighted by their tokens.

    Attributes:
        audits: How many.
        low: Weighted mean of the lower ends, 0 to 1.
        high: Of the upper ends. The true share lies between where each interval holds.
    """

    audits: int
    low: float
    high: float


def exists(connection: Connection, name: str) -> bool:
    """Whether the node has an audit of a provider, or evidence against it."""
    return any(
        connection.execute(select(column).where(column == name).limit(1)).first() is not None
        for column in (AUDIT.c.provider, EVIDENCE.c.provider)
    )


def outcomes(connection: Connection, name: str) -> dict[int | None, int]:
    """Return how many audits of a provider came to which outcome."""
    query = (
        select(AUDIT.c.outcome, func.count())
        .where(AUDIT.c.provider == name)
        .group_by(AUDIT.c.outcome)
    )
    return dict(connection.execute(query).tuples().all())


def own_failures(connection: Connection, name: str) -> int:
    """Return how many failures contradict what the provider signed: clients cannot make those."""
    query = select(func.count()).where(
        AUDIT.c.provider == name,
        AUDIT.c.outcome == pb.OUTCOME_FAIL,
        AUDIT.c.fault == pb.FAULT_PROVIDER,
    )
    return connection.execute(query).scalar_one()


def tiers(connection: Connection, name: str) -> dict[int, int]:
    """Return how many verdicts reached which tier."""
    return _counted(connection, AUDIT.c.tier, name)


def failed_checks(connection: Connection, name: str) -> dict[str, int]:
    """Return how many audits failed which check."""
    return _counted(connection, AUDIT.c.failed_check, name)


def evidence_path(connection: Connection, name: str) -> list[tuple[float, float]]:
    """Return when sessions were decided and the decimal log of the evidence then, oldest first."""
    query = (
        select(AUDIT.c.decided_at, AUDIT.c.log_evidence)
        .where(AUDIT.c.provider == name, AUDIT.c.log_evidence.is_not(None))
        .order_by(AUDIT.c.decided_at.desc())
        .limit(MOST_POINTS)
    )
    found = [(at, value / LN_10) for at, value in connection.execute(query)]
    found.reverse()
    return found


def shares(connection: Connection, name: str) -> Sequence[Row[Any]]:
    """Return the newest intervals of inflated shares, oldest first."""
    query: Select[Any] = (
        select(
            AUDIT.c.audit_id,
            AUDIT.c.decided_at,
            AUDIT.c.outcome,
            AUDIT.c.share_low,
            AUDIT.c.share_high,
        )
        .where(AUDIT.c.provider == name, AUDIT.c.share_high.is_not(None))
        .order_by(AUDIT.c.decided_at.desc())
        .limit(MOST_SHARES)
    )
    return connection.execute(query).all()[::-1]


def pooled_share(connection: Connection, name: str) -> Pooled | None:
    """Return the inflated share over all audits; None where none has an interval."""
    tokens = AUDIT.c.reasoning_tokens
    query = select(
        func.count(),
        func.sum(AUDIT.c.share_low * tokens),
        func.sum(AUDIT.c.share_high * tokens),
        func.sum(tokens),
    ).where(AUDIT.c.provider == name, AUDIT.c.share_high.is_not(None))
    audits, low, high, weight = connection.execute(query).one()
    return (
        Pooled(audits, float(low) / float(weight), float(high) / float(weight)) if weight else None
    )


def p_values(connection: Connection, name: str) -> list[int]:
    """Return how many p-values that were weighed lie in each of `BINS` bins over (0, 1]."""
    # From the right, so that a bin holds its upper end and not its lower one.
    place = whole((1.0 - AUDIT.c.p_value) * BINS)
    query = (
        select(place, func.count())
        .where(AUDIT.c.provider == name, AUDIT.c.log_evidence.is_not(None))
        .group_by(place)
    )
    bars = [0] * BINS
    for at, sessions in connection.execute(query):
        if at is not None and 0 <= at < BINS:
            bars[BINS - 1 - at] = sessions
    return bars


def _counted(connection: Connection, column: Any, name: str) -> dict[Any, int]:  # noqa: ANN401
    query = (
        select(column, func.count())
        .where(AUDIT.c.provider == name, column.is_not(None))
        .group_by(column)
        .order_by(func.count().desc(), column)
    )
    return dict(connection.execute(query).tuples().all())
