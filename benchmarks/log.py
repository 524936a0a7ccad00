"""A million entries in a verifier's log: appends, proofs, heads in time, space, and restarts.

python -m benchmarks.log [--entries 1000000] [--database URL]

Every transaction is synced. Floors, measured beside what they are held against: rows of the same
bytes inserted into a bare table with the same unique key; proofs of the same leaves from a tree in
memory; that tree built again, as a log that kept none of its hashes would have to at each start.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    func,
    insert,
    select,
    text,
)

from benchmarks._common import report
from coin_protocol.database.engine import empty_log, open_engine, reading, writing
from coin_protocol.log_leaf import CommitmentLeaf
from coin_protocol.merkle import IncrementalTree, leaf_hash
from coin_protocol.note import NoteSigner
from coin_protocol.signer import KeySigner
from verifier_sdk.log import Log, Sequencer, check_log, enqueue, enqueue_all
from verifier_sdk.log.tables import ENTRY, HEAD
from verifier_sdk.store.metadata import METADATA

_ORIGIN: Final = "example.org/bench"
_BATCH: Final = 1000
_BATCHES: Final = 40
_LARGE_BATCH: Final = 10_000
_LEAST: Final = 2 * _BATCHES * _BATCH
"""Entries: those beside bare inserts, and as many whose rate is told."""

_SAMPLE: Final = 1000
_ROUNDS: Final = 3
_SINGLE: Final = 250
_MEAN_PAUSE: Final = 0.03
_APPENDS_A_SECOND: Final = 2000
_PROOF_MS: Final = 5.0
_BUILD_SECONDS: Final = 120.0
_SECONDS_TO_HEAD: Final = 1.0

_BARE: Final = Table(
    "bare",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("leaf_hash", LargeBinary(32), unique=True),
    Column("data", LargeBinary),
)


def _leaves(count: int) -> list[bytes]:
    random_bytes = [os.urandom(48) for _ in range(count)]
    return [CommitmentLeaf("acme", raw[:16], raw[16:]).to_bytes() for raw in random_bytes]


def _append(engine: Engine, sequencer: Sequencer, leaves: list[bytes]) -> list[bytes]:
    """Append leaves, and sign a head over them; return their hashes."""
    with writing(engine) as connection:
        hashes = enqueue_all(connection, leaves)
    while sequencer.run_once().more:
        pass
    return hashes


def _append_beside_bare(
    engine: Engine, sequencer: Sequencer, tree: IncrementalTree, batches: int
) -> float:
    """Append in turns with bare inserts; return how many times as long it takes."""
    ours = bare = 0.0
    _BARE.metadata.create_all(engine)
    for _ in range(batches):
        leaves = _leaves(_BATCH)
        rows = [{"leaf_hash": leaf_hash(data), "data": data} for data in leaves]
        start = time.perf_counter()
        tree.extend(_append(engine, sequencer, leaves))
        ours += time.perf_counter() - start
        start = time.perf_counter()
        with writing(engine) as connection:
            connection.execute(insert(_BARE), rows)
        bare += time.perf_counter() - start
    _BARE.metadata.drop_all(engine)
    return ours / bare


def _build(engine: Engine, sequencer: Sequencer, tree: IncrementalTree, entries: int) -> None:
    """Append to the given number of entries, and report at which rates."""
    start = time.perf_counter()
    ratio = _append_beside_bare(engine, sequencer, tree, _BATCHES)
    report("log.appends_to_bare_inserts", ratio, unit="ratio", better="lower")
    while len(tree) < entries - _BATCHES * _BATCH:
        tree.extend(_append(engine, sequencer, _leaves(_LARGE_BATCH)))
    full, before = time.perf_counter(), len(tree)
    while len(tree) < entries:
        tree.extend(_append(engine, sequencer, _leaves(_BATCH)))
    end = time.perf_counter()
    rate = (len(tree) - before) / (end - full)
    report("log.appends", rate, unit="1/s", better="higher", limit=_APPENDS_A_SECOND)
    report("log.build", end - start, unit="s", better="lower", limit=_BUILD_SECONDS)


def _quantiles(
    make: Callable[[], list[Callable[[], object]]], clock: Callable[[], float]
) -> tuple[float, float]:
    """Return median and 99th percentile of calls in milliseconds, of the quietest of some rounds.

    Args:
        make: Makes the calls of a round, with nothing cached.
        clock: Seconds.
    """
    best = float("inf"), float("inf")
    for _ in range(_ROUNDS):
        taken = []
        for call in make():
            start = clock()
            call()
            taken.append((clock() - start) * 1e3)
        taken.sort()
        best = min(best, (statistics.median(taken), taken[len(taken) * 99 // 100]), key=_p99)
    return best


def _p99(quantiles: tuple[float, float]) -> float:
    return quantiles[1]


def _proofs(engine: Engine, tree: IncrementalTree, chance: random.Random) -> None:
    """Prove at random: entries in heads, and heads in heads."""
    # SQLite works on this thread, and its processor time tells nothing of others on the machine.
    clock = time.thread_time if engine.dialect.name == "sqlite" else time.perf_counter
    with reading(engine) as connection:
        heads = connection.execute(select(HEAD.c.size).where(HEAD.c.size > 0)).scalars().all()
    sizes = [chance.choice(heads) for _ in range(_SAMPLE)]
    wanted = [(chance.randrange(head), head) for head in sizes]
    pairs = [sorted(chance.sample(heads, 2)) for _ in range(_SAMPLE)]
    hashes = tree.leaf_hashes

    def inclusions() -> list[Callable[[], object]]:
        log = Log(engine)
        return [partial(log.inclusion, hashes[index], head) for index, head in wanted]

    def consistencies() -> list[Callable[[], object]]:
        log = Log(engine)
        return [partial(log.consistency, old, new) for old, new in pairs]

    def in_memory() -> list[Callable[[], object]]:
        return [partial(tree.inclusion_proof, index, head) for index, head in wanted]

    medians = {}
    for name, make in (("inclusion", inclusions), ("consistency", consistencies)):
        medians[name], p99 = _quantiles(make, clock)
        report(f"log.{name}_p50", medians[name], unit="ms", better="lower")
        report(f"log.{name}_p99", p99, unit="ms", better="lower", limit=_PROOF_MS)
    ratio = medians["inclusion"] / _quantiles(in_memory, clock)[0]
    report("log.inclusion_to_memory", ratio, unit="ratio", better="lower")


def _heads(engine: Engine, sequencer: Sequencer, chance: random.Random) -> None:
    """Enqueue entries one by one, and see when a head covers each."""
    stop, committed = threading.Event(), list[tuple[bytes, float]]()
    thread = threading.Thread(target=sequencer.run, args=(stop,))
    thread.start()
    for data in _leaves(_SINGLE):
        time.sleep(chance.expovariate(1 / _MEAN_PAUSE))
        with writing(engine) as connection:
            hashed = enqueue(connection, data)
        committed.append((hashed, time.time()))
    waited = []
    log = Log(engine)
    patience = time.monotonic() + 5
    while time.monotonic() < patience:
        with reading(engine) as connection:
            left = select(func.count()).where(ENTRY.c.leaf_index.is_(None))
            if not connection.execute(left).scalar_one() and log.head().size == _size(engine):
                break
        time.sleep(0.02)
    stop.set()
    thread.join()
    for hashed, at in committed:
        index = log.inclusion(hashed).index
        waited.append(_covered_at(engine, index) - at)
    waited.sort()
    report("log.head_p50", statistics.median(waited), unit="s", better="lower")
    p99 = waited[len(waited) * 99 // 100]
    report("log.head_p99", p99, unit="s", better="lower", limit=_SECONDS_TO_HEAD)


def _size(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.execute(select(func.max(ENTRY.c.leaf_index))).scalar_one()) + 1


def _covered_at(engine: Engine, index: int) -> float:
    with reading(engine) as connection:
        query = select(HEAD.c.signed_at).where(HEAD.c.size > index).order_by(HEAD.c.size).limit(1)
        return float(connection.execute(query).scalar_one())


def _restart(url: str, hashes: list[bytes]) -> None:
    start = time.perf_counter()
    engine = open_engine(url)
    log = Log(engine)
    log.inclusion(len(hashes) // 3, log.head().size)
    opened = time.perf_counter() - start
    engine.dispose()
    start = time.perf_counter()
    IncrementalTree(hashes).inclusion_proof(len(hashes) // 3)
    rebuilt = time.perf_counter() - start
    report("log.open", opened * 1e3, unit="ms", better="lower")
    report("log.open_to_rebuild", opened / rebuilt, unit="ratio", better="lower")


def _space(engine: Engine, entries: int) -> None:
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None  # noqa: S101 - just connected
            driver.execute("VACUUM")  # the bare table was in it, too
        empty_log(engine)
        size = Path(engine.url.database or "").stat().st_size
    else:
        with reading(engine) as connection:
            total = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname LIKE "
            query = text(total + "'log\\_%' AND relkind = 'r'")
            size = int(connection.execute(query).scalar_one())
    report("log.disk", size / entries, unit="bytes/entry", better="lower")
    leaf = len(_leaves(1)[0]) + 32
    report("log.disk_to_data_and_hash", size / entries / leaf, unit="ratio", better="lower")


def _measure(url: str, folder: Path, entries: int) -> None:
    chance = random.Random(1)  # noqa: S311 - a seeded sample, no secret
    engine = open_engine(url)
    tables = [table for name, table in METADATA.tables.items() if name.startswith("log_")]
    METADATA.create_all(engine, tables)
    signer = NoteSigner(KeySigner.generate(_ORIGIN))
    sequencer = Sequencer(engine, signer, origin=_ORIGIN, head_file=folder / "head")
    tree = IncrementalTree()
    _build(engine, sequencer, tree, entries)
    _proofs(engine, tree, chance)
    _space(engine, entries)
    _restart(url, list(tree.leaf_hashes))
    _heads(engine, sequencer, chance)
    start = time.perf_counter()
    checked = check_log(engine, [signer.verifier], _ORIGIN)
    taken = time.perf_counter() - start
    report("log.check", checked.entries / taken, unit="1/s", better="higher")
    engine.dispose()


def main() -> None:
    """Measure in a SQLite file, or in an empty database at a URL."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--database", help="an empty database; by default a SQLite file")
    given = parser.parse_args()
    if given.entries < _LEAST:
        parser.error(f"--entries must be {_LEAST} or more")
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{folder}/log.db"
        _measure(url, Path(folder), given.entries)


if __name__ == "__main__":
    main()
