"""A node's workers in this process, over a database: what they do, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Row, func, select

from coin_protocol import transport
from coin_protocol.database.engine import reading
from coin_protocol.errors import (
    StoreUnavailableError,
)
from coin_protocol.profile import Policy
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1 import receipt_pb2
from tests.support.audits import bear_out, verdict_of
from tests.support.nodes import NodeParts, lease
from tests.support.parties import (
    PROVIDER,
    WAIT_SECONDS,
    Parties,
    Reply,
)
from tests.support.servers import Opening
from verifier_sdk.client import ProviderClient
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.node.intake import Intake
from verifier_sdk.node.queues import DatabaseQueue
from verifier_sdk.node.worker import Target, Worker
from verifier_sdk.store.reading import find_audit, find_bundle
from verifier_sdk.store.tables import DECIDED

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
LEASE_SECONDS = 1.0
LOOK_SECONDS = 0.02

Honest = Callable[[], Awaitable[Opening]]


@dataclass
class Seen:
    """A `NodeObserver` that remembers."""

    verdicts: list[receipt_pb2.Verdict] = field(default_factory=list)
    failures: list[tuple[str, bool]] = field(default_factory=list)
    failed_once: asyncio.Event = field(default_factory=asyncio.Event)

    def decided(self, provider: str, verdict: receipt_pb2.Verdict, seconds: float) -> None:
        """Remember a verdict."""
        assert provider == PROVIDER
        assert seconds >= 0
        self.verdicts.append(verdict)

    def failed(self, provider: str, error: str, *, final: bool) -> None:
        """Remember a failure."""
        assert provider == PROVIDER
        self.failures.append((error, final))
        self.failed_once.set()


@dataclass
class Node:
    """A node's database, and workers over it."""

    parties: Parties
    engine: Engine
    seen: Seen = field(default_factory=Seen)

    async def submit(self, *replies: Reply) -> list[bytes]:
        """Hand receipts in; return the ids of their audits."""
        intake = Intake(
            self.engine,
            NodeParts(self.parties, self.engine, "").providers,
            secret=bytes(32),
            block_size=self.parties.profile.block_size,
            failed_share=lambda _: 0.0,
        )
        kept = await asyncio.gather(
            *(intake.keep(intake.prepare(reply.receipt, "")) for reply in replies)
        )
        return [one.audit_id for one in kept]

    @asynccontextmanager
    async def working(
        self,
        target: str,
        *,
        name: str = "worker",
        pauses: tuple[float, ...] = (),
        call_seconds: float = WAIT_SECONDS,
        stop: asyncio.Event | None = None,
        knows: str = PROVIDER,
        **auditor: Any,
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Run a worker until the block ends; give its task."""
        stop = stop or asyncio.Event()
        bell = asyncio.Event()
        async with ProviderClient(target, tls=None, timeout=call_seconds) as client:
            worker = Worker(
                self.engine,
                DatabaseQueue(self.engine, bell, poll_seconds=LOOK_SECONDS),
                {knows: Target(self.parties.auditor(**auditor), client)},
                lease(name, seconds=LEASE_SECONDS),
                observer=self.seen,
                weigher=None,
                remember=lambda _name, _bundle: lambda _: None,
                pauses=pauses,
            )
            task = asyncio.create_task(worker.run(stop))
            try:
                yield task
            finally:
                stop.set()
                await asyncio.wait([task], timeout=WAIT_SECONDS)

    def row(self, audit_id: bytes) -> Row[Any]:
        """Return an audit as it stands."""
        row = find_audit(self.engine, audit_id)
        assert row is not None
        return row

    async def reach(self, audit_id: bytes, *states: str) -> Row[Any]:
        """Wait until an audit is in one of these states."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                # A connection that is ended under this look is no finding.
                with suppress(StoreUnavailableError):
                    row = await asyncio.to_thread(self.row, audit_id)
                    if row.state in states:
                        return row
                await asyncio.sleep(LOOK_SECONDS)

    async def verdict(self, audit_id: bytes, policy: Policy | None = None) -> receipt_pb2.Verdict:
        """Wait for the verdict; check its bundle, and that it stands in the log once."""
        await self.reach(audit_id, DECIDED)
        raw = find_bundle(self.engine, audit_id)
        assert raw is not None
        bundle = receipt_pb2.Bundle.FromString(raw)
        bear_out(self.parties, bundle, policy or self.parties.policy)
        assert self.entries() == 2, "one for the commitment, one for the verdict"
        return verdict_of(bundle)

    def entries(self) -> int:
        """Return how many entries the log has."""
        with reading(self.engine) as connection:
            return int(connection.execute(select(func.count()).select_from(ENTRY)).scalar_one())


@dataclass
class Interrupted:
    """Answers each challenge, but keeps back what it answers to the first ones."""

    kept_back: int = 1
    sent: list[bytes] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(
        self, honest: Honest, request: pb.AnswerChallengeRequest, context: transport.Context
    ) -> Opening:
        """Answer."""
        del context
        self.sent.append(request.challenge.payload)
        opening = await honest()
        if len(self.sent) <= self.kept_back:
            self.reached.set()
            await asyncio.Event().wait()
        return opening


def exposed(reply: Reply) -> receipt_pb2.Exposure:
    """Return what the provider has opened of a reply, by its own ledger."""
    return reply.session.provider.store.get(reply.commitment_sha256).ledger.exposure()


def as_without_crash(verdict: receipt_pb2.Verdict, reply: Reply) -> None:
    """Check that a verdict is that of an audit which nothing disturbed."""
    assert verdict.outcome == PASS
    assert all(check.status != receipt_pb2.CHECK_STATUS_FAILED for check in verdict.checks)
    assert verdict.exposure == exposed(reply)
