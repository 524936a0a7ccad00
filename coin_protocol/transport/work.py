"""A bounded number of threads behind a bounded queue, for calls that must not hold the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from coin_protocol.errors import CoinError, InvalidInputError, TryLaterError

T = TypeVar("T")


class OverloadedError(TryLaterError):
    """More calls wait than can be answered in good time; this one was not taken."""


class PastDeadlineError(CoinError):
    """A call's deadline passed before its work began; nothing was done for it."""


class SlowError(TryLaterError):
    """A call's work goes on past what its deadline leaves: a store or a signer may hang."""


_MARGIN: Final = 0.1
_MOST_MARGIN_SECONDS: Final = 1.0
"""The caller is told so much before its deadline that what was asked for is late. Past it, it
would be told nothing, and silence counts against whoever was asked."""


class Workers:
    """Threads that take calls in order; what finds the queue full is turned away at once."""

    def __init__(self, *, threads: int = 4, queue: int = 256) -> None:
        """Start no thread yet.

        Args:
            threads: Calls worked on at a time.
            queue: Calls that may wait behind them.

        Raises:
            InvalidInputError: A number is too small.
        """
        if threads < 1 or queue < 0:
            msg = f"wanted 1 thread or more and no negative queue; found {threads} and {queue}"
            raise InvalidInputError(msg)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="coin-service")
        self._most = threads + queue
        self._taken = 0
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], T], *, seconds: float | None) -> T:
        """Run a call on a thread, unless `seconds` pass before its turn comes.

        If the awaiting task is cancelled, or has waited for nearly so long, a call that still
        waits is dropped; one under way goes on, and keeps its place until it has ended.

        Raises:
            OverloadedError: The queue is full, or the workers are closed.
            SlowError: It was not done in time.
            PastDeadlineError: Its turn came too late.
        """
        end = None if seconds is None else time.monotonic() + seconds

        def work() -> T:
            if end is not None and time.monotonic() >= end:
                msg = "the deadline passed while the call waited for its turn"
                raise PastDeadlineError(msg)
            return call()

        most = None
        if seconds is not None and seconds > 0:
            most = seconds - min(_MARGIN * seconds, _MOST_MARGIN_SECONDS)
        try:
            async with asyncio.timeout(most) as limit:
                return await asyncio.wrap_future(self._submit(work))
        except TimeoutError:
            if not limit.expired():
                raise  # the work's own
            msg = f"not done within {most:.3g} s; it may be by the time that you ask again"
            raise SlowError(msg) from None

    def close(self) -> None:
        """Take no more calls and drop those that wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._taken >= self._most:
                msg = f"{self._taken} calls are under way or waiting; try again shortly"
                raise OverloadedError(msg)
            self._taken += 1
        try:
            future = self._pool.submit(work)
        except RuntimeError as error:
            self._release()
            msg = "this server is shutting down; try again shortly"
            raise OverloadedError(msg) from error
        future.add_done_callback(lambda _: self._release())
        return future

    def _release(self) -> None:
        with self._lock:
            self._taken -= 1
