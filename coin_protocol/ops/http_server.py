"""What HTTP servers under uvicorn share: an end to slow clients, TLS files, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from coin_protocol.errors import ConfigurationError

HEAD_SECONDS: Final = 10.0
"""For the head of a request to arrive, from its first byte or from the connection's start."""

KEEP_ALIVE_SECONDS: Final = 75
"""Above the idle time of common load balancers (60 s): who closes last loses no request."""

MAX_CONNECTIONS: Final = 1000


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that hangs up on whoever sends the head of a request for too long.

    uvicorn itself only ends connections that are idle after an answer.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(  # type: ignore[override] # as uvicorn's own
        self, transport: asyncio.Transport
    ) -> None:
        """Expect a request in time."""
        super().connection_made(transport)
        self._watch_head()

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


def why(error: BaseException | None) -> str:
    """Return why an address could not be listened on, with a colon before it; empty if unknown."""
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    # Names that do not resolve have numbers of their own, below zero.
    return f": {os.strerror(error.errno) if error.errno > 0 else error.strerror}"
