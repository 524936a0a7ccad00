"""How long this process stood still: what then looks like another's delay may be its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

BEAT_SECONDS: Final = 0.1
"""How often a process looks at its clocks while it waits."""


class Pulse:
    """Looks at both clocks again and again while anybody waits, and adds up what is missing.

    A process that is stopped, a loop that is blocked and a machine that is starved of time all
    miss beats. A machine that sleeps shows by its wall clock, which goes on while the steady one
    may not; so does a wall clock that is set, by which no deadline can be judged. For one event
    loop.
    """

    def __init__(
        self,
        *,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Look at these clocks, in seconds; nothing runs before somebody waits."""
        self._steady = steady
        self._wall = wall
        self._waiting = 0
        self._still = 0.0
        self._seen = (0.0, 0.0)
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Callable[[], float]]:
        """Give what returns how many seconds the process has stood still since."""
        if not self._waiting:
            self._seen = (self._steady(), self._wall())
            self._task = asyncio.create_task(self._beat())
        self._waiting += 1
        before = self._look()
        try:
            yield lambda: self._look() - before
        finally:
            self._waiting -= 1
            if not self._waiting and self._task is not None:
                self._task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._look()

    def _look(self) -> float:
        """Return the seconds that were missing so far."""
        now, (steady, wall) = (self._steady(), self._wall()), self._seen
        self._seen = now
        gap = now[0] - steady
        # A beat that comes a little late is no sign of anything.
        if gap > 2 * BEAT_SECONDS:
            self._still += gap - BEAT_SECONDS
        leap = abs(now[1] - wall - gap)
        if leap > BEAT_SECONDS:
            self._still += leap
        return self._still
