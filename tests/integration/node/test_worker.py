"""A worker makes each audit to one verdict, whatever becomes of providers and of itself."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from coin_protocol import transport
from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
)
from coin_protocol.keyset import stamp
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import profile_pb2, receipt_pb2
from provider_sdk.provider import Provider
from tests.support.nodes import NodeParts, lease
from tests.support.parties import (
    PROVIDER,
    VERIFIER,
    WAIT_SECONDS,
    easy,
    reasoning_ids,
    run_session,
    small_policy,
)
from tests.support.servers import Opening, misbehaving, serving
from tests.support.workers import (
    FAIL,
    INCONCLUSIVE,
    PASS,
    Honest,
    Interrupted,
    Node,
    as_without_crash,
)
from verifier_sdk.node import worker as worker_module
from verifier_sdk.semantic import Judge, Judgement, OpenedEvidence
from verifier_sdk.store.claims import claim_next, keep_progress, postpone
from verifier_sdk.store.tables import ERROR, QUEUED

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
