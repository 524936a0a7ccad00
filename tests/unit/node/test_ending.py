"""Tasks that are told to stop do stop."""

from __future__ import annotations

import asyncio

from verifier_sdk.node.ending import end


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(task)
    assert (task.cancelled(), lost) == (True, 3)


async def test_a_task_that_has_ended_is_left_as_it_is() -> None:
    async def work() -> None:
        return

    task = asyncio.create_task(work())
    await task
    await end(task)
    assert not task.cancelled()
