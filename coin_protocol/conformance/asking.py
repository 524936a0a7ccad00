"""Receipts of a provider's replies: kept before, or asked for now."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterable, Sequence
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from coin_protocol.clock import SteadyClock
from coin_protocol.collection import collected
from coin_protocol.conformance.wire import Wire, answer_of
from coin_protocol.errors import InvalidInputError, PeerUnavailableError
from coin_protocol.receipt import RECEIPT_FORMAT, check_receipt
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import replay_service_pb2 as pb

REPLAY: Final = pb.DESCRIPTOR.services_by_name["ReplayService"].full_name
_NONCE_BYTES: Final = 32


def read_receipts(paths: Sequence[Path]) -> list[receipt_pb2.Receipt]:
    """Return the receipts at paths, as `coin receipt verify` takes them.

    Raises:
        InvalidInputError: There is none, or one cannot be read.
    """
    found = []
    for entry in collected(paths):
        if entry.problem:
            msg = f"{entry.name}: {entry.problem}"
            raise InvalidInputError(msg)
        if entry.receipt is not None:
            found.append(entry.receipt)
    if not found:
        msg = f"{', '.join(map(str, paths))}: no receipts"
        raise InvalidInputError(msg)
    return found


async def ask_replay(wire: Wire, *, model: str, question: str) -> receipt_pb2.Receipt:
    """Ask a provider that replays traces, and keep the receipt.

    Raises:
        PeerUnavailableError: It gives no reply, or ends one without a commitment.
        InvalidInputError: A part of the reply passes a limit.
    """
    asked = chat_request(model, question)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    request = pb.GenerateRequest(model=model, request=asked, client_nonce=nonce)
    parsed = _parsed(wire.stream(f"{REPLAY}/Generate", request))
    try:
        return await keep(parsed, request=asked, nonce=nonce)
    except aio.AioRpcError as error:
        msg = f"model {model!r} gave no reply to {question!r}: {answer_of(error)}"
        raise PeerUnavailableError(msg, status=error.code().name) from error


async def keep(
    events: AsyncIterable[pb.GenerateResponse], *, request: bytes, nonce: bytes
) -> receipt_pb2.Receipt:
    """Return the receipt of a reply, with when its parts came by this machine's clock.

    Raises:
        PeerUnavailableError: The reply ends without a commitment.
        InvalidInputError: A part passes a limit.
    """
    clock = SteadyClock().nanoseconds
    receipt = receipt_pb2.Receipt(
        format=RECEIPT_FORMAT, client_nonce=nonce, request=request, sent_at=_stamp(clock())
    )
    async for event in events:
        now = _stamp(clock())
        if event.HasField("checkpoint"):
            receipt.checkpoints.add(checkpoint=event.checkpoint, seen_at=now)
        elif event.HasField("answer_delta") and event.answer_delta:
            if not receipt.HasField("answer_first_at"):
                receipt.answer_first_at.CopyFrom(now)
            receipt.answer_last_at.CopyFrom(now)
            receipt.answer += event.answer_delta.encode()
        elif event.HasField("final"):
            receipt.commitment.CopyFrom(event.final.commitment)
            receipt.key_set.CopyFrom(event.final.key_set)
            receipt.billed.CopyFrom(event.final.usage)
            check_receipt(receipt)
            return receipt
    msg = "the reply ended without a commitment"
    raise PeerUnavailableError(msg)


def chat_request(model: str, question: str) -> bytes:
    """Return the exact bytes of a request."""
    document = {"model": model, "messages": [{"role": "user", "content": question}]}
    return json.dumps(document).encode()


async def _parsed(raw: AsyncIterable[bytes]) -> AsyncIterable[pb.GenerateResponse]:
    async for event in raw:
        try:
            yield pb.GenerateResponse.FromString(event)
        except DecodeError as error:
            msg = "a part of the reply does not parse"
            raise PeerUnavailableError(msg) from error


def _stamp(nanoseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    return stamp
