"""One run: a node is measured, then loaded by half for long, and looked at meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from grpc import aio
from sqlalchemy import Engine, select, text

from benchmarks._crashes.afterwards import Findings, end, look_at_log
from benchmarks._crashes.site import Site, build
from benchmarks._faults.children import Child, Life
from benchmarks._soak.load import Clients, Told
from benchmarks._soak.memory import Held, held_by
from benchmarks._soak.operator import ACCOUNT, PASSWORD, operating, scrape
from benchmarks._soak.provider import write_keys
from benchmarks._soak.replies import Replies, making_replies
from coin_protocol.database.engine import open_engine, reading
from coin_protocol.errors import CoinError
from coin_protocol.note import NoteAlgorithm, NoteSigner
from coin_protocol.offline import verify_bundle
from coin_protocol.receipt import read_bundle
from coin_protocol.signer import KeySigner, write_private_key
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from tests.support.parties import Parties
from verifier_sdk.store.tables import AUDIT, DECIDED, FILE
from verifier_sdk.web.accounts import add_account

_ORIGIN: Final = "soak.example/log"
_MADE_PER_SECOND: Final = 50
"""More than a node audits, made before its capacity is measured: making them takes none of it."""

_AHEAD: Final = 500
_LEASE_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 300.0
_TIMEOUT: Final = 60.0
_SAMPLES: Final = 360
_SAMPLE_SECONDS: Final = 1.0, 5.0
_VERIFIED: Final = 200
_MOST_SHOWN: Final = 20
_NODE: Final = "node"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        seconds: Of half the load.
        capacity_seconds: For so long capacity is measured.
        warm_seconds: Before, the node is as busy, and nothing counts.
        at_once: Audits at once in each process.
        workers: Processes that audit beside the node.
        nats: Servers and stream; None where the database hands audits out.
    """

    seconds: float
    capacity_seconds: float = 45.0
    warm_seconds: float = 10.0
    at_once: int = 4
    workers: int = 0
    nats: dict[str, Any] | None = None


@dataclass(frozen=True)
class Sample:
    """How the node was at one time.

    Attributes:
        at: Seconds since the load began.
        held: By each process, by its name.
        queued: Audits that wait, by the node's metrics.
        oldest: Seconds that the oldest of them has been due, by its metrics.
    """

    at: float
    held: Mapping[str, Held]
    queued: float
    oldest: float


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        capacity: Audits a second at most.
        rate: Those that were handed in afterwards.
        audits: All of them.
        samples: In order.
        taken: From sending a receipt to its verdict, in seconds, with when it was sent, in
            seconds since the load began.
        bytes: Of the database in the end.
        read: What the operator read how often.
        findings: Violations and counts.
    """

    capacity: float
    rate: float
    audits: int
    samples: Sequence[Sample]
    taken: Sequence[tuple[float, float]]
    bytes: int
    read: Counter[str]
    findings: Findings


async def soak(plan: Plan, url: str, folder: Path, told: Told) -> Outcome:
    """Run a node over an empty database.

    Args:
        plan: How.
        url: Of the database.
        folder: Empty; for keys and logs.
        told: As it goes on.
    """
    parties = Parties()
    write_keys(folder, parties)
    vkey = _log_key(folder)
    add_account(folder / "accounts", ACCOUNT, PASSWORD)
    async with AsyncExitStack() as stack:
        replies = await stack.enter_async_context(making_replies(folder))
        site = _site(plan, url, folder, parties, replies.target)
        node = Child("node", _NODE, site)
        workers = [Child("auditor", f"worker-{number}", site) for number in range(plan.workers)]
        children = [node, *workers]
        stack.push_async_callback(_discard, children)
        for child in children:
            child.start()
        lives = {child.name: await child.ready() for child in children}
        busy = plan.capacity_seconds + plan.warm_seconds
        await _make_ahead(replies, round(_MADE_PER_SECOND * busy), told)
        engine = open_engine(url)
        stack.callback(engine.dispose)
        said = lives[_NODE].said
        channel = await stack.enter_async_context(aio.insecure_channel(lives[_NODE].target))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{said['http_port']}", timeout=_TIMEOUT)
        )
        clients = Clients(VerifierServiceStub(channel), http, engine, replies)
        capacity = await clients.saturate(plan.capacity_seconds, plan.warm_seconds, told)
        await clients.settle(_SETTLE_SECONDS, told)
        replies.more(max(0, _AHEAD - replies.ahead))
        before, began = len(clients.sent), time.time()
        samples: list[Sample] = []
        operator = await stack.enter_async_context(operating(said["http_port"], vkey))
        sampling = asyncio.create_task(_sample(plan, lives, samples))
        try:
            await clients.offer(capacity / 2, plan.seconds, told)
        finally:
            sampling.cancel()
            await asyncio.wait([sampling])
        await clients.settle(_SETTLE_SECONDS, told)
        rate = (len(clients.sent) - before) / plan.seconds
        findings = Findings()
        failures = Counter([*clients.failures, *operator.failures])
        for failure, count in failures.most_common(_MOST_SHOWN):
            findings.violated("every call is answered well", f"{count} times {failure}")
        if not sampling.cancelled():
            findings.violated("all processes can be looked at", repr(sampling.exception()))
        decided = await asyncio.to_thread(_look, site, engine, clients.sent, findings)
        await end(children, findings)
        taken = [
            (sent - began, decided[audit_id] - sent)
            for audit_id, sent in clients.sent.items()
            if audit_id in decided and sent >= began
        ]
        size = await asyncio.to_thread(_size, engine)
    return Outcome(capacity, rate, len(clients.sent), samples, taken, size, operator.done, findings)


def _log_key(folder: Path) -> str:
    """Make the log's key; return what its heads are checked with."""
    path = folder / "log.pem"
    write_private_key(path, KeySigner.generate(_ORIGIN))
    return NoteSigner.from_uri(f"file:{path}", _ORIGIN, NoteAlgorithm.ED25519).verifier.vkey


