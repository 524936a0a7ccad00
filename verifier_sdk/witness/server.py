"""Run a witness under uvicorn, with an end to every wait for a slow client."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.address import parse_address
from verifier_sdk.witness.config import WitnessSettings

HEAD_SECONDS: Final = 10.0
"""For the head of a request to arrive, from its first byte or from the connection's start."""

_KEEP_ALIVE_SECONDS: Final = 75
_MAX_HEADER_BYTES: Final = 16 * 1024
_MAX_CONNECTIONS: Final = 1000


class Protocol(H11Protocol):
    """HTTP/1.1 that hangs up on whoever sends the head of a request for too long.

    uvicorn itself only ends connections that are idle after an answer.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(  # type: ignore[override] # as uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        """Expect a request in time."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Expect the rest of a request's head in time."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Leave it to uvicorn how long the connection may be idle."""
        super().on_response_complete()
        self._unwatch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._unwatch_head()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """A witness on a port."""

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - any ASGI application
        settings: WitnessSettings,
        started: Callable[[int], None],
    ) -> None:
        """Set uvicorn up.

        Args:
            app: What to serve.
            settings: Where, and under which certificate.
            started: Told the port, once requests are taken.
        """
        host, port = parse_address(settings.listen)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            # Whoever wants addresses of clients behind a proxy counts them there.
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.grace_seconds,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        super().__init__(config)
        self._told = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT, and return; uvicorn would raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell the port."""
        await super().startup(sockets)
        if self.started:
            self._told(self.servers[0].sockets[0].getsockname()[1])


async def serve(app: Any, settings: WitnessSettings, started: Callable[[int], None]) -> None:  # noqa: ANN401 - any ASGI application
    """Serve until SIGTERM or SIGINT; then requests under way finish, for the grace period.

    Args:
        app: The ASGI application.
        settings: Of the witness.
        started: Told the port, once requests are taken.

    Raises:
        ConfigurationError: The address cannot be listened on, or the TLS files cannot be used.
    """
    _check_tls(settings)
    try:
        await Server(app, settings, started).serve()
    except SystemExit as stop:
        # uvicorn's way to say that it could not bind, while it handles the reason.
        msg = f"cannot listen on {settings.listen}{_reason(stop.__context__)}"
        raise ConfigurationError(msg) from None


def _check_tls(settings: WitnessSettings) -> None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    try:
        # A password is given so that none is asked for: there may be nobody at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=""
        )
    except OSError as error:  # of the file, or of TLS
        msg = (
            f"tls_certificate {settings.tls_certificate} and tls_key {settings.tls_key} cannot be "
            "used: wanted readable PEM, a key that is not encrypted, and that the two belong "
            "together"
        )
        raise ConfigurationError(msg) from error


def _reason(error: BaseException | None) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    return f": {os.strerror(error.errno) if error.errno > 0 else error.strerror}"
