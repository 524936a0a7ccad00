"""What stands before every call of a server that strangers can reach.

In this order: who calls (client certificate or bearer token), how often that name may call,
and whether the call has a deadline. Health and reflection are open to all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc import aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from coin_protocol.transport.observe import Observer
from coin_protocol.transport.parse import stream_of
from coin_protocol.transport.rate import RateLimit, RateLimiter
from coin_protocol.transport.status import (
    Context,
    abort,
    bad_request,
    error_info,
    quota_failure,
    retry_info,
)
from coin_protocol.transport.tokens import TokenFile

OPEN_SERVICES: Final = frozenset({health.SERVICE_NAME, reflection.SERVICE_NAME})
MAX_CALL_SECONDS: Final = 300.0
"""The longest deadline: no call of the protocol takes longer to answer."""

_SLACK_SECONDS: Final = 1.0
"""grpc rounds a client's deadline up on the wire."""

_NAMES: Final = ("peer_spiffe_id", "peer_uri", "x509_common_name", "peer_dns")
"""Where a verifier's name is looked for in its certificate, the first that is there counting."""

_CALLER: ContextVar[str] = ContextVar("caller", default="")


def caller() -> str:
    """Return who made the call that this task answers; empty if nobody was authenticated."""
    return _CALLER.get()


@dataclass
class _Call:
    """What is told of one call when it ends."""

    verifier: str = ""
    code: str = "OK"


class Guard(aio.ServerInterceptor):
    """Authenticates, limits and observes every call but those of health and reflection."""

    def __init__(
        self,
        *,
        tokens: TokenFile | None,
        rate: RateLimit,
        max_call_seconds: float,
        observer: Observer,
    ) -> None:
        """Guard the server that this is given to.

        Args:
            tokens: Demand a bearer token of every call; None where client certificates, or
                loopback, say who calls.
            rate: Of each caller; all that nobody authenticated share one.
            max_call_seconds: The longest deadline that is taken.
            observer: Told of every call.
        """
        self.observer = observer
        self.asks_for_tokens = tokens is not None
        self._tokens = tokens
        self._rate = rate
        self._limiter = RateLimiter(rate)
        self._max_call_seconds = max_call_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handlers are untyped
        """Put the guard before a handler."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.lstrip("/")
        if handler is None or method.rpartition("/")[0] in OPEN_SERVICES:
            return handler
        unary, stream = handler.unary_unary, handler.unary_stream
        forms = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }

        async def answer(request: object, context: Context) -> object:
            with self._observing(method, context) as call:
                await self._admit(call, context)
                return await unary(request, context)

        async def answer_stream(request: object, context: Context) -> AsyncIterator[object]:
            with self._observing(method, context) as call:
                await self._admit(call, context)
                async for reply in stream_of(stream, request, context):
                    yield reply

        if unary is not None:
            return grpc.unary_unary_rpc_method_handler(answer, **forms)
        if stream is not None:
            return grpc.unary_stream_rpc_method_handler(answer_stream, **forms)
        # No service here takes a stream, and nothing is served that no guard stands before.
        return None

    async def _admit(self, call: _Call, context: Context) -> None:
        """Authenticate, then check rate and deadline; abort a call that may not go on."""
        call.verifier = await self._authenticated(context)
        _CALLER.set(call.verifier)
        wait = self._limiter.take(call.verifier)
        if wait > 0:
            most = f"{self._rate.per_second:g} calls a second, {self._rate.burst} at once"
            await abort(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"too many calls: {most}; call again in {wait:.3f} s",
                error_info("RATE_LIMITED"),
                quota_failure(f"verifier:{call.verifier}", most),
                retry_info(wait),
            )
        left = context.time_remaining()
        # types-grpcio has a float only; without a deadline there is None.
        if left is None or left > self._max_call_seconds + _SLACK_SECONDS:
            wanted = f"a deadline of at most {self._max_call_seconds:g} s on every call"
            await abort(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                f"wanted {wanted}; found {'none' if left is None else f'{left:.0f} s'}",
                error_info("DEADLINE_MISSING" if left is None else "DEADLINE_TOO_LONG"),
                bad_request("grpc-timeout", f"set {wanted}"),
            )
        if left <= 0:
            await abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")

    async def _authenticated(self, context: Context) -> str:
        """Return the name that a token, or else a certificate, was given for."""
        if self._tokens is None:
            return _certified_name(context)
        metadata = context.invocation_metadata() or ()
        shown = [value for key, value in metadata if key == "authorization"]
        # With two of them it would be open which one counts.
        name = self._tokens.name_of(str(shown[0])) if len(shown) == 1 else None
        if name is None:
            await abort(
                context,
                grpc.StatusCode.UNAUTHENTICATED,
                "wanted metadata 'authorization: Bearer TOKEN', with a token known here",
                error_info("TOKEN_UNKNOWN" if shown else "TOKEN_MISSING"),
            )
        return name

    @contextmanager
    def _observing(self, method: str, context: Context) -> Iterator[_Call]:
        started, call = time.perf_counter(), _Call()
        try:
            yield call
        except BaseException as error:
            call.code = _code_of(error, context)
            raise
        finally:
            seconds = time.perf_counter() - started
            self.observer.observed(method, call.verifier, call.code, seconds)


def _code_of(error: BaseException, context: Context) -> str:
    """Return the name of the status that a call ends with for this error."""
    # None until a status is set, which types-grpcio leaves out.
    code: object = context.code()
    if isinstance(code, grpc.StatusCode):
        # An abort has left it here.
        return code.name
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
    return "UNKNOWN"


def _certified_name(context: Context) -> str:
    """Return the name in the client's certificate; empty where there is none."""
    found = context.auth_context()
    for kind in _NAMES:
        for value in found.get(kind, ()):
            name = value.decode("utf-8", "replace")
            if name:
                return name
    return ""