def _site(plan: Plan, url: str, folder: Path, parties: Parties, target: str) -> Site:
    return build(
        folder,
        parties,
        url=url,
        target=target,
        nats=plan.nats,
        at_once=plan.at_once,
        more={
            "lease_seconds": _LEASE_SECONDS,
            "http_listen": "127.0.0.1:0",
            "metrics_listen": "127.0.0.1:0",
            "memory_folder": str(folder / "memory"),
        },
        tables={
            "log": {
                "origin": _ORIGIN,
                "key": f"file:{folder / 'log.pem'}",
                "head_file": str(folder / "head.note"),
            },
            "web": {"accounts": str(folder / "accounts")},
        },
    )


async def _make_ahead(replies: Replies, count: int, told: Told) -> None:
    replies.more(count)
    while replies.ahead < count:
        told("replies are made", replies.ahead, count)
        await asyncio.sleep(0.2)


async def _sample(plan: Plan, lives: Mapping[str, Life], samples: list[Sample]) -> None:
    """Look at all processes again and again."""
    least, most = _SAMPLE_SECONDS
    pause = min(most, max(least, plan.seconds / _SAMPLES))
    began = time.monotonic()
    async with httpx.AsyncClient(timeout=_TIMEOUT) as client:
        while True:
            told = await scrape(client, lives[_NODE].said["metrics_port"])
            held = {name: held_by(life.process.pid) for name, life in lives.items()}
            samples.append(
                Sample(
                    at=time.monotonic() - began,
                    held=held,
                    queued=told["coin_audits_queued"],
                    oldest=told["coin_audit_oldest_waiting_seconds"],
                )
            )
            await asyncio.sleep(pause)


def _look(
    site: Site, engine: Engine, sent: Mapping[bytes, float], findings: Findings
) -> dict[bytes, float]:
    """Look at every audit and the log; return when each was decided, by its id."""
    kept = FILE.c.bundle.is_not(None).label("kept")
    with reading(engine) as connection:
        rows = connection.execute(
            select(AUDIT, kept).join(FILE, FILE.c.number == AUDIT.c.number)
        ).all()
        if Counter(row.audit_id for row in rows) != Counter(sent.keys()):
            findings.violated("each receipt is one audit", f"{len(rows)} of {len(sent)}")
        for row in rows:
            name = row.audit_id.hex()
            if row.state != DECIDED or not row.kept:
                findings.violated("every audit is decided", f"{name}: {row.state}, {row.failure}")
                continue
            outcome = receipt_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_").lower()
            findings.counts[f"verdicts_{outcome}"] += 1
            if row.outcome == receipt_pb2.OUTCOME_FAIL:
                findings.violated("an honest provider is never failed", name)
        look_at_log(connection, rows, findings)
    findings.counts["attempts"] = sum(row.attempts for row in rows)
    numbers = [row.number for row in rows if row.state == DECIDED]
    chosen = random.Random(1).sample(numbers, min(_VERIFIED, len(numbers)))  # noqa: S311 - no secret
    for number in chosen:
        _verify(site, engine, number, findings)
    return {row.audit_id: row.decided_at for row in rows if row.state == DECIDED}


def _verify(site: Site, engine: Engine, number: int, findings: Findings) -> None:
    """Verify a bundle as anybody can."""
    with reading(engine) as connection:
        raw = connection.execute(select(FILE.c.bundle).where(FILE.c.number == number)).scalar_one()
    parties = site.parties
    try:
        verify_bundle(
            read_bundle(raw),
            trust=parties.trust,
            profile=parties.profile,
            policy=parties.policy,
            installed=(parties.models.tokenizer, parties.models.embedder),
        )
    except CoinError as error:
        findings.violated("every bundle verifies offline", f"{number}: {error}")


def _size(engine: Engine) -> int:
    """Return the bytes of the database."""
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))
    with reading(engine) as connection:
        size = text("SELECT pg_database_size(current_database())")
        return int(connection.execute(size).scalar_one())


async def _discard(children: Sequence[Child]) -> None:
    await asyncio.gather(*(child.discard() for child in children))
