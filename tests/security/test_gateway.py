"""Slow clients of the gateway, over real sockets."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from coin_protocol.ops import http_server as gateway_server
from tests.integration.gateway.standing import standing
from tests.support.parties import WAIT_SECONDS, Parties


async def test_a_head_that_does_not_end_is_hung_up_on(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_server, "HEAD_SECONDS", 0.2)
    async with standing(parties) as stands:
        port = urlsplit(stands.url).port
        assert port is not None
        whole = b"GET /coin/v1/keys HTTP/1.1\r\nhost: g\r\n\r\n"
        for sent in (b"", b"POST /v1/chat/comp", b"GET / HTTP/1.1\r\nhost: g\r\n", whole):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            if sent == whole:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"GET /")
            rest = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
            writer.close()
            assert sent == whole or rest == b""
