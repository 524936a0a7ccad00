"""What a provider's sessions add up to, as the sequential judge left it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from verifier_sdk.semantic.sequential import State
from verifier_sdk.store.tables import STANDING

LN_10: Final = math.log(10.0)


@dataclass(frozen=True, slots=True)
class Standing:
    """The evidence over sessions of one provider.

    Attributes:
        judge: SHA-256 of the judge's file, hex.
        sessions: How many were weighed.
        updated_at: Seconds since 1970.
        now: Decimal logarithm of the evidence; None where the state cannot be read.
        highest: The greatest that it ever was.
        line: What it has to reach for FAIL.
    """

    judge: str
    sessions: int
    updated_at: float
    now: float | None = None
    highest: float | None = None
    line: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the line was ever reached."""
        return self.highest is not None and self.line is not None and self.highest >= self.line


def standings_of(connection: Connection, provider: str) -> list[Standing]:
    """Return the standings of a provider, newest first."""
    query = (
        select(STANDING)
        .where(STANDING.c.provider == provider)
        .order_by(STANDING.c.updated_at.desc())
    )
    return [read_standing(row) for row in connection.execute(query)]


def read_standing(row: Row[Any]) -> Standing:
    """Return a row of the table with its state read."""
    plain = Standing(row.judge, row.sessions, row.updated_at)
    try:
        kept = json.loads(row.state)
        alpha = float(kept["alpha"])
        state = State(row.sessions, tuple(map(float, kept["log_capitals"])), float(kept["highest"]))
        now = state.log_value
    except (ValueError, KeyError, TypeError):
        return plain
    if not 0 < alpha < 1 or not math.isfinite(now) or not math.isfinite(state.highest):
        return plain
    return Standing(
        judge=plain.judge,
        sessions=plain.sessions,
        updated_at=plain.updated_at,
        now=now / LN_10,
        highest=state.highest / LN_10,
        line=-math.log10(alpha),
    )
