"""Metrics over HTTP: `GET /metrics` on a port of its own, or inside another server."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    generate_latest,
    start_http_server,
)

from coin_protocol.errors import ConfigurationError
from coin_protocol.ops.address import parse_address

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def exposition(registry: CollectorRegistry) -> tuple[str, bytes]:
    """Return the content type and the body of an answer to `GET /metrics`."""
    return CONTENT_TYPE, generate_latest(registry)


class MetricsServer:
    """Serves metrics from a thread until it is closed.

    Attributes:
        port: TCP port that it listens on.
    """

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        """Hold a server that runs."""
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the server."""
        self.close()

    def close(self) -> None:
        """Stop serving and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(registry: CollectorRegistry, address: str) -> MetricsServer:
    """Serve metrics at HOST:PORT (port 0 picks one), plain HTTP.

    They tell how much business is done here, and no secret: let the monitoring in and
    nobody else.

    Raises:
        ConfigurationError: `address` is not HOST:PORT, or cannot be bound.
    """
    host, port = parse_address(address)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        msg = f"cannot serve metrics on {address}: {error.strerror}"
        raise ConfigurationError(msg) from error
    return MetricsServer(server, thread)
