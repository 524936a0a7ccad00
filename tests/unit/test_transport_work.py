"""Bounded workers: a full queue turns away at once, and late calls are not worked on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from coin_protocol.errors import InvalidInputError
from coin_protocol.transport import OverloadedError, PastDeadlineError, SlowError, Workers
from tests.support.parties import WAIT_SECONDS


class Held:
    """A call that holds its thread until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> str:
        self.began.set()
        assert self.go_on.wait(WAIT_SECONDS)
        return "done"


async def start(workers: Workers, held: Held) -> asyncio.Task[str]:
    """Start a held call, and wait until it is on its thread."""
    task = asyncio.create_task(workers.run(held, seconds=None))
    assert await asyncio.to_thread(held.began.wait, WAIT_SECONDS)
    return task


async def settled(workers: Workers) -> None:
    """Wait until no call has a place."""
    async with asyncio.timeout(WAIT_SECONDS):
        while workers._taken:  # noqa: ASYNC110 - counted on threads, which set no asyncio event
            await asyncio.sleep(0.005)


async def test_what_finds_the_queue_full_is_turned_away_and_the_rest_is_done() -> None:
    workers, held = Workers(threads=1, queue=2), Held()
    first = await start(workers, held)
    waiting = [asyncio.create_task(workers.run(lambda: "waited", seconds=None)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await workers.run(lambda: "never", seconds=None)
    held.go_on.set()
    assert await first == "done"
    assert await asyncio.gather(*waiting) == ["waited", "waited"]
    await settled(workers)
    assert await workers.run(lambda: "again", seconds=None) == "again"
    workers.close()


async def test_a_call_whose_deadline_passed_in_the_queue_is_not_worked_on() -> None:
    workers, held, worked = Workers(threads=1, queue=4), Held(), []
    first = await start(workers, held)
    late = asyncio.create_task(workers.run(lambda: worked.append(1), seconds=0.0))
    await asyncio.sleep(0)
    held.go_on.set()
    with pytest.raises(PastDeadlineError):
        await late
    await first
    assert not worked
    workers.close()


async def test_work_that_hangs_is_answered_before_its_deadline_and_goes_on() -> None:
    workers, held = Workers(threads=1, queue=4), Held()
    loop = asyncio.get_running_loop()
    start_at = loop.time()
    with pytest.raises(SlowError, match="ask again"):
        await workers.run(held, seconds=0.5)
    assert loop.time() - start_at < WAIT_SECONDS
    assert workers._taken == 1  # it holds its thread
    worked: list[int] = []
    with pytest.raises(SlowError):
        await workers.run(lambda: worked.append(1), seconds=0.05)
    held.go_on.set()
    await settled(workers)
    assert not worked
    workers.close()


async def test_an_error_of_the_work_itself_is_no_matter_of_time() -> None:
    workers = Workers()

    def fails() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await workers.run(fails, seconds=5.0)
    workers.close()


async def test_a_cancelled_call_that_waits_is_dropped_and_gives_its_place_back() -> None:
    workers, held, worked = Workers(threads=1, queue=1), Held(), []
    first = await start(workers, held)
    for _ in range(3):
        waiting = asyncio.create_task(workers.run(lambda: worked.append(1), seconds=None))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    held.go_on.set()
    await first
    await settled(workers)
    assert not worked
    workers.close()


async def test_a_cancelled_call_under_way_keeps_its_place_until_it_ends() -> None:
    workers, held = Workers(threads=1, queue=0), Held()
    first = await start(workers, held)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(OverloadedError):
        await workers.run(lambda: None, seconds=None)
    held.go_on.set()
    await settled(workers)
    assert await workers.run(lambda: "again", seconds=None) == "again"
    workers.close()


async def test_an_error_of_the_call_is_its_callers() -> None:
    workers = Workers(threads=1, queue=0)

    def broken() -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await workers.run(broken, seconds=1.0)
        await settled(workers)
    workers.close()


async def test_closed_workers_take_no_calls() -> None:
    workers = Workers()
    workers.close()
    with pytest.raises(OverloadedError, match="shutting down"):
        await workers.run(lambda: None, seconds=None)
    assert workers._taken == 0


@pytest.mark.parametrize(("threads", "queue"), [(0, 1), (1, -1)])
def test_workers_that_could_do_nothing_are_refused(threads: int, queue: int) -> None:
    with pytest.raises(InvalidInputError):
        Workers(threads=threads, queue=queue)
