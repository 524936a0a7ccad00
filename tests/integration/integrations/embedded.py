"""A recorded serving stack with CoIn's middleware inside, on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from provider_sdk.integrations.middleware import CoinMiddleware
from provider_sdk.provider import Provider
from tests.integration.gateway.standing import KEY, QUESTION, Seen
from tests.support.hosts import Hosts
from tests.support.parties import Parties
from tests.support.recordings import RecordedServer


@dataclass
class Embedded:
    """A server that serves."""

    app: Any
    server: uvicorn.Server
    hosts: Hosts

    @property
    def port(self) -> int:
        """On which it listens."""
        return port_of(self.server)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def provider(self) -> Provider:
        """The one inside."""
        assert self.hosts.provider is not None
        return self.hosts.provider


@asynccontextmanager
async def serving_app(app: Any) -> AsyncIterator[uvicorn.Server]:
    """Serve an application with uvicorn as serving stacks do: its own, without our protocol."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server
    finally:
        await server.shutdown()


@asynccontextmanager
async def embedded(
    parties: Parties, recorded: RecordedServer | None = None, **settings: Any
) -> AsyncIterator[Embedded]:
    """Serve a recorded stack with the middleware around it."""
    inner = RecordedServer() if recorded is None else recorded
    hosts = Hosts(parties, **settings)
    async with serving_app(CoinMiddleware(inner, hosts)) as server:
        yield Embedded(inner, server, hosts)


async def asked(
    url: str, headers: dict[str, str] | None = None, path: str = "/v1/chat/completions", **body: Any
) -> Seen:
    """Ask over a plain HTTP client, and note every byte."""
    default: dict[str, Any] = {"model": "acme-1", "messages": QUESTION, "stream": True}
    sent = {"authorization": f"Bearer {KEY}", **(headers or {})}
    parts, broken = [], False
    async with (
        httpx.AsyncClient(timeout=20) as client,
        client.stream("POST", url + path, json=default | body, headers=sent) as reply,
    ):
        try:
            async for part in reply.aiter_raw():
                parts.append(part)  # noqa: PERF401 - what came before a break counts
        except httpx.RemoteProtocolError:
            broken = True
        return Seen(reply.status_code, dict(reply.headers), b"".join(parts), broken)


async def fetched(url: str, response_id: str, key: str = KEY) -> httpx.Response:
    """Ask for a receipt again."""
    async with httpx.AsyncClient() as client:
        return await client.get(
            f"{url}/coin/v1/receipts/{response_id}", headers={"authorization": f"Bearer {key}"}
        )


def port_of(server: uvicorn.Server) -> int:
    """Return the port on which a server listens."""
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
