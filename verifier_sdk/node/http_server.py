"""HTTP of a node under uvicorn: its port, its TLS files, its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from coin_protocol import transport
from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.address import parse_address
from coin_protocol.ops.http_server import check_tls, renewing, server_config, why
from verifier_sdk.node.settings import NodeSettings

CLOSING_SECONDS: Final = 5
"""Requests take moments; whoever reads an answer for longer at shutdown is hung up on."""

_MAX_HEADER_BYTES: Final = 64 * 1024


class _Server(uvicorn.Server):
    """uvicorn within a program that has signals of its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def serving_http(
    settings: NodeSettings, app: ASGIApp, observer: transport.Observer
) -> AsyncIterator[int]:
    """Serve an application at `http_listen` until the block ends; give the port.

    TLS files are read again when they change, for connections that are made from then on.

    Args:
        settings: Of the node, which names an address.
        app: What to serve.
        observer: Told of TLS files that changed.

    Raises:
        ConfigurationError: The address or the TLS files cannot be used, or who may call from
            other machines is left open.
    """
    require_callers_known(settings)
    address = settings.http_listen or ""
    host, port = parse_address(address)
    check_tls(settings.http_certificate, settings.http_key, prefix="http")
    config = server_config(
        app,
        host=host,
        port=port,
        certificate=settings.http_certificate,
        key=settings.http_key,
        max_head_bytes=_MAX_HEADER_BYTES,
        closing_seconds=CLOSING_SECONDS,
    )
    config.load()
    server = _Server(config)
    listening = _listen(address, host, port)
    task = asyncio.create_task(server.serve([listening]))
    try:
        started = asyncio.create_task(server.listens.wait())
        await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            await task
        async with renewing(config, observer, prefix="http"):
            yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listening.close()


def require_callers_known(settings: NodeSettings) -> None:
    """Check that HTTP is either for this machine alone, or says who calls, under TLS.

    Raises:
        ConfigurationError: It does not.
    """
    address = settings.http_listen or ""
    if settings.http_certificate is not None and settings.tokens is not None:
        return
    try:
        transport.require_loopback(address)
    except ConfigurationError as error:
        msg = (
            f"http_listen {address} is not this machine alone: that needs http_certificate, "
            "http_key and tokens"
        )
        raise ConfigurationError(msg) from error


def _listen(address: str, host: str, port: int) -> socket.socket:
    """Return a socket that listens; uvicorn's own way would write to the log and end us."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        msg = f"cannot listen on {address}{why(error)}"
        raise ConfigurationError(msg) from error
