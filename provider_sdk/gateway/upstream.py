"""The upstream's side of a request, over aiohttp: pooled, streamed, its errors in our own words."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, Protocol, Self

import aiohttp
from yarl import URL

from coin_protocol.errors import TryLaterError
from provider_sdk.gateway.config import Settings

Failure = Literal["connect", "timeout", "half_stream"]

_KEEP_ALIVE_SECONDS: Final = 4.0
"""Below the 5 s of uvicorn, under most serving stacks: who closes last loses no request."""

_PIECE: Final = 256 * 1024
_MAX_HEADER_BYTES: Final = 64 * 1024


class UpstreamError(TryLaterError):
    """The upstream could not be reached, was silent for too long, or broke off.

    Attributes:
        kind: Which of the three.
    """

    def __init__(self, message: str, kind: Failure) -> None:
        """Say what happened."""
        super().__init__(message)
        self.kind: Failure = kind

    @property
    def status(self) -> int:
        """The HTTP status for a client that has seen nothing yet."""
        return 504 if self.kind == "timeout" else 502


class Reply(Protocol):
    """An upstream's reply: status and headers are there, the body comes as it is read.

    Attributes:
        status: HTTP status.
        headers: In their order, names in lower case.
    """

    status: int
    headers: list[tuple[bytes, bytes]]

    def header(self, name: bytes) -> bytes:
        """Return the first value of a header in lower case without its parameters; or b""."""

    async def read(self) -> bytes:
        """Return what has come since the last call, waiting for some; b"" at the end.

        Raises:
            UpstreamError: It broke off, or was silent for too long.
        """

    def close(self) -> None:
        """Let go at the end of the body; before it, hang up."""


class Upstream(Protocol):
    """What answers requests: a server (`HttpUpstream`), or an application of this process."""

    async def open(self) -> None:
        """Get ready."""

    async def close(self) -> None:
        """Hang up on everything."""

    async def request(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterable[bytes] | None,
    ) -> Reply:
        """Send a request and return the reply once its headers are there.

        Args:
            method: As the client used it.
            target: Raw path and query, as the client wrote them.
            headers: All that are sent, but those that frame the message.
            body: Bytes, or pieces as they come.

        Raises:
            UpstreamError: It could not be reached, broke off, or was silent for too long.
        """


class HttpReply:
    """A reply of a server: status and headers are there, the body comes as it is read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Hold a response whose body is not read yet."""
        self._response = response
        self._content = response.content
        self.status = response.status
        self.headers: list[tuple[bytes, bytes]] = [
            (name.lower(), value) for name, value in response.raw_headers
        ]

    def header(self, name: bytes) -> bytes:
        """Return the first value of a header in lower case without its parameters; or b""."""
        return first_header(self.headers, name)

    async def read(self) -> bytes:
        """Return what has come since the last call, waiting for some; b"" at the end.

        Raises:
            UpstreamError: It broke off, or was silent for too long.
        """
        try:
            return await self._content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _explained(error, "half_stream") from error

    def close(self) -> None:
        """Give the connection back at the end of the body; before it, hang up."""
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()


def first_header(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the first value of a header in lower case without its parameters; or b""."""
    for found, value in headers:
        if found == name:
            return value.partition(b";")[0].strip().lower()
    return b""


class HttpUpstream:
    """A pool of connections to one upstream."""

    def __init__(self, settings: Settings) -> None:
        """Hold where it is; `open` before use, in a running event loop."""
        self._settings = settings
        self._root = settings.upstream_root
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pool."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the pool."""
        await self.close()

    async def open(self) -> None:
        """Open the pool."""
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.max_connections, keepalive_timeout=_KEEP_ALIVE_SECONDS
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=settings.connect_seconds,
                sock_read=settings.first_byte_seconds,
            ),
            # What goes through is the client's: no cookies, headers or codings of our own.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            auto_decompress=False,
            read_bufsize=settings.read_buffer_bytes,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes | AsyncIterable[bytes] | None,
    ) -> HttpReply:
        """Send a request and return the reply once its headers are there.

        Args:
            method: As the client used it.
            target: Raw path and query, as the client wrote them.
            headers: All that are sent, but those that frame the message.
            body: Bytes, or pieces as they come.

        Raises:
            UpstreamError: It could not be reached, broke off, or was silent for too long.
        """
        if self._session is None:
            msg = "the gateway is not started"
            raise UpstreamError(msg, "connect")
        with _explaining():
            response = await self._session.request(
                method,
                # Encoded already: what a client escaped must arrive as it was.
                URL(self._root + target, encoded=True),
                headers=headers,
                # aiohttp writes bytes at once, and a file in pieces that leave others their turn.
                data=io.BytesIO(body) if isinstance(body, bytes) and len(body) > _PIECE else body,
                allow_redirects=False,
            )
        return HttpReply(response)


@contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise _explained(error, "connect") from error


def _explained(error: BaseException, kind: Failure) -> UpstreamError:
    """Return the error in our own words: aiohttp's may quote headers."""
    if isinstance(error, (asyncio.TimeoutError, aiohttp.ServerTimeoutError)):
        return UpstreamError("the upstream did not answer in time", "timeout")
    if kind == "connect" and not isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamError("the upstream broke off before its reply began", "half_stream")
    if kind == "connect":
        return UpstreamError("the upstream cannot be reached", "connect")
    return UpstreamError("the upstream broke off in the middle of its reply", "half_stream")
