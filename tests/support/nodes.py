"""Verifier nodes over small models: their parts, and the whole over real sockets."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from grpc import aio
from sqlalchemy import Engine

from coin_protocol.database.engine import open_engine
from coin_protocol.database.migrate import upgrade
from coin_protocol.signer import public_pem
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from tests.support.databases import database
from tests.support.parties import PROVIDER, VERIFIER, WAIT_SECONDS, Parties
from verifier_sdk.node.assembly import Bench
from verifier_sdk.node.metrics import NodeMetrics
from verifier_sdk.node.nats_queue import NatsSettings
from verifier_sdk.node.providers import Providers, RegisteredProvider
from verifier_sdk.node.running import Ports, serving, working
from verifier_sdk.node.settings import NodeSettings
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.store.claims import Lease
from verifier_sdk.store.tables import MIGRATIONS

NATS = os.environ.get("COIN_TEST_NATS", "nats://127.0.0.1:4222")
QUEUES = ("database", "nats")


@contextmanager
def node_database(kind: str, folder: Path) -> Iterator[Engine]:
    """Give the database of a node, its tables made."""
    with database(kind, folder) as url:
        engine = open_engine(url)
        try:
            upgrade(engine, MIGRATIONS)
            yield engine
        finally:
            engine.dispose()


@asynccontextmanager
async def nats_stream() -> AsyncIterator[NatsSettings]:
    """Give the settings of a stream of the test's own, deleted afterwards."""
    host, _, port = NATS.removeprefix("nats://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        if os.environ.get("CI"):
            raise
        pytest.skip("no NATS at COIN_TEST_NATS")
    settings = NatsSettings(servers=[NATS], stream=f"COIN_TEST_{secrets.token_hex(6)}")
    try:
        yield settings
    finally:
        client = await nats.connect(NATS)
        try:
            await client.jetstream().delete_stream(settings.stream)
        except nats.js.errors.NotFoundError:
            pass
        finally:
            await client.close()


def lease(worker: str = "worker", **instead: Any) -> Lease:
    """Return how a worker of a test claims audits."""
    given: dict[str, Any] = {"seconds": 30.0, "budgets": {}, "default_budget": None}
    return Lease(worker, **(given | instead))


@dataclass(frozen=True)
class NodeParts:
    """A node over a database, before it runs."""

    parties: Parties
    engine: Engine
    target: str
    share: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def providers(self) -> Providers:
        """One provider."""
        entry = RegisteredProvider(PROVIDER, self.target, self.parties.trust, self.share, None)
        return Providers({PROVIDER: entry})

    @property
    def bench(self) -> Bench:
        """The small models, and the judge of the policy."""
        parties = self.parties
        return Bench(
            signer=parties.verifier,
            verifiers=parties.verifiers,
            models=parties.models,
            policy=parties.policy,
            judge=judge_for(parties.policy, parties.models),
            weigher=None,
        )

    def node_settings(self, folder: Path) -> NodeSettings:
        """Return settings that name the provider."""
        root = folder / "root.pub.pem"
        root.write_bytes(public_pem(self.parties.root.public))
        given: dict[str, Any] = {
            "name": VERIFIER,
            "key": "file:unused",
            "listen": "127.0.0.1:0",
            "lease_seconds": 5.0,
            "grace_seconds": 5,
            "memory_folder": folder / "memory",
            "providers": {PROVIDER: {"endpoint": self.target, "roots": [root]}},
        }
        return NodeSettings(**(given | self.settings))


@dataclass(frozen=True)
class NodeClient:
    """A client's view of a node."""

    channel: aio.Channel
    ports: Ports
    metrics: NodeMetrics

    @property
    def stub(self) -> Any:
        """Of its gRPC service."""
        return VerifierServiceStub(self.channel)

    async def submit(self, receipt: receipt_pb2.Receipt) -> str:
        """Hand a receipt in; return the audit's id."""
        request = pb.SubmitReceiptRequest(receipt=receipt)
        audit_id: str = (await self.stub.SubmitReceipt(request, timeout=WAIT_SECONDS)).audit_id
        return audit_id

    async def run(self, audit_id: str) -> pb.Audit:
        """Ask for an audit."""
        request = pb.RunAuditRequest(audit_id=audit_id)
        audit: pb.Audit = (await self.stub.RunAudit(request, timeout=WAIT_SECONDS)).audit
        return audit

    async def get(self, audit_id: str) -> pb.Audit:
        """Return an audit as it stands."""
        request = pb.GetAuditRequest(audit_id=audit_id)
        audit: pb.Audit = (await self.stub.GetAudit(request, timeout=WAIT_SECONDS)).audit
        return audit

    async def watch(self, audit_id: str) -> AsyncIterator[pb.Audit]:
        """Give an audit as it stands, then each change."""
        request = pb.WatchAuditRequest(audit_id=audit_id)
        async for reply in self.stub.WatchAudit(request, timeout=WAIT_SECONDS):
            yield reply.audit

    async def page(self, **wanted: Any) -> pb.ListAuditsResponse:
        """Return a page of audits."""
        request = pb.ListAuditsRequest(**wanted)
        page: pb.ListAuditsResponse = await self.stub.ListAudits(request, timeout=WAIT_SECONDS)
        return page

    async def decide(self, audit_id: str) -> pb.Audit:
        """Ask for an audit and wait for its end."""
        await self.run(audit_id)
        async for audit in self.watch(audit_id):
            last = audit
        return last


@asynccontextmanager
async def running_node(
    parts: NodeParts,
    folder: Path,
    *,
    workers: bool = True,
    edit: Callable[[Bench], Bench] = lambda bench: bench,
) -> AsyncIterator[NodeClient]:
    """Run a node, with workers or without, and connect to it."""
    settings = parts.node_settings(folder)
    providers, metrics, bell = parts.providers, NodeMetrics(), asyncio.Event()
    profile, policy = parts.parties.profile, parts.parties.policy
    async with AsyncExitStack() as stack:
        ports = await stack.enter_async_context(
            serving(settings, parts.engine, providers, profile, policy, metrics, bell)
        )
        channel = await stack.enter_async_context(aio.insecure_channel(f"127.0.0.1:{ports.grpc}"))
        if workers:
            bench = edit(parts.bench)
            await stack.enter_async_context(
                working(settings, parts.engine, providers, bench, metrics, bell)
            )
        yield NodeClient(channel, ports, metrics)
