"""The workers of a verifier node are killed while they audit, and nothing is lost: a short run."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from benchmarks._crashes.attack import Outcome, Plan, attack
from tests.support.databases import database
from tests.support.nodes import nats_stream

PLAN = Plan(audits=100, workers=4, at_once=4, pause=0.5, most_kills=8, limit_seconds=180.0)


async def run(kind: str, url: str, folder: Path) -> Outcome:
    """Run a node whose audits are handed out this way."""
    async with AsyncExitStack() as stack:
        nats = None
        if kind == "nats":
            settings = await stack.enter_async_context(nats_stream())
            nats = {"servers": settings.servers, "stream": settings.stream}
        return await attack(PLAN, url, folder, nats=nats)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("store", "queue"), [("sqlite", "database"), ("postgresql", "nats")])
def test_nothing_is_lost_where_workers_are_killed(store: str, queue: str, tmp_path: Path) -> None:
    with database(store, tmp_path) as url:
        outcome = asyncio.run(run(queue, url, tmp_path))
    assert outcome.findings.violations == []
    assert outcome.kills >= 3
    counts = outcome.findings.counts
    assert counts["verdicts_pass"] == PLAN.audits
    # Some were begun by a worker that died over them.
    assert counts["attempts"] > PLAN.audits
