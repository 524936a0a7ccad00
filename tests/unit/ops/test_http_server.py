"""What HTTP servers share: more connections than there may be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coin_protocol.ops import http_server
from coin_protocol.ops.address import network_of
from coin_protocol.ops.http_server import PromptProtocol, StoppableServer
from coin_protocol.transport.observe import Unobserved

REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
SECONDS = 20.0


async def hello(request: Request) -> Response:
    del request
    return PlainTextResponse("hello")


@asynccontextmanager
async def serving(most: int) -> AsyncIterator[int]:
    """Serve to so many connections; give the port."""
    app = Starlette(routes=[Route("/", hello)])
    config = uvicorn.Config(
        app, http=PromptProtocol, lifespan="off", log_config=None, limit_concurrency=most
    )
    server = StoppableServer(config, Unobserved())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task


class Connection:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self) -> bytes:
        """Return the head of an answer; what follows it is at most a few bytes."""
        self._writer.write(REQUEST)
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), SECONDS)

    async def rest(self) -> bytes:
        """Return what comes until the server hangs up."""
        return await asyncio.wait_for(self._reader.read(), SECONDS)

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


async def test_a_connection_too_many_is_told_when_to_come_again_and_no_other_is_refused() -> None:
    async with serving(1) as port:
        first = await Connection.to(port)
        assert (await first.ask()).startswith(b"HTTP/1.1 200 ")
        second = await Connection.to(port)
        told = await second.ask()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 5\r\n" in told
        assert await second.rest() == b"too many connections; try again later\n"
        await second.close()
        again = await first.ask()
        assert b"HTTP/1.1 200 " in again
        await first.close()
        async with asyncio.timeout(SECONDS):
            while True:  # until the server has seen that the first is gone
                third = await Connection.to(port)
                answer = await third.ask()
                await third.close()
                if answer.startswith(b"HTTP/1.1 200 "):
                    break


async def test_beyond_the_spare_ones_connections_are_cut_off_unheard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "SPARE_CONNECTIONS", 1)
    async with serving(1) as port:
        held = [await Connection.to(port) for _ in range(2)]
        assert (await held[0].ask()).startswith(b"HTTP/1.1 200 ")
        third = await Connection.to(port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await third.ask()
        for one in (*held, third):
            await one.close()


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_calls_of_one_party_count_together(host: str, counted: str) -> None:
    assert network_of(host) == counted
