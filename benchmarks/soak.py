"""Have a verifier node work at half of what it can for half an hour, and see its memory stay flat.

python -m benchmarks.soak [--minutes 30] [--workers N] [--database URL] [--nats URL]

`coin verifier serve` in a process of its own, with gRPC, HTTP, pages, metrics, its log and its
memory of blocks; the small models and the plain cosine rule, not the real ones, which are heavy:
what an audit leaves behind adds up the sooner, the more there are. Another process is the provider,
whose memory does not count. First the node is kept busy, and the audits that it decides a second
are its capacity; then half as many receipts come at random times, however the node does. A tenth
comes over HTTP, a twentieth is watched to its verdict, and an operator reads pages, checks the
log's proofs and takes bundles meanwhile.

Two figures of memory are claimed to stay the same: `own`, what stands in no file, which only the
process itself can give back, so that a leak shows there; and `resident` (RSS), what a machine's
tools show, files that are mapped included: libraries, the index over blocks, the database's shared
pages. The first sixth is left out; of the rest the median of the last tenth is set against that of
the first. When all is decided each receipt has one verdict, the log holds each once, and 200
bundles verify offline. The database's file grows, as it must.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import make_url

from benchmarks._common import report
from benchmarks._crashes.stream import own_stream
from benchmarks._faults import database
from benchmarks._soak.load import Told
from benchmarks._soak.memory import course
from benchmarks._soak.run import Outcome, Plan, soak

_FLAT: Final = 1.05
_WARM_UP: Final = 1 / 6
_LEAST_SAMPLES: Final = 2
"""Where there are fewer a process ended, which is told of as a violation."""

_MIB: Final = 2**20


@contextmanager
def _progress() -> Iterator[Told]:
    """Show how far it is, on a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("")
        yield lambda what, done, total: progress.update(
            task, description=what, completed=done, total=total
        )


async def _run(plan: Plan, nats: str | None, url: str, folder: Path) -> Outcome:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - it runs here
    # What was started ends with this process, however that ends.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with own_stream(nats) as stream:
        with _progress() as told:
            return await soak(replace(plan, nats=stream), url, folder, told)


def _report_held(name: str, outcome: Outcome, warm_up: float) -> bool:
    """Report what each process held; return whether memory stayed the same."""
    samples = [sample for sample in outcome.samples if sample.at >= warm_up]
    if len(samples) < _LEAST_SAMPLES:
        return False
    times = [sample.at for sample in samples]
    flat = True
    for process in samples[0].held:
        held = [sample.held[process] for sample in samples]
        of = f"{name}.{process}"
        for what in ("own", "resident"):
            found = course(times, [getattr(one, what) / _MIB for one in held])
            flat = flat and found.last_to_first <= _FLAT
            report(
                f"{of}.{what}_last_to_first",
                found.last_to_first,
                unit="ratio",
                better="lower",
                limit=_FLAT,
            )
            report(f"{of}.{what}", found.last, unit="MiB", better="lower")
            report(f"{of}.{what}_slope", found.per_hour, unit="MiB/h", better="lower")
        for what in ("files", "threads"):
            values = [float(getattr(one, what)) for one in held]
            report(f"{of}.{what}_most", max(values), unit="count", better="lower")
            change = course(times, values)
            report(f"{of}.{what}_change", change.last - change.first, unit="count", better="lower")
    for what in ("queued", "oldest"):
        values = [getattr(sample, what) for sample in samples]
        unit = "count" if what == "queued" else "s"
        report(f"{name}.{what}_p50", float(np.median(values)), unit=unit, better="lower")
        report(f"{name}.{what}_most", max(values), unit=unit, better="lower")
    return flat


def _report(name: str, outcome: Outcome, warm_up: float) -> bool:
    """Report all; return whether all is as claimed."""
    report(f"{name}.capacity", outcome.capacity, unit="1/s", better="higher")
    report(f"{name}.rate", outcome.rate, unit="1/s", better="higher")
    report(f"{name}.audits", outcome.audits, unit="count", better="higher")
    taken = [taken for sent, taken in outcome.taken if sent >= warm_up]
    for what, quantile in (("p50", 0.5), ("p99", 0.99)):
        seconds = float(np.quantile(taken, quantile))
        report(f"{name}.verdict_{what}", seconds, unit="s", better="lower")
    flat = _report_held(name, outcome, warm_up)
    size = outcome.bytes / outcome.audits
    report(f"{name}.database_per_audit", size, unit="bytes", better="lower")
    for what, count in sorted((outcome.findings.counts | outcome.read).items()):
        report(f"{name}.{what}", count, unit="count", better="higher")
    for sentence in outcome.findings.violations:
        print(json.dumps({"name": f"{name}.violated", "detail": sentence}), flush=True)
    violations = len(outcome.findings.violations)
    report(f"{name}.violations", violations, unit="count", better="lower", limit=0)
    return flat and not violations


def main() -> int:
    """Load, and report; return 1 where memory grew or anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--capacity", type=float, default=45.0, help="seconds; by default 45")
    parser.add_argument("--workers", type=int, default=0, help="processes beside the node")
    parser.add_argument("--database", help="PostgreSQL server's URL; by default a SQLite file")
    parser.add_argument("--nats", help="NATS server's URL; by default the database hands out")
    parser.add_argument("--keep", type=Path, help="empty folder in which keys and logs are left")
    given = parser.parse_args()
    plan = Plan(
        seconds=60.0 * given.minutes, capacity_seconds=given.capacity, workers=given.workers
    )
    kind = "sqlite" if given.database is None else make_url(given.database).get_backend_name()
    name = f"soak.{kind}_{'database' if given.nats is None else 'nats'}"
    with (
        tempfile.TemporaryDirectory() as temporary,
        database.own(given.database, given.keep or Path(temporary)) as url,
    ):
        outcome = asyncio.run(_run(plan, given.nats, url, given.keep or Path(temporary)))
    return 0 if _report(name, outcome, _WARM_UP * plan.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
