"""Run the gateway under uvicorn, with what plain ASGI does not give: the connection itself."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.http_server import (
    PromptProtocol,
    StoppableServer,
    server_config,
    why,
)
from provider_sdk.gateway.app import Gateway
from provider_sdk.gateway.asgi import CROWDED, TRANSPORT, Receive, Scope, Send
from provider_sdk.ops.observers import ServerObserver

_MAX_HEADER_BYTES: Final = 64 * 1024
_BACKLOG: Final = 2048
_SWITCH_SECONDS: Final = 0.0005
"""How long the thread that writes may keep the interpreter from a token; Python says 5 ms."""


class _Protocol(PromptProtocol):
    """HTTP/1.1, whose application is given the transport: only it can break a connection."""

    _crowded = False

    def connection_made(  # type: ignore[override] # as uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        """Give each request of this connection its transport."""
        super().connection_made(transport)
        inner, more = self.app, {TRANSPORT: transport, CROWDED: self._crowded}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {**scope.get("extensions", {}), **more}
            await inner(scope, receive, send)

        self.app = app

    def refuse(self) -> None:
        """Leave it to the gateway to say so, in the words of its other errors."""
        self._crowded = True


class Server(StoppableServer):
    """A gateway on a port. `port` is the one that it listens on, once it does."""

    def __init__(
        self, gateway: Gateway, *, started: Callable[[int], Awaitable[None] | None] | None = None
    ) -> None:
        """Set uvicorn up by the gateway's settings.

        Args:
            gateway: What to serve.
            started: Told the port, once requests are taken.
        """
        settings = gateway.settings
        config = server_config(
            gateway,
            host=settings.host,
            port=settings.port,
            certificate=settings.tls_certificate,
            key=settings.tls_key,
            max_head_bytes=_MAX_HEADER_BYTES,
            closing_seconds=settings.grace_seconds,
            http=_Protocol,
            lifespan="on",
            date_header=False,
            backlog=_BACKLOG,
            limit_concurrency=settings.max_client_connections,
        )
        super().__init__(config, ServerObserver(gateway.metrics))
        self._told = started
        self.port = settings.port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell the port."""
        await super().startup(sockets)
        if not self.started:
            return
        self.port = self.servers[0].sockets[0].getsockname()[1]
        if self._told is not None:
            told: Any = self._told(self.port)
            if told is not None:
                await told


async def serve(
    gateway: Gateway, *, started: Callable[[int], Awaitable[None] | None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; then streams finish, for the grace period.

    Raises:
        ConfigurationError: The port cannot be listened on, or the TLS files cannot be used.
    """
    server = Server(gateway, started=started)
    # What is there by now stays: no collection needs to look at it again while streams wait.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        await server.serve()
    except SystemExit as stop:
        # uvicorn's way to say that it could not bind, while it handles the reason.
        settings = gateway.settings
        msg = f"cannot listen on {settings.host}:{settings.port}{why(stop.__context__)}"
        raise ConfigurationError(msg) from None
