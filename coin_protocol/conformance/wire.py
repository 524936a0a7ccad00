"""Calls over gRPC to a server that may do anything: raw bytes out, what came as a value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from coin_protocol import transport
from coin_protocol.conformance.case import Case
from coin_protocol.conformance.judging import NotMet
from coin_protocol.errors import PeerUnavailableError

M = TypeVar("M", bound=Message)

OK: Final = "OK"
UNAVAILABLE: Final = "UNAVAILABLE"
LATE: Final = "DEADLINE_EXCEEDED"
NEVER: Final = "NOTHING"
"""In place of a status, where a call had no deadline and nothing came."""

_HEALTH: Final = "grpc.health.v1.Health"
_REFLECTIONS: Final = (
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
)
_PAUSE_SECONDS: Final = 0.1
_MARGIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call.

    Attributes:
        status: Name of the gRPC status, or `NEVER`.
        reply: Its bytes, where the status is OK.
        message: Of the status.
        reason: Of its `ErrorInfo` in this project's domain; empty where it has none.
        error: As gRPC raised it.
    """

    status: str
    reply: bytes = b""
    message: str = ""
    reason: str = ""
    error: aio.AioRpcError | None = None

    def __str__(self) -> str:
        """Say all of it in one line."""
        reason = f" ({self.reason})" if self.reason else ""
        message = f": {self.message[:300]}" if self.message else ""
        return f"{self.status}{reason}{message}"


