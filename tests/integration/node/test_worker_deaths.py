"""Workers that die, or are away, or are told to stop: each audit has one verdict all the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from coin_protocol import transport
from coin_protocol.v1 import profile_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from provider_sdk.provider import Provider
from tests.support.parties import (
    WAIT_SECONDS,
    easy,
    reasoning_ids,
    run_session,
    small_policy,
)
from tests.support.servers import Opening, misbehaving
from tests.support.workers import (
    PASS,
    Honest,
    Interrupted,
    Node,
    as_without_crash,
    exposed,
)
from verifier_sdk.node import worker as worker_module
from verifier_sdk.store.reading import find_bundle
from verifier_sdk.store.tables import DECIDED, QUEUED, RUNNING


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
