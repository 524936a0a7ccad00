"""Claims on audits: one worker each, leases, budgets, progress, verdicts that stand."""

from __future__ import annotations

import threading
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
    submission,
    submit,
    took,
)
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.store import reading
from verifier_sdk.store.claims import (
    Budget,
    announce_again,
    announce_due,
    claim_next,
    claim_this,
    extend,
    give_up,
    keep_progress,
    postpone,
)
from verifier_sdk.store.clock import DAY_SECONDS, database_time
from verifier_sdk.store.reading import backlog, failed_share, find_audit, find_bundle
from verifier_sdk.store.submissions import ask_for
from verifier_sdk.store.tables import AUDIT, DECIDED, ERROR, FILE, QUEUED, RUNNING, SUBMITTED
from verifier_sdk.store.verdicts import decide


def test_receipts_are_kept_once(either_engine: Engine) -> None:
    engine = either_engine
    assert submit(engine, submission(1), submission(2, drawn=None)) == [QUEUED, SUBMITTED]
    assert submit(engine, submission(1), submission(3)) == [QUEUED, QUEUED]
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(AUDIT)).scalar() == 3
        assert connection.execute(select(func.count()).select_from(FILE)).scalar() == 3
        assert connection.execute(select(func.count()).select_from(ENTRY)).scalar() == 3


def test_the_greatest_priority_comes_first_then_the_oldest(either_engine: Engine) -> None:
    engine = either_engine
    for number, priority in ((1, 5), (2, 50), (3, 5), (4, 1000)):
        submit(engine, submission(number, priority=priority))
    order = [took(engine).audit_id for _ in range(4)]
    assert order == [submission(number).audit_id for number in (4, 2, 1, 3)]
    assert claim_next(engine, lease()) is None


def test_what_is_kept_only_is_not_audited_until_it_is_asked_for(either_engine: Engine) -> None:
    engine = either_engine
    submit(engine, submission(1, drawn=None))
    assert claim_next(engine, lease()) is None
    assert ask_for(engine, submission(1).audit_id, priority=1000)
    assert not ask_for(engine, bytes(32), priority=1000)
    assert took(engine).audit_id == submission(1).audit_id
    # Asking again while it runs changes nothing.
    assert ask_for(engine, submission(1).audit_id, priority=1000)
    assert claim_next(engine, lease("other")) is None


