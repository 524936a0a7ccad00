"""A node's logs, errors and metrics, while secrets and conversations pass through it."""

from __future__ import annotations

import io
from pathlib import Path

import grpc
import httpx
import pytest
from grpc import aio
from prometheus_client import generate_latest
from sqlalchemy import Engine

from coin_protocol.ops.logs import LogFormat, configure_logging
from coin_protocol.transport import make_token
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from provider_sdk.provider import Provider
from tests.support.logs import logging_as_before
from tests.support.nodes import NodeParts, running_node
from tests.support.parties import WAIT_SECONDS, Parties, run_session
from tests.support.servers import serving
from verifier_sdk.node.metrics import NodeMetrics

SECRET = "s3cret-of-a-conversation"  # noqa: S105 - planted


@pytest.mark.parametrize("output", ["json", "console"])
async def test_no_token_and_no_conversation_comes_out(
    parties: Parties, provider: Provider, engine: Engine, tmp_path: Path, output: LogFormat
) -> None:
    token, wrong = make_token("ann"), make_token("nobody")
    file = tmp_path / "tokens"
    file.write_text(f"{token.line}\n")
    settings = {"tokens": file, "http_listen": "127.0.0.1:0"}
    sound = run_session(provider).receipt
    altered = receipt_pb2.Receipt()
    altered.CopyFrom(sound)
    altered.request = altered.answer = SECRET.encode()
    errors: list[str] = []
    stream = io.StringIO()
    with logging_as_before():
        configure_logging(level="debug", output=output, stream=stream)
        async with (
            serving(provider) as target,
            running_node(
                NodeParts(parties, engine, target, share=0.0, settings=settings), tmp_path
            ) as client,
        ):
            known = {"metadata": [("authorization", f"Bearer {token.token}")]}
            stub = client.stub
            for receipt in (altered, sound):
                request = pb.SubmitReceiptRequest(receipt=receipt)
                sent = await stub.SubmitReceipt(request, timeout=WAIT_SECONDS, **known)
                name = sent.audit_id
                await stub.RunAudit(pb.RunAuditRequest(audit_id=name), timeout=9, **known)
                watched = stub.WatchAudit(pb.WatchAuditRequest(audit_id=name), timeout=9, **known)
                async for reply in watched:
                    assert reply.audit.error == ""
            altered.commitment.payload = SECRET.encode()
            for bad, metadata in (
                (altered, known["metadata"]),
                (sound, [("authorization", f"Bearer {wrong.token}")]),
            ):
                request = pb.SubmitReceiptRequest(receipt=bad)
                with pytest.raises(aio.AioRpcError) as caught:
                    await stub.SubmitReceipt(request, timeout=WAIT_SECONDS, metadata=metadata)
                assert caught.value.code() != grpc.StatusCode.INTERNAL
                errors.append(str(caught.value.details()))
            url = f"http://127.0.0.1:{client.ports.http}/coin/v1/receipts"
            async with httpx.AsyncClient(trust_env=False) as http:
                for shown in (token.token, wrong.token):
                    answer = await http.post(
                        url,
                        content=SECRET.encode() * 10,
                        headers={
                            "content-type": "application/x-protobuf",
                            "authorization": f"Bearer {shown}",
                        },
                    )
                    errors.append(answer.text)
            errors.append(generate_latest(client.metrics.registry).decode())
    told = stream.getvalue() + "".join(errors)
    assert len(errors) == 5
    for secret in (SECRET, token.token, wrong.token, "the air sends the short waves"):
        assert secret not in told


def test_names_of_hostile_callers_fill_no_metric() -> None:
    metrics = NodeMetrics()
    for number in range(500):
        for method in ("/a/SubmitReceipt", f"/a/Odd{number}"):
            metrics.observed(method, f'evil{number}"\n{{}}', "OK", 0.1)
            metrics.observed(method, f"client{number}", f"CODE{number}", 0.1)
        metrics.failed(f"provider{number}", f"Error{number}", final=False)
    told = generate_latest(metrics.registry).decode()
    assert told.count("\ncoin_verifier_calls_total{") < 3 * 200
    assert "Odd1" not in told
    assert 'evil1"' not in told
    assert "client400" not in told
    assert 'client="other"' in told
