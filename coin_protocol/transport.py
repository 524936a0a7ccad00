"""What both sides of a gRPC connection share: TLS files, limits, retries of status codes.

Imports grpc, so nothing in the core imports it.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import grpc
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from coin_protocol.errors import ConfigurationError, PeerUnavailableError
from coin_protocol.limits import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    Context = aio.ServicerContext[Any, Any]
else:
    Context = aio.ServicerContext

M = TypeVar("M", bound=Message)

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

_GRACE_SECONDS: Final = 5.0
_LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one side of a mutual-TLS connection.

    Attributes:
        certificate: This side's certificate chain.
        key: Its private key.
        authorities: Certificates that the other side's chain must end in.
    """

    certificate: Path
    key: Path
    authorities: Path

    def _read(self) -> tuple[bytes, bytes, bytes]:
        parts = []
        for path in (self.key, self.certificate, self.authorities):
            try:
                parts.append(path.read_bytes())
            except OSError as error:
                msg = f"cannot read the TLS file {path}: {error.strerror}"
                raise ConfigurationError(msg) from error
        key, certificate, authorities = parts
        try:
            load_pem_private_key(key, None)
            load_pem_x509_certificates(certificate)
            load_pem_x509_certificates(authorities)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            names = ", ".join(str(p) for p in (self.key, self.certificate, self.authorities))
            msg = f"wanted an unencrypted PEM key and PEM certificates in {names}"
            raise ConfigurationError(msg) from error
        return key, certificate, authorities

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate."""
        key, certificate, authorities = self._read()
        return grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=authorities, require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return a client's credentials."""
        key, certificate, authorities = self._read()
        return grpc.ssl_channel_credentials(
            root_certificates=authorities, private_key=key, certificate_chain=certificate
        )


def open_channel(target: str, tls: TlsFiles | None) -> aio.Channel:
    """Open a channel to HOST:PORT; without TLS to this machine only.

    Raises:
        ConfigurationError: Plaintext to another machine was asked for.
    """
    if tls is not None:
        return aio.secure_channel(target, tls.channel_credentials(), options=CHANNEL_OPTIONS)
    require_loopback(target)
    # A proxy out of the environment would be another machine.
    options = (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0))
    return aio.insecure_channel(target, options=options)


def bind(server: aio.Server, address: str, tls: TlsFiles | None) -> int:
    """Bind a server to HOST:PORT (port 0 picks one) and return the port.

    Raises:
        ConfigurationError: Plaintext on another address than loopback was asked for, or the
            address cannot be bound.
    """
    if tls is None:
        require_loopback(address)
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.server_credentials())
    except RuntimeError as error:
        msg = f"cannot listen on {address}: is the port taken, or do the TLS files not match?"
        raise ConfigurationError(msg) from error


async def make_server(service: str) -> aio.Server:
    """Return a server, not yet bound, with health (of `service`, serving) and reflection."""
    server = aio.server(options=CHANNEL_OPTIONS, interceptors=(_ParseRequests(),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    names = (service, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server


async def serve(
    server: aio.Server, address: str, tls: TlsFiles | None, ready: Callable[[int], None]
) -> None:
    """Bind and serve until SIGTERM or SIGINT, then let calls under way finish.

    Args:
        server: With its services added.
        address: HOST:PORT.
        tls: Files for mutual TLS; None for plaintext on loopback.
        ready: Told the port once calls are served.
    """
    port = bind(server, address, tls)
    await server.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    ready(port)
    await stop.wait()
    await server.stop(_GRACE_SECONDS)


async def abort(
    context: Context, code: grpc.StatusCode, message: str, *details: Message
) -> NoReturn:
    """End a call with a status, and details in the form of `google.rpc.Status`."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # abort_with_status has raised


def retry_info(seconds: int) -> Message:
    """Return the detail that tells a client when to call again."""
    detail: Message = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds))
    return detail


def details_of(error: aio.AioRpcError, detail: M) -> M | None:
    """Return the first status detail of `detail`'s type, parsed into it, or None."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for found in status.details if status is not None else ():
            if found.Is(detail.DESCRIPTOR) and found.Unpack(detail):
                return detail
    except (ValueError, DecodeError):
        # The peer's bytes: not a status, or one that contradicts the call's own.
        return None
    return None


def parsed(reply: M | None) -> M:
    """Return a reply; grpc gives None for one whose bytes do not parse.

    Raises:
        PeerUnavailableError: They do not.
    """
    if reply is None:
        msg = "the peer's reply does not parse"
        raise PeerUnavailableError(msg, status="DOES_NOT_PARSE")
    return reply


class _ParseRequests(aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT to bytes that do not parse; grpc would name a Python class."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handlers are untyped
        """Put the parsing of requests inside the handler, where it can be answered."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse, unary, stream = (
            handler.request_deserializer,
            handler.unary_unary,
            handler.unary_stream,
        )

        async def read(raw: bytes, context: Context) -> Message:
            try:
                message: Message = parse(raw)
            except DecodeError:
                await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "not the message wanted")
            return message

        async def answer(raw: bytes, context: Context) -> Message:
            reply: Message = await unary(await read(raw, context), context)
            return reply

        async def answer_stream(raw: bytes, context: Context) -> AsyncIterator[Message]:
            async for reply in stream(await read(raw, context), context):
                yield reply

        if unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                answer, response_serializer=handler.response_serializer
            )
        if stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                answer_stream, response_serializer=handler.response_serializer
            )
        return handler


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
