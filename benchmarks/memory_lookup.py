"""A block that a provider opened before is found among a million within five milliseconds.

python -m benchmarks.memory_lookup [--blocks N] [--providers N] [--database URL]

Rows are written to an empty database as they would be after months; then everything that a node
does is measured: sealing them, starting, looking up the sixteen blocks of an audit. Vectors are
made at random, spread as 6,000 blocks of real reasoning were (663 questions, 1,955 traces).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, MetaData, insert

from benchmarks._common import report
from coin_protocol.database.engine import open_engine, writing
from coin_protocol.embedding import window_dimension
from coin_protocol.profile import Profile
from coin_protocol.quantise import quantise
from verifier_sdk.memory import Recalled, SqlMemory, add_tables
from verifier_sdk.memory.index import MOST_QUERIES, nearest_of_all
from verifier_sdk.memory.tables import MEMORY_BLOCK
from verifier_sdk.memory.vectors import cosines, directions

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.uint8]
Clock = Callable[[], float]

_LIMIT_MS: Final = 5.0
_RECALL: Final = 0.95
_NEAR: Final = (0.995, 0.9999)

_AUDIT: Final = MOST_QUERIES
"""Blocks that one audit opens."""
_BATCHES: Final = 200
_TAIL: Final = 4_000
"""Rows that were remembered a moment ago."""
_SHARED: Final = 30_000
"""Blocks that say one of three things, each in a commitment with the other two."""
_PAGE: Final = 65_536
_DAY: Final = 86_400.0


class Spread:
    """Draws vectors as blocks of reasoning lie: by domain, question, trace and block.

    The shares of variance, their uneven spread over traces and questions, and the decay over
    directions are those that were measured.
    """

    _MEAN, _DOMAIN, _QUESTION, _TRACE, _BLOCK = 0.074, 0.16, 0.474, 0.07, 0.22
    _DOMAINS, _TRACES_OF_QUESTION, _BLOCKS_OF_TRACE = 12, 5, 8
    _DECAY = 30.0

    def __init__(self, count: int, dimension: int) -> None:
        """Place `count` blocks' traces."""
        self._rng = rng = np.random.default_rng(1)
        turned = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
        decay = np.exp(-np.arange(dimension) / self._DECAY)
        self._shape = (turned * np.sqrt(decay / decay.sum())).T.astype(np.float32)
        traces = -(-count // self._BLOCKS_OF_TRACE)
        questions = -(-traces // self._TRACES_OF_QUESTION)
        domains = self._draw(self._DOMAINS, self._DOMAIN)
        centres = self._draw(1, self._MEAN) + self._draw(questions, self._QUESTION)
        centres += domains[rng.integers(0, self._DOMAINS, questions)]
        question = rng.integers(0, questions, traces)
        uneven = self._uneven(questions, 0.6)[question, None]
        self._traces: Floats = centres[question] + self._draw(traces, self._TRACE) * uneven
        self._loud = self._uneven(traces, 1.0)

    def blocks(self, first: int, end: int) -> Floats:
        """Return unit vectors of blocks by number."""
        trace = np.arange(first, end) // self._BLOCKS_OF_TRACE
        noise = self._draw(end - first, self._BLOCK) * self._loud[trace, None]
        return _unit(self._traces[trace] + noise)

    def _draw(self, count: int, variance: float) -> Floats:
        normal = self._rng.standard_normal((count, len(self._shape)), np.float32)
        drawn: Floats = (normal @ self._shape) * np.float32(np.sqrt(variance))
        return drawn

    def _uneven(self, count: int, sigma: float) -> Floats:
        scales = np.exp(sigma * self._rng.standard_normal(count))
        return np.asarray(np.sqrt(scales / scales.mean()), np.float32)


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def _near(vectors: Floats, rng: np.random.Generator) -> Floats:
    """Return near duplicates, at cosines spread evenly over what counts as one."""
    wanted = rng.uniform(*_NEAR, len(vectors))[:, None].astype(np.float32)
    noise = rng.standard_normal(vectors.shape, np.float32)
    noise = _unit(noise - (noise * vectors).sum(axis=1, keepdims=True) * vectors)
    found = wanted * vectors + np.sqrt(1 - wanted**2) * noise
    return np.asarray(found, np.float32)


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--providers", type=int, default=1)
    parser.add_argument("--database", help="an empty one; by default a SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(options.database or f"sqlite:///{folder}/memory.db")
        _Bench(engine, Path(folder), options.blocks, options.providers).run()
        engine.dispose()


class _Bench:
    """One database, filled once."""

    def __init__(self, engine: Engine, folder: Path, blocks: int, providers: int) -> None:
        self._engine = engine
        self._folder = folder
        self._blocks = blocks
        self._providers = providers
        self._profile = Profile.shipped("default")
        dimension = window_dimension(self._profile.message.embedding)
        self._spread = Spread(blocks + _TAIL + _AUDIT * _BATCHES, dimension)
        self._rows = np.empty((0, dimension + 4), np.uint8)
        # Of the provider that is asked about, and fresh ones of its next sessions.
        self._fresh = np.empty((0, dimension), np.float32)

    def run(self) -> None:
        """Fill, seal, start, look up."""
        self._fill()
        first = self._open()
        with _timed("memory_lookup.seal", self._blocks, unit="us a block", scale=1e6):
            first.maintain(wait=True)
        first.close()
        self._recent(first)
        with _timed("memory_lookup.start", 1, unit="s", scale=1.0):
            memory = self._open()
            self._lookup(memory, self._fresh[:_AUDIT])
        self._sizes(memory)
        self._speed(memory)
        self._recall(memory)
        memory.close()

    def _open(self) -> SqlMemory:
        return SqlMemory(self._engine, profiles=[self._profile], folder=self._folder / "cache")

    def _fill(self) -> None:
        """Write rows of all providers in turn, some of them boilerplate; all long ago."""
        add_tables(metadata := MetaData())
        metadata.create_all(self._engine)
        indexes = list(metadata.tables[MEMORY_BLOCK.name].indexes)
        for index in indexes:
            index.drop(self._engine)  # made at once afterwards, in a tenth of the time
        common = self._spread.blocks(0, 3)
        kept = []
        for start in range(0, self._blocks, _PAGE):
            numbers = np.arange(start, min(start + _PAGE, self._blocks))
            vectors = self._spread.blocks(start, int(numbers[-1]) + 1)
            shared = numbers < min(_SHARED, self._blocks // 10)
            vectors[shared] = common[numbers[shared] % 3]
            rows = quantise(vectors.astype(np.float64))
            kept.append(rows[numbers % self._providers == 0])
            with writing(self._engine) as connection:
                connection.execute(insert(MEMORY_BLOCK), list(self._values(numbers, rows)))
        for index in indexes:
            index.create(self._engine)
        self._rows = np.concatenate(kept)
        end = self._blocks + _TAIL
        self._fresh = self._spread.blocks(end, end + _AUDIT * _BATCHES)

    def _values(self, numbers: npt.NDArray[np.int64], rows: Rows) -> Iterator[dict[str, object]]:
        at = time.time() - _DAY
        for number, row in zip(numbers.tolist(), rows, strict=True):
            vector = row.tobytes()
            yield {
                "provider": f"provider-{number % self._providers}",
                "profile_sha256": self._profile.digest,
                "commitment_sha256": (number // 3).to_bytes(32, "big"),
                "block_index": number % 3,
                "vector_sha256": sha256(vector).digest(),
                "vector": vector,
                "remembered_at": at,
            }

    def _recent(self, memory: SqlMemory) -> None:
        """Remember rows as a node does, so that there is a tail."""
        vectors = self._spread.blocks(self._blocks, self._blocks + _TAIL).astype(np.float64)
        with _timed("memory_lookup.remember", _TAIL // _AUDIT, unit="ms an audit", scale=1e3):
            for start in range(0, _TAIL, _AUDIT):
                with writing(self._engine) as connection:
                    memory.remember(
                        connection,
                        vectors[start : start + _AUDIT],
                        provider="provider-0",
                        profile_sha256=self._profile.digest,
                        commitment_sha256=sha256(b"recent %d" % start).digest(),
                        block_indices=range(len(vectors[start : start + _AUDIT])),
                    )
        self._rows = np.concatenate([self._rows, quantise(vectors)])

    def _lookup(self, memory: SqlMemory, vectors: Floats) -> list[Recalled | None]:
        return memory.lookup(
            vectors.astype(np.float64),
            provider="provider-0",
            profile_sha256=self._profile.digest,
            excluding=sha256(b"the one that is audited").digest(),
        )

    def _sizes(self, memory: SqlMemory) -> None:
        state = memory.state()
        disk = sum(path.stat().st_size for path in (self._folder / "cache").rglob("*"))
        report("memory_lookup.segments", state.segments, unit="segments", better="lower")
        report("memory_lookup.disk", disk / state.vectors, unit="bytes a vector", better="lower")
        url = self._engine.url.render_as_string(hide_password=False)
        with get_context("spawn").Pool(1) as pool:
            held = pool.apply(_held, (url, self._folder / "cache", self._fresh[:_AUDIT]))
        if held is not None:
            report("memory_lookup.private", held / 2**20, unit="MiB a process", better="lower")
        if self._engine.dialect.name == "sqlite":
            database = Path(str(self._engine.url.database)).stat().st_size
            per_row = database / (self._blocks + _TAIL)
            report("memory_lookup.database", per_row, unit="bytes a block", better="lower")

    def _speed(self, memory: SqlMemory) -> None:
        rng = np.random.default_rng(3)
        picked = rng.integers(0, len(self._rows), len(self._fresh))
        near = _near(directions(self._rows[picked]), rng)
        common = directions(self._rows[:3])[np.arange(_AUDIT) % 3]
        units = directions(self._rows)
        kinds: dict[str, Callable[[int], Floats]] = {
            "fresh": lambda at: self._fresh[at : at + _AUDIT],
            "near": lambda at: near[at : at + _AUDIT],
            "fresh_of_4": lambda at: self._fresh[at : at + 4],
            "boilerplate": lambda _: _near(common, rng),
        }
        taken: dict[str, list[float]] = {kind: [] for kind in [*kinds, "processor", "exact"]}

        def time_it(
            kind: str, call: Callable[[], object], clock: Clock = time.perf_counter
        ) -> None:
            start = clock()
            call()
            taken[kind].append(clock() - start)

        for number in range(_BATCHES):
            for kind, batch in kinds.items():
                time_it(kind, partial(self._lookup, memory, batch(number * _AUDIT)))
            asked = self._fresh[number * _AUDIT : (number + 1) * _AUDIT]
            time_it("processor", partial(self._lookup, memory, asked), time.thread_time)
            if number % 10 == 0:
                time_it("exact", partial(nearest_of_all, asked, units, 1))
        for kind, seconds in taken.items():
            limit = _LIMIT_MS if kind in ("fresh", "near") else None
            for share in (50, 99):
                value = float(np.percentile(seconds, share)) * 1e3
                name = f"memory_lookup.{kind}_p{share}"
                report(name, value, unit="ms", better="lower", limit=limit)
        ratio = np.median(taken["exact"]) / np.median(taken["fresh"])
        report("memory_lookup.against_exact", float(ratio), unit="ratio", better="higher")

    def _recall(self, memory: SqlMemory) -> None:
        rng = np.random.default_rng(4)
        picked = rng.integers(0, len(self._rows), 2_000)
        near = _near(directions(self._rows[picked]), rng)
        units = directions(self._rows)
        for kind, asked, limit in (
            ("near", near, _RECALL),
            ("plain", self._fresh[:2_000], None),
        ):
            found = self._lookup(memory, asked)
            exact = np.concatenate(
                [
                    nearest_of_all(asked[at : at + _AUDIT], units, 1)[:, 0]
                    for at in range(0, len(asked), _AUDIT)
                ]
            )
            best = cosines(asked.astype(np.float64), self._rows[exact, None])[:, 0]
            got = np.array([-1.0 if match is None else match.cosine for match in found])
            share = float(np.mean(got >= best - 1e-6))
            name = f"memory_lookup.{kind}_recall"
            report(name, share, unit="share", better="higher", limit=limit)
            name = f"memory_lookup.{kind}_cosine"
            report(name, float(np.median(best)), unit="cosine", better="higher")


@contextmanager
def _timed(name: str, count: int, *, unit: str, scale: float) -> Iterator[None]:
    start = time.perf_counter()
    yield
    taken = (time.perf_counter() - start) * scale / count
    report(name, taken, unit=unit, better="lower")


def _held(url: str, cache: Path, asked: Floats) -> int | None:
    """Return the bytes that a new process holds for itself to look up, where the system says."""
    engine = open_engine(url)
    before = _private_bytes()
    profile = Profile.shipped("default")
    memory = SqlMemory(engine, profiles=[profile], folder=cache)
    for provider in ("provider-0", "nobody"):
        memory.lookup(
            asked.astype(np.float64),
            provider=provider,
            profile_sha256=profile.digest,
            excluding=bytes(32),
        )
    after = _private_bytes()
    return None if before is None or after is None else after - before


def _private_bytes() -> int | None:
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon")) * 1024


if __name__ == "__main__":
    main()
