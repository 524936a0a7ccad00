"""The client's side of a request, over ASGI: bounded reading, patient writing, hanging up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, Self

from coin_protocol.errors import CoinError, LimitError

# ASGI's own types: what the maps hold depends on their "type".
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TRANSPORT: Final = "coin.transport"
"""Extension of the scope: the connection's `asyncio.Transport` (`provider_sdk.gateway.server`)."""

CROWDED: Final = "coin.crowded"
"""Extension of the scope: whether the connection is one too many, so that nothing is passed on."""

_SLICE: Final = 64 * 1024
_STALL_CHECKS: Final = 4


class ClientGoneError(CoinError):
    """The client hung up, or took nothing for too long."""


class Client:
    """Who made a request. Use as an async context manager, in the task that answers.

    Once the body is read, a client that hangs up cancels that task; `gone` says that it was so.
    A client that neither sends nor takes anything for `stall_seconds` is dropped, which is then
    the same as hanging up.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, stall_seconds: float) -> None:
        """Hold the three parts of an ASGI call."""
        self._receive = receive
        self._send = send
        self._transport: asyncio.Transport | None = scope.get("extensions", {}).get(TRANSPORT)
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[Any] | None = None
        self.gone = False
        self.started = False
        self.complete = False
        self.status = 0

    async def __aenter__(self) -> Self:
        """Start watching for a client that stalls."""
        self._owner = asyncio.current_task()
        self._check_stall()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self.unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the request's body as it comes.

        Raises:
            ClientGoneError: The client hung up before its end.
        """
        more = True
        while more:
            self._waiting_since = self._loop.time()
            message = await self._receive()
            self._waiting_since = 0.0
            if message["type"] == "http.disconnect":
                self.gone = True
                msg = "the client hung up before the end of its request"
                raise ClientGoneError(msg)
            more = message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def body(self, limit: int) -> bytes:
        """Return the request's body, exactly as it came.

        Raises:
            LimitError: It has more than `limit` bytes.
            ClientGoneError: The client hung up before its end.
        """
        parts, length = [], 0
        async for piece in self.pieces():
            length += len(piece)
            if length > limit:
                msg = f"the request has more than {limit} bytes"
                raise LimitError(msg)
            parts.append(piece)
        return b"".join(parts)

    def watch(self) -> None:
        """From now on, cancel the task that answers should the client hang up."""
        if self._watcher is None:
            self._watcher = self._loop.create_task(self._wait_for_end())

    def unwatch(self) -> None:
        """Let the task that answers finish, whatever the client does."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.started = True
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, body: bytes) -> None:
        """Send a part of the body; returns once the connection takes more."""
        self._waiting_since = self._loop.time()
        if len(body) <= _SLICE:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        else:
            # In slices, so that a client that does not read holds up no more than one.
            for at in range(0, len(body), _SLICE):
                part = body[at : at + _SLICE]
                self._waiting_since = self._loop.time()
                await self._send({"type": "http.response.body", "body": part, "more_body": True})
        self._waiting_since = 0.0

    async def end(self) -> None:
        """End the body as it should end."""
        self.complete = True
        self._waiting_since = self._loop.time()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._waiting_since = 0.0

    async def cut(self) -> None:
        """Break off after what was sent, so that nobody takes it for the whole.

        What was written still goes out, to a client that takes it in time.
        """
        self.complete = True
        self.unwatch()
        if self._transport is None:
            # Some other server: it breaks the connection for an application that fails.
            msg = "the upstream broke off in the middle of its reply"
            raise ClientGoneError(msg)
        self._waiting_since = self._loop.time()
        self._transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._waiting_since = 0.0

    def drop(self) -> None:
        """Break the connection at once, with whatever was not sent."""
        if self._transport is not None:
            self._transport.abort()
        elif self._owner is not None and not self.gone:
            self.gone = True
            self._owner.cancel()

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.complete and self._owner is not None:
            self.gone = True
            self._owner.cancel()

    def _check_stall(self) -> None:
        since = self._waiting_since
        if since and self._loop.time() - since > self._stall_seconds:
            self._timer = None
            self.drop()
            return
        delay = self._stall_seconds / _STALL_CHECKS
        self._timer = self._loop.call_later(delay, self._check_stall)
