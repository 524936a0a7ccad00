"""A worker makes each audit to one verdict, whatever becomes of provider, store and itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import Engine, Row, func, select, text

from coin_protocol import transport
from coin_protocol.database.engine import reading
from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    StoreUnavailableError,
)
from coin_protocol.keyset import stamp
from coin_protocol.profile import Policy
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import profile_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from provider_sdk.provider import Provider
from tests.support.audits import bear_out, verdict_of
from tests.support.nodes import NodeParts, lease, node_database
from tests.support.parties import (
    PROVIDER,
    VERIFIER,
    WAIT_SECONDS,
    Parties,
    Reply,
    easy,
    reasoning_ids,
    run_session,
    small_policy,
)
from tests.support.servers import Opening, misbehaving, serving
from verifier_sdk.client import ProviderClient
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.node import worker as worker_module
from verifier_sdk.node.intake import Intake
from verifier_sdk.node.queues import DatabaseQueue
from verifier_sdk.node.worker import Target, Worker
from verifier_sdk.semantic import Judge, Judgement, OpenedEvidence
from verifier_sdk.store.claims import claim_next, keep_progress, postpone
from verifier_sdk.store.reading import find_audit, find_bundle
from verifier_sdk.store.tables import DECIDED, ERROR, QUEUED, RUNNING
from verifier_sdk.store.verdicts import decide

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
LEASE_SECONDS = 1.0
LOOK_SECONDS = 0.02

Honest = Callable[[], Awaitable[Opening]]


@dataclass
class Seen:
    """A `NodeObserver` that remembers."""

    verdicts: list[receipt_pb2.Verdict] = field(default_factory=list)
    failures: list[tuple[str, bool]] = field(default_factory=list)
    failed_once: asyncio.Event = field(default_factory=asyncio.Event)

    def decided(self, provider: str, verdict: receipt_pb2.Verdict, seconds: float) -> None:
        """Remember a verdict."""
        assert provider == PROVIDER
        assert seconds >= 0
        self.verdicts.append(verdict)

    def failed(self, provider: str, error: str, *, final: bool) -> None:
        """Remember a failure."""
        assert provider == PROVIDER
        self.failures.append((error, final))
        self.failed_once.set()


@dataclass
class Node:
    """A node's database, and workers over it."""

    parties: Parties
    engine: Engine
    seen: Seen = field(default_factory=Seen)

    async def submit(self, *replies: Reply) -> list[bytes]:
        """Hand receipts in; return the ids of their audits."""
        intake = Intake(
            self.engine,
            NodeParts(self.parties, self.engine, "").providers,
            secret=bytes(32),
            block_size=self.parties.profile.block_size,
            failed_share=lambda _: 0.0,
        )
        kept = await asyncio.gather(
            *(intake.keep(intake.prepare(reply.receipt, "")) for reply in replies)
        )
        return [one.audit_id for one in kept]

    @asynccontextmanager
    async def working(
        self,
        target: str,
        *,
        name: str = "worker",
        pauses: tuple[float, ...] = (),
        call_seconds: float = WAIT_SECONDS,
        stop: asyncio.Event | None = None,
        knows: str = PROVIDER,
        **auditor: Any,
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Run a worker until the block ends; give its task."""
        stop = stop or asyncio.Event()
        bell = asyncio.Event()
        async with ProviderClient(target, tls=None, timeout=call_seconds) as client:
            worker = Worker(
                self.engine,
                DatabaseQueue(self.engine, bell, poll_seconds=LOOK_SECONDS),
                {knows: Target(self.parties.auditor(**auditor), client)},
                lease(name, seconds=LEASE_SECONDS),
                observer=self.seen,
                weigher=None,
                remember=lambda _name, _bundle: lambda _: None,
                pauses=pauses,
            )
            task = asyncio.create_task(worker.run(stop))
            try:
                yield task
            finally:
                stop.set()
                await asyncio.wait([task], timeout=WAIT_SECONDS)

    def row(self, audit_id: bytes) -> Row[Any]:
        """Return an audit as it stands."""
        row = find_audit(self.engine, audit_id)
        assert row is not None
        return row

    async def reach(self, audit_id: bytes, *states: str) -> Row[Any]:
        """Wait until an audit is in one of these states."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                # A connection that is ended under this look is no finding.
                with suppress(StoreUnavailableError):
                    row = await asyncio.to_thread(self.row, audit_id)
                    if row.state in states:
                        return row
                await asyncio.sleep(LOOK_SECONDS)

    async def verdict(self, audit_id: bytes, policy: Policy | None = None) -> receipt_pb2.Verdict:
        """Wait for the verdict; check its bundle, and that it stands in the log once."""
        await self.reach(audit_id, DECIDED)
        raw = find_bundle(self.engine, audit_id)
        assert raw is not None
        bundle = receipt_pb2.Bundle.FromString(raw)
        bear_out(self.parties, bundle, policy or self.parties.policy)
        assert self.entries() == 2, "one for the commitment, one for the verdict"
        return verdict_of(bundle)

    def entries(self) -> int:
        """Return how many entries the log has."""
        with reading(self.engine) as connection:
            return int(connection.execute(select(func.count()).select_from(ENTRY)).scalar_one())


@pytest.fixture
def node(parties: Parties, engine: Engine) -> Node:
    """A node over SQLite."""
    return Node(parties, engine)


@pytest.fixture
def either_node(parties: Parties, either_engine: Engine) -> Node:
    """A node over SQLite and over PostgreSQL."""
    return Node(parties, either_engine)


def exposed(reply: Reply) -> receipt_pb2.Exposure:
    """Return what the provider has opened of a reply, by its own ledger."""
    return reply.session.provider.store.get(reply.commitment_sha256).ledger.exposure()


def as_without_crash(verdict: receipt_pb2.Verdict, reply: Reply) -> None:
    """Check that a verdict is that of an audit which nothing disturbed."""
    assert verdict.outcome == PASS
    assert all(check.status != receipt_pb2.CHECK_STATUS_FAILED for check in verdict.checks)
    assert verdict.exposure == exposed(reply)


# Providers


async def test_a_provider_that_answers_is_decided_at_once(
    either_node: Node, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "verifier_sdk.node")
    reply = run_session(provider)
    (audit_id,) = await either_node.submit(reply)
    async with serving(provider) as target, either_node.working(target):
        as_without_crash(await either_node.verdict(audit_id), reply)
    row = either_node.row(audit_id)
    assert (row.attempts, row.outcome, row.claimed_by) == (1, PASS, None)
    assert [verdict.outcome for verdict in either_node.seen.verdicts] == [PASS]
    assert either_node.seen.failures == []
    (told,) = [vars(one) for one in caplog.records if one.message == "audit decided"]
    assert told["audit"] == audit_id.hex()
    assert (told["provider"], told["outcome"], told["check"]) == (PROVIDER, "pass", None)


async def test_a_provider_that_is_away_is_asked_again_after_each_pause_and_then_accused_of_nothing(
    node: Node, provider: Provider
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target:
        pass
    (audit_id,) = await node.submit(reply)
    pauses = 0.3, 0.6
    began = asyncio.get_running_loop().time()
    async with node.working(target, pauses=pauses, call_seconds=0.3):
        row = await node.reach(audit_id, QUEUED)
        verdict = await node.verdict(audit_id)
    assert asyncio.get_running_loop().time() - began >= sum(pauses)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert node.row(audit_id).attempts == 3
    assert node.seen.failures == [("PeerUnavailableError", False)] * 2
    assert row.failure is None or "UNAVAILABLE" in row.failure


async def test_a_provider_that_comes_back_is_audited_after_the_pause(
    node: Node, provider: Provider
) -> None:
    away = True

    async def answer(honest: Honest, _: object, context: transport.Context) -> Opening:
        if away:
            await transport.abort(context, grpc.StatusCode.UNAVAILABLE, "restarting")
        return await honest()

    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    async with (
        misbehaving(provider, answer=answer) as target,
        node.working(target, pauses=(0.2, 0.2, 0.2), call_seconds=0.5),
    ):
        async with asyncio.timeout(WAIT_SECONDS):
            await node.seen.failed_once.wait()
        away = False
        as_without_crash(await node.verdict(audit_id), reply)
    assert node.row(audit_id).attempts >= 2


async def _refuse(_: Honest, __: object, context: transport.Context) -> Opening:
    await transport.abort(context, grpc.StatusCode.INTERNAL, "not today")


async def _hang(honest: Honest, *_: object) -> Opening:
    await asyncio.Event().wait()
    return await honest()


@pytest.mark.parametrize("answer", [_refuse, _hang], ids=["refuses", "hangs"])
async def test_a_provider_that_does_not_answer_fails_at_the_first_attempt(
    node: Node, provider: Provider, answer: Any
) -> None:
    (audit_id,) = await node.submit(run_session(provider))
    async with (
        misbehaving(provider, answer=answer) as target,
        node.working(target, pauses=(60.0,), call_seconds=0.5),
    ):
        assert (await node.verdict(audit_id)).outcome == FAIL
    row = node.row(audit_id)
    assert (row.failed_check, row.fault) == ("OPENING_PRESENT", receipt_pb2.FAULT_PROVIDER)
    assert row.attempts == 1


# Workers that die


@dataclass
class Interrupted:
    """Answers each challenge, but keeps back what it answers to the first ones."""

    kept_back: int = 1
    sent: list[bytes] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(
        self, honest: Honest, request: pb.AnswerChallengeRequest, context: transport.Context
    ) -> Opening:
        """Answer."""
        del context
        self.sent.append(request.challenge.payload)
        opening = await honest()
        if len(self.sent) <= self.kept_back:
            self.reached.set()
            await asyncio.Event().wait()
        return opening


async def killed(node: Node, target: str, answer: Interrupted, **auditor: Any) -> None:
    """Run a worker that dies while its challenge is out: it has written nothing since."""
    async with node.working(target, name="dies", **auditor) as task:
        async with asyncio.timeout(WAIT_SECONDS):
            await answer.reached.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_the_challenge_of_a_worker_that_died_is_sent_again(
    either_node: Node, provider: Provider
) -> None:
    node, answer = either_node, Interrupted()
    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    async with misbehaving(provider, answer=answer) as target:
        await killed(node, target, answer)
        assert node.row(audit_id).state == RUNNING
        spent = exposed(reply)
        async with node.working(target, name="lives"):
            verdict = await node.verdict(audit_id)
    assert len(answer.sent) == 2
    assert answer.sent[0] == answer.sent[1]
    assert verdict.exposure.tokens == spent.tokens == exposed(reply).tokens
    as_without_crash(verdict, reply)
    assert node.row(audit_id).attempts == 2


async def test_workers_that_die_one_after_another_spend_no_more(
    node: Node, provider: Provider
) -> None:
    answer = Interrupted(kept_back=3)
    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    async with misbehaving(provider, answer=answer) as target:
        for _ in range(3):
            answer.reached.clear()
            await killed(node, target, answer)
        async with node.working(target, name="lives"):
            as_without_crash(await node.verdict(audit_id), reply)
    assert len(answer.sent) == 4
    assert len(set(answer.sent)) == 1


async def test_a_challenge_that_is_too_old_is_not_sent_again_and_nobody_accused(
    node: Node, provider: Provider
) -> None:
    def hurried(policy: profile_pb2.Policy) -> None:
        easy(policy)
        policy.challenge_deadline.FromSeconds(2)
        policy.rounds.blocks_first_round, policy.rounds.whole_blocks = 2, 0
        policy.rounds.token_blocks_first_round = 0

    policy, answer = small_policy(hurried), Interrupted()
    reply = run_session(provider, reasoning_ids(400))
    (audit_id,) = await node.submit(reply)
    async with misbehaving(provider, answer=answer) as target:
        await killed(node, target, answer, policy=policy)
        # The lease, and then more than half of what the challenge gave, is over.
        await asyncio.sleep(1.2)
        async with node.working(target, name="lives", policy=policy):
            verdict = await node.verdict(audit_id, policy)
    assert len(set(answer.sent)) == 2
    assert verdict.outcome == PASS
    assert verdict.exposure.tokens < exposed(reply).tokens


async def test_a_worker_that_was_away_for_longer_than_its_lease_changes_nothing(
    node: Node, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, reached = asyncio.Event(), asyncio.Event()
    sent: list[bytes] = []

    async def answer(
        honest: Honest, request: pb.AnswerChallengeRequest, _: transport.Context
    ) -> Opening:
        sent.append(request.challenge.payload)
        opening = await honest()
        if len(sent) == 1:
            reached.set()
            await go.wait()
        return opening

    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    # It shows no sign of life, as if its loop were blocked.
    monkeypatch.setattr(worker_module, "extend", lambda *_: False)
    async with (
        misbehaving(provider, answer=answer) as target,
        node.working(target, name="away"),
    ):
        await reached.wait()
        async with node.working(target, name="other"):
            verdict = await node.verdict(audit_id)
            bundle = find_bundle(node.engine, audit_id)
        go.set()
    as_without_crash(verdict, reply)
    assert len(set(sent)) == 1
    assert find_bundle(node.engine, audit_id) == bundle
    assert node.entries() == 2
    assert len(node.seen.verdicts) == 1
    assert node.seen.failures == []


async def test_a_worker_that_is_told_to_stop_finishes_what_it_has(
    node: Node, provider: Provider
) -> None:
    go, reached, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(honest: Honest, *_: object) -> Opening:
        reached.set()
        await go.wait()
        return await honest()

    ids = await node.submit(run_session(provider), run_session(provider))
    async with (
        misbehaving(provider, answer=answer) as target,
        node.working(target, stop=stop) as task,
    ):
        await reached.wait()
        stop.set()
        go.set()
        await task
    assert sorted(node.row(one).state for one in ids) == [DECIDED, QUEUED]


# Stores that go away


STORE: dict[str, Callable[..., Any]] = {"keep_progress": keep_progress, "decide": decide}


@dataclass
class Flaky:
    """Stands before a function of the store: fails at first, before or after it has worked."""

    function: Callable[..., Any]
    failures: int
    after: bool = False
    calls: int = 0

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Call, or fail."""
        self.calls += 1
        if self.calls > self.failures:
            return self.function(*args, **named)
        if self.after:
            self.function(*args, **named)
        msg = "the database does not answer"
        raise StoreUnavailableError(msg)


@pytest.mark.parametrize(
    ("name", "after"),
    [("keep_progress", False), ("keep_progress", True), ("decide", False), ("decide", True)],
    ids=["progress", "progress that came through", "verdict", "verdict that came through"],
)
async def test_a_store_that_is_away_for_a_moment_costs_nothing(
    node: Node,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    after: bool,
) -> None:
    flaky = Flaky(STORE[name], failures=2, after=after)
    monkeypatch.setattr(worker_module, name, flaky)
    answer = Interrupted(kept_back=0)
    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    async with misbehaving(provider, answer=answer) as target, node.working(target):
        as_without_crash(await node.verdict(audit_id), reply)
    assert flaky.calls > 2
    assert len(answer.sent) == 1
    assert node.row(audit_id).attempts == 1


@pytest.mark.parametrize("name", ["keep_progress", "decide"])
async def test_a_store_that_is_away_for_longer_than_a_lease_has_the_audit_made_later(
    node: Node, provider: Provider, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    flaky = Flaky(STORE[name], failures=round(LEASE_SECONDS / 0.2) + 1)
    monkeypatch.setattr(worker_module, name, flaky)
    # Nor can a sign of life be written.
    monkeypatch.setattr(worker_module, "extend", Flaky(lambda *_: True, failures=1_000_000))
    answer = Interrupted(kept_back=0)
    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    async with misbehaving(provider, answer=answer) as target, node.working(target):
        as_without_crash(await node.verdict(audit_id), reply)
    assert node.row(audit_id).attempts == 2
    # What was opened was written down, or nothing was asked: not once more in any case.
    assert len(set(answer.sent)) == 1
    assert node.seen.failures == []


async def test_connections_that_the_database_ends_cost_nothing(
    parties: Parties, provider: Provider, tmp_path: Path
) -> None:
    with node_database("postgresql", tmp_path) as engine:
        node = Node(parties, engine)

        def end_connections() -> None:
            with engine.connect() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )

        sent: list[bytes] = []

        async def answer(
            honest: Honest, request: pb.AnswerChallengeRequest, _: transport.Context
        ) -> Opening:
            sent.append(request.challenge.payload)
            await asyncio.to_thread(end_connections)
            return await honest()

        replies = [run_session(provider) for _ in range(5)]
        ids = await node.submit(*replies)
        async with misbehaving(provider, answer=answer) as target, node.working(target):
            for audit_id in ids:
                assert (await node.reach(audit_id, DECIDED)).outcome == PASS
        assert node.entries() == 2 * len(ids)
        assert len(sent) == len(ids)


async def test_a_queue_that_fails_is_asked_again(
    node: Node, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_AWAY_SECONDS", LOOK_SECONDS)
    errors: list[Exception] = [StoreUnavailableError("away"), ZeroDivisionError("a bug")]

    def take(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return claim_next(*args)

    monkeypatch.setattr("verifier_sdk.node.queues.claim_next", take)
    (audit_id,) = await node.submit(run_session(provider))
    async with serving(provider) as target, node.working(target):
        assert (await node.verdict(audit_id)).outcome == PASS


# Errors of the node's own


class Failing:
    """A judge that fails, for so many times or always."""

    def __init__(self, judge: Judge, error: Exception, times: int = 1_000_000) -> None:
        self._judge = judge
        self._error = error
        self._left = times

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Fail, or judge."""
        self._left -= 1
        if self._left >= 0:
            raise self._error
        return self._judge.judge(evidence)


def judge_of(node: Node) -> Judge:
    """Return the judge of the node's policy."""
    return NodeParts(node.parties, node.engine, "").bench.judge


@pytest.mark.parametrize(
    "error",
    [ConfigurationError("no model in /home/me"), ZeroDivisionError("the secret is 42")],
    ids=["configuration", "bug"],
)
async def test_an_error_of_the_nodes_own_is_retried_and_then_given_up_in_words_that_tell_nothing(
    node: Node, provider: Provider, error: Exception
) -> None:
    (audit_id,) = await node.submit(run_session(provider))
    judge = Failing(judge_of(node), error)
    async with serving(provider) as target, node.working(target, pauses=(0.05,) * 2, judge=judge):
        row = await node.reach(audit_id, ERROR)
    assert row.attempts == 3
    assert node.seen.failures == [
        (type(error).__name__, False),
        (type(error).__name__, False),
        (type(error).__name__, True),
    ]
    for secret in ("42", "/home", "Zero", "secret"):
        assert secret not in row.failure
    assert row.outcome is None
    assert node.entries() == 1


async def test_an_error_that_passes_leaves_the_verdict_that_there_would_have_been(
    node: Node, provider: Provider
) -> None:
    answer = Interrupted(kept_back=0)
    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    judge = Failing(judge_of(node), ZeroDivisionError("passing"), times=2)
    async with (
        misbehaving(provider, answer=answer) as target,
        node.working(target, pauses=(0.05,) * 3, judge=judge),
    ):
        as_without_crash(await node.verdict(audit_id), reply)
    # What was opened before the error was written down.
    assert len(answer.sent) == 1


async def test_a_provider_that_this_worker_does_not_know_is_the_nodes_own_error(
    node: Node, provider: Provider
) -> None:
    (audit_id,) = await node.submit(run_session(provider))
    async with node.working("127.0.0.1:1", pauses=(0.05,), knows="another"):
        row = await node.reach(audit_id, ERROR)
    assert (row.attempts, PROVIDER in row.failure) == (2, False)
    assert node.seen.failures == [("ConfigurationError", False), ("ConfigurationError", True)]


async def test_a_receipt_that_cannot_be_audited_is_given_up_with_the_reason(
    node: Node, provider: Provider
) -> None:
    (audit_id,) = await node.submit(run_session(provider))
    answer = Interrupted(kept_back=0)
    judge = Failing(judge_of(node), InvalidInputError("the receipt's clock is broken"))
    async with (
        misbehaving(provider, answer=answer) as target,
        node.working(target, pauses=(60.0,) * 6, judge=judge),
    ):
        row = await node.reach(audit_id, ERROR)
    assert row.failure == "the receipt's clock is broken"
    assert row.attempts == 2
    assert len(answer.sent) == 1


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "pending"])
async def test_progress_that_cannot_be_used_is_left_out(
    node: Node, provider: Provider, *, answered: bool
) -> None:
    reply = run_session(provider)
    (audit_id,) = await node.submit(reply)
    manifest, fingerprints = reply.ready()
    former = KeySigner.generate(VERIFIER)
    entry = receipt_pb2.Round(
        challenge=node.parties.challenge(fingerprints, signer=former),
        sent_at=stamp(datetime.now(UTC)),
    )
    if answered:
        entry.received_at.CopyFrom(stamp(datetime.now(UTC) + timedelta(seconds=1)))
        entry.no_answer = "UNKNOWN"
    progress = receipt_pb2.Bundle(
        format="coin.bundle.v1", receipt=reply.receipt, manifest=manifest, rounds=[entry]
    )
    progress.receipt.fingerprints.CopyFrom(fingerprints)
    claim = claim_next(node.engine, lease())
    assert claim is not None
    assert keep_progress(node.engine, claim, lease(), progress.SerializeToString())
    postpone(node.engine, claim, lease(), seconds=0, failure="the key was changed")
    async with serving(provider) as target, node.working(target, pauses=(60.0,) * 6):
        as_without_crash(await node.verdict(audit_id), reply)
    assert node.row(audit_id).attempts == 2


async def test_a_challenge_that_left_too_late_is_asked_again(
    node: Node, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hurried(policy: profile_pb2.Policy) -> None:
        easy(policy)
        policy.challenge_deadline.FromSeconds(1)
        policy.rounds.blocks_first_round, policy.rounds.whole_blocks = 2, 0
        policy.rounds.token_blocks_first_round = 0

    slow = [0.6]

    def keep(*args: Any) -> bool:
        # The database takes its time, once the challenge is made.
        time.sleep(slow.pop() if slow else 0.0)
        return keep_progress(*args)

    monkeypatch.setattr(worker_module, "keep_progress", keep)
    policy = small_policy(hurried)
    (audit_id,) = await node.submit(run_session(provider, reasoning_ids(400)))
    async with serving(provider) as target, node.working(target, pauses=(5.0,) * 3, policy=policy):
        verdict = await node.verdict(audit_id, policy)
    assert verdict.outcome == PASS
    assert node.row(audit_id).attempts == 2
