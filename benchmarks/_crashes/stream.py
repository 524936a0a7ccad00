"""A stream of NATS JetStream that is a run's own."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.js.errors import NotFoundError


@asynccontextmanager
async def own_stream(server: str | None) -> AsyncIterator[dict[str, Any] | None]:
    """Give the settings of a new stream, deleted afterwards; None without a server's URL."""
    if server is None:
        yield None
        return
    settings = {"servers": [server], "stream": f"COIN_CRASHES_{secrets.token_hex(6)}"}
    try:
        yield settings
    finally:
        async with await nats.connect(server) as client:
            try:
                await client.jetstream().delete_stream(str(settings["stream"]))
            except NotFoundError:
                sys.stderr.write("the stream was never made\n")
