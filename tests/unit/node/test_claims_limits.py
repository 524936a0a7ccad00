"""Claims where things go wrong: two at once, workers that die again and again, a day's end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from coin_protocol.v1 import receipt_pb2
from tests.support.nodes import lease
from tests.support.submissions import (
    WEIGHER,
    bundle,
    clock,
    decided,
    hand_in,
    submission,
    submit,
    took,
)
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.store.claims import (
    MOST_ATTEMPTS,
    Budget,
    announce_due,
    claim_next,
    claim_this,
    postpone,
)
from verifier_sdk.store.quota import DEFAULT_QUOTA, Refused
from verifier_sdk.store.reading import find_audit
from verifier_sdk.store.submissions import Submission, ask_for, keep
from verifier_sdk.store.tables import (
    AUDIT,
    BY_SHARE,
    ERROR,
    EVIDENCE,
    FILE,
    HANDED_IN,
    PURGED,
    QUEUED,
    STANDING,
)

TOGETHER = 4


def together(*calls: Callable[[], object]) -> None:
    """Run calls at the same time, in threads; what one raises is raised."""
    start = threading.Barrier(len(calls))
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        start.wait()
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def count(engine: Engine, table: Any) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_an_audit_that_ends_its_workers_is_given_up(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = either_engine
    submit(engine, submission(1), submission(2, priority=1))
    with engine.begin() as connection:
        connection.execute(
            update(AUDIT)
            .where(AUDIT.c.audit_id == submission(1).audit_id)
            .values(attempts=MOST_ATTEMPTS - 1)
        )
    assert took(engine).attempts == MOST_ATTEMPTS
    with clock(monkeypatch, ahead=31):
        assert took(engine).audit_id == submission(2).audit_id
        assert claim_this(engine, submission(1).audit_id, lease()) is None
    row = find_audit(engine, submission(1).audit_id)
    assert row is not None
    assert (row.state, row.claimed_by) == (ERROR, None)
    assert "nothing is said of the provider" in row.failure
    assert ask_for(engine, row.audit_id, priority=1000)
    assert took(engine).attempts == 1


def test_threads_that_hand_in_at_once_never_pass_a_quota(either_engine: Engine) -> None:
    engine = either_engine
    quota = replace(DEFAULT_QUOTA, receipts_per_day=50)
    kept: list[object] = []

    def work(first: int) -> None:
        for number in range(first, first + 30, 3):
            batch = [submission(one, submitted_by="greedy") for one in range(number, number + 3)]
            # Somebody else in the same batch, or both would take turns in any order.
            batch.insert(0, submission(number + 1000, submitted_by=f"other {first}"))
            kept.extend(hand_in(engine, quota, *batch))

    together(*(lambda first=100 * number: work(first) for number in range(TOGETHER)))
    with engine.connect() as connection:
        mine = select(func.count()).where(AUDIT.c.submitted_by == "greedy")
        assert connection.execute(mine).scalar() == 50
        counted = select(HANDED_IN.c.receipts).where(HANDED_IN.c.client == "greedy")
        assert sum(connection.execute(counted).scalars()) == 50
    assert sum(isinstance(one, str) for one in kept) == 50 + 10 * TOGETHER
    assert count(engine, ENTRY) == count(engine, FILE) == 50 + 10 * TOGETHER


def test_bytes_are_counted_too(engine: Engine) -> None:
    quota = replace(DEFAULT_QUOTA, bytes_per_day=100)
    batch = [submission(number, receipt=bytes(40)) for number in range(3)]
    first, second, third = hand_in(engine, quota, *batch)
    assert first == second == QUEUED
    assert isinstance(third, Refused)
    assert "100 bytes" in third.why
    # A smaller one still fits.
    assert hand_in(engine, quota, submission(9, receipt=bytes(20))) == [QUEUED]


def test_an_audit_that_waits_comes_earlier_when_somebody_asks(either_engine: Engine) -> None:
    engine = either_engine
    submit(engine, submission(1, priority=50), submission(2, priority=5))
    assert len(announce_due(engine, seconds=600, most=10)) == 2
    asked = submission(2).audit_id
    assert ask_for(engine, asked, priority=1000)
    # The message queue is told once more, for it has another place there.
    assert announce_due(engine, seconds=600, most=10) == [(asked, 1000)]
    assert ask_for(engine, submission(2).audit_id, priority=7)
    row = find_audit(engine, asked)
    assert row is not None
    assert (row.state, row.priority, row.drawn) == (QUEUED, 1000, BY_SHARE)
    assert took(engine).audit_id == asked


def test_an_audit_that_is_put_off_is_not_hurried(
    either_engine: Engine,
) -> None:
    engine = either_engine
    submit(engine, submission(1))
    postpone(engine, took(engine), lease(), seconds=60, failure="away")
    assert ask_for(engine, submission(1).audit_id, priority=1000)
    assert claim_next(engine, lease()) is None


def test_workers_that_end_a_days_budget_at_once_do_not_wait_for_each_other(
    either_engine: Engine,
) -> None:
    engine = either_engine
    submit(engine, *(submission(number) for number in range(200)))
    budget: dict[str, Any] = {"budgets": {"acme": Budget(10, 10)}, "default_budget": None}
    claimed: list[bytes] = []

    def work(name: str) -> None:
        while (claim := claim_next(engine, lease(name, **budget))) is not None:
            claimed.append(claim.audit_id)

    together(*(lambda name=str(number): work(name) for number in range(TOGETHER)))
    assert len(claimed) == len(set(claimed)) == 10
    with engine.connect() as connection:
        put_off = select(func.count()).where(
            AUDIT.c.state == QUEUED, AUDIT.c.announced_at.is_(None)
        )
        assert connection.execute(put_off).scalar() == 190


def test_one_receipt_that_comes_twice_at_once_is_kept_once(either_engine: Engine) -> None:
    engine = either_engine
    same = [submission(number) for number in range(20)]
    together(*(lambda: submit(engine, *same) for _ in range(TOGETHER)))
    assert count(engine, AUDIT) == count(engine, FILE) == count(engine, ENTRY) == 20


def test_batches_that_hold_the_same_sessions_in_another_order_do_not_wait_for_each_other(
    either_engine: Engine,
) -> None:
    engine = either_engine
    some = [submission(number) for number in range(40)]
    together(lambda: submit(engine, *some), lambda: submit(engine, *reversed(some)))
    assert count(engine, AUDIT) == 40


def _two_sessions(**instead: Any) -> list[Submission]:
    return [submission(number, **instead) for number in (1, 2)]


@pytest.mark.parametrize(
    ("instead", "weighed"), [({}, 2), ({"request_sha256": bytes(32)}, 1)], ids=["two", "one twice"]
)
def test_sessions_that_are_decided_at_once_are_weighed_as_if_in_turn(
    either_engine: Engine, instead: dict[str, Any], weighed: int
) -> None:
    engine = either_engine
    submit(engine, *_two_sessions(**instead))
    claimed = [took(engine, str(number)) for number in range(2)]
    assert all(claim is not None for claim in claimed)
    together(
        *(lambda claim=claim: decided(engine, claim, bundle(p_value=0.01)) for claim in claimed)
    )
    with engine.connect() as connection:
        standing = connection.execute(select(STANDING)).one()
        evidence = connection.execute(
            select(func.count()).where(AUDIT.c.log_evidence.is_not(None))
        ).scalar()
    assert (standing.sessions, evidence) == (weighed, weighed)
    assert WEIGHER.judge.from_dict(json.loads(standing.state)).sessions == weighed


def test_what_was_purged_is_not_decided_again(engine: Engine) -> None:
    submit(engine, submission(1))
    claim = took(engine)
    assert decided(engine, claim, bundle())
    with engine.begin() as connection:
        connection.execute(update(AUDIT).values(state=PURGED))
    assert not decided(engine, claim, bundle(receipt_pb2.OUTCOME_FAIL))
    row = find_audit(engine, claim.audit_id)
    assert row is not None
    assert (row.state, row.outcome) == (PURGED, receipt_pb2.OUTCOME_PASS)


def test_receipts_of_one_commitment_are_not_compared_again_and_again(
    either_engine: Engine,
) -> None:
    engine = either_engine
    session: dict[str, Any] = {"session_id": bytes(16)}
    other = submission(2, **session)
    first = submission(1, **session)
    altered = [
        submission(number, commitment_sha256=first.commitment_sha256, leaf=first.leaf, **session)
        for number in range(10, 30)
    ]
    compared: list[tuple[bytes, bytes]] = []

    def conflict(one: bytes, another: bytes) -> None:
        compared.append((one, another))

    for each in (first, other, *altered):
        keep(engine, [each], conflict, quota=replace(DEFAULT_QUOTA, receipts_per_commitment=50))
    assert len(compared) == 1
    assert count(engine, AUDIT) == 22
    assert count(engine, EVIDENCE) == 0
