"""How often each verifier may call: a token bucket for each name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coin_protocol.errors import InvalidInputError

MAX_BUCKETS: Final = 10_000
"""Names remembered at a time: full buckets are forgotten first, they say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Calls that one verifier may make of one process.

    Attributes:
        per_second: On the long run.
        burst: At once, after a pause.
    """

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidInputError: A number is not above 0.
        """
        if not self.per_second > 0 or self.burst < 1:
            msg = f"wanted a rate above 0 and a burst of 1 or more; found {self}"
            raise InvalidInputError(msg)


class RateLimiter:
    """Token buckets by name. For one event loop: not safe between threads."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with full buckets; `clock` gives seconds."""
        self._limit = limit
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> float:
        """Take one call from a bucket: 0.0, or the seconds until there is one to take."""
        limit, now = self._limit, self._clock()
        left = self._level(name, now)
        if left < 1.0:
            return (1.0 - left) / limit.per_second
        if name not in self._buckets and len(self._buckets) >= MAX_BUCKETS:
            self._forget(now)
        self._buckets[name] = (left - 1.0, now)
        return 0.0

    def _level(self, name: str, now: float) -> float:
        level, at = self._buckets.get(name, (float(self._limit.burst), now))
        return min(float(self._limit.burst), level + (now - at) * self._limit.per_second)

    def _forget(self, now: float) -> None:
        full = [name for name in self._buckets if self._level(name, now) >= self._limit.burst]
        # With none full the longest unused goes: it is the fullest but for its burst.
        oldest = min(self._buckets, key=lambda name: self._buckets[name][1])
        for name in full or [oldest]:
            del self._buckets[name]
