"""Slow clients of the gateway, and too many of them, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from coin_protocol.ops import http_server as gateway_server
from tests.integration.gateway.standing import (
    Standing,
    asked,
    commitment,
    standing,
    until,
)
from tests.support.parties import WAIT_SECONDS, Parties
from tests.support.upstreams import Style

Sent = asyncio.StreamWriter

KEYS = b"GET /coin/v1/keys HTTP/1.1\r\nhost: g\r\n\r\n"


@asynccontextmanager
async def connected(stands: Standing) -> AsyncIterator[tuple[asyncio.StreamReader, Sent]]:
    """Open a connection to a gateway."""
    port = urlsplit(stands.url).port
    assert port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answered(reader: asyncio.StreamReader, writer: Sent, sent: bytes = KEYS) -> bytes:
    """Send a request; return head and body of its answer, which has a length."""
    writer.write(sent)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_SECONDS)
    (length,) = (
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return head + await asyncio.wait_for(reader.readexactly(length), WAIT_SECONDS)


async def test_a_head_that_does_not_end_is_hung_up_on(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_server, "HEAD_SECONDS", 0.2)
    async with standing(parties) as stands:
        for sent in (b"", b"POST /v1/chat/comp", b"GET / HTTP/1.1\r\nhost: g\r\n", KEYS):
            async with connected(stands) as (reader, writer):
                writer.write(sent)
                if sent == KEYS:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"GET /")
                rest = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
                assert sent == KEYS or rest == b""


async def test_one_connection_too_many_is_told_so_and_no_stream_is_cut(parties: Parties) -> None:
    async with standing(parties, style=Style(pause=0.05), max_client_connections=2) as stands:
        async with asyncio.TaskGroup() as tasks:
            stream = tasks.create_task(asked(stands))
            await until(lambda: stands.upstream.sent > 0)
            async with connected(stands) as (reader, writer):
                assert b" 200 " in await answered(reader, writer)
                async with connected(stands) as (other, ask):
                    head, _, body = (await answered(other, ask)).partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 503 ")
                    assert b"\r\nretry-after: 5" in head
                    assert json.loads(body)["error"]["code"] == "too_many_connections"
                    assert await asyncio.wait_for(other.read(), WAIT_SECONDS) == b""
                # Whoever came before the crowd is answered as ever.
                assert b" 200 " in await answered(reader, writer)
                async with connected(stands) as (other, ask):
                    alive = b"GET /healthz HTTP/1.1\r\nhost: g\r\n\r\n"
                    assert (await answered(other, ask, alive)).startswith(b"HTTP/1.1 200 ")
                assert not stream.done()
        seen = stream.result()
        assert seen.status == 200
        assert not seen.broken
        assert commitment(seen.delivery).reasoning_tokens > 0
        async with connected(stands) as (reader, writer):
            assert b" 200 " in await answered(reader, writer)
        refused = stands.count("coin_gateway_requests_total", path="other", status="503")
        assert refused == 1


async def test_a_crowd_is_cut_off_before_it_costs_what_streams_need(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_server, "SPARE_CONNECTIONS", 1)
    async with (
        standing(parties, max_client_connections=1) as stands,
        connected(stands) as (reader, writer),
    ):
        assert b" 200 " in await answered(reader, writer)
        async with connected(stands), connected(stands) as (third, _):
            with suppress(ConnectionError):
                assert await asyncio.wait_for(third.read(), WAIT_SECONDS) == b""
        assert b" 200 " in await answered(reader, writer)
