"""What a store tells of itself, for metrics."""

from __future__ import annotations

from typing import Protocol

from coin_protocol.v1 import statements_pb2


class StoreObserver(Protocol):
    """Told what happens; must return at once and raise nothing. Called from several threads."""

    def opened(self) -> None:
        """Learn that a session began."""

    def block(self) -> None:
        """Learn that a block is full."""

    def ended(self, statement: statements_pb2.Commitment) -> None:
        """Learn that a session ended, with what was committed to."""

    def written(self, operations: int, seconds: float) -> None:
        """Learn that a batch of operations is on disk, and how long that took."""


class Unobserved:
    """A `StoreObserver` that tells nobody."""

    def opened(self) -> None:
        """Do nothing."""

    def block(self) -> None:
        """Do nothing."""

    def ended(self, statement: statements_pb2.Commitment) -> None:
        """Do nothing."""

    def written(self, operations: int, seconds: float) -> None:
        """Do nothing."""
