"""What happens to sessions later: recovery, fingerprints, retention."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import select, update

from coin_protocol.database.engine import reading, writing
from coin_protocol.encoding import digest
from coin_protocol.errors import NotReadyError, PurgedCommitmentError
from coin_protocol.limits import CLOCK_SKEW_SECONDS
from coin_protocol.statements import (
    read_checkpoint,
    read_commitment,
    read_manifest,
    read_opening,
)
from coin_protocol.v1 import statements_pb2
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.live import LiveSession
from provider_sdk.provider import Provider, RefusedChallengeError
from provider_sdk.record import ReplyRef
from provider_sdk.recovery import Keeper, recover
from provider_sdk.store import SqlStore
from provider_sdk.store.jobs import MOST_ATTEMPTS, claim, lag, purge, retry
from provider_sdk.store.tables import BLOCK, SESSION
from provider_sdk.store.writer import SessionLostError
from tests.support.parties import MODEL, REQUEST, Parties, let_pass
from tests.unit.store.conftest import MakeStore
from tests.unit.store.test_sql_store import NONCE, REF, reply

T = TypeVar("T")


@pytest.fixture
def provider(parties: Parties, store: SqlStore) -> Iterator[Provider]:
    """A provider over the store."""
    with parties.provider(store=store) as provider:
        yield provider


def opened(provider: Provider, ref: ReplyRef | None = REF) -> LiveSession:
    return provider.session(REQUEST, client_nonce=NONCE, model=MODEL, reply=ref)


async def soon(job: Callable[[], T], seconds: float = 10.0) -> T:
    """Do a job every few milliseconds until it finds something.

    Raises:
        TimeoutError: It never did.
    """
    end = time.monotonic() + seconds
    while True:
        if found := job():
            return found
        if time.monotonic() > end:
            raise TimeoutError
        await asyncio.sleep(0.05)


# Recovery


async def test_what_a_dead_process_left_open_is_closed_as_crashed(
    parties: Parties, make_store: MakeStore
) -> None:
    dead, living = make_store(lease_seconds=0.5), make_store(lease_seconds=0.5)
    with parties.provider(store=dead) as before, parties.provider(store=living) as after:
        session = opened(before)
        session.append(list(range(20)))
        checkpoints = await session.flush()
        assert len(checkpoints) == 2
        dead.writer.close()  # it writes nothing more, as if it had been killed
        assert recover(after, living) == 0  # the lease still runs
        assert await soon(lambda: recover(after, living)) == 1
        (kept,) = after.replies("resp-1", REF.caller)
        assert kept.choice is not None
        assert kept.choice.notes
        statement = read_commitment(kept.choice.commitment.payload)
        assert statement.abort_reason == statements_pb2.ABORT_REASON_CRASHED
        assert statement.reasoning_tokens == 16
        last = read_checkpoint(checkpoints[-1].payload)
        assert (last.token_root, last.token_count) == (statement.token_root, 16)
        assert recover(after, living) == 0


async def test_a_living_process_keeps_its_sessions_however_long_they_take(
    parties: Parties, make_store: MakeStore
) -> None:
    one, other = make_store(lease_seconds=0.4), make_store(lease_seconds=0.4)
    with parties.provider(store=one) as mine, parties.provider(store=other) as theirs:
        session = opened(mine)
        session.append([1, 2, 3])
        await asyncio.sleep(1.0)
        assert recover(theirs, other) == 0
        assert (await session.abort(statements_pb2.ABORT_REASON_CANCELLED)).choice.commitment


async def test_a_process_taken_for_dead_hands_over_nothing_more(
    parties: Parties, make_store: MakeStore
) -> None:
    paused, living = make_store(lease_seconds=60.0), make_store(lease_seconds=0.2)
    with parties.provider(store=paused) as before, parties.provider(store=living) as after:
        session = opened(before)
        session.append(list(range(8)))
        await session.flush()
        assert await soon(lambda: recover(after, living)) == 1  # by so short a lease it is dead
        assert session.append(list(range(8))) == []
        assert await session.flush() == []
        with pytest.raises(SessionLostError, match="another process"):
            await session.abort(statements_pb2.ABORT_REASON_CANCELLED)
        (kept,) = after.replies("resp-1", REF.caller)
        assert kept.choice is not None
        assert read_commitment(kept.choice.commitment.payload).reasoning_tokens == 8


# Fingerprints


async def test_workers_make_the_fingerprints_that_challenges_need(
    provider: Provider, store: SqlStore, parties: Parties
) -> None:
    key = digest((await reply(provider)).choice.commitment.payload)
    with pytest.raises(NotReadyError):
        provider.manifest(key)
    behind = lag(store)
    assert (behind.sessions, behind.failed) == (1, 0)
    worker = FingerprintWorker(provider, store, batch_blocks=2)
    assert worker.run_once()
    assert not worker.run_once()
    assert lag(store).sessions == 0
    manifest, fingerprints = provider.manifest(key)
    assert read_manifest(manifest.payload).commitment_sha256 == key
    provider.answer(key, parties.challenge(fingerprints))
    provider.answer_whole(key, parties.whole_challenge(fingerprints))
    assert len(store.get(key).windows) > 0


async def test_a_block_of_an_older_release_is_opened_without_its_nodes(
    provider: Provider, store: SqlStore, parties: Parties
) -> None:
    key = digest((await reply(provider)).choice.commitment.payload)
    FingerprintWorker(provider, store).run_once()
    challenge = parties.challenge(provider.manifest(key)[1], token_blocks=1)
    opener = provider.answerer.opener(store.get(key))
    assert opener.nodes == [opener.kept_nodes(index) for index in range(len(opener.nodes))]
    opened = read_opening(provider.answer(key, challenge).payload)
    with writing(store.engine) as connection:
        connection.execute(update(BLOCK).values(nodes=None))
    again = read_opening(provider.answer(key, challenge).payload)
    assert again.token_blocks
    assert again.token_blocks == opened.token_blocks


async def test_fingerprints_are_those_of_a_session_in_memory(
    provider: Provider, store: SqlStore
) -> None:
    key = digest((await reply(provider)).choice.commitment.payload)
    FingerprintWorker(provider, store, batch_blocks=3).run_once()
    record = store.get(key)
    width, ids = provider.profile.block_size, record.token_ids
    alone = b"".join(
        b"".join(provider.embed_block(ids.slice(at, at + width)))
        for at in range(0, len(ids), width)
    )
    assert record.windows == alone


class Flaky(Provider):
    """Fails to embed as often as it is told."""

    fails = 0

    def sign_fingerprints(self, record: object) -> object:  # type: ignore[override]
        """Fail a few times."""
        if self.fails:
            self.fails -= 1
            msg = "the model fell over"
            raise RuntimeError(msg)
        return super().sign_fingerprints(record)  # type: ignore[arg-type]


async def test_a_failed_attempt_is_put_off_and_keeps_what_it_made(
    parties: Parties, store: SqlStore
) -> None:
    with parties.provider(Flaky, store=store) as provider:
        assert isinstance(provider, Flaky)
        key = digest((await reply(provider)).choice.commitment.payload)
        provider.fails = 1
        made: list[int] = []
        worker = FingerprintWorker(provider, store, embedded=made.append)
        assert worker.run_once()
        assert store.get(key).failure.startswith("RuntimeError")
        assert "fell over" not in store.get(key).failure
        assert not worker.run_once()  # put off
        blocks = sum(made)
        with store.engine.begin() as connection:
            connection.execute(SESSION.update().values(claimed_until=None))
        assert worker.run_once()
        assert sum(made) == blocks  # nothing was embedded twice
        assert provider.manifest(key)


async def test_a_hopeless_session_does_not_stop_the_others(
    parties: Parties, store: SqlStore
) -> None:
    with parties.provider(Flaky, store=store) as provider:
        assert isinstance(provider, Flaky)
        await reply(provider)
        other = await reply(provider, ReplyRef("resp-2"))
        with store.engine.begin() as connection:
            oldest = connection.execute(
                select(SESSION.c.session_id).order_by(SESSION.c.committed_at)
            ).scalars()
            connection.execute(
                SESSION.update()
                .where(SESSION.c.session_id == next(iter(oldest)))
                .values(attempts=MOST_ATTEMPTS)
            )
        worker = FingerprintWorker(provider, store)
        assert worker.run_once()
        assert not worker.run_once()
        assert provider.manifest(digest(other.choice.commitment.payload))
        assert lag(store).failed == 1
        assert retry(store.engine) == 1
        assert lag(store).failed == 0
        assert worker.run_once()
        assert retry(store.engine) == 0


async def test_two_workers_never_take_one_session(provider: Provider, store: SqlStore) -> None:
    for number in range(6):
        await reply(provider, ReplyRef(f"resp-{number}"))
    found: list[bytes] = []

    def take() -> None:
        worker = FingerprintWorker(provider, store)
        while (mine := claim(store, worker.name, 60.0)) is not None:
            found.append(mine.session_id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 6


async def test_a_worker_that_lost_its_claim_changes_nothing(
    provider: Provider, store: SqlStore
) -> None:
    key = digest((await reply(provider)).choice.commitment.payload)
    slow = FingerprintWorker(provider, store, claim_seconds=-1.0)
    fast = FingerprintWorker(provider, store)
    taken = claim(store, slow.name, -1.0)
    assert taken is not None
    assert fast.run_once()
    slow._make(taken, None)
    signed = store.get(key).fingerprints
    assert signed is not None
    assert provider.manifest(key)[1] == signed


async def test_a_worker_told_to_stop_leaves_the_session_for_the_next(
    provider: Provider, store: SqlStore
) -> None:
    key = digest((await reply(provider)).choice.commitment.payload)
    stop = threading.Event()
    made: list[int] = []

    def embedded(blocks: int) -> None:
        made.append(blocks)
        stop.set()

    FingerprintWorker(provider, store, batch_blocks=1, embedded=embedded).run(stop)
    assert made == [1]
    with reading(store.engine) as connection:
        assert connection.execute(select(SESSION.c.attempts)).scalar_one() == 0
    more: list[int] = []
    assert FingerprintWorker(provider, store, batch_blocks=1, embedded=more.append).run_once()
    assert len(more) == store.get(key).tree.block_count - 1


# Retention


async def test_retention_deletes_secrets_and_keeps_what_was_signed(
    provider: Provider, store: SqlStore, parties: Parties
) -> None:
    done = await reply(provider)
    key = digest(done.choice.commitment.payload)
    FingerprintWorker(provider, store).run_once()
    challenge = parties.challenge(provider.manifest(key)[1])
    assert purge(store, older_than_seconds=60.0) == 0
    assert purge(store, older_than_seconds=-1.0) == 1
    for ask in (provider.manifest, lambda key: provider.answer(key, challenge)):
        with pytest.raises(PurgedCommitmentError, match="retention"):
            ask(key)
    with reading(store.engine) as connection:
        assert not connection.execute(select(BLOCK)).all()
        assert connection.execute(select(SESSION.c.secrets)).scalar_one() is None
    (kept,) = provider.replies("resp-1", REF.caller)
    assert kept.choice == done.choice


async def test_the_keeper_does_both_in_the_background(
    parties: Parties, make_store: MakeStore
) -> None:
    dead, living = make_store(lease_seconds=0.1), make_store(lease_seconds=0.1)
    counts: list[int] = []
    with parties.provider(store=dead) as before, parties.provider(store=living) as after:
        session = opened(before)
        session.append(list(range(8)))
        await session.flush()
        dead.writer.close()
        purged = threading.Event()

        def note(count: int) -> None:
            if count:
                purged.set()

        keeper = Keeper(
            after,
            living,
            retention_days=-1.0,
            recovered=counts.append,
            purged=note,
        )
        assert purged.wait(10.0)
        keeper.close()
    assert sum(counts) == 1


async def test_nothing_is_purged_while_an_honest_clock_may_still_hold_it_promised(
    parties: Parties, store: SqlStore
) -> None:
    with parties.provider(store=store, retention=timedelta(0)) as provider:
        let_pass(provider, 3600.0)  # its clock is an hour ahead of the one that purges by
        key = digest((await reply(provider)).choice.commitment.payload)
        keeper = Keeper(provider, store, retention_days=0.0)
        keeper.close()
        assert store.get(key)
        assert purge(store, older_than_seconds=0.0) == 0
        statement = read_commitment(store.get(key).commitment.payload)
        past = time.time() - statement.answers_until.ToMicroseconds() / 1e6
        assert purge(store, older_than_seconds=past - 1.0) == 1


async def test_secrets_are_kept_for_the_skew_of_clocks_beyond_what_was_promised(
    parties: Parties, store: SqlStore
) -> None:
    with parties.provider(store=store, retention=timedelta(0)) as provider:
        key = digest((await reply(provider)).choice.commitment.payload)
        Keeper(provider, store, retention_days=0.0).close()
        assert store.get(key)
        Keeper(provider, store, retention_days=-CLOCK_SKEW_SECONDS / 86_400.0).close()
        with pytest.raises(PurgedCommitmentError):
            store.get(key)


# The ledger


def ids_of(count: int) -> npt.NDArray[np.uint32]:
    return np.arange(count, dtype=np.uint32) % 200


async def test_caps_and_chain_hold_under_challenges_of_several_processes(
    parties: Parties, make_store: MakeStore
) -> None:
    stores = [make_store() for _ in range(3)]
    providers = [parties.provider(store=store) for store in stores]
    async with opened(providers[0]) as session:
        session.append(ids_of(400))
        done = await session.abort(statements_pb2.ABORT_REASON_CANCELLED)
    key = digest(done.choice.commitment.payload)
    FingerprintWorker(providers[0], stores[0]).run_once()
    fingerprints = providers[0].manifest(key)[1]
    flips: list[int] = []
    refused: list[str] = []

    def ask(provider: Provider) -> None:
        for _ in range(8):
            challenge = parties.challenge(fingerprints, blocks=6, tokens_per_block=1)
            try:
                flips.append(read_opening(provider.answer(key, challenge).payload).flip_index)
            except RefusedChallengeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=ask, args=(provider,)) for provider in providers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(flips) == list(range(1, len(flips) + 1))
    assert len(flips) + len(refused) == 24
    assert refused
    record = stores[1].get(key)
    with stores[1].exclusive(record):
        exposure = record.ledger.exposure()
    caps = providers[0].profile.message.caps
    assert 0 < exposure.tokens <= max(caps.min_tokens, 400 * caps.tokens_ppm // 1_000_000)
    assert exposure.block_embeddings <= 50 * caps.blocks_ppm // 1_000_000
    for provider in providers:
        provider.close()


async def test_nothing_is_entered_where_the_write_fails(
    provider: Provider, store: SqlStore, parties: Parties
) -> None:
    key = digest((await reply(provider)).choice.commitment.payload)
    FingerprintWorker(provider, store).run_once()
    record = store.get(key)

    challenge = parties.challenge(provider.manifest(key)[1])
    message = provider.answerer.read(record, challenge)

    def step_and_fail() -> None:
        with store.exclusive(record):
            provider.answerer.step(record, challenge, message)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        step_and_fail()
    with store.exclusive(record):
        assert not record.answered
        assert not record.ledger.tokens
