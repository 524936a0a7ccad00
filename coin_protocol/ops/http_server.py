"""What HTTP servers under uvicorn share: slow clients, many clients, TLS files, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from coin_protocol.errors import ConfigurationError
from coin_protocol.transport.observe import Observer
from coin_protocol.transport.reload import Reloaded

_LOG = logging.getLogger(__name__)

HEAD_SECONDS: Final = 10.0
"""For the head of a request to arrive, from its first byte or from the connection's start."""

KEEP_ALIVE_SECONDS: Final = 75
"""Above the idle time of common load balancers (60 s): who closes last loses no request."""

MAX_CONNECTIONS: Final = 1000

SPARE_CONNECTIONS: Final = 100
"""Beyond a limit so many may still ask, and are told that there are too many; others are cut off,
before they cost a file that a reply under way needs."""

RETRY_SECONDS: Final = 5

LOOK_SECONDS: Final = 10.0
"""How often TLS files are looked at."""

_TOO_MANY: Final = b"too many connections; try again later\n"


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on whoever sends the head of a request for too long.

    uvicorn itself only ends connections that are idle after an answer. Its limit, too, is held
    otherwise: a connection that came before the crowd is never refused anything, and one beyond
    `limit_concurrency` is answered 503 and closed.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _most: int | None

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take the limit out of uvicorn's hands."""
        super().__init__(config, server_state, app_state, _loop)
        self._most, self.limit_concurrency = self.limit_concurrency, None

    def connection_made(  # type: ignore[override] # as uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        """Expect a request in time, and see whether there is room for it."""
        super().connection_made(transport)
        beyond = 0 if self._most is None else len(self.connections) - self._most
        if beyond > SPARE_CONNECTIONS:
            transport.abort()
            return
        if beyond > 0:
            self.refuse()
        self._watch_head()

    def refuse(self) -> None:
        """Have this connection's request answered 503, whatever it is."""
        self.app = _refusal

    def data_received(self, data: bytes) -> None:
        """Expect the rest of a request's head in time."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Leave it to uvicorn how long the connection may be idle."""
        super().on_response_complete()
        self._unwatch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._unwatch_head()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class StoppableServer(uvicorn.Server):
    """Stops at SIGTERM and SIGINT, and returns.

    uvicorn raises them again at the end, which would end the process then and there: with what
    it has to write not written.
    """

    def __init__(self, config: uvicorn.Config, observer: Observer) -> None:
        """Serve by a configuration.

        Args:
            config: Of uvicorn. Its TLS files are read again when they change.
            observer: Told of that.
        """
        super().__init__(config)
        self._observer = observer

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until it is stopped."""
        async with renewing(self.config, self._observer, prefix="tls"):
            await super().serve(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first of them; in another thread than the main one there are none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def server_config(
    app: Any,  # noqa: ANN401 - any ASGI application
    *,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    max_head_bytes: int,
    closing_seconds: int,
    **more: Any,  # noqa: ANN401 - uvicorn's
) -> uvicorn.Config:
    """Return uvicorn's settings as all servers have them.

    Args:
        app: What to serve.
        host: To listen at.
        port: The same.
        certificate: PEM; None for plain HTTP.
        key: Its private key.
        max_head_bytes: Of a request's head.
        closing_seconds: For requests under way at the end.
        more: Settings of uvicorn beside these, or instead of them.
    """
    given: dict[str, Any] = {
        "http": PromptProtocol,
        "ws": "none",
        "lifespan": "off",
        # Paths and addresses are the clients' business; metrics count requests.
        "access_log": False,
        "log_config": None,
        "server_header": False,
        # Whoever wants addresses of clients behind a proxy counts them there.
        "proxy_headers": False,
        "limit_concurrency": MAX_CONNECTIONS,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": closing_seconds,
        "h11_max_incomplete_event_size": max_head_bytes,
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
    }
    return uvicorn.Config(app, host=host, port=port, **(given | more))


def check_tls(certificate: Path | None, key: Path | None, *, prefix: str) -> None:
    """Check that two PEM files can be used together, if they are given.

    Args:
        certificate: Chain of the server.
        key: Its private key.
        prefix: Of the settings that name them, `PREFIX_certificate` and `PREFIX_key`.

    Raises:
        ConfigurationError: They cannot.
    """
    if certificate is None or key is None:
        return
    try:
        # A password is given so that none is asked for: there may be nobody at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # of the file, or of TLS
        msg = (
            f"{prefix}_certificate {certificate} and {prefix}_key {key} cannot be used: wanted "
            "readable PEM, a key that is not encrypted, and that the two belong together"
        )
        raise ConfigurationError(msg) from error


@asynccontextmanager
async def renewing(
    config: uvicorn.Config, observer: Observer, *, prefix: str
) -> AsyncIterator[None]:
    """Put TLS files that changed on disk into use until the block ends, for new connections.

    Files that cannot be used are told of once, and the old ones stay.

    Args:
        config: Of the server; loaded here, where it was not.
        observer: Told of each change.
        prefix: Of the settings that name the files.

    Raises:
        ConfigurationError: The files cannot be used now.
    """
    if config.ssl_certfile is None or config.ssl_keyfile is None:
        yield
        return
    certificate, key = Path(config.ssl_certfile), Path(config.ssl_keyfile)
    check_tls(certificate, key, prefix=prefix)
    if not config.loaded:
        config.load()
    context = config.ssl
    assert context is not None  # noqa: S101 - there are files, so uvicorn made one

    def load() -> None:
        # A context is left half changed by files that do not belong together.
        check_tls(certificate, key, prefix=prefix)
        context.load_cert_chain(certificate, key, password="")

    files = Reloaded("certificate", (certificate, key), load, observer)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(files.changed)
            except Exception:  # noqa: BLE001 - they changed between check and use; the next look sees it
                _LOG.exception("the certificate could not be read again")

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _refusal(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Say that there are too many connections, and end this one."""
    del scope, receive
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_TOO_MANY)),
        (b"retry-after", b"%d" % RETRY_SECONDS),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _TOO_MANY})


def why(error: BaseException | None) -> str:
    """Return why an address could not be listened on, with a colon before it; empty if unknown."""
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    # Names that do not resolve have numbers of their own, below zero.
    return f": {os.strerror(error.errno) if error.errno > 0 else error.strerror}"
