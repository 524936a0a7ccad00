"""A provider's processes are killed under load, and nothing is lost: a short attack."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks._faults.attack import Plan, attack
from tests.support.databases import KINDS, database

PLAN = Plan(kills=8, clients=6, auditors=2, workers=1, mean_pause=0.8)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_by_kills_under_load(kind: str, tmp_path: Path) -> None:
    with database(kind, tmp_path) as url:
        outcome = asyncio.run(attack(PLAN, url, tmp_path))
    assert outcome.findings.violations == []
    assert outcome.kills.total() == PLAN.kills
    counts = outcome.findings.counts
    for what in ("replies_whole", "receipts_held", "checkpoints_held", "openings_held"):
        assert counts[what], counts
