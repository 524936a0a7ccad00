"""Calls with raw bytes, and the bytes that peers might send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc import aio

from tests.support.parties import WAIT_SECONDS

DOCUMENTED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""Status codes that the services' documents speak of."""


async def call_raw(channel: aio.Channel, method: str, message: Message) -> bytes:
    """Call a method by its full name with a message; return the reply's bytes."""
    call: Any = channel.unary_unary(method)
    raw: bytes = await call(message.SerializeToString(), timeout=WAIT_SECONDS)
    return raw


async def status_of(
    channel: aio.Channel, method: str, raw: bytes, *, streams: bool = False
) -> tuple[grpc.StatusCode, str]:
    """Call a method by its full name with raw bytes; return the status and its message."""
    try:
        if streams:
            stream: Any = channel.unary_stream(method)
            async for _ in stream(raw, timeout=WAIT_SECONDS):
                pass
        else:
            call: Any = channel.unary_unary(method)
            await call(raw, timeout=WAIT_SECONDS)
    except aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def damaged(sound: bytes, foreign: Iterable[bytes]) -> list[bytes]:
    """Return truncations of a message, itself with bytes changed, and bytes from elsewhere."""
    random = np.random.default_rng(len(sound))
    cuts = [sound[:at] for at in range(0, len(sound), max(1, len(sound) // 24))]
    changed = []
    for at in random.integers(0, max(1, len(sound)), 24 if sound else 0):
        raw = bytearray(sound)
        raw[at] ^= int(random.integers(1, 256))
        changed.append(bytes(raw))
    return [*cuts, *changed, b"\xff" * 9, b"\x00", b'{"a": 1}', random.bytes(200), *foreign]


def parses(kind: type[Message], raw: bytes) -> bool:
    """Whether bytes parse as a message of this kind."""
    try:
        kind.FromString(raw)
    except DecodeError:
        return False
    return True
