"""What a node does again and again while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from coin_protocol.errors import CoinError
from verifier_sdk.node.ending import end

_LOG = logging.getLogger(__name__)


@asynccontextmanager
async def repeating(call: Callable[[], Awaitable[object]], seconds: float) -> AsyncIterator[None]:
    """Call again and again until the block ends; an error is logged, and the next call made."""

    async def repeat() -> None:
        while True:
            try:
                await call()
            except CoinError as error:
                _LOG.warning("%s", error)
            except Exception:  # noqa: BLE001 - the next call may go well
                _LOG.exception("what is done from time to time failed")
            await asyncio.sleep(seconds)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        await end(task)
