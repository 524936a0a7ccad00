"""Which audit is next. The database knows all of them; a queue says when to look, and at which."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Engine

from verifier_sdk.store.claims import Claim, Lease, claim_next


class Job(Protocol):
    """An audit that was taken."""

    @property
    def claim(self) -> Claim:
        """The claim on it in the database, without which nobody audits."""

    async def alive(self) -> None:
        """Say that it is being worked on."""

    async def done(self) -> None:
        """Say that the database knows what became of it: decided, given up, or due later."""

    async def later(self, seconds: float) -> None:
        """Say that nothing could be written down: it is to come again after so many seconds."""


class Queue(Protocol):
    """Gives audits to workers, each to one of them at a time."""

    async def take(self, lease: Lease, stop: asyncio.Event) -> Job | None:
        """Return an audit as soon as one is due, or None once `stop` is set.

        Raises:
            StoreUnavailableError: The database does not answer.
            TryLaterError: The message queue does not.
        """

    async def close(self) -> None:
        """Hang up."""


class DatabaseJob:
    """A job that is nothing but its claim."""

    def __init__(self, claim: Claim) -> None:
        """Hold the claim."""
        self.claim = claim

    async def alive(self) -> None:
        """Do nothing: the claim in the database is extended by the worker."""

    async def done(self) -> None:
        """Do nothing: the database knows."""

    async def later(self, seconds: float) -> None:
        """Do nothing: the database knows."""


class DatabaseQueue:
    """Asks the database, again and again."""

    def __init__(self, engine: Engine, bell: asyncio.Event, *, poll_seconds: float = 0.5) -> None:
        """Ask so often where nothing is due.

        Args:
            engine: Of the node's database.
            bell: Set where this process itself has queued an audit: it is looked for at once.
            poll_seconds: Between two looks.
        """
        self._engine = engine
        self._bell = bell
        self._poll_seconds = poll_seconds

    async def take(self, lease: Lease, stop: asyncio.Event) -> DatabaseJob | None:
        """Return an audit; see `Queue`. Whoever sets `stop` rings the bell, too."""
        while not stop.is_set():
            claim = await asyncio.to_thread(claim_next, self._engine, lease)
            if claim is not None:
                return DatabaseJob(claim)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._bell.wait()
            self._bell.clear()
        return None

    async def close(self) -> None:
        """Do nothing."""
