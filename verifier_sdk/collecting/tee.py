"""The stream of a reply that notes what passes, and changes nothing of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

from verifier_sdk.collecting.exchange import End, Exchange
from verifier_sdk.collecting.http import Stream


class _Tee:
    """What both kinds share.

    A piece is handed on before it is read here, so that it waits for nothing: only its time is
    noted at once. A stream may be read by a second iterator where the first one stopped.
    """

    def __init__(self, inner: Stream, exchange: Exchange, ended: Callable[[], None]) -> None:
        self._inner = inner
        self._exchange = exchange
        self._ended = ended
        self._passed: tuple[bytes, int] | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._inner, name)

    def _pass(self, chunk: bytes) -> bytes:
        self._passed = chunk, self._exchange.now()
        return chunk

    def _take(self) -> None:
        """Read the piece that was handed on last."""
        if self._passed is not None:
            passed, self._passed = self._passed, None
            self._exchange.feed(*passed)

    def _end(self, how: End) -> None:
        self._take()
        if self._exchange.end(how):
            self._ended()


class _SyncTee(_Tee):
    def __iter__(self) -> Iterator[bytes]:
        self._take()
        try:
            for chunk in self._inner:
                yield self._pass(chunk)
                self._take()
        except Exception:
            self._end(End.BROKEN)
            raise
        self._end(End.WHOLE)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._end(End.LEFT)


class _AsyncTee(_Tee):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._take()
        stream = aiter(self._inner)
        try:
            async for chunk in stream:
                yield self._pass(chunk)
                self._take()
        except Exception:
            self._end(End.BROKEN)
            raise
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        self._end(End.WHOLE)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._end(End.LEFT)


@cache
def _kinds(library: ModuleType) -> tuple[type[Any], type[Any]]:
    """Return both kinds as streams of a library: it asks of what class they are."""
    return (
        type("CollectingStream", (_SyncTee, library.SyncByteStream), {}),
        type("AsyncCollectingStream", (_AsyncTee, library.AsyncByteStream), {}),
    )


def sync_tee(
    library: ModuleType, inner: Stream, exchange: Exchange, ended: Callable[[], None]
) -> Stream:
    """Return a stream that gives the bytes of `inner`.

    Args:
        library: `httpx2` or `httpx`.
        inner: The reply's own stream.
        exchange: Notes what passes.
        ended: Called once, when the reply is over, broke off or was left.
    """
    return _kinds(library)[0](inner, exchange, ended)


def async_tee(
    library: ModuleType, inner: Stream, exchange: Exchange, ended: Callable[[], None]
) -> Stream:
    """Return the same for a stream that is awaited."""
    return _kinds(library)[1](inner, exchange, ended)
