"""A node that is killed has on disk every receipt that it has acknowledged."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from sqlalchemy import select

from benchmarks._crashes.site import build, replies
from benchmarks._faults.children import Child
from coin_protocol.database.engine import open_engine
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from provider_sdk.provider import Provider
from tests.support.databases import KINDS, database
from tests.support.parties import WAIT_SECONDS, Parties
from verifier_sdk.store.tables import AUDIT, FILE

RECEIPTS = 300
KILLED_AFTER = 100


async def acknowledged(node: Child, receipts: list[receipt_pb2.Receipt]) -> set[bytes]:
    """Hand receipts in until the node is killed; return the ids that it has said it kept."""
    kept: set[bytes] = set()
    waiting = iter(receipts)
    async with aio.insecure_channel((await node.ready()).target) as channel:
        stub: Any = VerifierServiceStub(channel)

        async def client() -> None:
            for receipt in waiting:
                request = pb.SubmitReceiptRequest(receipt=receipt)
                reply = await stub.SubmitReceipt(request, timeout=WAIT_SECONDS)
                kept.add(bytes.fromhex(reply.audit_id))
                if len(kept) == KILLED_AFTER:
                    node.kill()

        async def until_gone() -> None:
            with suppress(aio.AioRpcError):
                await client()

        await asyncio.gather(*(until_gone() for _ in range(16)))
    return kept


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_acknowledged_is_there_after_a_kill(
    kind: str, parties: Parties, provider: Provider, tmp_path: Path
) -> None:
    receipts = [reply.receipt for reply in replies(provider, RECEIPTS)]
    with database(kind, tmp_path) as url:
        site = build(tmp_path, parties, url=url, target="127.0.0.1:1", nats=None, at_once=0)
        node = Child("node", "node", site)
        node.start()
        try:
            kept = await acknowledged(node, receipts)
        finally:
            await node.discard()
        engine = open_engine(url)
        try:
            with engine.connect() as connection:
                query = select(AUDIT.c.audit_id).join(FILE, FILE.c.number == AUDIT.c.number)
                there = set(connection.execute(query).scalars())
        finally:
            engine.dispose()
    assert KILLED_AFTER <= len(kept) < RECEIPTS
    assert kept <= there
