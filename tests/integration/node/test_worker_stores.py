"""Stores that go away under a worker: each audit has one verdict all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from coin_protocol import transport
from coin_protocol.errors import (
    StoreUnavailableError,
)
from coin_protocol.v1 import provider_service_pb2 as pb
from provider_sdk.provider import Provider
from tests.support.nodes import node_database
from tests.support.parties import (
    Parties,
    run_session,
)
from tests.support.servers import Opening, misbehaving, serving
from tests.support.workers import (
    LEASE_SECONDS,
    LOOK_SECONDS,
    PASS,
    Honest,
    Interrupted,
    Node,
    as_without_crash,
)
from verifier_sdk.node import worker as worker_module
from verifier_sdk.store.claims import claim_next, keep_progress
from verifier_sdk.store.tables import DECIDED
from verifier_sdk.store.verdicts import decide

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
