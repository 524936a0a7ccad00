"""Things in order of time, so that those around a moment are found without looking at all. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final, Generic, TypeVar

from verifier_sdk.bill.line import Period

T = TypeVar("T")

_NONE: Final = timedelta()


class Shelf(Generic[T]):
    """Things that each have a period."""

    def __init__(self, things: Iterable[T], period_of: Callable[[T], Period]) -> None:
        """Put things in order."""
        self._period_of = period_of
        self._things = sorted(things, key=lambda thing: period_of(thing).start)
        periods = [period_of(thing) for thing in self._things]
        self._starts = [period.start for period in periods]
        self._widest = max((period.end - period.start for period in periods), default=_NONE)

    def around(self, period: Period) -> list[T]:
        """Return the things that have a moment in common with a period."""
        low = bisect_left(self._starts, period.start - self._widest)
        high = bisect_right(self._starts, period.end)
        return [
            thing for thing in self._things[low:high] if self._period_of(thing).overlaps(period)
        ]
