"""What other parts tell of themselves, turned into metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from provider_sdk.ops.metrics import Metrics

NOBODY: Final = "unknown"
"""The verifier of a call that nobody was authenticated for."""


class ServerObserver:
    """A `coin_protocol.transport.Observer` that counts."""

    def __init__(self, metrics: Metrics) -> None:
        """Count in `metrics`."""
        self._challenges = metrics.challenges
        self._keys = metrics.keys

    def observed(self, method: str, verifier: str, code: str, seconds: float) -> None:
        """Count a call that has ended.

        Args:
            method: Full name, `package.Service/Method`.
            verifier: Who was authenticated; empty for nobody.
            code: Name of the gRPC status.
            seconds: From the arrival of the call to its end.
        """
        name = method.rpartition("/")[2]
        self._challenges.calls.labels(method=name, verifier=verifier or NOBODY, code=code).inc()
        self._challenges.seconds.labels(method=name).observe(seconds)

    def reloaded(self, what: str, *, ok: bool) -> None:
        """Count that `certificate` or `tokens` changed on disk, and whether it is in use."""
        outcome = "used" if ok else "refused"
        self._keys.reloads.labels(what=what, outcome=outcome).inc()


def store_observer(metrics: Metrics) -> Callable[[int, float], None]:
    """Return what `SqlStore(observe=…)` takes: told of each batch's operations and seconds."""

    def observe(operations: int, seconds: float) -> None:
        metrics.store.batches.inc()
        metrics.store.operations.inc(operations)
        metrics.store.batch_seconds.observe(seconds)

    return observe


def purge_observer(metrics: Metrics) -> Callable[[int], None]:
    """Return what is told of each purge that ended well: how many sessions it purged."""

    def observe(sessions: int) -> None:
        metrics.store.purged.inc(sessions)
        metrics.store.last_purge.set_to_current_time()

    return observe