class Wire:
    """A channel to the target."""

    def __init__(self, channel: aio.Channel, target: str, seconds: float) -> None:
        """Call over a channel.

        Args:
            channel: To the target; closed by whoever opened it.
            target: HOST:PORT, for messages.
            seconds: For one call.
        """
        self.channel = channel
        self.target = target
        self.seconds = seconds
        self._services: frozenset[str] | None = None

    async def call(
        self, method: str, request: bytes, *, seconds: float | None = -1.0, patient: bool = False
    ) -> Answer:
        """Call a method.

        Args:
            method: `package.Service/Method`.
            request: Bytes.
            seconds: The call's deadline; None for none, below 0 for the usual one.
            patient: Ask again while the target says that it is not ready, or to come again.
        """
        limit = self.seconds if seconds is not None and seconds < 0 else seconds
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        while True:
            answer = await self._once(method, request, limit)
            if not patient or answer.error is None:
                return answer
            pause = transport.quota_delay(answer.error)
            if pause is None:
                pause = _PAUSE_SECONDS if answer.status == UNAVAILABLE else None
            if pause is None or loop.time() + pause > end:
                return answer
            await asyncio.sleep(pause)

    async def ask(self, method: str, request: Message, reply: M) -> M:
        """Call a method that must answer, and parse the reply.

        Raises:
            NotMet: It did not, or its bytes do not parse.
        """
        answer = await self.call(method, request.SerializeToString(), patient=True)
        if answer.status != OK:
            raise NotMet(wanted=f"an answer to {short(method)}", came=str(answer))
        return parsed(answer, reply, method)

    async def stream(self, method: str, request: Message) -> AsyncIterator[bytes]:
        """Give what a method streams.

        Raises:
            AioRpcError: It ends with another status than OK.
        """
        unary_stream = self.channel.unary_stream(
            f"/{method}",
            request_serializer=_as_it_is,
            response_deserializer=_as_it_is,
        )
        async for raw in unary_stream(request.SerializeToString(), timeout=self.seconds):
            yield raw

    async def reach(self) -> None:
        """Wait until the target answers anything at all.

        Raises:
            PeerUnavailableError: It does not, within the seconds of one call.
        """
        request = health_pb2.HealthCheckRequest().SerializeToString()
        answer = await self.call(f"{_HEALTH}/Check", request, patient=True)
        if answer.status in (UNAVAILABLE, LATE):
            msg = (
                f"{self.target} could not be reached within {self.seconds:g} s "
                f"({str(answer)[:400]}); is it running, and are the TLS options its own?"
            )
            raise PeerUnavailableError(msg, status=answer.status)

    async def health(self, service: str) -> str:
        """Return the health of a service, empty for the server's."""
        request = health_pb2.HealthCheckRequest(service=service)
        reply = await self.ask(f"{_HEALTH}/Check", request, health_pb2.HealthCheckResponse())
        return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)

    async def services(self) -> frozenset[str]:
        """Return the services that reflection lists; none where it does not answer."""
        if self._services is None:
            found: frozenset[str] = frozenset()
            for reflection in _REFLECTIONS:
                found = found or await self._listed(reflection)
            self._services = found
        return self._services

    async def _listed(self, reflection: str) -> frozenset[str]:
        method = self.channel.stream_stream(
            f"/{reflection}/ServerReflectionInfo",
            request_serializer=_as_it_is,
            response_deserializer=_as_it_is,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        names: set[str] = set()
        try:
            async for raw in method(iter([request.SerializeToString()]), timeout=self.seconds):
                reply = reflection_pb2.ServerReflectionResponse.FromString(raw)
                names.update(one.name for one in reply.list_services_response.service)
        except (aio.AioRpcError, DecodeError):
            return frozenset()
        return frozenset(names)

    async def _once(self, method: str, request: bytes, seconds: float | None) -> Answer:
        unary: Any = self.channel.unary_unary(
            f"/{method}", request_serializer=_as_it_is, response_deserializer=_as_it_is
        )
        # A call without a deadline is not waited for without end either.
        most = (self.seconds if seconds is None else min(seconds, self.seconds)) + _MARGIN_SECONDS
        try:
            async with asyncio.timeout(most):
                reply: bytes = await unary(request, timeout=seconds)
        except aio.AioRpcError as error:
            return answer_of(error)
        except TimeoutError:
            return Answer(NEVER, message=f"nothing came within {most:g} s")
        return Answer(OK, reply)


def answer_of(error: aio.AioRpcError) -> Answer:
    """Return what a call ended with."""
    info = transport.details_of(error, error_details_pb2.ErrorInfo())
    reason = ""
    if info is not None and info.domain == transport.ERROR_DOMAIN:
        reason = info.reason
    return Answer(error.code().name, b"", error.details() or "", reason, error)


def parsed(answer: Answer, reply: M, method: str) -> M:
    """Return a reply, parsed.

    Raises:
        NotMet: Its bytes do not parse.
    """
    try:
        reply.ParseFromString(answer.reply)
    except DecodeError as error:
        raise NotMet(
            wanted=f"a {reply.DESCRIPTOR.name} from {short(method)}",
            came=f"{len(answer.reply)} bytes that do not parse",
            advice="Compare with protos/coin_protocol/v1: the wire is proto3.",
        ) from error
    return reply


async def require_health(wire: Wire, case: Case) -> None:
    """Check that a service is as healthy as a case expects.

    Raises:
        NotMet: It is not.
    """
    found = await wire.health(case.given.get("service", ""))
    if found not in case.expect["status"]:
        raise NotMet(wanted=f"health {' or '.join(case.expect['status'])}", came=found)


async def require_services(wire: Wire, case: Case) -> None:
    """Check that reflection lists the services that a case expects.

    Raises:
        NotMet: It does not.
    """
    found = await wire.services()
    missing = sorted(set(case.expect["services"]) - found)
    if missing:
        listed = ", ".join(sorted(found)) or "nothing"
        raise NotMet(wanted=f"reflection lists {', '.join(missing)}", came=listed)


def require_status(answer: Answer, expect: Mapping[str, Any], method: str) -> None:
    """Check that a call ended as a case expects.

    Args:
        answer: What came.
        expect: `status`, a list of names; and `reason`, which is compared where the target gives
            one of this project's domain.
        method: For messages.

    Raises:
        NotMet: It did not.
    """
    statuses: Sequence[str] = expect["status"]
    reason = expect.get("reason", "")
    named = f" ({reason})" if reason else ""
    wanted = f"{short(method)} ends with {' or '.join(statuses)}{named}"
    if answer.status not in statuses:
        raise NotMet(wanted=wanted, came=str(answer))
    if reason and answer.reason not in ("", reason):
        raise NotMet(wanted=wanted, came=str(answer))


def short(method: str) -> str:
    """Return a method's own name."""
    return method.rpartition("/")[2]


def _as_it_is(raw: bytes) -> bytes:
    return raw
