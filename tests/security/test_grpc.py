"""Clients of a node that send bombs, hold what they began, or look at what is others'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from prometheus_client import generate_latest
from sqlalchemy import Engine

from coin_protocol.limits import MAX_MESSAGE_BYTES
from coin_protocol.transport import guard, make_token
from coin_protocol.v1 import verifier_service_pb2 as pb
from provider_sdk.provider import Provider
from tests.support.nodes import NodeClient, NodeParts, running_node
from tests.support.parties import WAIT_SECONDS, Parties, run_session
from tests.support.servers import serving
from verifier_sdk.node import service
from verifier_sdk.node.service import SERVICE

SUBMIT = f"/{SERVICE}/SubmitReceipt"
GET = f"/{SERVICE}/GetAudit"
NOWHERE = "127.0.0.1:1"


def parts_of(parties: Parties, engine: Engine, target: str = NOWHERE, **settings: Any) -> NodeParts:
    return NodeParts(parties, engine, target, share=0.0, settings=settings)


async def still_answers(client: NodeClient) -> bool:
    return not (await client.page(page_size=1)).audits


async def test_a_message_that_inflates_past_the_limit_is_refused(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    async with running_node(parts_of(parties, engine), tmp_path, workers=False) as client:
        options = [("grpc.max_send_message_length", -1)]
        async with aio.insecure_channel(
            f"127.0.0.1:{client.ports.grpc}", options=options, compression=grpc.Compression.Gzip
        ) as channel:
            call: Any = channel.unary_unary(SUBMIT)
            with pytest.raises(aio.AioRpcError) as caught:
                await call(bytes(MAX_MESSAGE_BYTES + 1), timeout=WAIT_SECONDS)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in (caught.value.details() or "")
        assert await still_answers(client)


async def test_a_message_past_the_limit_is_refused_unread(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    async with running_node(parts_of(parties, engine), tmp_path, workers=False) as client:
        options = [("grpc.max_send_message_length", -1)]
        target = f"127.0.0.1:{client.ports.grpc}"
        async with aio.insecure_channel(target, options=options) as channel:
            call: Any = channel.unary_unary(SUBMIT)
            with pytest.raises(aio.AioRpcError) as caught:
                await call(bytes(MAX_MESSAGE_BYTES + 1), timeout=WAIT_SECONDS)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await still_answers(client)


async def test_a_call_whose_request_never_comes_is_ended(
    parties: Parties, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.1)
    silence = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        await silence.wait()
        yield b""

    async with running_node(parts_of(parties, engine), tmp_path, workers=False) as client:
        call: Any = client.channel.stream_unary(SUBMIT)
        with pytest.raises(aio.AioRpcError) as caught:
            await call(nothing(), timeout=WAIT_SECONDS)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_client_watches_so_many_audits_and_no_more(
    parties: Parties,
    provider: Provider,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "MAX_WATCHED", 2)
    async with running_node(parts_of(parties, engine), tmp_path, workers=False) as client:
        request = pb.WatchAuditRequest(audit_id=await client.submit(run_session(provider).receipt))

        def watch() -> Any:
            return client.stub.WatchAudit(request, timeout=WAIT_SECONDS)

        held = [watch(), watch()]
        for call in held:
            assert (await call.read()).audit.state == pb.AUDIT_STATE_SUBMITTED
        with pytest.raises(aio.AioRpcError) as caught:
            await watch().read()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "2 audits are watched already" in (caught.value.details() or "")
        # Who hangs up makes room, however it was done.
        held[0].cancel()
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                with suppress(aio.AioRpcError):
                    assert (await watch().read()).audit.state == pb.AUDIT_STATE_SUBMITTED
                    break
                await asyncio.sleep(0.02)


async def test_a_conversation_is_shown_to_who_handed_it_in(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path
) -> None:
    ann, ben = make_token("ann"), make_token("ben")
    file = tmp_path / "tokens"
    file.write_text(f"{ann.line}\n{ben.line}\n")
    receipt = run_session(provider).receipt
    async with (
        serving(provider) as target,
        running_node(parts_of(parties, engine, target, tokens=file), tmp_path) as client,
    ):
        mine, other = (
            {"metadata": [("authorization", f"Bearer {one.token}")], "timeout": WAIT_SECONDS}
            for one in (ann, ben)
        )
        stub = client.stub
        sent = await stub.SubmitReceipt(pb.SubmitReceiptRequest(receipt=receipt), **mine)
        await stub.RunAudit(pb.RunAuditRequest(audit_id=sent.audit_id), **mine)
        async for reply in stub.WatchAudit(pb.WatchAuditRequest(audit_id=sent.audit_id), **mine):
            last = reply.audit
        assert last.bundle.receipt.request == receipt.request
        wanted = pb.GetAuditRequest(audit_id=sent.audit_id)
        assert (await stub.GetAudit(wanted, **mine)).audit.HasField("bundle")
        # Others learn how it ended, and nothing of what was said.
        for shown in (
            (await stub.GetAudit(wanted, **other)).audit,
            (await stub.RunAudit(pb.RunAuditRequest(audit_id=sent.audit_id), **other)).audit,
            (
                await stub.WatchAudit(pb.WatchAuditRequest(audit_id=sent.audit_id), **other).read()
            ).audit,
        ):
            assert shown.outcome == last.outcome
            assert not shown.HasField("bundle")
            assert receipt.request not in shown.SerializeToString()


async def test_methods_that_there_are_not_make_no_metric(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    async with running_node(parts_of(parties, engine), tmp_path, workers=False) as client:
        for number in range(200):
            call: Any = client.channel.unary_unary(f"/{SERVICE}/Method{number}")
            with pytest.raises(aio.AioRpcError) as caught:
                await call(b"", timeout=WAIT_SECONDS)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert await still_answers(client)
        told = generate_latest(client.metrics.registry)
    assert b'method="ListAudits"' in told
    assert b"Method1" not in told


async def test_ids_that_are_none_are_not_found(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    async with running_node(parts_of(parties, engine), tmp_path, workers=False) as client:
        for text in ("", "../x", "' or 1=1 --", "A" * 64, "é" * 32, "\0" * 64, "0" * 5000):
            with pytest.raises(aio.AioRpcError) as caught:
                await client.get(text)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            assert len(caught.value.details() or "") < 400
