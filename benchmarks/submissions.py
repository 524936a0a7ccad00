"""How many receipts a second a node acknowledges over gRPC, each on disk by then, in SQLite.

python -m benchmarks.submissions

A node in a process of its own, which audits nothing meanwhile, and this process as its clients, 64
receipts under way at a time; replies of 2,000 reasoning tokens, the default profile. What comes
while the disk is busy shares the next transaction. Bare are transactions with as many receipts in
each, of the same bytes, into one table of a synced SQLite file: what no node could do better.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from grpc import aio

from benchmarks._common import TableModels, UnembeddedProvider, random_ids, report
from benchmarks.gateway_cost import running
from coin_protocol.profile import Profile
from coin_protocol.signer import public_pem
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from tests.support.parties import PROVIDER, VERIFIER, Parties, run_session

_RECEIPTS: Final = 3000
_TOKENS: Final = 2000
_AT_ONCE: Final = 64
_WARM: Final = 200
_CALL_SECONDS: Final = 60.0
_GOAL: Final = 500.0
_RUNS: Final = 3


@dataclass(frozen=True)
class Run:
    """What came of one run.

    Attributes:
        rate: Receipts a second.
        bare: The same by bare transactions.
        group: Receipts in a transaction, on average.
        seconds: From sending a receipt to its acknowledgement, of each.
    """

    rate: float
    bare: float
    group: float
    seconds: list[float]


def _receipts(parties: Parties, count: int) -> list[receipt_pb2.Receipt]:
    models = TableModels(parties.profile)
    ids = random_ids(parties.profile, _TOKENS)
    with parties.provider(UnembeddedProvider, models=models) as provider:
        return [run_session(provider, ids, chunk=64).receipt for _ in range(count)]


def _settings(folder: Path, parties: Parties) -> Path:
    (folder / "root.pub.pem").write_bytes(public_pem(parties.root.public))
    key = folder / "verifier.pem"
    key.touch(mode=0o600)
    key.write_bytes(parties.verifier.to_pem())
    lines = {
        "name": VERIFIER,
        "key": f"file:{key}",
        "database": f"sqlite:///{folder / 'node.db'}",
        "listen": "127.0.0.1:0",
        "audits_at_once": 0,
        "calls_per_second": 100_000,
        "calls_burst": 1_000_000,
        "log_level": "error",
    }
    config = folder / "node.toml"
    provider = {"endpoint": "127.0.0.1:1", "roots": [str(folder / "root.pub.pem")]}
    config.write_text(_toml(lines) + f"[providers.{PROVIDER}]\n" + _toml(provider))
    return config


def _toml(values: dict[str, Any]) -> str:
    # JSON's strings, numbers and lists are TOML's.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


async def _submit(port: int, receipts: Sequence[receipt_pb2.Receipt]) -> list[float]:
    """Hand receipts in, so many at a time; return how long each took."""
    requests = iter([pb.SubmitReceiptRequest(receipt=receipt) for receipt in receipts])
    taken: list[float] = []
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = VerifierServiceStub(channel)

        async def client() -> None:
            for request in requests:
                start = time.perf_counter()
                await stub.SubmitReceipt(request, timeout=_CALL_SECONDS)
                taken.append(time.perf_counter() - start)

        await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
    return taken


def _group(database: Path, receipts: int) -> float:
    """Return how many receipts shared a transaction: they have one time."""
    connection = sqlite3.connect(database)
    try:
        (times,) = connection.execute(
            "SELECT COUNT(DISTINCT submitted_at) FROM (SELECT submitted_at FROM audit "
            "ORDER BY number DESC LIMIT ?)",
            (receipts,),
        ).fetchone()
    finally:
        connection.close()
    return receipts / float(times)


def _bare(folder: Path, raws: Sequence[bytes], group: int) -> float:
    """Return the receipts a second that bare transactions write."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute("CREATE TABLE receipt (number INTEGER PRIMARY KEY, raw BLOB)")
        start = time.perf_counter()
        for at in range(0, len(raws), group):
            connection.execute("BEGIN IMMEDIATE")
            rows = [(raw,) for raw in raws[at : at + group]]
            connection.executemany("INSERT INTO receipt (raw) VALUES (?)", rows)
            connection.execute("COMMIT")
        return len(raws) / (time.perf_counter() - start)
    finally:
        connection.close()
        (folder / "bare.db").unlink()


def _run(parties: Parties, receipts: Sequence[receipt_pb2.Receipt]) -> Run:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = _settings(folder, parties)
        command = ("coin_protocol.cli", "verifier", "serve", "--config", str(config))
        with running(*command) as (_, ready):
            asyncio.run(_submit(ready["port"], receipts[:_WARM]))
            measured = receipts[_WARM:]
            start = time.perf_counter()
            taken = asyncio.run(_submit(ready["port"], measured))
            rate = len(measured) / (time.perf_counter() - start)
        group = _group(folder / "node.db", len(measured))
        raws = [receipt.SerializeToString() for receipt in measured]
        return Run(rate, _bare(folder, raws, max(1, round(group))), group, taken)


def main() -> None:
    """Measure, and report the best of a few runs: noise only ever slows."""
    parties = Parties(profile=Profile.shipped("default"))
    receipts = _receipts(parties, _RECEIPTS)
    best = max((_run(parties, receipts) for _ in range(_RUNS)), key=lambda run: run.rate)
    size = statistics.mean(receipt.ByteSize() for receipt in receipts)
    report("submissions.per_second", best.rate, unit="1/s", better="higher", limit=_GOAL)
    report("submissions.bare_per_second", best.bare, unit="1/s", better="higher")
    report("submissions.share_of_bare", best.rate / best.bare, unit="ratio", better="higher")
    report("submissions.group", best.group, unit="receipts", better="higher")
    report("submissions.receipt", size, unit="bytes", better="lower")
    for name, quantile in (("p50", 0.5), ("p99", 0.99)):
        taken = 1e3 * float(np.quantile(best.seconds, quantile))
        report(f"submissions.acknowledged_{name}", taken, unit="ms", better="lower")


if __name__ == "__main__":
    main()
