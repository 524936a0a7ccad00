"""Servers on free ports of this machine, well behaved and not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from coin_protocol import transport
from coin_protocol.v1 import provider_service_pb2 as pb
from coin_protocol.v1.provider_service_pb2_grpc import add_ProviderServiceServicer_to_server
from provider_sdk.provider import Provider
from provider_sdk.service import SERVICE, ProviderServicer, make_server

Opening = pb.AnswerChallengeResponse
Manifest = pb.GetManifestResponse
Answer = Callable[
    [Callable[[], Awaitable[Opening]], pb.AnswerChallengeRequest, transport.Context],
    Awaitable[Opening],
]
Show = Callable[[Callable[[], Awaitable[Manifest]], transport.Context], Awaitable[Manifest]]
RawHandler = Callable[[bytes, transport.Context], Any]


@asynccontextmanager
async def served(server: aio.Server, tls: transport.TlsFiles | None = None) -> AsyncIterator[str]:
    """Bind a server to a free port of this machine and serve; give HOST:PORT."""
    port = transport.bind(server, "127.0.0.1:0", tls)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def serving(provider: Provider, tls: transport.TlsFiles | None = None) -> AsyncIterator[str]:
    """Serve a provider; give HOST:PORT."""
    async with served(await make_server(provider), tls) as target:
        yield target


class Misbehaving(ProviderServicer):
    """Answers through functions that are given the honest answer to call, or not."""

    def __init__(self, provider: Provider, answer: Answer | None, show: Show | None) -> None:
        """Answer challenges with `answer`, requests for manifests with `show`."""
        super().__init__(lambda _: provider)
        self._answer = answer
        self._show = show

    async def AnswerChallenge(
        self, request: pb.AnswerChallengeRequest, context: transport.Context
    ) -> Opening:
        """Answer a challenge."""

        def honest() -> Awaitable[Opening]:
            return ProviderServicer.AnswerChallenge(self, request, context)

        return await (honest() if self._answer is None else self._answer(honest, request, context))

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: transport.Context
    ) -> Manifest:
        """Show a manifest."""

        def honest() -> Awaitable[Manifest]:
            return ProviderServicer.GetManifest(self, request, context)

        return await (honest() if self._show is None else self._show(honest, context))


@asynccontextmanager
async def misbehaving(
    provider: Provider, *, answer: Answer | None = None, show: Show | None = None
) -> AsyncIterator[str]:
    """Serve a provider that answers challenges or shows manifests in its own way."""
    server = await transport.make_server(SERVICE)
    add_ProviderServiceServicer_to_server(Misbehaving(provider, answer, show), server)
    async with served(server) as target:
        yield target


@asynccontextmanager
async def serving_raw(handlers: Mapping[str, RawHandler]) -> AsyncIterator[str]:
    """Serve methods of `ProviderService` by name that take and return raw bytes."""
    server = await transport.make_server(SERVICE)
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(call) for name, call in handlers.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    async with served(server) as target:
        yield target
