"""One thread of this process that writes receipts, so that no reply waits for a disk."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

_LOG = logging.getLogger("verifier_sdk.collecting")

Work = Callable[[], object]

_EXIT_SECONDS: Final = 10.0
"""What the end of the process waits for receipts that are still to be written."""


class Worker:
    """Runs what it is given, in order, on a thread that begins with the first of it.

    `put` may be called from anywhere, a destructor included: a stream that nobody closed ends
    when it is collected. So there is no lock here, and `SimpleQueue` has none that could be held.
    """

    def __init__(self, name: str, *, exit_seconds: float = _EXIT_SECONDS) -> None:
        """Start nothing yet.

        Args:
            name: Of the thread.
            exit_seconds: What the end of the process waits for it.
        """
        self._name = name
        self._exit_seconds = exit_seconds
        self._queue: SimpleQueue[Work] = SimpleQueue()
        self._process = 0

    def start(self) -> None:
        """Start the thread unless it runs: again in a child process, where no thread lives on."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._queue = SimpleQueue()
        threading.Thread(
            target=self._run, args=(self._queue,), name=self._name, daemon=True
        ).start()
        atexit.unregister(self._leave)
        atexit.register(self._leave)

    def put(self, work: Work) -> None:
        """Have something done. `start` was called before, on this process."""
        self._queue.put(work)

    def waiting(self) -> int:
        """Return about how much is still to be done."""
        return self._queue.qsize()

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put so far is done; say whether it is.

        Args:
            timeout: Seconds.
        """
        if self._process != os.getpid():
            return True
        done = threading.Event()
        self._queue.put(done.set)
        return done.wait(timeout)

    def _leave(self) -> None:
        self.flush(self._exit_seconds)

    def _run(self, queue: SimpleQueue[Work]) -> None:
        while True:
            work = queue.get()
            try:
                work()
            except Exception as error:  # noqa: BLE001 - a bug of ours, and the next one may do
                # Its own text may be the conversation's: it stays here.
                _LOG.error("a receipt could not be kept: %s", type(error).__name__)
            del work
