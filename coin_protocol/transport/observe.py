"""What a server tells whoever keeps its metrics."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Told of every guarded call and every file that was read again. Must be quick."""

    def observed(self, method: str, verifier: str, code: str, seconds: float) -> None:
        """Note a call that has ended; called on the event loop.

        Args:
            method: Full name without the leading slash.
            verifier: Who was authenticated; empty for nobody.
            code: Name of the gRPC status, `OK` included.
            seconds: From the arrival of the call to its end.
        """

    def reloaded(self, what: str, *, ok: bool) -> None:
        """Note that `certificate` or `tokens` changed on disk, and whether it is now in use.

        May be called from a thread of grpc's own.
        """


class Unobserved:
    """An `Observer` that forgets."""

    def observed(self, method: str, verifier: str, code: str, seconds: float) -> None:
        """Forget a call."""

    def reloaded(self, what: str, *, ok: bool) -> None:
        """Forget a reload."""
