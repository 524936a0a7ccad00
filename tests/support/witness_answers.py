"""Witnesses that answer what a test tells them to, and clients that ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from coin_protocol.note import NoteSigner
from tests.support.witnesses import NOW, cosigner
from verifier_sdk.witness.client import WitnessClient

KEY = cosigner()


def client_of(port: int, signer: NoteSigner = KEY, **given: object) -> WitnessClient:
    options: dict[str, object] = {"clock": lambda: NOW, **given}
    return WitnessClient(f"http://127.0.0.1:{port}", signer.verifier, **options)  # type: ignore[arg-type]


def answer(status: int, body: bytes = b"", kind: str = "text/plain", more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def answering(*answers: bytes | Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """Serve these answers in turn, the last for ever; give the port."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n") if b": " in line
                )
                body = await reader.readexactly(int(lines[b"content-length"]))
                said = left.pop(0) if len(left) > 1 else left[0]
                writer.write(said(body) if callable(said) else said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
