"""What a worker tells of itself, for metrics."""

from __future__ import annotations

from typing import Protocol

from coin_protocol.v1 import receipt_pb2


class NodeObserver(Protocol):
    """Told what happens; must return at once and raise nothing."""

    def decided(self, provider: str, verdict: receipt_pb2.Verdict, seconds: float) -> None:
        """Learn that an audit has its verdict, and how long its last attempt took."""

    def failed(self, provider: str, error: str, *, final: bool) -> None:
        """Learn that an attempt failed, by the name of the error, and whether it was the last."""
