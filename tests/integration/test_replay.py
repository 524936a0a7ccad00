"""The sample traffic over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio

from coin_protocol import transport
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
from provider_sdk.replay import Replay, ReplayServicer
from tests.support.parties import (
    ANSWER,
    WAIT_SECONDS,
    Parties,
)
from tests.support.replays import SHORT, ask, replaying
from tests.support.servers import served

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

    server = await transport.make_server("x")
    replay_service_pb2_grpc.add_ReplayServiceServicer_to_server(
        ReplayServicer({"broken": Broken(provider, [SHORT])}), server
    )
    async with served(server) as target:
        with pytest.raises(PeerUnavailableError, match="without a commitment"):
            await ask(target, "broken")
    with pytest.raises(PeerUnavailableError, match="UNAVAILABLE"):
        await ask(target, "broken")
