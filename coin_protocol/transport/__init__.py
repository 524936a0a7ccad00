"""What both sides of a gRPC connection share: TLS files, limits, guards, status details.

Imports grpc, so nothing in the core imports it.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from typing import Final

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coin_protocol.errors import ConfigurationError
from coin_protocol.limits import MAX_MESSAGE_BYTES
from coin_protocol.transport.guard import MAX_CALL_SECONDS, Guard, caller
from coin_protocol.transport.observe import Observer, Unobserved
from coin_protocol.transport.parse import ParseRequests
from coin_protocol.transport.rate import RateLimit, RateLimiter
from coin_protocol.transport.server import Server
from coin_protocol.transport.status import (
    ERROR_DOMAIN,
    Context,
    abort,
    bad_request,
    details_of,
    error_info,
    parsed,
    quota_delay,
    quota_failure,
    retry_info,
)
from coin_protocol.transport.tls import (
    BearerFiles,
    ClientTls,
    ServerTls,
    ServerTlsFiles,
    TlsFiles,
)
from coin_protocol.transport.tokens import NewToken, TokenFile, make_token
from coin_protocol.transport.work import OverloadedError, PastDeadlineError, SlowError, Workers

__all__ = [
    "CHANNEL_OPTIONS",
    "ERROR_DOMAIN",
    "GUARDED_OPTIONS",
    "MAX_CALL_SECONDS",
    "MAX_CONCURRENT_CALLS",
    "MAX_DETAILS_BYTES",
    "BearerFiles",
    "ClientTls",
    "Context",
    "Guard",
    "NewToken",
    "Observer",
    "OverloadedError",
    "PastDeadlineError",
    "RateLimit",
    "RateLimiter",
    "Server",
    "ServerTls",
    "ServerTlsFiles",
    "SlowError",
    "TlsFiles",
    "TokenFile",
    "Unobserved",
    "Workers",
    "abort",
    "bad_request",
    "bind",
    "caller",
    "details_of",
    "error_info",
    "make_server",
    "make_token",
    "open_channel",
    "parsed",
    "quota_delay",
    "quota_failure",
    "require_loopback",
    "retry_info",
    "serve",
]

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

MAX_DETAILS_BYTES: Final = 1 << 20
"""Metadata that a client takes: a refusal lists all 64 challenges answered before, and travels
in the status. grpc's own limit of 16 KiB would turn such a refusal into no answer at all."""

MAX_CONCURRENT_CALLS: Final = 1024
"""Calls under way in a guarded server. Beyond it grpc answers a bare RESOURCE_EXHAUSTED; the
workers' queue is shorter, so that calls are told to try later long before that."""

GUARDED_OPTIONS: Final = (
    # One connection waits for itself before it makes others wait.
    ("grpc.max_concurrent_streams", 128),
    # A peer that is gone is found out; pings of clients are taken every 30 s.
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    # A connection ends when unused, and within an hour in any case: a certificate that was
    # replaced or withdrawn is then used by nobody.
    ("grpc.max_connection_idle_ms", 900_000),
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", int(MAX_CALL_SECONDS * 1000)),
)

GRACE_SECONDS: Final = 5.0
_LAST_PORT: Final = 65_535


def open_channel(target: str, tls: ClientTls | None) -> aio.Channel:
    """Open a channel to HOST:PORT; without TLS to this machine only.

    Raises:
        ConfigurationError: Plaintext to another machine was asked for, or a file cannot be
            used.
    """
    options = (
        *CHANNEL_OPTIONS,
        ("grpc.max_metadata_size", MAX_DETAILS_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_DETAILS_BYTES),
    )
    if tls is not None:
        return aio.secure_channel(target, tls.channel_credentials(), options=options)
    require_loopback(target)
    # A proxy out of the environment would be another machine.
    return aio.insecure_channel(target, options=(*options, ("grpc.enable_http_proxy", 0)))


def bind(server: aio.Server, address: str, tls: ServerTls | None) -> int:
    """Bind a server to HOST:PORT (port 0 picks one) and return the port.

    Raises:
        ConfigurationError: Plaintext on another address than loopback was asked for, TLS with
            nothing that says who calls, or the address cannot be bound.
    """
    guard = server.guard if isinstance(server, Server) else None
    if tls is None:
        require_loopback(address)
    if isinstance(tls, ServerTlsFiles) and not (guard and guard.asks_for_tokens):
        msg = "TLS without client certificates needs bearer tokens: give a token file as well"
        raise ConfigurationError(msg)
    try:
        if tls is None:
            return server.add_insecure_port(address)
        credentials = tls.server_credentials(guard.observer if guard else None)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        msg = f"cannot listen on {address}: is the port taken, or do the TLS files not match?"
        raise ConfigurationError(msg) from error


async def make_server(
    *services: str, guard: Guard | None = None, max_request_bytes: int = MAX_MESSAGE_BYTES
) -> Server:
    """Return a server, not yet bound, with health (of all services, serving) and reflection.

    Args:
        services: Full names of the services that will be added.
        guard: Stands before its calls; None for a server of this machine's own clients.
        max_request_bytes: The largest request that is read.
    """
    options = dict(CHANNEL_OPTIONS)
    most = options.get("grpc.max_receive_message_length", max_request_bytes)
    options["grpc.max_receive_message_length"] = min(most, max_request_bytes)
    # Else a second server on the same port would be given half of the calls, and say nothing.
    options["grpc.so_reuseport"] = 0
    if guard is not None:
        options |= dict(GUARDED_OPTIONS)
    inner = aio.server(
        options=tuple(options.items()),
        interceptors=(ParseRequests(),) if guard is None else (guard, ParseRequests()),
        maximum_concurrent_rpcs=None if guard is None else MAX_CONCURRENT_CALLS,
    )
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, inner)
    for service in services:
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, inner)
    return Server(inner, servicer, guard)


async def serve(
    server: aio.Server,
    address: str,
    tls: ServerTls | None,
    ready: Callable[[int], None],
    *,
    grace: float = GRACE_SECONDS,
) -> None:
    """Bind and serve until SIGTERM or SIGINT, then let calls under way finish.

    Args:
        server: With its services added.
        address: HOST:PORT.
        tls: Files for TLS; None for plaintext on loopback.
        ready: Told the port once calls are served.
        grace: Seconds that calls under way are given.
    """
    port = bind(server, address, tls)
    await server.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    ready(port)
    await stop.wait()
    await server.stop(grace)


def require_loopback(target: str) -> None:
    """Check that HOST:PORT is this machine.

    Raises:
        ConfigurationError: It is not, or not HOST:PORT.
    """
    host, separator, port = target.rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _LAST_PORT:
        msg = f"wanted HOST:PORT; found {target!r}"
        raise ConfigurationError(msg)
    if host not in ("localhost", "[::1]") and not _is_loopback_ipv4(host):
        msg = f"{target} is not this machine: give TLS files, plaintext is for loopback only"
        raise ConfigurationError(msg)


def _is_loopback_ipv4(host: str) -> bool:
    return re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None
