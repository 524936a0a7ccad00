"""One attack: start everything, load it, kill at random, look afterwards."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks._faults import house
from benchmarks._faults.afterwards import Afterwards, Findings
from benchmarks._faults.auditors import Auditors
from benchmarks._faults.children import Child
from benchmarks._faults.clients import Load
from benchmarks._faults.killer import Killer
from tests.support.upstreams import running

_ERROR: Final = re.compile(r'"event": "([^"]*)".*"level": "(?:error|critical)"')


@dataclass(frozen=True)
class Plan:
    """An attack.

    Attributes:
        kills: How many.
        seed: Of victims, times and load. Real processes do not repeat themselves for it.
        clients: In parallel.
        auditors: In parallel.
        gateways: Processes.
        services: Challenge services.
        workers: Of fingerprints.
        mean_pause: Seconds between two kills, on average.
        calm: Seconds of load before the first kill, and after the last.
    """

    kills: int = 200
    seed: int = 1
    clients: int = 12
    auditors: int = 4
    gateways: int = 2
    services: int = 2
    workers: int = 2
    mean_pause: float = 0.8
    calm: float = 4.0


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Attributes:
        kills: By victim.
        findings: Violations and counts.
        seconds: From start to end.
        errors: What the processes logged as errors, with how often.
    """

    kills: Counter[str]
    findings: Findings
    seconds: float
    errors: Counter[str]


async def attack(
    plan: Plan, url: str, folder: Path, told: Callable[[str], None] = lambda _what: None
) -> Outcome:
    """Attack a provider over an empty database.

    Args:
        plan: How.
        url: Of the database.
        folder: Empty; for keys and logs.
        told: What is done now, and "kill" at each kill.
    """
    start = time.monotonic()
    async with running(house.upstream()) as upstream:
        built = house.build(folder, url=url, upstream=upstream.url)
        children = [
            Child(kind, f"{kind}-{number}", built)
            for kind, count in (
                ("gateway", plan.gateways),
                ("service", plan.services),
                ("worker", plan.workers),
            )
            for number in range(count)
        ]
        try:
            for child in children:
                child.start()
            await asyncio.gather(*(child.ready() for child in children))
            kills, findings = await _loaded(plan, built, children, told)
            for child in children:
                if code := await child.stop():
                    findings.violated("a process ends well", child.name, f"exit code {code}")
        finally:
            await asyncio.gather(*(child.discard() for child in children))
    for child in children:
        findings.counts["failed_starts"] += child.failed_starts
        for code in child.deaths:
            findings.violated("no process dies of itself", child.name, f"exit code {code}")
    return Outcome(kills, findings, time.monotonic() - start, _errors(children))


async def _loaded(
    plan: Plan, built: house.House, children: list[Child], told: Callable[[str], None]
) -> tuple[Counter[str], Findings]:
    """Kill under load, then look."""
    by_kind = {
        kind: [child for child in children if child.kind == kind]
        for kind in ("gateway", "service", "worker")
    }
    load = Load(by_kind["gateway"], plan.seed)
    auditors = Auditors(built, by_kind["service"], load, plan.seed)
    killer = Killer(children, built.url, plan.seed, plan.mean_pause)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(plan.clients):
            group.create_task(load.client(f"sk-client-{number}", stop))
        for _ in range(plan.auditors):
            group.create_task(auditors.auditor(stop))
        try:
            await asyncio.sleep(plan.calm)
            await killer.run(plan.kills, lambda: told("kill"))
            await asyncio.sleep(plan.calm)
        finally:
            stop.set()
        told("what is under way ends")
    told("recovery, and every check")
    await asyncio.gather(*(child.ready() for child in children))
    afterwards = Afterwards(built, by_kind["gateway"][0], by_kind["service"][0], load, auditors)
    findings = await afterwards.run()
    if killer.at_work:
        findings.counts["connections_ended_at_work"] = killer.at_work
    return killer.kills, findings


def _errors(children: list[Child]) -> Counter[str]:
    """Return what the processes logged as errors, each kind's name before it."""
    found: Counter[str] = Counter()
    for child in children:
        text = child.log.read_text(encoding="utf-8", errors="replace")
        found.update(f"{child.kind}: {event}" for event in _ERROR.findall(text))
        found.update([f"{child.kind}: Traceback"] * text.count("\nTraceback"))
    return found
