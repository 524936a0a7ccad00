"""Both queues hand out audits alike: each to one worker, whatever becomes of worker and server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import StreamConfig
from sqlalchemy import Engine

from coin_protocol.errors import ConfigurationError, TryLaterError
from coin_protocol.testing.proxy import TcpProxy
from tests.support.nodes import NATS, QUEUES, lease, nats_stream
from tests.support.parties import WAIT_SECONDS
from tests.support.submissions import bundle, decided, submission, submit
from verifier_sdk.node import nats_queue
from verifier_sdk.node.nats_queue import NatsQueue, NatsSettings
from verifier_sdk.node.queues import DatabaseQueue, Job, Queue
from verifier_sdk.node.repeating import repeating
from verifier_sdk.store import claims
from verifier_sdk.store.claims import Budget, extend, postpone
from verifier_sdk.store.reading import find_audit
from verifier_sdk.store.submissions import ask_for
from verifier_sdk.store.tables import DECIDED, RUNNING

LEASE_SECONDS = 1.0
LOOK_SECONDS = 0.02


@dataclass
class Hall:
    """Where workers stand in line."""

    engine: Engine
    stack: AsyncExitStack
    nats: NatsSettings | None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def queue(self) -> Queue:
        """Return what one more worker takes audits from."""
        if self.nats is None:
            return DatabaseQueue(self.engine, asyncio.Event(), poll_seconds=LOOK_SECONDS)
        queue = await self.nats_queue()
        await self.stack.enter_async_context(repeating(queue.announce, LOOK_SECONDS))
        return queue

    async def nats_queue(self) -> NatsQueue:
        """Return the same over NATS, which announces nothing by itself."""
        assert self.nats is not None
        queue = await NatsQueue.connect(self.nats, self.engine, lease_seconds=LEASE_SECONDS)
        self.stack.push_async_callback(queue.close)
        return queue

    async def take(self, queue: Queue, worker: str = "worker") -> Job:
        """Take an audit, of which there is one sooner or later."""
        async with asyncio.timeout(WAIT_SECONDS):
            job = await queue.take(lease(worker, seconds=LEASE_SECONDS), self.stop)
        assert job is not None
        return job

    async def gives_nothing(self, queue: Queue, seconds: float = 0.3) -> bool:
        """Say whether nothing is handed out for so long."""
        task = asyncio.create_task(queue.take(lease("idle"), self.stop))
        await asyncio.wait([task], timeout=seconds)
        self.stop.set()
        job = await task
        self.stop.clear()
        return job is None

    async def end(self, job: Job) -> bool:
        """Decide an audit; say whether this verdict stands."""
        first = await asyncio.to_thread(decided, self.engine, job.claim, bundle())
        await job.done()
        return first


@asynccontextmanager
async def hall(kind: str, engine: Engine) -> AsyncIterator[Hall]:
    """Open a hall with a queue of this kind."""
    async with AsyncExitStack() as stack:
        settings = None
        if kind == "nats":
            settings = await stack.enter_async_context(nats_stream())
        yield Hall(engine, stack, settings)


@pytest.fixture(params=QUEUES)
async def either_hall(request: pytest.FixtureRequest, engine: Engine) -> AsyncIterator[Hall]:
    """A hall with either queue, over SQLite."""
    async with hall(request.param, engine) as found:
        yield found


@pytest.fixture(params=QUEUES)
async def every_hall(request: pytest.FixtureRequest, either_engine: Engine) -> AsyncIterator[Hall]:
    """A hall with either queue, over either database."""
    async with hall(request.param, either_engine) as found:
        yield found


@pytest.fixture
async def nats_hall(engine: Engine) -> AsyncIterator[Hall]:
    """A hall with NATS."""
    async with hall("nats", engine) as found:
        yield found


def numbered(count: int, **instead: Any) -> list[bytes]:
    """Return the ids of so many receipts."""
    return [submission(number, **instead).audit_id for number in range(count)]


def kept(engine: Engine, count: int, **instead: Any) -> list[bytes]:
    """Keep so many receipts, and return their ids."""
    submit(engine, *(submission(number, **instead) for number in range(count)))
    return numbered(count)


async def test_each_audit_is_taken_by_one_worker(every_hall: Hall) -> None:
    here = every_hall
    ids = kept(here.engine, 60)
    taken: list[bytes] = []

    async def work(queue: Queue, name: str) -> None:
        while len(taken) < len(ids):
            job = await queue.take(lease(name), here.stop)
            if job is None:
                return
            taken.append(job.claim.audit_id)
            assert await here.end(job)
        here.stop.set()

    async with asyncio.timeout(WAIT_SECONDS):
        queues = [await here.queue() for _ in range(3)]
        await asyncio.gather(
            *(work(queue, f"worker {at}") for at, queue in enumerate([*queues, queues[0]]))
        )
    assert sorted(taken) == sorted(ids)


async def test_what_somebody_asked_for_comes_first(either_hall: Hall) -> None:
    here = either_hall
    ids = kept(here.engine, 5)
    queue = await here.queue()
    # All are announced by the time that somebody asks.
    job = await here.take(queue)
    left = [audit_id for audit_id in ids if audit_id != job.claim.audit_id]
    ask_for(here.engine, left[-1], priority=1000)
    await asyncio.sleep(5 * LOOK_SECONDS)
    assert (await here.take(queue)).claim.audit_id == left[-1]
    rest = {(await here.take(queue)).claim.audit_id for _ in range(3)}
    assert rest == set(left[:-1])


async def test_an_audit_that_is_put_off_comes_again_when_it_is_due(either_hall: Hall) -> None:
    here = either_hall
    kept(here.engine, 1)
    queue = await here.queue()
    job = await here.take(queue)
    began = time.monotonic()
    postpone(here.engine, job.claim, lease(), seconds=0.5, failure="the provider is away")
    await job.done()
    again = await here.take(queue)
    assert time.monotonic() - began >= 0.5
    assert again.claim.attempts == 2
    assert await here.end(again)
    assert await here.gives_nothing(queue)


async def test_the_audit_of_a_worker_that_dies_is_taken_over(every_hall: Hall) -> None:
    here = every_hall
    kept(here.engine, 1)
    dies, lives = await here.queue(), await here.queue()
    job = await here.take(dies, "dies")
    began = time.monotonic()
    await dies.close()
    again = await here.take(lives, "lives")
    assert time.monotonic() - began >= 0.9 * LEASE_SECONDS
    assert again.claim.attempts == 2
    assert await here.end(again)
    # The dead one may only have been asleep: its verdict comes too late.
    assert not decided(here.engine, job.claim, bundle())
    assert await here.gives_nothing(lives)


async def test_an_audit_that_could_not_be_written_down_comes_again(either_hall: Hall) -> None:
    here = either_hall
    kept(here.engine, 1)
    queue = await here.queue()
    job = await here.take(queue)
    await job.later(LEASE_SECONDS)
    assert (await here.take(queue)).claim.attempts == 2


async def test_an_audit_that_is_worked_on_stays_with_its_worker(either_hall: Hall) -> None:
    here = either_hall
    kept(here.engine, 1)
    first, second = await here.queue(), await here.queue()
    job = await here.take(first, "first")
    for _ in range(8):
        await asyncio.sleep(LEASE_SECONDS / 5)
        await job.alive()
        assert extend(here.engine, job.claim, lease("first", seconds=LEASE_SECONDS))
    assert await here.gives_nothing(second)
    assert await here.end(job)


async def test_a_queue_that_is_told_to_stop_gives_nothing(either_hall: Hall) -> None:
    queue = await either_hall.queue()
    either_hall.stop.set()
    async with asyncio.timeout(2):
        assert await queue.take(lease(), either_hall.stop) is None
    await queue.close()
    await queue.close()


async def test_an_audit_that_comes_while_a_worker_waits_is_taken_at_once(
    either_hall: Hall,
) -> None:
    queue = await either_hall.queue()
    waiting = asyncio.create_task(either_hall.take(queue))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    (audit_id,) = kept(either_hall.engine, 1)
    assert (await waiting).claim.audit_id == audit_id


# What only a message queue can do


async def messages(settings: NatsSettings | None) -> int:
    """Return how many messages a stream holds."""
    assert settings is not None
    async with await nats.connect(settings.servers) as client:
        held: int = (await client.jetstream().stream_info(settings.stream)).state.messages
        return held


async def emptied(settings: NatsSettings | None) -> None:
    """Wait until a stream holds nothing."""
    async with asyncio.timeout(WAIT_SECONDS):
        while await messages(settings):  # noqa: ASYNC110 - NATS tells of no such event
            await asyncio.sleep(LOOK_SECONDS)


async def publish(settings: NatsSettings | None, *audit_ids: bytes) -> None:
    """Put messages into a stream."""
    assert settings is not None
    async with await nats.connect(settings.servers) as client:
        for audit_id in audit_ids:
            subject = f"{settings.stream}.drawn.{audit_id.hex()}"
            await client.jetstream().publish(subject, audit_id)


async def test_a_message_that_comes_twice_leads_to_one_verdict(nats_hall: Hall) -> None:
    (audit_id,) = kept(nats_hall.engine, 1)
    queue = await nats_hall.queue()
    job = await nats_hall.take(queue)
    assert await nats_hall.end(job)
    await emptied(nats_hall.nats)
    await publish(nats_hall.nats, audit_id, b"of an audit that is not there")
    assert await nats_hall.gives_nothing(queue)
    await emptied(nats_hall.nats)


async def test_a_message_while_another_worker_has_the_audit_waits_for_its_lease(
    nats_hall: Hall,
) -> None:
    (audit_id,) = kept(nats_hall.engine, 1)
    first, second = await nats_hall.queue(), await nats_hall.queue()
    job = await nats_hall.take(first, "first")
    # As if it were deleted too early: it is there again, and the audit is held.
    await job.done()
    await emptied(nats_hall.nats)
    await publish(nats_hall.nats, audit_id)
    assert await nats_hall.gives_nothing(second)
    assert await messages(nats_hall.nats) == 1
    assert (await nats_hall.take(second, "second")).claim.attempts == 2


@pytest.mark.parametrize("how", ["purged", "deleted"])
async def test_messages_that_are_lost_are_sent_again(
    nats_hall: Hall, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(nats_queue, "EMPTY_SECONDS", 0.1)
    monkeypatch.setattr(nats_queue, "_ANSWER_SECONDS", 0.3)
    assert nats_hall.nats is not None
    ids = kept(nats_hall.engine, 5)
    queue = await nats_hall.nats_queue()
    assert await queue.announce() == 5
    async with await nats.connect(NATS) as client:
        context = client.jetstream()
        if how == "purged":
            await context.purge_stream(nats_hall.nats.stream)
        else:
            await context.delete_stream(nats_hall.nats.stream)
    async with repeating(queue.announce, LOOK_SECONDS):
        found: set[bytes] = set()
        async with asyncio.timeout(WAIT_SECONDS):
            while len(found) < 5:
                with suppress(TryLaterError):
                    job = await nats_hall.take(queue)
                    found.add(job.claim.audit_id)
                    assert await nats_hall.end(job)
    assert found == set(ids)


async def test_what_waits_in_the_stream_is_not_put_there_again(
    nats_hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_queue, "ANNOUNCED_SECONDS", 0.0)
    kept(nats_hall.engine, 5)
    queue = await nats_hall.nats_queue()
    assert [await queue.announce() for _ in range(3)] == [5, 0, 0]
    assert await messages(nats_hall.nats) == 5


async def test_no_more_messages_wait_than_may(
    nats_hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_queue, "MOST_ANNOUNCED", 5)
    monkeypatch.setattr(nats_queue, "ANNOUNCED_SECONDS", 0.1)
    monkeypatch.setattr(nats_queue, "EMPTY_SECONDS", 0.1)
    ids = kept(nats_hall.engine, 12)
    queues = [await nats_hall.nats_queue() for _ in range(3)]
    # All at once, as in several processes: the stream itself takes no more.
    await asyncio.gather(*(queue.announce() for queue in queues))
    assert await messages(nats_hall.nats) == 5
    assert await queues[0].announce() == 0
    async with repeating(queues[0].announce, LOOK_SECONDS):
        found = []
        for _ in ids:
            job = await nats_hall.take(queues[0])
            assert await nats_hall.end(job)
            found.append(job.claim.audit_id)
    assert sorted(found) == sorted(ids)


@pytest.mark.parametrize("day_seconds", [86_400, 100])
async def test_audits_that_are_put_off_are_in_nobodys_way(
    nats_hall: Hall, monkeypatch: pytest.MonkeyPatch, day_seconds: int
) -> None:
    monkeypatch.setattr(nats_queue, "MOST_ANNOUNCED", 4)
    # Short ones, as the last minutes of a day are.
    monkeypatch.setattr(claims, "DAY_SECONDS", day_seconds)
    engine = nats_hall.engine
    kept(engine, 4, priority=50)
    queue = await nats_hall.queue()
    for _ in range(4):
        job = await nats_hall.take(queue)
        postpone(engine, job.claim, lease(), seconds=3600, failure="the provider is away")
        await job.done()
    # A budget that is spent puts off as well: here that of nobody's provider.
    submit(engine, *(submission(number, provider="poor", priority=20) for number in range(20, 24)))
    submit(engine, submission(30, priority=1))
    async with asyncio.timeout(WAIT_SECONDS):
        poor = lease(seconds=LEASE_SECONDS, budgets={"poor": Budget(0, 0)})
        found = await queue.take(poor, nats_hall.stop)
    assert found is not None
    assert found.claim.audit_id == submission(30).audit_id


async def test_a_server_that_goes_away_and_comes_back_is_survived(
    nats_hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_queue, "_ANSWER_SECONDS", 0.3)
    assert nats_hall.nats is not None
    proxy = TcpProxy(NATS.removeprefix("nats://"))
    await proxy.up()
    nats_hall.nats = replace(nats_hall.nats, servers=[f"nats://{proxy.target}"])
    ids = kept(nats_hall.engine, 6)
    queue = await nats_hall.queue()
    held = await nats_hall.take(queue)
    await proxy.down()
    with pytest.raises(TryLaterError, match="JetStream"):
        await nats_hall.take(queue)
    # What is under way is decided meanwhile; nobody learns that its message is done with.
    assert await nats_hall.end(held)
    await proxy.up()
    found = [held.claim.audit_id]
    async with asyncio.timeout(WAIT_SECONDS):
        while len(found) < len(ids):
            with suppress(TryLaterError):
                job = await nats_hall.take(queue)
                assert await nats_hall.end(job)
                found.append(job.claim.audit_id)
    assert sorted(found) == sorted(ids)
    assert all(state == DECIDED for state in states(nats_hall.engine, ids))
    await nats_hall.stack.aclose()
    await proxy.down()


def states(engine: Engine, ids: Sequence[bytes]) -> list[str]:
    """Return the states of audits."""
    return [row.state for row in (find_audit(engine, one) for one in ids) if row is not None]


async def test_a_server_that_is_not_there_is_a_matter_of_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_queue, "_CONNECT_SECONDS", 0.5)
    settings = NatsSettings(servers=["nats://user:secret@127.0.0.1:1"])
    with pytest.raises(TryLaterError, match="try again later") as caught:
        await NatsQueue.connect(settings, engine, lease_seconds=LEASE_SECONDS)
    assert "secret" not in f"{caught.value} {settings!r}"


async def test_files_and_streams_that_cannot_be_used_are_told_of(
    nats_hall: Hall, tmp_path: Path
) -> None:
    assert nats_hall.nats is not None
    for wrong in ({"credentials": tmp_path / "none"}, {"authorities": tmp_path / "none"}):
        with pytest.raises(ConfigurationError, match=f"the {next(iter(wrong))} of NATS"):
            await NatsQueue.connect(
                replace(nats_hall.nats, **wrong),  # type: ignore[arg-type]
                nats_hall.engine,
                lease_seconds=LEASE_SECONDS,
            )
    async with await nats.connect(NATS) as client:
        name = nats_hall.nats.stream
        await client.jetstream().add_stream(StreamConfig(name=name, subjects=[f"{name}.*.*"]))
    with pytest.raises(ConfigurationError, match="with another retention"):
        await nats_hall.queue()


async def test_another_lease_holds_for_messages_too(nats_hall: Hall) -> None:
    kept(nats_hall.engine, 1)
    assert nats_hall.nats is not None
    longer = await NatsQueue.connect(nats_hall.nats, nats_hall.engine, lease_seconds=60)
    await longer.close()
    # Whoever comes last says how long: else a worker that dies would be waited for a minute.
    dies, lives = await nats_hall.queue(), await nats_hall.queue()
    await nats_hall.take(dies)
    await dies.close()
    async with asyncio.timeout(5 * LEASE_SECONDS):
        assert (await nats_hall.take(lives)).claim.attempts == 2
    assert states(nats_hall.engine, numbered(1)) == [RUNNING]
