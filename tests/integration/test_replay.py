"""The sample traffic over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2

from coin_protocol import transport
from coin_protocol.conformance.wire import Wire
from coin_protocol.errors import (
    InvalidInputError,
    PeerUnavailableError,
)
from coin_protocol.testing.small import SmallTokenizer
from coin_protocol.v1 import (
    replay_service_pb2,
    replay_service_pb2_grpc,
)
from provider_sdk.provider import Provider
from provider_sdk.replay import Replay
from provider_sdk.replay.server import REPLAY_SERVICE, make_replay_server
from provider_sdk.service import SERVICE
from tests.support.parties import (
    ANSWER,
    WAIT_SECONDS,
    Parties,
)
from tests.support.replays import SHORT, ask, replaying
from tests.support.servers import served

GENERATE = f"/{REPLAY_SERVICE}/Generate"
HEALTH = "/grpc.health.v1.Health/Check"

# Replays


async def test_a_replay_answers_by_question_and_by_id() -> None:
    async with replaying(Parties()) as target:
        by_question = await ask(target, question=SHORT.question)
        by_id = await ask(target, question=SHORT.id)
    assert by_question.answer == by_id.answer == ANSWER.encode()
    tokens = len(SmallTokenizer().encode(SHORT.reasoning))
    assert len(by_id.checkpoints) == tokens // 8


NO_REQUESTS = [
    b"",
    b"\xff",
    b"{}",
    b"[]",
    b"1",
    b'{"messages": []}',
    b'{"messages": {}}',
    b'{"messages": [{"content": []}]}',
    b'{"messages": [{"content": "what is this?"}]}',
]
NESTED = pytest.param(b"[" * 100_000, id="nested")


@pytest.mark.parametrize("request_bytes", [*NO_REQUESTS, NESTED])
async def test_a_request_that_no_trace_answers_is_an_invalid_argument(
    request_bytes: bytes,
) -> None:
    async with replaying(Parties()) as target, aio.insecure_channel(target) as channel:
        stub = replay_service_pb2_grpc.ReplayServiceStub(channel)
        call = stub.Generate(
            replay_service_pb2.GenerateRequest(
                model="honest", request=request_bytes, client_nonce=bytes(32)
            ),
            timeout=WAIT_SECONDS,
        )
        with pytest.raises(aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_model_and_an_unknown_question_are_the_callers_mistake() -> None:
    async with replaying(Parties()) as target:
        with pytest.raises(InvalidInputError, match="no model 'other'; there are honest"):
            await ask(target, "other")
        with pytest.raises(InvalidInputError, match="sky-01"):
            await ask(target, question="what is this?")


async def test_a_stream_that_breaks_off_leaves_no_receipt(provider: Provider) -> None:
    class Broken(Replay):
        async def stream(
            self, model: str, request: bytes, client_nonce: bytes
        ) -> AsyncIterator[replay_service_pb2.GenerateResponse]:
            del model, request, client_nonce
            yield replay_service_pb2.GenerateResponse(answer_delta="a")

    server = await make_replay_server({"broken": Broken(provider, [SHORT])})
    async with served(server) as target:
        with pytest.raises(PeerUnavailableError, match="without a commitment"):
            await ask(target, "broken")
    with pytest.raises(PeerUnavailableError, match="UNAVAILABLE"):
        await ask(target, "broken")


# How callers are met


@pytest.mark.parametrize("method", [GENERATE, f"/{SERVICE}/GetKeySet"])
@pytest.mark.parametrize(
    ("seconds", "reason"), [(None, "DEADLINE_MISSING"), (400.0, "DEADLINE_TOO_LONG")]
)
async def test_a_call_without_a_deadline_in_bounds_is_told_what_to_do(
    method: str, seconds: float | None, reason: str
) -> None:
    async with replaying(Parties()) as target, aio.insecure_channel(target) as channel:
        call: Any = channel.unary_stream(method)
        with pytest.raises(aio.AioRpcError) as caught:
            async for _ in call(b"", timeout=seconds):
                pass
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    info = transport.details_of(caught.value, error_details_pb2.ErrorInfo())
    assert info is not None
    assert info.reason == reason
    assert "a deadline of at most 300 s" in (caught.value.details() or "")


@pytest.mark.parametrize("service", [REPLAY_SERVICE, SERVICE, ""])
async def test_health_says_that_each_service_serves_and_needs_no_deadline(service: str) -> None:
    async with replaying(Parties()) as target, aio.insecure_channel(target) as channel:
        check: Any = channel.unary_unary(HEALTH)
        raw = await check(health_pb2.HealthCheckRequest(service=service).SerializeToString())
    reply = health_pb2.HealthCheckResponse.FromString(raw)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_both_services() -> None:
    async with replaying(Parties()) as target, transport.open_channel(target, None) as channel:
        wire = Wire(channel, target, WAIT_SECONDS)
        assert await wire.services() >= {REPLAY_SERVICE, SERVICE}
