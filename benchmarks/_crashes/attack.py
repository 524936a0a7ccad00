"""One run: a node takes receipts, its workers audit them and are killed until all is done."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grpc import aio
from sqlalchemy import Engine, func, select

from benchmarks._crashes.afterwards import Findings, end, look
from benchmarks._crashes.site import build, replies, serving_provider
from benchmarks._faults.children import Child
from coin_protocol.database.engine import open_engine, reading
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from tests.support.parties import Parties, Reply
from verifier_sdk.store.tables import AUDIT, QUEUED, RUNNING

_CALL_SECONDS: Final = 60.0
_CALLS_AT_ONCE: Final = 64
_LOOK_SECONDS: Final = 0.2

Told = Callable[[str, int], None]
"""Told what is done now, and how many audits are decided."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        audits: How many.
        workers: Processes.
        at_once: Audits at once in each.
        pause: Seconds between two kills.
        least_alive: So many workers are left to themselves: on a slow machine a start takes longer
            than a pause, and those that are always killed would show nothing.
        most_kills: After so many the workers are left in peace; None for no end.
        seed: Of victims. Real processes do not repeat themselves for it.
        limit_seconds: After so long the run is broken off, and what is not done is a violation.
    """

    audits: int = 2000
    workers: int = 4
    at_once: int = 4
    pause: float = 1.0
    least_alive: int = 1
    most_kills: int | None = None
    seed: int = 1
    limit_seconds: float = 1200.0


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        kills: Workers that were killed while they worked.
        seconds: From the first worker's start to the last verdict.
        findings: Violations and counts.
    """

    kills: int
    seconds: float
    findings: Findings


async def attack(
    plan: Plan,
    url: str,
    folder: Path,
    *,
    nats: dict[str, Any] | None,
    told: Told = lambda _what, _done: None,
) -> Outcome:
    """Run a node over an empty database, and kill its workers.

    Args:
        plan: How.
        url: Of the database.
        folder: Empty; for keys and logs.
        nats: Servers and stream; None where the database hands audits out.
        told: As it goes on.
    """
    parties = Parties()
    async with AsyncExitStack() as stack:
        provider = stack.enter_context(parties.provider())
        target = await stack.enter_async_context(serving_provider(provider))
        told("replies are made", 0)
        made = await asyncio.to_thread(replies, provider, plan.audits)
        site = build(folder, parties, url=url, target=target, nats=nats, at_once=plan.at_once)
        node = Child("node", "node", site, {"COIN_VERIFIER_AUDITS_AT_ONCE": "0"})
        workers = [Child("auditor", f"worker-{number}", site) for number in range(plan.workers)]
        try:
            node.start()
            told("receipts are handed in", 0)
            ids = await _submit((await node.ready()).target, made)
            engine = open_engine(url)
            stack.callback(engine.dispose)
            kills, seconds = await _audited(plan, engine, workers, told)
            told("every check", plan.audits)
            findings = await asyncio.to_thread(
                look, site, engine, dict(zip(ids, made, strict=True))
            )
            await end([node, *workers], findings)
        finally:
            await asyncio.gather(*(child.discard() for child in [node, *workers]))
    return Outcome(kills, seconds, findings)


async def _submit(target: str, made: Sequence[Reply]) -> list[bytes]:
    """Hand receipts in; return the ids of their audits."""
    turn = asyncio.Semaphore(_CALLS_AT_ONCE)
    async with aio.insecure_channel(target) as channel:
        stub: Any = VerifierServiceStub(channel)

        async def submit(reply: Reply) -> bytes:
            async with turn:
                request = pb.SubmitReceiptRequest(receipt=reply.receipt)
                kept = await stub.SubmitReceipt(request, timeout=_CALL_SECONDS)
            return bytes.fromhex(kept.audit_id)

        return await asyncio.gather(*map(submit, made))


async def _audited(
    plan: Plan, engine: Engine, workers: Sequence[Child], told: Told
) -> tuple[int, float]:
    """Have all audits made, killing meanwhile; return the kills and how long it took."""
    began = time.monotonic()
    for worker in workers:
        worker.start()
    await asyncio.gather(*(worker.ready() for worker in workers))
    killer = asyncio.create_task(_kill(plan, workers))
    try:
        while left := await asyncio.to_thread(_left, engine):
            if killer.done():
                killer.result()
            told("workers are killed", plan.audits - left)
            if time.monotonic() - began > plan.limit_seconds:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
    finally:
        killer.cancel()
        await asyncio.wait([killer])
    return sum(worker.kills for worker in workers), seconds


async def _kill(plan: Plan, workers: Sequence[Child]) -> None:
    """Kill one after the other, any that is there."""
    chance = random.Random(f"kills {plan.seed}")  # noqa: S311 - no secret
    while plan.most_kills is None or sum(worker.kills for worker in workers) < plan.most_kills:
        await asyncio.sleep(plan.pause)
        alive = [worker for worker in workers if worker.life is not None]
        if len(alive) > plan.least_alive:
            chance.choice(alive).kill()


def _left(engine: Engine) -> int:
    """Return how many audits wait or are under way."""
    waiting = select(func.count()).where(AUDIT.c.state.in_((QUEUED, RUNNING)))
    with reading(engine) as connection:
        return int(connection.execute(waiting).scalar_one())
