"""A memory over both databases, and what exact search over the table would say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, MetaData, select

from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.embedding import Vectors, unit
from coin_protocol.profile import Profile
from coin_protocol.quantise import dequantise
from coin_protocol.testing.small import small_profile
from tests.support.databases import KINDS, database
from verifier_sdk.memory import Recalled, Sizes, SqlMemory, add_tables
from verifier_sdk.memory.tables import MEMORY_BLOCK
from verifier_sdk.memory.vectors import encode

DIMENSION = 8
PROFILE = small_profile(projection=DIMENSION)
OTHER_PROFILE = small_profile(projection=DIMENSION, block_size=16)
SMALL = Sizes(seal_rows=4, segment_rows=64, settle_seconds=0.0)

MakeNode = Callable[..., "Node"]


def commitment(number: int) -> bytes:
    return sha256(b"commitment %d" % number).digest()


def vectors(count: int, *, seed: int = 0, dimension: int = DIMENSION) -> Vectors:
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def near(rows: Vectors, cosine: float, *, seed: int = 1) -> Vectors:
    """Return vectors at exactly this cosine to the rows."""
    noise = np.random.default_rng(seed).standard_normal(rows.shape)
    noise = unit(noise - (noise * rows).sum(axis=1, keepdims=True) * rows)
    found: Vectors = cosine * rows + np.sqrt(1 - cosine**2) * noise
    return found


class Node:
    """One process of a verifier node."""

    def __init__(self, memory: SqlMemory, engine: Engine, cache: Path) -> None:
        self.memory = memory
        self.engine = engine
        self.cache = cache

    def remember(
        self,
        number: int,
        rows: Vectors,
        *,
        provider: str = "acme",
        profile: Profile = PROFILE,
        first: int = 0,
    ) -> None:
        with writing(self.engine) as connection:
            self.memory.remember(
                connection,
                rows,
                provider=provider,
                profile_sha256=profile.digest,
                commitment_sha256=commitment(number),
                block_indices=range(first, first + len(rows)),
            )

    def lookup(
        self,
        rows: Vectors,
        *,
        excluding: int = -1,
        provider: str = "acme",
        profile: Profile = PROFILE,
    ) -> list[Recalled | None]:
        return self.memory.lookup(
            rows,
            provider=provider,
            profile_sha256=profile.digest,
            excluding=commitment(excluding),
        )

    def forget(self, before: float) -> int:
        with writing(self.engine) as connection:
            return self.memory.forget(connection, before)

    def times(self) -> list[float]:
        with reading(self.engine) as connection:
            found = connection.execute(
                select(MEMORY_BLOCK.c.remembered_at).order_by(MEMORY_BLOCK.c.id)
            )
            return list(found.scalars())

    def files(self) -> list[Path]:
        return [path for path in self.cache.rglob("*") if path.is_file()]

    def by_hand(self, rows: Vectors, *, excluding: int, provider: str) -> list[Recalled | None]:
        """Compare with every row of the table."""
        with reading(self.engine) as connection:
            known = connection.execute(
                select(MEMORY_BLOCK)
                .where(
                    MEMORY_BLOCK.c.provider == provider,
                    MEMORY_BLOCK.c.profile_sha256 == PROFILE.digest,
                    MEMORY_BLOCK.c.commitment_sha256 != commitment(excluding),
                )
                .order_by(MEMORY_BLOCK.c.id)
            ).all()
        found: list[Recalled | None] = []
        for vector, row in zip(*encode(rows, DIMENSION), strict=True):
            best: Recalled | None = None
            for block in known:
                kept = unit(dequantise([block.vector], DIMENSION))[0]
                exact = block.vector == row.tobytes()
                match = Recalled(
                    block.commitment_sha256, block.block_index, float(kept @ vector), exact
                )
                better = best is None or (exact, match.cosine) > (best.exact, best.cosine + 1e-9)
                if better and not (best is not None and best.exact):
                    best = match
            found.append(best)
        return found


LISTED = Sizes(seal_rows=80, settle_seconds=0.0, flat_rows=64)
"""So small that lists are made."""
SHOWN = vectors(160)
ASKED = near(SHOWN, 0.999)


def fill(node: Node, rows: Vectors = SHOWN) -> None:
    node.remember(1, rows[: len(rows) // 2])
    node.remember(2, rows[len(rows) // 2 :])


def numbers(found: list[Recalled | None]) -> list[bytes | None]:
    return [match.commitment_sha256 if match else None for match in found]


EACH = [commitment(1)] * 80 + [commitment(2)] * 80


@pytest.fixture(scope="session", params=KINDS)
def shared_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A database of each kind; making one takes longer than most tests."""
    with database(request.param, tmp_path_factory.mktemp("database")) as found:
        yield found


@pytest.fixture
def url(shared_url: str) -> str:
    """A database with nothing but an empty table."""
    engine = open_engine(shared_url)
    make_tables(engine)
    engine.dispose()
    return shared_url


def make_tables(engine: Engine) -> None:
    """Make the table anew; ids begin at 1 again."""
    metadata = MetaData()
    add_tables(metadata)
    metadata.drop_all(engine)
    metadata.create_all(engine)


@pytest.fixture
def make_node(url: str, tmp_path: Path) -> Iterator[MakeNode]:
    """Nodes over one database, as so many processes of one machine, or of several, open it."""
    with ExitStack() as stack:

        def make(
            *, sizes: Sizes = SMALL, machine: str = "here", profile: Profile = PROFILE
        ) -> Node:
            engine = open_engine(url)
            stack.callback(engine.dispose)
            cache = tmp_path / machine
            memory = SqlMemory(engine, profiles=[profile, OTHER_PROFILE], folder=cache, sizes=sizes)
            stack.callback(memory.close)
            return Node(memory, engine, cache)

        yield make


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()
