"""Kills processes and breaks the database, at random."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, create_engine, make_url, text

from benchmarks._faults.children import Child

DATABASE: Final = "database"
WEIGHTS: Final = {"gateway": 35, "service": 20, "worker": 20, DATABASE: 25}
_LOCK_SECONDS: Final = 0.5, 2.0
_LOCK_PAUSE: Final = 1.0
_BUSY_SECONDS: Final = 30.0

_OTHERS = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend' AND (NOT :busy OR state <> 'idle')"
)
_LOOKS: Final = 100
"""Half of the connections are ended at work, if one is found at work within so many looks."""
_TERMINATE = text("SELECT pg_terminate_backend(:pid)")


class Killer:
    """Breaks one thing after the other."""

    def __init__(self, children: Sequence[Child], url: str, seed: int, mean_pause: float) -> None:
        """Prepare; nothing is killed before `run`.

        Args:
            children: The processes.
            url: Of their database.
            seed: Of victims and times.
            mean_pause: Seconds between two kills, on average.
        """
        self.kills: Counter[str] = Counter()
        self.at_work = 0
        self._locked = False
        self._children = children
        self._url = make_url(url)
        self._chance = random.Random(f"kills {seed}")  # noqa: S311 - no secret
        self._mean_pause = mean_pause

    async def run(self, count: int, told: Callable[[], None]) -> None:
        """Kill `count` times; `told` after each."""
        async with asyncio.TaskGroup() as locks:
            while self.kills.total() < count:
                await asyncio.sleep(self._chance.expovariate(1 / self._mean_pause))
                kind = self._chance.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
                if await (self._break_database(locks) if kind == DATABASE else self._kill(kind)):
                    self.kills[kind] += 1
                    told()

    async def _kill(self, kind: str) -> bool:
        """Kill a process that serves; false where all of this kind are starting."""
        alive = [each for each in self._children if each.kind == kind and each.life is not None]
        if alive:
            self._chance.choice(alive).kill()
        return bool(alive)

    async def _break_database(self, locks: asyncio.TaskGroup) -> bool:
        """Break it, and do not wait for the end of that; false where it cannot be done now."""
        if self._url.get_backend_name() != "sqlite":
            return await asyncio.to_thread(self._terminate)
        if self._locked:
            return False
        self._locked = True
        locks.create_task(self._lock())
        return True

    async def _lock(self) -> None:
        seconds = self._chance.uniform(*_LOCK_SECONDS)
        await asyncio.to_thread(_hold_lock, self._url.database or "", seconds)
        # Else others might not write for a whole lease.
        await asyncio.sleep(_LOCK_PAUSE)
        self._locked = False

    def _terminate(self) -> bool:
        """End a connection of one of the processes; false where there is none."""
        engine = create_engine(
            self._url.set(drivername="postgresql+psycopg", database="postgres"),
            isolation_level="AUTOCOMMIT",
        )
        try:
            with engine.connect() as connection:
                return self._terminate_one(connection)
        finally:
            engine.dispose()

    def _terminate_one(self, connection: Connection) -> bool:
        name, found = self._url.database, list[int]()
        for _ in range(self._chance.choice([0, _LOOKS])):
            found += connection.execute(_OTHERS, {"name": name, "busy": True}).scalars()
            if found:
                self.at_work += 1
                break
        found = found or [*connection.execute(_OTHERS, {"name": name, "busy": False}).scalars()]
        if not found:
            return False
        pid = self._chance.choice(sorted(found))
        return bool(connection.execute(_TERMINATE, {"pid": pid}).scalar())


def _hold_lock(path: str, seconds: float) -> None:
    """Write, and do not commit, for some seconds: nobody else can write."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE process SET beat_at = beat_at")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
    finally:
        connection.close()
