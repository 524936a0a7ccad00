"""Clients that stream from a gateway and note when each event came."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import aiohttp

_APART: Final = 0.02
"""Seconds between one stream's beginning and the next: fifty requests a second."""


@dataclass
class Seen:
    """One reply, by the client's clock, in seconds.

    Attributes:
        first: From the request to the first chunk.
        gaps: Between chunks.
        late: From the last chunk before `[DONE]` to the receipt; None where none came.
        chunks: That came.
    """

    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    late: float | None = None
    chunks: int = 0


async def stream(session: aiohttp.ClientSession, url: str, model: str) -> Seen:
    """Ask for one reply and read it to its end."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "why?"}]}
    loop, seen = asyncio.get_running_loop(), Seen()
    start = last = loop.time()
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        reply.raise_for_status()
        async for line in reply.content:
            now = loop.time()
            if line.startswith(b"data: {"):
                if seen.chunks:
                    seen.gaps.append(now - last)
                else:
                    seen.first = now - start
                seen.chunks += 1
                last = now
            elif line.startswith(b": coin.receipt"):
                seen.late = now - last
    return seen


async def load(url: str, model: str, streams: int, replies: int = 1) -> list[Seen]:
    """Keep so many streams open at a time, `replies` each."""
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def one(number: int) -> list[Seen]:
            await asyncio.sleep(number * _APART)
            return [await stream(session, url, model) for _ in range(replies)]

        found = await asyncio.gather(*(one(number) for number in range(streams)))
    return [seen for each in found for seen in each]
