"""What stands between two parties, and can be cut or go silent."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """Passes on what comes, until it is cut or goes silent."""

    def __init__(self, target: str) -> None:
        """Stand before HOST:PORT; nothing is open before `up`."""
        self._host, _, port = target.rpartition(":")
        self._target_port = int(port)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._speaks = asyncio.Event()
        self._speaks.set()

    @property
    def target(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self._port}"

    async def up(self) -> None:
        """Listen, on the same port each time."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Cut all connections, and take no more."""
        self._speaks.set()
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    def fall_silent(self) -> None:
        """Pass nothing on from here, as a network does that drops packets."""
        self._speaks.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(self._host, self._target_port)
        except OSError:
            writer.close()
            return
        self._open |= {writer, there[1]}
        await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        self._open -= {writer, there[1]}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                await self._speaks.wait()
                writer.write(chunk)
                await writer.drain()
        writer.close()
