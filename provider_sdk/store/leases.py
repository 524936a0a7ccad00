"""Which processes live, told by their signs of life and by no clock that could be wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection, select

from provider_sdk.store.tables import PROCESS


class Leases:
    """How long the sign of each process has stood still, as seen from here. Thread-safe.

    A sign is the time at which it was given, by the clock of whoever gave it. That clock may be
    an hour off, or be set: so a sign is only held against the one that was seen before, and how
    long it stands is counted by the monotonic clock of this process.
    """

    def __init__(
        self, process_id: str, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Know nobody yet.

        Args:
            process_id: Of this process, which lives.
            seconds: A process whose sign has not changed for so long is taken for dead.
            clock: Seconds that never go back.
        """
        self._process_id = process_id
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._signs: dict[str, tuple[float, float]] = {}
        self._steady_since = self._given_at = clock()

    def given(self) -> None:
        """Note that this process has just given its own sign."""
        with self._lock:
            now = self._clock()
            if self._was_away(now):
                self._steady_since = now
            self._given_at = now

    def living(self, connection: Connection) -> list[str]:
        """Return the processes that are not known to be dead.

        That is all of them where this process was itself away, paused or without a database,
        within the lease: what it has not seen says nothing of the others.
        """
        rows = connection.execute(select(PROCESS.c.process_id, PROCESS.c.beat_at)).all()
        with self._lock:
            now, before = self._clock(), self._signs
            self._signs = {}
            for process_id, sign in rows:
                known = before.get(process_id)
                since = known[1] if known is not None and known[0] == sign else now
                self._signs[process_id] = sign, since
            if self._was_away(now) or now - self._steady_since < self._seconds:
                return list(self._signs)
            return [
                process_id
                for process_id, (_, since) in self._signs.items()
                if process_id == self._process_id or now - since < self._seconds
            ]

    def _was_away(self, now: float) -> bool:
        return now - self._given_at > self._seconds / 2
