"""An ASGI application of this process, as an upstream of the gateway."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Final

from provider_sdk.gateway.asgi import Message, Receive, Scope, Send
from provider_sdk.gateway.config import Settings
from provider_sdk.gateway.upstream import UpstreamError, first_header

_LOG = logging.getLogger(__name__)

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OUTER_SCOPE: ContextVar[Scope] = ContextVar("OUTER_SCOPE")
"""The scope of the request that is being answered: its client, its path, its server."""

_LINGER_SECONDS: Final = 5.0
"""An application that was told that its client is gone may tidy up for so long."""

# Of this version, frameworks listen for the client to hang up while they generate.
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class AsgiReply:
    """A reply as the application makes it. What is not read holds the application up."""

    def __init__(self, body: AsyncIterator[bytes], *, limit: int, silence: float) -> None:
        """Hold a call that has not begun.

        Args:
            body: The request's.
            limit: Bytes of the reply that wait to be read, before the application waits.
            silence: Seconds to wait for the reply's next bytes.
        """
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._body = body
        self._limit = limit
        self._silence = silence
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._asked_all = False
        self._complete = False
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def header(self, name: bytes) -> bytes:
        """Return the first value of a header in lower case without its parameters; or b""."""
        return first_header(self.headers, name)

    def begin(self, app: Application, scope: Scope) -> asyncio.Task[None]:
        """Call the application, and return the task in which it runs."""
        self._task = asyncio.create_task(self._call(app, scope))
        return self._task

    async def started(self) -> None:
        """Wait until the headers are there.

        Raises:
            UpstreamError: The application failed before, or was silent for too long.
        """
        try:
            while not self.status:
                await self._something("the application failed before its reply began")
        except BaseException:
            self.close()
            raise

    async def read(self) -> bytes:
        """Return what has come since the last call, waiting for some; b"" at the end.

        Raises:
            UpstreamError: The application failed, or was silent for too long.
        """
        while not self._parts:
            if self._complete:
                return b""
            await self._something("the application broke off in the middle of its reply")
        found = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._room.set()
        return found

    def close(self) -> None:
        """Tell the application that its client is gone, unless it has finished."""
        self._gone.set()
        self._room.set()
        if self._task is not None and not self._task.done():
            loop = asyncio.get_running_loop()
            timer = loop.call_later(_LINGER_SECONDS, self._task.cancel)
            self._task.add_done_callback(lambda _: timer.cancel())

    async def _something(self, broken: str) -> None:
        """Wait until there is news, or no more to come."""
        if self._task is None or self._task.done():
            raise UpstreamError(broken, "half_stream")
        self._news.clear()
        try:
            async with asyncio.timeout(self._silence):
                await self._news.wait()
        except TimeoutError as error:
            msg = "the application did not answer in time"
            raise UpstreamError(msg, "timeout") from error

    async def _call(self, app: Application, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001 - whatever an application raises is a broken reply
            # Its own server would have logged it; a client that is gone is nobody's error.
            if not self._gone.is_set():
                _LOG.exception("the application failed")
        finally:
            self._news.set()

    async def _receive(self) -> Message:
        if not self._asked_all:
            piece = await anext(self._body, None)
            self._asked_all = piece is None
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone.is_set():
            # As servers do: what goes to nobody is dropped.
            return
        if message["type"] == "http.response.start":
            self.headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            self.status = message["status"]
            self._news.set()
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
            body = message.get("body", b"")
            if body:
                self._parts.append(body)
                self._size += len(body)
            self._news.set()
            while self._size > self._limit and not self._gone.is_set():
                self._room.clear()
                await self._room.wait()


class AsgiUpstream:
    """An application as the gateway's upstream: what the gateway does over a socket, without one.

    Requests are made by tasks in which `OUTER_SCOPE` is set.
    """

    def __init__(self, app: Application, settings: Settings) -> None:
        """Hold the application.

        Args:
            app: Whatever answered before.
            settings: How long to wait, and how much to hold.
        """
        self._app = app
        self._settings = settings
        self._calls: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Do nothing: the application is there."""

    async def close(self) -> None:
        """Cancel what the application still answers."""
        left = set(self._calls)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LINGER_SECONDS)

    async def request(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterable[bytes] | None,
    ) -> AsgiReply:
        """Call the application, and return the reply once its headers are there.

        Args:
            method: As the client used it.
            target: The application is given that of the outer request instead.
            headers: Without those that frame the message.
            body: Bytes, or pieces as they come.

        Raises:
            UpstreamError: The application failed, or was silent for too long.
        """
        del target
        outer = OUTER_SCOPE.get()
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        raw += [(name, value) for name, value in outer["headers"] if name == b"host"]
        if isinstance(body, bytes):
            raw.append((b"content-length", b"%d" % len(body)))
        scope = {**outer, "method": method, "headers": raw, "asgi": _ASGI, "extensions": {}}
        reply = AsgiReply(
            _pieces(body),
            limit=self._settings.read_buffer_bytes,
            silence=self._settings.first_byte_seconds,
        )
        task = reply.begin(self._app, scope)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        await reply.started()
        return reply


async def _pieces(body: bytes | AsyncIterable[bytes] | None) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        yield body
    elif body is not None:
        async for piece in body:
            yield piece
