"""Clocks that date statements and receipts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SteadyClock:
    """Wall time at creation, carried on by the monotonic clock: it never runs backwards.

    A wall clock that is set back in the middle of a reply would date checkpoints wrongly.
    """

    def __init__(self) -> None:
        """Read both clocks."""
        self._offset = time.time_ns() - time.monotonic_ns()

    def nanoseconds(self) -> int:
        """Return nanoseconds since 1970."""
        return self._offset + time.monotonic_ns()

    def utc(self) -> datetime:
        """Return the time as an aware datetime, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.nanoseconds() // 1000)

    def now(self) -> Timestamp:
        """Return the time, to the microsecond."""
        stamp = Timestamp()
        stamp.FromMicroseconds(self.nanoseconds() // 1000)
        return stamp


def wall_time() -> Timestamp:
    """Return the wall clock's time."""
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp
