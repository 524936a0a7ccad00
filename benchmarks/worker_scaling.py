"""How many audits a second two worker processes make, against one.

python -m benchmarks.worker_scaling [--database URL]

`coin verifier worker` as users run it: the default profile, real models, the policy and the judge
that ship; replies of 10,000 hidden tokens, each asked for over gRPC of a provider in a process of
its own. Most of an audit is embedding the prompt and the answer. Each worker is held to a core of
its own; database and provider come from whatever is idle, and what they take two workers lack on
two cores. The rate is that of the audits between the first tenth and the last. Neighbours on the
machine take from two workers what they leave to one, so the CPU that an audit takes of a worker is
told, too: where that stays the same, nothing but idle cores is in the way of more workers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, func, or_, select, update

from benchmarks._common import report, skip
from benchmarks._crashes.site import as_toml
from benchmarks._faults import database
from benchmarks.gateway_cost import cpu_seconds, running
from coin_protocol.database.engine import reading, writing
from coin_protocol.profile import Profile
from coin_protocol.table import table_path
from coin_protocol.v1 import receipt_pb2
from tests.support.parties import PROVIDER, VERIFIER
from verifier_sdk.node.assembly import load_keys, open_database, registered
from verifier_sdk.node.intake import Intake
from verifier_sdk.node.settings import NodeSettings
from verifier_sdk.store.tables import AUDIT, BY_SHARE, DECIDED, QUEUED

_AUDITS: Final = 96
_RUNS: Final = 3
_GOAL: Final = 1.8
_LIMIT_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 1.0
_QUIET: Final = {"COIN_VERIFIER_LOG_LEVEL": "warning"}


@dataclass(frozen=True)
class Measured:
    """What so many workers made.

    Attributes:
        rate: Audits a second.
        cpu: Seconds of the workers for each audit.
    """

    rate: float
    cpu: float


@dataclass
class Served:
    """A provider's keys and port, and receipts of replies that nobody has audited yet."""

    folder: Path
    port: int
    left: list[int]

    def receipts(self) -> list[receipt_pb2.Receipt]:
        """Take those of one run: a provider opens no more than its caps of each."""
        taken, self.left = self.left[:_AUDITS], self.left[_AUDITS:]
        raws = [(self.folder / f"{number}.receipt").read_bytes() for number in taken]
        return [receipt_pb2.Receipt.FromString(raw) for raw in raws]

    def settings(self, url: str, folder: Path) -> dict[str, Any]:
        """Return a node's settings but for its provider, its files in this folder."""
        return {
            "name": VERIFIER,
            "key": f"file:{self.folder / 'verifier.pem'}",
            "database": url,
            "memory_folder": str(folder / "memory"),
            "share": 0.0,
        }

    @property
    def provider(self) -> dict[str, Any]:
        """What the settings say of the provider."""
        roots = [str(self.folder / "root.pub.pem")]
        return {"endpoint": f"127.0.0.1:{self.port}", "roots": roots}


def measured(served: Served, url: str, folder: Path, workers: int) -> Measured:
    """Have so many workers make the audits of a run."""
    given = served.settings(url, folder)
    settings = NodeSettings(**(given | {"providers": {PROVIDER: served.provider}}))
    config = folder / "node.toml"
    config.write_text(
        as_toml(given) + f"[providers.{PROVIDER}]\n" + as_toml(served.provider), encoding="utf-8"
    )
    engine = open_database(settings)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        asyncio.run(_submit(settings, engine, served.receipts()))
        pids = []
        for core in sorted(os.sched_getaffinity(0))[:workers]:
            with _held_to(core):
                command = ("coin_protocol.cli", "verifier", "worker", "--config", str(config))
                pids.append(stack.enter_context(running(*command, **_QUIET))[0])
        before = sum(map(cpu_seconds, pids))
        with writing(engine) as connection:
            connection.execute(update(AUDIT).values(state=QUEUED, drawn=BY_SHARE, due_at=0.0))
        times = _wait(engine)
        _require_judged(engine)
        cpu = (sum(map(cpu_seconds, pids)) - before) / _AUDITS
    first, last = times[_AUDITS // 10], times[-_AUDITS // 10]
    return Measured((len(times[_AUDITS // 10 : -_AUDITS // 10])) / (last - first), cpu)


async def _submit(
    settings: NodeSettings, engine: Engine, receipts: Sequence[receipt_pb2.Receipt]
) -> None:
    """Keep receipts, without having them audited."""
    _, verifiers = load_keys(settings)
    intake = Intake(
        engine,
        registered(settings, verifiers),
        secret=bytes(32),
        block_size=Profile.shipped("default").block_size,
        failed_share=lambda _: 0.0,
    )
    await asyncio.gather(*(intake.keep(intake.prepare(one, "")) for one in receipts))


def _wait(engine: Engine) -> list[float]:
    """Wait for the verdicts; return when they were written, in order."""
    end = time.monotonic() + _LIMIT_SECONDS
    when = select(AUDIT.c.decided_at).where(AUDIT.c.state == DECIDED).order_by("decided_at")
    while True:
        with reading(engine) as connection:
            times = list(connection.execute(when).scalars())
        if len(times) == _AUDITS:
            return times
        if time.monotonic() > end:
            msg = f"{len(times)} of {_AUDITS} audits have a verdict in time"
            raise TimeoutError(msg)
        time.sleep(_LOOK_SECONDS)


def _require_judged(engine: Engine) -> None:
    """See that no audit ended before its judge was asked: it would be a cheap one."""
    cheap = or_(AUDIT.c.failed_check.is_not(None), AUDIT.c.rounds == 0)
    with reading(engine) as connection:
        count = connection.execute(select(func.count()).where(cheap)).scalar_one()
    if count:
        msg = f"{count} of {_AUDITS} audits ended before their judge was asked"
        raise RuntimeError(msg)


@contextmanager
def _held_to(core: int) -> Iterator[None]:
    """Have processes that are started meanwhile run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main() -> int:
    """Measure one and two in turns, and report the best of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker_scaling")
    parser.add_argument("--database", help="PostgreSQL server's URL; by default a SQLite file")
    given = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        skip("worker_scaling", "one core: there is nothing to share")
        return 0
    if not table_path(Profile.shipped("default").message).exists():
        skip("worker_scaling", "no token table: run `coin table build`")
        return 0
    runs: dict[int, list[Measured]] = {1: [], 2: []}
    count = _RUNS * len(runs) * _AUDITS
    with (
        tempfile.TemporaryDirectory() as keys,
        running("benchmarks._audits.provider", keys, str(count)) as (_, ready),
    ):
        served = Served(Path(keys), ready["port"], list(range(count)))
        for _ in range(_RUNS):
            for workers, found in runs.items():
                with (
                    tempfile.TemporaryDirectory() as folder,
                    database.own(given.database, Path(folder)) as url,
                ):
                    found.append(measured(served, url, Path(folder), workers))
    name = f"worker_scaling.{'sqlite' if given.database is None else 'postgresql'}"
    rates = {workers: max(run.rate for run in found) for workers, found in runs.items()}
    cpus = {workers: min(run.cpu for run in found) for workers, found in runs.items()}
    for workers in runs:
        report(f"{name}.audits_per_second_{workers}", rates[workers], unit="1/s", better="higher")
        report(f"{name}.cpu_per_audit_{workers}", 1e3 * cpus[workers], unit="ms", better="lower")
    report(f"{name}.two_to_one", rates[2] / rates[1], unit="ratio", better="higher", limit=_GOAL)
    report(f"{name}.cpu_one_to_two", cpus[1] / cpus[2], unit="ratio", better="higher")
    return 0


if __name__ == "__main__":
    sys.exit(main())
