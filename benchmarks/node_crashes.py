"""Kill the workers of a verifier node at random while they audit, and show that nothing is lost.

python -m benchmarks.node_crashes [--audits 2000] [--database URL] [--nats URL] [--pause 1]

Real processes over the small models: a node that has taken receipts, a provider that answers, and
four workers of which one, at random, is killed with SIGKILL each second and started again at once.
When all is decided: each audit has one verdict and one entry in the log, no audit ended in error,
every bundle verifies offline, the honest provider is failed nowhere, and what it opened keeps to
its caps. Audits are handed out by the database, or by NATS JetStream where its URL is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from sqlalchemy import make_url

from benchmarks._common import report
from benchmarks._crashes.attack import Outcome, Plan, Told, attack
from benchmarks._crashes.stream import own_stream
from benchmarks._faults import database

_BAD: Final = frozenset({"attempts", "attempts_of_one_most", "failed_starts"})


@contextmanager
def _progress(audits: int) -> Iterator[Told]:
    """Show how many audits are decided, on a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=audits)
        yield lambda what, done: progress.update(task, description=what, completed=done)


async def _run(given: argparse.Namespace, plan: Plan, url: str, folder: Path) -> Outcome:
    async with own_stream(given.nats) as stream:
        with _progress(plan.audits) as told:
            return await attack(plan, url, folder, nats=stream, told=told)


def _report(outcome: Outcome, name: str, audits: int) -> None:
    report(f"{name}.kills", outcome.kills, unit="count", better="higher", limit=1)
    for what, count in sorted(outcome.findings.counts.items()):
        better = "lower" if what in _BAD else "higher"
        report(f"{name}.{what}", count, unit="count", better=better)
    report(f"{name}.seconds", outcome.seconds, unit="s", better="lower")
    report(f"{name}.audits_per_second", audits / outcome.seconds, unit="1/s", better="higher")
    for sentence in outcome.findings.violations:
        print(json.dumps({"name": f"{name}.violated", "detail": sentence}), flush=True)
    violations = len(outcome.findings.violations)
    report(f"{name}.violations", violations, unit="count", better="lower", limit=0)


def main() -> int:
    """Attack; return 1 if anything was lost, or nobody was killed."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.node_crashes")
    parser.add_argument("--audits", type=int, default=plan.audits)
    parser.add_argument("--workers", type=int, default=plan.workers)
    parser.add_argument("--pause", type=float, default=plan.pause)
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--database", help="PostgreSQL server's URL; by default a SQLite file")
    parser.add_argument("--nats", help="NATS server's URL; by default the database hands out")
    parser.add_argument("--keep", type=Path, help="empty folder in which keys and logs are left")
    given = parser.parse_args()
    plan = Plan(audits=given.audits, workers=given.workers, pause=given.pause, seed=given.seed)
    kind = "sqlite" if given.database is None else make_url(given.database).get_backend_name()
    name = f"node_crashes.{kind}_{'database' if given.nats is None else 'nats'}"
    with (
        tempfile.TemporaryDirectory() as folder,
        database.own(given.database, given.keep or Path(folder)) as url,
    ):
        outcome = asyncio.run(_run(given, plan, url, given.keep or Path(folder)))
    _report(outcome, name, plan.audits)
    return 1 if outcome.findings.violations or not outcome.kills else 0


if __name__ == "__main__":
    sys.exit(main())
