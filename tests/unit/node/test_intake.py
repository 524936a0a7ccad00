"""Receipts in: one transaction for many, acknowledged once on disk, compared on the way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from coin_protocol.database.engine import open_engine
from coin_protocol.errors import StoreUnavailableError, TryLaterError
from coin_protocol.evidence import read_evidence, verify_evidence
from coin_protocol.v1 import receipt_pb2, statements_pb2
from provider_sdk.provider import Provider
from tests.support.equivocations import Edit, TwoFaced, bill_more, crash
from tests.support.nodes import NodeParts
from tests.support.parties import Parties, run_session
from tests.support.submissions import bundle, decided, took
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.node import intake as intake_module
from verifier_sdk.node.intake import CommitmentFullError, Intake, QuotaSpentError
from verifier_sdk.store.quota import DEFAULT_QUOTA, Quota, Refused
from verifier_sdk.store.submissions import Submission, keep
from verifier_sdk.store.tables import AUDIT, EVIDENCE, FILE, QUEUED


@pytest.fixture
def receipts(provider: Provider) -> list[receipt_pb2.Receipt]:
    """Twelve receipts."""
    return [run_session(provider).receipt for _ in range(12)]


def taking(engine: Engine, parties: Parties, **instead: Any) -> Intake:
    """Return an intake of the one provider's receipts."""
    given: dict[str, Any] = {
        "secret": bytes(32),
        "block_size": parties.profile.block_size,
        "failed_share": lambda _: 0.0,
    }
    return Intake(engine, NodeParts(parties, engine, "").providers, **(given | instead))


