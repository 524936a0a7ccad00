"""Run a witness under uvicorn, with an end to every wait for a slow client."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.address import parse_address
from coin_protocol.ops.http_server import StoppableServer, server_config, why
from coin_protocol.transport.observe import Observer
from verifier_sdk.witness.config import WitnessSettings

_MAX_HEADER_BYTES: Final = 16 * 1024


class Server(StoppableServer):
    """A witness on a port."""

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - any ASGI application
        settings: WitnessSettings,
        started: Callable[[int], None],
        observer: Observer,
    ) -> None:
        """Set uvicorn up.

        Args:
            app: What to serve.
            settings: Where, and under which certificate.
            started: Told the port, once requests are taken.
            observer: Told of TLS files that changed.
        """
        host, port = parse_address(settings.listen)
        config = server_config(
            app,
            host=host,
            port=port,
            certificate=settings.tls_certificate,
            key=settings.tls_key,
            max_head_bytes=_MAX_HEADER_BYTES,
            closing_seconds=settings.grace_seconds,
        )
        super().__init__(config, observer)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell the port."""
        await super().startup(sockets)
        if self.started:
            self._told(self.servers[0].sockets[0].getsockname()[1])


async def serve(
    app: Any,  # noqa: ANN401 - any ASGI application
    settings: WitnessSettings,
    started: Callable[[int], None],
    observer: Observer,
) -> None:
    """Serve until SIGTERM or SIGINT; then requests under way finish, for the grace period.

    Args:
        app: The ASGI application.
        settings: Of the witness.
        started: Told the port, once requests are taken.
        observer: Told of TLS files that changed.

    Raises:
        ConfigurationError: The address cannot be listened on, or the TLS files cannot be used.
    """
    try:
        await Server(app, settings, started, observer).serve()
    except SystemExit as stop:
        # uvicorn's way to say that it could not bind, while it handles the reason.
        msg = f"cannot listen on {settings.listen}{why(stop.__context__)}"
        raise ConfigurationError(msg) from None
