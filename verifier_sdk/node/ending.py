"""The end of tasks that go on until they are told to stop."""

from __future__ import annotations

import asyncio
from typing import Final

_AGAIN_SECONDS: Final = 0.1


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended.

    One cancellation is not enough: `asyncio.wait_for`, which libraries call, loses one that comes
    just as what it waits for is done (before Python 3.12).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_SECONDS)
