"""Metrics over HTTP: `GET /metrics` on a port of its own, or inside another server."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest, start_http_server

from coin_protocol.errors import ConfigurationError
from provider_sdk.ops.address import parse_address
from provider_sdk.ops.metrics import Metrics

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def exposition(metrics: Metrics) -> tuple[str, bytes]:
    """Return the content type and the body of an answer to `GET /metrics`."""
    return CONTENT_TYPE, generate_latest(metrics.registry)


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


def serve_metrics(metrics: Metrics, address: str) -> MetricsServer:
    """Serve metrics at HOST:PORT (port 0 picks one), plain HTTP.

    They tell how much business a provider does, and no secret: let the monitoring in and
    nobody else.

    Raises:
        ConfigurationError: `address` is not HOST:PORT, or cannot be bound.
    """
    host, port = parse_address(address)
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        msg = f"cannot serve metrics on {address}: {error.strerror}"
        raise ConfigurationError(msg) from error
    return MetricsServer(server, thread)
