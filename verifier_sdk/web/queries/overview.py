"""The figures of a node: what waits, what was decided, how fast, against whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from coin_protocol.v1 import receipt_pb2
from verifier_sdk.store.tables import AUDIT, EVIDENCE, QUEUED, STANDING, WORKER
from verifier_sdk.web.queries.portable import whole
from verifier_sdk.web.queries.standing import Standing, read_standing

HOUR: Final = 3600
ALIVE_SECONDS: Final = 60.0
"""A worker without a sign of life for so long is not counted."""

MOST_TIMED: Final = 10_000
"""Verdicts whose lag is looked at, the newest ones."""

MOST_PROVIDERS: Final = 500
"""Lines of the table; the rest is found in the list of audits."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What no worker has taken yet.

    Attributes:
        audits: How many.
        oldest_at: When the oldest was submitted, seconds since 1970; None where none waits.
    """

    audits: int
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class Lag:
    """From submission to verdict, in seconds.

    Attributes:
        audits: How many verdicts were looked at.
        half: Half took no longer; None where there are none.
        most: Of twenty, nineteen took no longer.
    """

    audits: int
    half: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class ProviderLine:
    """One provider's audits."""

    name: str
    audits: int
    passed: int
    failed: int
    inconclusive: int
    standing: Standing | None

    @property
    def decided(self) -> int:
        """Audits with a verdict."""
        return self.passed + self.failed + self.inconclusive


def counts(connection: Connection) -> dict[tuple[str, int | None], int]:
    """Return how many audits there are of each state and outcome."""
    query = select(AUDIT.c.state, AUDIT.c.outcome, func.count()).group_by(
        AUDIT.c.state, AUDIT.c.outcome
    )
    return {(state, outcome): found for state, outcome, found in connection.execute(query)}


def waiting(connection: Connection, audits: int) -> Waiting:
    """Return what waits, of which so many were counted."""
    query = select(func.min(AUDIT.c.submitted_at)).where(AUDIT.c.state == QUEUED)
    return Waiting(audits, connection.execute(query).scalar())


def lag(connection: Connection, since: float) -> Lag:
    """Return how long the newest audits took that were decided from `since` on."""
    newest = (
        select(AUDIT.c.decided_at - AUDIT.c.submitted_at)
        .where(AUDIT.c.decided_at >= since)
        .order_by(AUDIT.c.decided_at.desc())
        .limit(MOST_TIMED)
    )
    taken = sorted(connection.execute(newest).scalars())
    if not taken:
        return Lag(0)
    half, most = (taken[(len(taken) - 1) * share // 100] for share in (50, 95))
    return Lag(len(taken), half, most)


def submitted_per_hour(connection: Connection, since: float) -> dict[int, int]:
    """Return how many receipts came in each hour from `since` on, by hours since 1970."""
    hour = whole(AUDIT.c.submitted_at / HOUR)
    query = select(hour, func.count()).where(AUDIT.c.submitted_at >= since).group_by(hour)
    return dict(connection.execute(query).tuples().all())


def decided_per_hour(connection: Connection, since: float) -> dict[tuple[int, int], int]:
    """Return how many verdicts came from `since` on, by hours since 1970 and outcome."""
    hour = whole(AUDIT.c.decided_at / HOUR)
    query = (
        select(hour, AUDIT.c.outcome, func.count())
        .where(AUDIT.c.decided_at >= since, AUDIT.c.outcome.is_not(None))
        .group_by(hour, AUDIT.c.outcome)
    )
    return {(at, outcome): found for at, outcome, found in connection.execute(query)}


def workers(connection: Connection, now: float) -> tuple[int, int]:
    """Return how many workers live, and how many there are on the list."""
    query = select(WORKER.c.beat_at)
    beats = connection.execute(query).scalars().all()
    return sum(beat >= now - ALIVE_SECONDS for beat in beats), len(beats)


def evidence_found(connection: Connection) -> int:
    """Return how many pieces of evidence there are."""
    return connection.execute(select(func.count()).select_from(EVIDENCE)).scalar_one()


def providers(connection: Connection, configured: Sequence[str]) -> list[ProviderLine]:
    """Return the configured providers and those with audits, most failures first."""
    query = select(AUDIT.c.provider, AUDIT.c.outcome, func.count()).group_by(
        AUDIT.c.provider, AUDIT.c.outcome
    )
    found: dict[str, dict[int | None, int]] = {name: {} for name in configured}
    for name, outcome, audits in connection.execute(query):
        found.setdefault(name, {})[outcome] = audits
    standings = newest_standings(connection)
    lines = [
        ProviderLine(
            name=name,
            audits=sum(outcomes.values()),
            passed=outcomes.get(receipt_pb2.OUTCOME_PASS, 0),
            failed=outcomes.get(receipt_pb2.OUTCOME_FAIL, 0),
            inconclusive=outcomes.get(receipt_pb2.OUTCOME_INCONCLUSIVE, 0),
            standing=standings.get(name),
        )
        for name, outcomes in found.items()
    ]
    lines.sort(key=lambda line: (-line.failed, -line.audits, line.name))
    return lines[:MOST_PROVIDERS]


def newest_standings(connection: Connection) -> dict[str, Standing]:
    """Return what each provider's sessions add up to, by the judge that weighed last."""
    query = select(STANDING).order_by(STANDING.c.updated_at)
    return {row.provider: read_standing(row) for row in connection.execute(query)}
