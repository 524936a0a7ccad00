"""What other parts tell of themselves, turned into metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from coin_protocol.v1 import statements_pb2
from provider_sdk.ops.metrics import Metrics, abort_label

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


class StoreCounter:
    """A `provider_sdk.store.observe.StoreObserver` that counts."""

    def __init__(self, metrics: Metrics) -> None:
        """Count in `metrics`."""
        self._sessions = metrics.sessions
        self._store = metrics.store

    def opened(self) -> None:
        """Count a session that begins."""
        self._sessions.opened.inc()

    def block(self) -> None:
        """Count a full block, and so a checkpoint."""
        self._sessions.checkpoints.inc()

    def ended(self, statement: statements_pb2.Commitment) -> None:
        """Count a session that ended, and what it committed to."""
        reason = statement.abort_reason
        outcome = "aborted" if reason else "committed"
        self._sessions.finished.labels(outcome=outcome, reason=abort_label(reason)).inc()
        self._sessions.reasoning_tokens.inc(statement.reasoning_tokens)

    def written(self, operations: int, seconds: float) -> None:
        """Count a batch."""
        self._store.batches.inc()
        self._store.operations.inc(operations)
        self._store.batch_seconds.observe(seconds)


def purge_observer(metrics: Metrics) -> Callable[[int], None]:
    """Return what is told of each purge that ended well: how many sessions it purged."""

    def observe(sessions: int) -> None:
        metrics.store.purged.inc(sessions)
        metrics.store.last_purge.set_to_current_time()

    return observe