class Disk:
    """Stands before the database: counts batches, holds them up, fails."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.busy = threading.Event()
        self.error: Exception | None = None
        self.poison: bytes | None = None

    def keep(
        self, engine: Engine, batch: Sequence[Submission], conflict: Any, *, quota: Quota
    ) -> list[str | Refused]:
        self.batches.append(len(batch))
        self.busy.set()
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        if any(one.audit_id == self.poison for one in batch):
            raise ZeroDivisionError
        return keep(engine, batch, conflict, quota=quota)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """What stands before the database."""
    found = Disk()
    monkeypatch.setattr(intake_module, "keep", found.keep)
    yield found
    found.go.set()


async def busy(disk: Disk) -> None:
    """Wait until a batch is being written."""
    assert await asyncio.to_thread(disk.busy.wait, 20)


def rows(engine: Engine, table: Any = AUDIT) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


async def test_what_comes_while_the_disk_is_busy_shares_one_transaction(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt], disk: Disk
) -> None:
    told: list[int] = []
    intake = taking(engine, parties, kept=told.append)
    submissions = [intake.prepare(receipt, "client") for receipt in receipts]
    disk.go.clear()
    first = asyncio.create_task(intake.keep(submissions[0]))
    await busy(disk)
    others = [asyncio.create_task(intake.keep(one)) for one in submissions[1:]]
    await asyncio.sleep(0)
    assert not any(task.done() for task in (first, *others))
    assert rows(engine) == 0
    disk.go.set()
    kept = await asyncio.gather(first, *others)
    assert disk.batches == [1, len(receipts) - 1] == told
    assert [one.audit_id for one in kept] == [one.audit_id for one in submissions]
    assert {one.state for one in kept} == {QUEUED}
    assert rows(engine) == rows(engine, FILE) == len(receipts)


async def test_nobody_is_told_before_the_transaction_has_ended(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt], disk: Disk
) -> None:
    intake = taking(engine, parties)
    disk.go.clear()
    task = asyncio.create_task(intake.keep(intake.prepare(receipts[0], "")))
    await busy(disk)
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    assert rows(engine) == 0
    disk.go.set()
    await task
    assert rows(engine) == 1


async def test_a_receipt_that_comes_twice_in_a_batch_is_kept_once(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt], disk: Disk
) -> None:
    intake = taking(engine, parties)
    one, other = (intake.prepare(receipt, "") for receipt in receipts[:2])
    disk.go.clear()
    first = asyncio.create_task(intake.keep(other))
    await busy(disk)
    twice = [asyncio.create_task(intake.keep(one)) for _ in range(2)]
    await asyncio.sleep(0)
    disk.go.set()
    await first
    assert {kept.audit_id for kept in await asyncio.gather(*twice)} == {one.audit_id}
    assert rows(engine) == 2


@pytest.mark.parametrize("limit", ["MAX_WAITING", "MAX_WAITING_BYTES"])
async def test_more_than_may_wait_are_told_to_come_again(
    engine: Engine,
    parties: Parties,
    receipts: list[receipt_pb2.Receipt],
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:
    intake = taking(engine, parties)
    submissions = [intake.prepare(receipt, "") for receipt in receipts]
    most = 3 if limit == "MAX_WAITING" else sum(len(one.receipt) for one in submissions[1:4])
    monkeypatch.setattr(intake_module, limit, most)
    disk.go.clear()
    tasks = [asyncio.create_task(intake.keep(submissions[0]))]
    await busy(disk)
    tasks += [asyncio.create_task(intake.keep(one)) for one in submissions[1:4]]
    await asyncio.sleep(0)
    with pytest.raises(TryLaterError, match="submit again"):
        await intake.keep(submissions[4])
    disk.go.set()
    await asyncio.gather(*tasks)
    await intake.keep(submissions[4])
    assert rows(engine) == 5


async def test_a_store_that_fails_tells_everyone_who_waits(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt], disk: Disk
) -> None:
    intake = taking(engine, parties)
    submissions = [intake.prepare(receipt, "") for receipt in receipts]
    disk.error = StoreUnavailableError("the database does not answer")
    found = await asyncio.gather(*(intake.keep(one) for one in submissions), return_exceptions=True)
    assert all(isinstance(one, StoreUnavailableError) for one in found)
    # Of one error that all raise, each would carry the traces of all others.
    assert len(set(map(id, found))) == len(found)
    disk.error = None
    await asyncio.gather(*(intake.keep(one) for one in submissions))
    assert rows(engine) == len(receipts)


async def test_a_receipt_that_cannot_be_written_keeps_out_no_other(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt], disk: Disk
) -> None:
    intake = taking(engine, parties)
    submissions = [intake.prepare(receipt, "") for receipt in receipts]
    disk.poison = submissions[5].audit_id
    found = await asyncio.gather(*(intake.keep(one) for one in submissions), return_exceptions=True)
    assert [isinstance(one, Exception) for one in found] == [at == 5 for at in range(len(found))]
    assert isinstance(found[5], StoreUnavailableError)
    assert "ZeroDivision" not in str(found[5])
    assert rows(engine) == len(receipts) - 1


async def test_who_goes_away_before_the_reply_leaves_the_others_theirs(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt], disk: Disk
) -> None:
    intake = taking(engine, parties)
    submissions = [intake.prepare(receipt, "") for receipt in receipts[:3]]
    disk.go.clear()
    tasks = [asyncio.create_task(intake.keep(one)) for one in submissions]
    await busy(disk)
    tasks[1].cancel()
    await asyncio.sleep(0)
    disk.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert rows(engine) == 3


def altered(receipt: receipt_pb2.Receipt, end: bytes) -> receipt_pb2.Receipt:
    """Return another receipt of the same commitment."""
    found = receipt_pb2.Receipt()
    found.CopyFrom(receipt)
    found.answer += end
    return found


async def test_who_has_handed_in_enough_is_told_until_when_and_others_are_not(
    either_engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    told: list[int] = []
    quota = replace(DEFAULT_QUOTA, receipts_per_day=5)
    intake = taking(either_engine, parties, quota=quota, kept=told.append)
    mine = [intake.prepare(receipt, "greedy") for receipt in receipts[:8]]
    found = await asyncio.gather(*(intake.keep(one) for one in mine), return_exceptions=True)
    spent = [one for one in found if isinstance(one, QuotaSpentError)]
    assert len(spent) == 3
    assert all(0 < one.seconds <= 86_400 for one in spent)
    await intake.keep(intake.prepare(receipts[8], "other"))
    assert sum(told) == rows(either_engine) == rows(either_engine, ENTRY) == 6
    # What was acknowledged is there, and handing it in again is free.
    for one, result in zip(mine, found, strict=True):
        if not isinstance(result, BaseException):
            assert (await intake.keep(one)).state == QUEUED


async def test_of_one_commitment_a_client_has_so_many_receipts_and_keeps_out_no_other(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    intake = taking(engine, parties, quota=replace(DEFAULT_QUOTA, receipts_per_commitment=2))
    for end in (b"1", b"2"):
        await intake.keep(intake.prepare(altered(receipts[0], end), "greedy"))
    with pytest.raises(CommitmentFullError, match="2 other receipts of this commitment"):
        await intake.keep(intake.prepare(altered(receipts[0], b"3"), "greedy"))
    assert (await intake.keep(intake.prepare(receipts[0], "honest"))).state == QUEUED
    assert rows(engine) == 3


# Two commitments to one session


def other(
    parties: Parties, receipt: receipt_pb2.Receipt, edit: Edit = bill_more
) -> receipt_pb2.Receipt:
    """Return a receipt of another commitment to the same session."""
    found = receipt_pb2.Receipt()
    found.CopyFrom(receipt)
    found.commitment.CopyFrom(TwoFaced(parties, receipt.commitment).signed(edit))
    return found


def require_evidence(engine: Engine, parties: Parties, *, found: int = 1) -> None:
    """Check that evidence is kept, and that each proves itself, offline."""
    with engine.connect() as connection:
        kept = connection.execute(select(EVIDENCE)).all()
    assert len(kept) == found
    for row in kept:
        proven = verify_evidence(read_evidence(row.file), trust=parties.trust, log_key=None)
        assert (row.provider, row.kind, row.sentence) == (
            proven.party,
            str(proven.kind),
            proven.sentence,
        )


async def submit(intake: Intake, *receipts: receipt_pb2.Receipt) -> None:
    """Hand in receipts at once."""
    await asyncio.gather(*(intake.keep(intake.prepare(one, "")) for one in receipts))


async def test_two_commitments_in_one_batch_are_evidence(
    either_engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    intake = taking(either_engine, parties)
    await submit(intake, receipts[0], receipts[1], other(parties, receipts[0]))
    assert rows(either_engine) == 3
    require_evidence(either_engine, parties)


async def test_two_commitments_in_two_batches_are_evidence_once(
    either_engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    intake = taking(either_engine, parties)
    second = other(parties, receipts[0])
    await submit(intake, receipts[0])
    require_evidence(either_engine, parties, found=0)
    await submit(intake, second)
    require_evidence(either_engine, parties)
    altered = receipt_pb2.Receipt()
    altered.CopyFrom(second)
    altered.answer += b"!"
    await submit(intake, second, altered, receipts[0])
    require_evidence(either_engine, parties)
    # A third one contradicts both.
    await submit(intake, other(parties, second))
    require_evidence(either_engine, parties, found=3)


async def test_a_commitment_is_compared_with_one_that_was_decided(
    either_engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    engine = either_engine
    intake = taking(engine, parties)
    await submit(intake, receipts[0])
    found = bundle()
    found.receipt.CopyFrom(receipts[0])
    assert decided(engine, took(engine), found)
    await submit(intake, other(parties, receipts[0]))
    require_evidence(engine, parties)


async def test_two_commitments_that_come_to_two_processes_at_once_are_evidence(
    either_engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    second = open_engine(either_engine.url.render_as_string(hide_password=False))
    try:
        here, there = taking(either_engine, parties), taking(second, parties)
        for receipt in receipts:
            await asyncio.gather(submit(here, receipt), submit(there, other(parties, receipt)))
    finally:
        second.dispose()
    assert rows(either_engine) == 2 * len(receipts)
    require_evidence(either_engine, parties, found=len(receipts))


async def test_what_a_crash_explains_is_no_evidence(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    intake = taking(engine, parties)
    await submit(intake, receipts[0], other(parties, receipts[0], crash))
    assert rows(engine) == 2
    require_evidence(engine, parties, found=0)

    def lie(statement: statements_pb2.Commitment) -> None:
        crash(statement)
        statement.model = "another model"

    await submit(intake, other(parties, receipts[0], lie))
    require_evidence(engine, parties, found=2)


async def test_one_commitment_that_was_signed_twice_is_no_evidence(
    engine: Engine, parties: Parties, receipts: list[receipt_pb2.Receipt]
) -> None:
    again = receipt_pb2.Receipt()
    again.CopyFrom(receipts[0])
    again.answer += b" "
    intake = taking(engine, parties)
    await submit(intake, receipts[0], again)
    assert rows(engine) == 2
    require_evidence(engine, parties, found=0)
