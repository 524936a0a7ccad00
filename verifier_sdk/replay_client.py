"""A client of `ReplayService`: ask, and keep the receipt."""

from __future__ import annotations

import json

from grpc import aio

from coin_protocol.errors import InvalidInputError, PeerUnavailableError
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import replay_service_pb2 as pb
from coin_protocol.v1 import replay_service_pb2_grpc as pb_grpc
from verifier_sdk.recorder import Recorder


async def ask_replay(
    channel: aio.Channel, *, model: str, question: str, seconds: float = 60.0
) -> receipt_pb2.Receipt:
    """Ask a replayed model, noting what arrives and when.

    Args:
        channel: To a provider that serves `ReplayService`.
        model: Name of the replay.
        question: A trace's question, or its id.
        seconds: Deadline of the whole reply.

    Raises:
        InvalidInputError: The provider has no such model or trace.
        PeerUnavailableError: The stream broke off, or ended without a commitment.
    """
    document = {"model": model, "messages": [{"role": "user", "content": question}]}
    request = json.dumps(document).encode()
    recorder = Recorder(request=request)
    call = pb.GenerateRequest(model=model, request=request, client_nonce=recorder.client_nonce)
    try:
        async for event in pb_grpc.ReplayServiceStub(channel).Generate(call, timeout=seconds):
            if event.HasField("checkpoint"):
                recorder.checkpoint(event.checkpoint)
            elif event.HasField("answer_delta"):
                recorder.answer_delta(event.answer_delta)
            else:
                return recorder.finish(
                    commitment=event.final.commitment,
                    key_set=event.final.key_set,
                    billed=event.final.usage,
                )
    except aio.AioRpcError as error:
        if error.code().name == "INVALID_ARGUMENT":
            raise InvalidInputError(error.details() or "the provider refused") from error
        msg = f"the reply broke off ({error.code().name})"
        raise PeerUnavailableError(msg) from error
    msg = "the reply ended without a commitment"
    raise PeerUnavailableError(msg)