def test_no_two_workers_take_one_audit(either_engine: Engine) -> None:
    engine = either_engine
    submit(engine, *(submission(number) for number in range(60)))
    found: list[bytes] = []

    def work(name: str) -> None:
        while (claim := claim_next(engine, lease(name))) is not None:
            found.append(claim.audit_id)

    threads = [threading.Thread(target=work, args=(f"worker {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 60


def test_an_audit_that_is_held_is_nobody_elses_until_the_lease_ends(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = either_engine
    submit(engine, submission(1))
    first = took(engine, "first")
    assert claim_next(engine, lease("second")) is None
    with clock(monkeypatch, ahead=29):
        assert extend(engine, first, lease("first"))
    with clock(monkeypatch, ahead=31):
        assert claim_next(engine, lease("second")) is None
    with clock(monkeypatch, ahead=60):
        second = took(engine, "second")
    assert second.attempts == 2
    assert not extend(engine, first, lease("first"))
    assert not keep_progress(engine, first, lease("first"), b"late")
    assert keep_progress(engine, second, lease("second"), b"progress")
    with clock(monkeypatch, ahead=120):
        assert took(engine, "third").progress == b"progress"


def test_an_audit_of_ones_own_that_ran_out_is_not_held_by_an_earlier_claim(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(engine, submission(1))
    first = took(engine, "worker")
    with clock(monkeypatch, ahead=31):
        again = took(engine, "worker")
    assert not keep_progress(engine, first, lease("worker"), b"of the first")
    assert keep_progress(engine, again, lease("worker"), b"of the second")


def test_what_is_put_off_comes_up_when_it_is_due(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = either_engine
    submit(engine, submission(1))
    claim = took(engine)
    postpone(engine, claim, lease(), seconds=60, failure="the provider is away")
    row = find_audit(engine, claim.audit_id)
    assert row is not None
    assert (row.state, row.failure, row.claimed_by) == (QUEUED, "the provider is away", None)
    assert claim_next(engine, lease()) is None
    # It is announced when it is due, so that nothing is to do before.
    assert claim_this(engine, claim.audit_id, lease()) is None
    with clock(monkeypatch, ahead=57):
        left = claim_this(engine, claim.audit_id, lease())
        assert isinstance(left, float)
        assert 1 <= left <= 3
    with clock(monkeypatch, ahead=61):
        assert took(engine).attempts == 2


def test_what_is_given_up_can_be_asked_for_again(either_engine: Engine) -> None:
    engine = either_engine
    submit(engine, submission(1))
    claim = took(engine)
    give_up(engine, claim, lease(), failure="no" * 2000)
    row = find_audit(engine, claim.audit_id)
    assert row is not None
    assert (row.state, len(row.failure)) == (ERROR, 1000)
    assert claim_this(engine, claim.audit_id, lease()) is None
    assert ask_for(engine, claim.audit_id, priority=1000)
    assert took(engine).attempts == 1


def test_the_first_verdict_stands(either_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = either_engine
    submit(engine, submission(1))
    first = took(engine, "first")
    with clock(monkeypatch, ahead=31):
        second = took(engine, "second")
    # Whose lease ran out may still be the first to decide.
    assert decided(engine, first, bundle(receipt_pb2.OUTCOME_PASS))
    assert not decided(engine, second, bundle(receipt_pb2.OUTCOME_FAIL))
    row = find_audit(engine, first.audit_id)
    assert row is not None
    assert (row.state, row.outcome) == (DECIDED, receipt_pb2.OUTCOME_PASS)
    assert find_bundle(engine, first.audit_id) == bundle().SerializeToString()
    with engine.connect() as connection:
        # One for the commitment, one for the verdict.
        assert connection.execute(select(func.count()).select_from(ENTRY)).scalar() == 2
        file = connection.execute(select(FILE)).one()
    assert (file.receipt, file.progress) == (None, None)
    assert claim_next(engine, lease()) is None
    assert claim_this(engine, first.audit_id, lease()) is None


def test_nothing_of_a_verdict_is_kept_where_remembering_fails(either_engine: Engine) -> None:
    engine = either_engine
    submit(engine, submission(1))
    claim = took(engine)

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide(engine, claim, bundle(), worker="w", weigher=WEIGHER, remember=fail)
    row = find_audit(engine, claim.audit_id)
    assert row is not None
    assert row.state == RUNNING
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(ENTRY)).scalar() == 1


def test_a_days_budget_is_kept_and_the_rest_waits_for_tomorrow(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = either_engine
    submit(engine, *(submission(number) for number in range(4)))
    submit(engine, *(submission(number, provider="other") for number in range(10, 12)))
    budget = {"budgets": {"acme": Budget(2, 2)}, "default_budget": None}
    names = []
    while (claim := claim_next(engine, lease("worker", **budget))) is not None:
        names.append(claim.provider)
    assert sorted(names) == ["acme", "acme", "other", "other"]
    with clock(monkeypatch, ahead=DAY_SECONDS):
        again = [claim_next(engine, lease("late", seconds=1e6, **budget)) for _ in range(9)]
    # Those of today that were never decided, and two of tomorrow's.
    assert sum(claim is not None and claim.attempts == 1 for claim in again) == 2


def test_what_was_asked_for_leaves_those_drawn_at_random_their_part_of_the_day(
    either_engine: Engine,
) -> None:
    engine = either_engine
    submit(engine, *(submission(number, drawn=None) for number in range(10)))
    submit(engine, *(submission(number, drawn="risk", priority=40) for number in range(10, 20)))
    for number in range(10):
        assert ask_for(engine, submission(number).audit_id, priority=1000)
    budget: dict[str, Any] = {"budgets": {"acme": Budget(6, 3)}, "default_budget": None}
    begun = 0
    while claim_next(engine, lease(**budget)) is not None:
        begun += 1
    assert begun == 3
    # Of those drawn at random as many come as the day has left, though the others were first.
    submit(engine, *(submission(number) for number in range(20, 30)))
    drawn = [took(engine, **budget).audit_id for _ in range(3)]
    assert {*drawn} <= {submission(number).audit_id for number in range(20, 30)}
    assert claim_next(engine, lease(**budget)) is None
    assert backlog(engine).later == 7 + 10 + 7


def test_those_drawn_at_random_may_use_the_whole_day(engine: Engine) -> None:
    submit(engine, *(submission(number) for number in range(5)))
    budget: dict[str, Any] = {"budgets": {"acme": Budget(4, 0)}, "default_budget": None}
    for _ in range(4):
        took(engine, **budget)
    assert claim_next(engine, lease(**budget)) is None


@pytest.mark.parametrize(
    ("audits", "share", "chosen"),
    [(10, 0.5, 5), (1, 0.5, 1), (3, 0.5, 2), (9, 0.0, 0), (9, 1.0, 9)],
)
def test_the_part_of_the_chosen_is_rounded_up(audits: int, share: float, chosen: int) -> None:
    assert Budget.of(audits, share) == Budget(audits, chosen)
    assert Budget.of(None, share) is None


def test_a_further_attempt_costs_no_budget(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(engine, submission(1))
    budget: dict[str, Any] = {"budgets": {"acme": Budget(1, 1)}, "default_budget": Budget(0, 0)}
    claim = took(engine, **budget)
    postpone(engine, claim, lease(), seconds=1, failure="away")
    with clock(monkeypatch, ahead=2):
        assert took(engine, **budget).attempts == 2


def test_only_sessions_drawn_at_random_are_weighed_and_each_request_once(
    either_engine: Engine,
) -> None:
    engine = either_engine
    request = {"request_sha256": bytes(32)}
    submit(engine, submission(1), submission(2, drawn="risk"))
    submit(engine, submission(3, **request), submission(4, **request))
    evidence = []
    for _ in range(4):
        claim = took(engine)
        assert decided(engine, claim, bundle(p_value=0.01))
        row = find_audit(engine, claim.audit_id)
        assert row is not None
        evidence.append(row.log_evidence)
    first, risky, third, repeated = evidence
    assert risky is None
    assert repeated is None
    assert 0 < first < third
    judge = WEIGHER.judge
    once = judge.update(judge.start(), 0.01)
    assert third == pytest.approx(judge.update(once, 0.01).log_value)


def test_an_audit_without_a_p_value_is_not_weighed(engine: Engine) -> None:
    submit(engine, submission(1), submission(2))
    for weigher, p_value in ((WEIGHER, None), (None, 0.01)):
        claim = took(engine)
        assert decided(engine, claim, bundle(p_value=p_value), weigher)
        row = find_audit(engine, claim.audit_id)
        assert row is not None
        assert row.log_evidence is None


def test_what_is_due_is_announced_once_until_it_is_lost(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = either_engine
    submit(engine, submission(1), submission(2, priority=50), submission(3, drawn=None))
    wanted = [(submission(2).audit_id, 50), (submission(1).audit_id, 10)]
    assert announce_due(engine, seconds=600, most=10) == wanted
    assert announce_due(engine, seconds=600, most=10) == []
    announce_again(engine, [submission(1).audit_id])
    assert announce_due(engine, seconds=600, most=10) == wanted[1:]
    with clock(monkeypatch, ahead=601):
        assert len(announce_due(engine, seconds=600, most=1)) == 1


def test_the_backlog_counts_what_waits(either_engine: Engine) -> None:
    engine = either_engine
    assert backlog(engine).oldest_seconds == 0
    submit(engine, submission(1), submission(2), submission(3, drawn=None))
    took(engine)
    with engine.begin() as connection:
        connection.execute(update(AUDIT).values(due_at=AUDIT.c.due_at - 100))
    found = backlog(engine)
    assert (found.queued, found.later, found.running) == (1, 0, 1)
    assert 100 <= found.oldest_seconds < 160


def test_what_a_budget_puts_off_is_not_late(
    either_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = either_engine
    with engine.connect() as connection:
        now = database_time(connection)
    midnight = (now // DAY_SECONDS + 1) * DAY_SECONDS
    submit(engine, *(submission(number) for number in range(3)))
    budget: dict[str, Any] = {"budgets": {"acme": Budget(1, 1)}, "default_budget": None}
    took(engine, **budget)
    assert claim_next(engine, lease(**budget)) is None
    found = backlog(engine)
    assert (found.queued, found.later, found.oldest_seconds) == (2, 2, 0)
    # Nor in the first minute of the day that they were put off to.
    monkeypatch.setattr(reading, "database_time", lambda _: midnight + 60)
    found = backlog(engine)
    assert found.later == 0
    assert found.oldest_seconds == pytest.approx(60)


def test_the_record_of_a_provider_is_its_share_of_failures(engine: Engine) -> None:
    assert failed_share(engine, "acme") == 0.0
    submit(engine, *(submission(number) for number in range(4)))
    for outcome in (receipt_pb2.OUTCOME_FAIL, *[receipt_pb2.OUTCOME_PASS] * 3):
        decided(engine, took(engine), bundle(outcome))
    assert failed_share(engine, "acme") == 0.25
    assert failed_share(engine, "other") == 0.0
