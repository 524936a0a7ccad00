"""Kill a provider's processes at random under load, and show that nothing is lost by it.

python -m benchmarks.faults [--kills 200] [--database URL] [--seed N] [--clients N]

Real processes over the small models, killed with SIGKILL and started again at once: gateways,
challenge services, fingerprint workers; and the database, whose connections are ended (PostgreSQL)
or whose write lock is held for up to two seconds (SQLite). Afterwards, with everything up again:
every receipt that a client holds passes all checks, also of its challenges; every checkpoint is a
prefix of what its session ended with; all openings together keep to the caps, on one chain of
flips; no reply broke but those that a killed gateway carried; no session is open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from sqlalchemy import make_url

from benchmarks._common import report
from benchmarks._faults import database
from benchmarks._faults.attack import Outcome, Plan, attack

_BAD: Final = frozenset(
    {"failed_starts", "receipts_late", "receipts_never", "replies_broken", "replies_unanswered"}
)


@contextmanager
def _progress(kills: int) -> Iterator[Callable[[str], None]]:
    """Show how many kills are done, on a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("kills", total=kills)

        def told(what: str) -> None:
            if what == "kill":
                progress.advance(task)
            else:
                progress.update(task, description=what)

        yield told


def _report(outcome: Outcome, kind: str) -> None:
    name = f"faults.{kind}"
    for victim, count in sorted(outcome.kills.items()):
        report(f"{name}.kills_{victim}", count, unit="count", better="higher")
    for what, count in sorted(outcome.findings.counts.items()):
        better = "lower" if what in _BAD else "higher"
        report(f"{name}.{what.replace(' ', '_')}", count, unit="count", better=better)
    report(f"{name}.seconds", outcome.seconds, unit="s", better="lower")
    violations = outcome.findings.violations
    for each in violations:
        line = {"name": f"{name}.violated", "property": each.what, "session": each.session}
        print(json.dumps(line | {"detail": each.detail}), flush=True)
    report(f"{name}.violations", len(violations), unit="count", better="lower", limit=0)


def main() -> int:
    """Attack; return 1 if a property was violated."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument("--kills", type=int, default=plan.kills)
    parser.add_argument("--database", help="PostgreSQL server's URL; by default a SQLite file")
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--clients", type=int, default=plan.clients)
    parser.add_argument("--keep", type=Path, help="empty folder in which keys and logs are left")
    given = parser.parse_args()
    plan = Plan(kills=given.kills, seed=given.seed, clients=given.clients)
    kind = "sqlite" if given.database is None else make_url(given.database).get_backend_name()
    with (
        tempfile.TemporaryDirectory() as folder,
        database.own(given.database, given.keep or Path(folder)) as url,
        _progress(plan.kills) as told,
    ):
        outcome = asyncio.run(attack(plan, url, given.keep or Path(folder), told))
    _report(outcome, kind)
    for event, count in outcome.errors.most_common():
        sys.stderr.write(f"{count} x logged by {event}\n")
    return 1 if outcome.findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
