"""What stands before every call of a server that strangers can reach.

In this order: who calls (client certificate or bearer token), how often that name may call,
and whether the call has a deadline. All of it before a byte of the request is waited for: a call
whose request never comes would otherwise hold its place, and ask nobody for leave. Health and
reflection are open to all, in numbers that leave room for the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import grpc
from grpc import aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from coin_protocol.limits import MAX_NAME_BYTES
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

MAX_OPEN_CALLS: Final = 128
"""Calls under way of each method of health and reflection, which ask nobody for leave: a server
takes no calls at all beyond `MAX_CONCURRENT_CALLS`, and streams of strangers must not fill it."""

REQUEST_SECONDS: Final = 5.0
"""How long a call's request may take to come: at the rate that one verifier may call, calls that
wait for none stay fewer than a server takes at a time."""

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
            rate: Of each caller; all that nobody authenticated share one, with those whose token
                is not known.
            max_call_seconds: The longest deadline that is taken.
            observer: Told of every call.
        """
        self.observer = observer
        self.asks_for_tokens = tokens is not None
        self._tokens = tokens
        self._rate = rate
        self._limiter = RateLimiter(rate)
        self._opened: Counter[str] = Counter()
        self._max_call_seconds = max_call_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handlers are untyped
        """Put the guard before a handler."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.lstrip("/")
        if handler is None:
            return handler
        unary, stream = handler.unary_unary, handler.unary_stream
        forms = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        enter = self._open if method.rpartition("/")[0] in OPEN_SERVICES else self._guarded

        async def answer(requests: AsyncIterator[object], context: Context) -> object:
            async with enter(method, context):
                return await unary(await _only(requests, context), context)

        async def answer_stream(
            requests: AsyncIterator[object], context: Context
        ) -> AsyncIterator[object]:
            async with enter(method, context):
                request = await _only(requests, context)
                async for reply in stream_of(stream, request, context):
                    yield reply

        async def converse(
            requests: AsyncIterator[object], context: Context
        ) -> AsyncIterator[object]:
            async with enter(method, context):
                async for reply in stream_of(handler.stream_stream, requests, context):
                    yield reply

        # As if requests were streamed: grpc runs other handlers when the request is there only.
        if unary is not None:
            return grpc.stream_unary_rpc_method_handler(answer, **forms)
        if stream is not None:
            return grpc.stream_stream_rpc_method_handler(answer_stream, **forms)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(converse, **forms)
        # Nothing here is of the fourth form, and nothing is served that no guard stands before.
        return None

    @asynccontextmanager
    async def _guarded(self, method: str, context: Context) -> AsyncIterator[None]:
        """Let a call in that may go on; tell of it when it ends."""
        with self._observing(method, context) as call:
            await self._admit(call, context)
            yield

    @asynccontextmanager
    async def _open(self, method: str, context: Context) -> AsyncIterator[None]:
        """Let anyone's call in, while there are not too many."""
        if self._opened[method] >= MAX_OPEN_CALLS:
            most = f"{MAX_OPEN_CALLS} calls of {method} under way"
            await abort(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{most}; call again shortly",
                error_info("RATE_LIMITED"),
                quota_failure(f"method:{method}", most),
                retry_info(1.0),
            )
        self._opened[method] += 1
        try:
            yield
        finally:
            self._opened[method] -= 1

    async def _admit(self, call: _Call, context: Context) -> None:
        """Authenticate, then check rate and deadline; abort a call that may not go on."""
        name, shown = self._authenticated(context)
        call.verifier = name or ""
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
        if name is None:
            await abort(
                context,
                grpc.StatusCode.UNAUTHENTICATED,
                "wanted metadata 'authorization: Bearer TOKEN', with a token known here",
                error_info("TOKEN_UNKNOWN" if shown else "TOKEN_MISSING"),
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
            await abort(
                context,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "the deadline has passed",
                error_info("DEADLINE_PASSED"),
            )

    def _authenticated(self, context: Context) -> tuple[str | None, bool]:
        """Return whose token or else certificate is shown, and whether a token is.

        The name is None where a token is demanded and none that is known was shown.
        """
        if self._tokens is None:
            return _certified_name(context), False
        metadata = context.invocation_metadata() or ()
        shown = [value for key, value in metadata if key == "authorization"]
        # With two of them it would be open which one counts.
        name = self._tokens.name_of(str(shown[0])) if len(shown) == 1 else None
        return name, bool(shown)

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


async def _only(requests: AsyncIterator[object], context: Context) -> object:
    """Return the one request of a call, or end a call that sends none in time."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for request in requests:
                return request
    except TimeoutError:
        await abort(
            context,
            grpc.StatusCode.UNAVAILABLE,
            f"the request did not come within {REQUEST_SECONDS:g} s",
            error_info("TRY_LATER"),
            retry_info(1.0),
        )
    return await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "not the message wanted")


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
                return _fitting(name)
    return ""


def _fitting(name: str) -> str:
    """Return a name as tables keep it; longer ones, which URIs may be, end in their digest."""
    raw = name.encode()
    if len(raw) <= MAX_NAME_BYTES:
        return name
    found = sha256(raw).hexdigest()
    return f"{raw[: MAX_NAME_BYTES - len(found) - 1].decode('utf-8', 'ignore')} {found}"
