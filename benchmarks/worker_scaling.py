"""How many audits a second two worker processes make, against one.

python -m benchmarks.worker_scaling [--database URL]

Workers over the small models and the plain cosine rule, so that an audit is checks, database and
network and no model's arithmetic; each opens 16 blocks with their embedding, tokens of as many, and
eight blocks whole: some 50 ms of CPU. The provider must not be what is measured: each audit was
begun before, so that its challenges are known and their answers made ahead, and this process does
no more than look them up. Each worker is held to a core of its own, with four audits at once;
database and answers come from whatever is idle. The rate is that of the audits between the first
tenth and the last. Neighbours on the machine take from two workers what they leave to one, so the
CPU that an audit takes of a worker is told, too: where that stays the same, nothing but idle cores
is in the way of more workers. With fewer than two cores there is nothing to measure.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, select, update

from benchmarks._common import report, skip
from benchmarks._crashes.site import build, replies
from benchmarks._faults import database
from benchmarks._faults.children import Child
from benchmarks.gateway_cost import cpu_seconds
from coin_protocol import transport
from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.database.migrate import upgrade
from coin_protocol.encoding import digest
from coin_protocol.keyset import stamp
from coin_protocol.receipt import BUNDLE_FORMAT
from coin_protocol.v1 import profile_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb
from tests.support.nodes import NodeParts
from tests.support.parties import Parties, Reply, easy, small_policy
from tests.support.servers import serving_raw
from verifier_sdk.node.intake import Intake
from verifier_sdk.store.tables import AUDIT, BY_SHARE, DECIDED, FILE, MIGRATIONS, QUEUED

_AUDITS: Final = 300
_TOKENS: Final = 400
_AT_ONCE: Final = 4
_RUNS: Final = 3
_GOAL: Final = 1.8
_HOUR: Final = 3600
_LIMIT_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Measured:
    """What so many workers made.

    Attributes:
        rate: Audits a second.
        cpu: Seconds of the workers for each audit.
    """

    rate: float
    cpu: float


@dataclass(frozen=True)
class Begun:
    """Audits whose challenges are out.

    Attributes:
        parties: Keys and rules.
        receipts: One for each audit.
        progress: What each audit has written down, by the digest of its commitment.
        answers: A provider's replies, by the digest of the challenge.
        key_set: What it replies when it is asked for its keys.
    """

    parties: Parties
    receipts: Sequence[receipt_pb2.Receipt]
    progress: Mapping[bytes, bytes]
    answers: Mapping[bytes, bytes]
    key_set: bytes


def _patient(policy: profile_pb2.Policy) -> None:
    """Give challenges so long that those that were made ahead still count."""
    easy(policy)
    policy.challenge_deadline.FromSeconds(_HOUR)


def begin(count: int) -> Begun:
    """Make replies, and challenges of both kinds with their answers."""
    parties = Parties(policy=small_policy(_patient))
    progress: dict[bytes, bytes] = {}
    answers: dict[bytes, bytes] = {}
    with parties.provider() as provider:
        made = replies(provider, count, tokens=_TOKENS)
        for reply in made:
            progress[reply.commitment_sha256] = _challenged(parties, reply, answers)
        served = provider.served
    key_set = pb.GetKeySetResponse(key_set=served.signed, root_chain=served.root_chain)
    return Begun(
        parties,
        [reply.receipt for reply in made],
        progress,
        answers,
        key_set.SerializeToString(),
    )


def _challenged(parties: Parties, reply: Reply, answers: dict[bytes, bytes]) -> bytes:
    """Challenge a reply, keep its answers, and return what an audit would have written down."""
    manifest, fingerprints = reply.ready()
    provider, key = reply.session.provider, reply.commitment_sha256
    deadline = stamp(datetime.now(UTC) + timedelta(seconds=_HOUR))
    asked = parties.challenge(
        fingerprints, blocks=16, token_blocks=16, tokens_per_block=4, deadline=deadline
    )
    whole = parties.whole_challenge(fingerprints, blocks=8, deadline=deadline)
    answers[digest(asked.payload)] = pb.AnswerChallengeResponse(
        opening=provider.answer(key, asked)
    ).SerializeToString()
    answers[digest(whole.payload)] = pb.AnswerWholeBlockChallengeResponse(
        opening=provider.answer_whole(key, whole)
    ).SerializeToString()
    now = stamp(datetime.now(UTC))
    bundle = receipt_pb2.Bundle(
        format=BUNDLE_FORMAT,
        receipt=reply.receipt,
        manifest=manifest,
        rounds=[receipt_pb2.Round(challenge=asked, sent_at=now)],
        whole_rounds=[receipt_pb2.Round(challenge=whole, sent_at=now)],
    )
    bundle.receipt.fingerprints.CopyFrom(fingerprints)
    return bundle.SerializeToString()


async def measured(begun: Begun, url: str, folder: Path, workers: int) -> Measured:
    """Have so many workers make all audits."""

    async def keys(_: bytes, __: transport.Context) -> bytes:
        return begun.key_set

    async def answer(raw: bytes, _: transport.Context) -> bytes:
        request = pb.AnswerChallengeRequest.FromString(raw)
        return begun.answers[digest(request.challenge.payload)]

    handlers = {"GetKeySet": keys, "AnswerChallenge": answer, "AnswerWholeBlockChallenge": answer}
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(serving_raw(handlers))
        site = build(folder, begun.parties, url=url, target=target, nats=None, at_once=_AT_ONCE)
        engine = open_engine(url)
        stack.callback(engine.dispose)
        await asyncio.to_thread(upgrade, engine, MIGRATIONS)
        await _submit(begun, engine, target)
        children = [Child("auditor", f"worker-{number}", site) for number in range(workers)]
        try:
            for core, child in zip(sorted(os.sched_getaffinity(0)), children, strict=False):
                with _held_to(core):
                    child.start()
                    await child.ready()
            before = await _cpu(children)
            await asyncio.to_thread(_release, engine, begun)
            await _done(engine, len(begun.receipts))
            times = await asyncio.to_thread(_times, engine)
            cpu = (await _cpu(children) - before) / len(times)
        finally:
            await asyncio.gather(*(child.discard() for child in children))
    first, last = times[len(times) // 10], times[-len(times) // 10]
    return Measured((0.8 * len(times)) / (last - first), cpu)


async def _cpu(children: Sequence[Child]) -> float:
    """Return the CPU seconds that processes have used so far."""
    lives = await asyncio.gather(*(child.ready() for child in children))
    return sum(cpu_seconds(life.process.pid) for life in lives)


async def _submit(begun: Begun, engine: Engine, target: str) -> None:
    """Keep the receipts, without having them audited."""
    intake = Intake(
        engine,
        NodeParts(begun.parties, engine, target, share=0.0).providers,
        secret=bytes(32),
        block_size=begun.parties.profile.block_size,
        failed_share=lambda _: 0.0,
    )
    await asyncio.gather(*(intake.keep(intake.prepare(one, "")) for one in begun.receipts))


def _release(engine: Engine, begun: Begun) -> None:
    """Have all audits made now, from where they were left."""
    with writing(engine) as connection:
        rows = connection.execute(select(AUDIT.c.number, AUDIT.c.commitment_sha256)).all()
        for row in rows:
            progress = begun.progress[row.commitment_sha256]
            connection.execute(
                update(FILE).where(FILE.c.number == row.number).values(progress=progress)
            )
        connection.execute(update(AUDIT).values(state=QUEUED, drawn=BY_SHARE, due_at=0.0))


async def _done(engine: Engine, audits: int) -> None:
    end = time.monotonic() + _LIMIT_SECONDS
    while len(await asyncio.to_thread(_times, engine)) < audits:
        if time.monotonic() > end:
            msg = "the audits are not made in time: look at the workers' logs"
            raise TimeoutError(msg)
        await asyncio.sleep(_LOOK_SECONDS)


def _times(engine: Engine) -> list[float]:
    """Return when audits were decided, in order."""
    with reading(engine) as connection:
        when = select(AUDIT.c.decided_at).where(AUDIT.c.state == DECIDED).order_by("decided_at")
        return list(connection.execute(when).scalars())


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
    begun = begin(_AUDITS)
    runs: dict[int, list[Measured]] = {1: [], 2: []}
    for _ in range(_RUNS):
        for workers, found in runs.items():
            with (
                tempfile.TemporaryDirectory() as folder,
                database.own(given.database, Path(folder)) as url,
            ):
                found.append(asyncio.run(measured(begun, url, Path(folder), workers)))
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
