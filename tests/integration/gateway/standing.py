"""A gateway in front of an upstream, both on sockets, and what a client finds in its deliveries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
from google.protobuf import json_format

from coin_protocol.statements import read_commitment
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.gateway.app import Gateway
from provider_sdk.gateway.config import Settings, load_settings
from provider_sdk.gateway.server import Server
from provider_sdk.provider import Provider
from tests.support.parties import WAIT_SECONDS, Parties
from tests.support.upstreams import Script, Style, Upstream, running

KEY = "sk-of-the-client"
QUESTION: Any = [{"role": "user", "content": "why is the sky blue?"}]


@dataclass
class Standing:
    """A gateway that serves."""

    gateway: Gateway
    server: Server
    upstream: Upstream
    parties: Parties
    _clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    async def stop(self) -> None:
        """Stop the gateway as a signal would."""
        await self.server.shutdown()
        self.server.started = False

    @property
    def url(self) -> str:
        """Where the gateway listens."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def provider(self) -> Provider:
        """The provider behind it."""
        return self.gateway.provider

    def client(self, url: str = "", **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's client of the gateway, or of `url`; closed at the end."""
        arguments: dict[str, Any] = {"api_key": KEY, "max_retries": 0}
        made = openai.AsyncOpenAI(base_url=f"{url or self.url}/v1", **(arguments | options))
        self._clients.append(made)
        return made

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.gateway.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Server]:
    """Serve a gateway on a free port, without the waits of uvicorn's main loop."""
    server = Server(gateway)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    try:
        yield server
    finally:
        if server.started:
            await server.shutdown()


@asynccontextmanager
async def standing(
    parties: Parties,
    upstream: Upstream | None = None,
    *,
    provider: Provider | None = None,
    scripts: list[Script] | None = None,
    style: Style | None = None,
    instead: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Standing]:
    """Put a gateway in front of an upstream."""
    if upstream is None:
        found = scripts
        upstream = Upstream(None if found is None else lambda _: found, style)
    async with running(upstream):
        with provider or parties.provider() as own:
            gateway = Gateway(gateway_settings(upstream, **(settings | (instead or {}))), own)
            async with serving(gateway) as server:
                stands = Standing(gateway, server, upstream, parties)
                try:
                    yield stands
                finally:
                    for client in stands._clients:
                        await client.close()


def gateway_settings(stack: Upstream, **settings: Any) -> Settings:
    """Return settings for tests."""
    given: dict[str, Any] = {"upstream": stack.url, "port": 0, "grace_seconds": 1}
    return load_settings(None, **(given | settings))


@dataclass
class Seen:
    """What a raw client saw of a stream."""

    status: int
    headers: dict[str, str]
    raw: bytes
    broken: bool = False

    def comments(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON of each comment of a name."""
        for line in self.raw.splitlines():
            if line.startswith(f": {name} ".encode()):
                yield json.loads(line.partition(name.encode())[2])

    @property
    def events(self) -> list[Any]:
        """The data of each event, `[DONE]` as it is."""
        return [raw.decode() if raw == b"[DONE]" else json.loads(raw) for raw in self.events_raw]

    @property
    def events_raw(self) -> list[bytes]:
        """The data of each event, as it came."""
        return [line[6:] for line in self.raw.split(b"\n") if line.startswith(b"data: ")]

    @property
    def checkpoints(self) -> list[delivery_pb2.DeliveredCheckpoint]:
        """The checkpoints that came as comments."""
        return [
            json_format.ParseDict(each, delivery_pb2.DeliveredCheckpoint())
            for each in self.comments("coin.checkpoint")
        ]

    @property
    def delivery(self) -> delivery_pb2.Delivery:
        """The one receipt that came as a comment."""
        (found,) = self.comments("coin.receipt")
        return parsed(found)

    @property
    def text(self) -> str:
        """The answer of a chat's first choice."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            if event != "[DONE]"
            for choice in event.get("choices", ())
            if choice["index"] == 0
        )


async def asked(
    stands: Standing,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    **body: Any,
) -> Seen:
    """Ask over a plain HTTP client, and note every byte."""
    default: dict[str, Any] = {"model": "acme-1", "messages": QUESTION, "stream": True}
    sent = {"authorization": f"Bearer {KEY}", **(headers or {})}
    parts: list[bytes] = []
    async with (
        httpx.AsyncClient(timeout=20) as client,
        client.stream("POST", stands.url + path, json=default | body, headers=sent) as reply,
    ):
        broken = False
        try:
            async for part in reply.aiter_raw():
                # One by one: what came before it broke off is kept.
                parts += [part]
        except httpx.RemoteProtocolError:
            broken = True
        return Seen(reply.status_code, dict(reply.headers), b"".join(parts), broken)


async def fetched(stands: Standing, response_id: str, key: str = KEY) -> httpx.Response:
    """Ask for a receipt again."""
    async with httpx.AsyncClient() as client:
        url = f"{stands.url}/coin/v1/receipts/{response_id}"
        return await client.get(url, headers={"authorization": f"Bearer {key}"})


def parsed(document: Any) -> delivery_pb2.Delivery:
    """Return a delivery from its JSON."""
    return json_format.ParseDict(document, delivery_pb2.Delivery())


def commitment(delivery: delivery_pb2.Delivery, choice: int = 0) -> statements_pb2.Commitment:
    """Return the commitment of a choice."""
    found = delivery.choices[choice]
    assert found.HasField("commitment"), found
    return read_commitment(found.commitment.payload)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
