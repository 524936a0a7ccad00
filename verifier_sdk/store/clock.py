"""The time that all processes of a node share."""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import Connection, text

DAY_SECONDS: Final = 86_400
"""Budgets and quotas are of a day, UTC."""


def database_time(connection: Connection) -> float:
    """Return seconds since 1970 by the clock of the database's machine.

    Leases of workers on several machines are held against one clock, whatever theirs say.
    """
    if connection.dialect.name == "postgresql":
        now = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
        return float(now)
    return time.time()
