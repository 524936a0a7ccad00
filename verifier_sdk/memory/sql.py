"""A verifier's memory across sessions, in its database, for any number of processes at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine

from coin_protocol.database.engine import reading
from coin_protocol.embedding import Vectors, window_dimension
from coin_protocol.errors import (
    CoinError,
    InvalidInputError,
    StoreUnavailableError,
    VerificationError,
)
from coin_protocol.limits import HASH_BYTES, MAX_BLOCKS, MAX_NAME_BYTES
from coin_protocol.profile import Profile
from verifier_sdk.memory import queries
from verifier_sdk.memory.header import Listed
from verifier_sdk.memory.index import MOST_QUERIES, load_faiss
from verifier_sdk.memory.keeper import Keeper, Sizes
from verifier_sdk.memory.queries import Known
from verifier_sdk.memory.search import Recalled, Source, recall
from verifier_sdk.memory.segment import Segment
from verifier_sdk.memory.shelf import Shelf, Stamp, shelf_folder
from verifier_sdk.memory.tail import Tail
from verifier_sdk.memory.vectors import Rows, encode

_LOG = logging.getLogger(__name__)

_UPKEEP_SECONDS: Final = 60.0
"""How often lookups have the segments looked after, where nobody else does."""

_TAIL_PAGES: Final = 8
"""A process that is further behind than so many pages has rows sealed before it goes on."""

_ATTEMPTS: Final = 3


class _ClosedError(StoreUnavailableError):
    """The memory was closed while something was under way."""


class _BehindError(StoreUnavailableError):
    """More rows than fit in memory are in no segment that is known."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a lookup is for."""

    provider: str
    profile_sha256: bytes
    excluding: bytes
    unit: Vectors
    rows: Rows


@dataclass(frozen=True, slots=True)
class MemoryState:
    """How a process sees the memory.

    Attributes:
        blocks: Rows in segments of the profiles that it was opened for.
        vectors: Distinct vectors in them.
        segments: How many of those there are.
        tail: Distinct vectors in no segment yet, of all profiles.
    """

    blocks: int
    vectors: int
    segments: int
    tail: int


class SqlMemory:
    """Block embeddings that providers opened, exact and near duplicates found among millions.

    The table `memory_block` is the truth, and is written with the verdict in one transaction.
    What is searched is made from it: segments on disk, which all processes of a machine share,
    and the rows since in memory. Threads may share one; calls block, so that asynchronous code
    takes `asyncio.to_thread`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        profiles: Iterable[Profile],
        folder: Path | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        """Use a database that has the memory's table. Nothing is read before it is needed.

        Args:
            engine: As `coin_protocol.database.engine.open_engine` makes it.
            profiles: Those that audited commitments may be made under.
            folder: Of segments, which can be made again; by default in the user's cache folder.
            sizes: When rows are sealed.

        Raises:
            MissingDependencyError: faiss is not installed.
        """
        load_faiss()  # better now than in the middle of an audit
        self._engine = engine
        self._dimensions = {one.digest: window_dimension(one.message.embedding) for one in profiles}
        self._sizes = sizes or Sizes()
        shelf = shelf_folder(engine, folder)
        self._shelf = Shelf(shelf)
        self._keeper = Keeper(engine, Shelf(shelf), self._sizes, self._go_on)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._stamp: Stamp | None = None
        self._segments: tuple[Segment, ...] = ()
        self._tail = Tail(0, self._sizes.settle_seconds)
        self._upkeep: threading.Thread | None = None
        self._upkeep_due = time.monotonic() + _UPKEEP_SECONDS

    def lookup(
        self, vectors: Vectors, *, provider: str, profile_sha256: bytes, excluding: bytes
    ) -> list[Recalled | None]:
        """Return for each block embedding the most like block of another commitment.

        Args:
            vectors: Float64 (n, dimension), of norm 1, under the profile.
            provider: Only its blocks count.
            profile_sha256: Only blocks under it count: vectors of two say nothing of each other.
            excluding: Digest of the commitment that is audited.

        Returns:
            The same vector where there is one, however many others are like it. Else the nearest,
            whatever its cosine: near duplicates (0.995) but for one in a thousand, what is
            farther away four times in five. None where the provider showed nothing else.

        Raises:
            InvalidInputError: The vectors are not of the profile's dimension, not finite or zero,
                or the memory was not opened for the profile.
            StoreUnavailableError: The database does not answer.
        """
        unit, rows = encode(vectors, self._dimension(profile_sha256))
        provider, excluding = _provider(provider), _commitment(excluding)
        if not len(rows):
            return []
        self._look_after()
        asked = _Asked(provider, profile_sha256, excluding, unit, rows)
        try:
            return self._recall(asked, patience=_TAIL_PAGES)
        except _BehindError:
            # On a new machine everything is still to be sealed: not by way of memory.
            self._keeper.keep(wait=True)
            return self._recall(asked, patience=None)

    def remember(
        self,
        connection: Connection,
        vectors: Vectors,
        *,
        provider: str,
        profile_sha256: bytes,
        commitment_sha256: bytes,
        block_indices: Sequence[int],
    ) -> None:
        """Write block embeddings in the caller's transaction; a block that is there stays as it is.

        Args:
            connection: Of a transaction that writes, and ends within `Sizes.settle_seconds`.
            vectors: Float64 (n, dimension), of norm 1, under the profile.
            provider: Who opened them.
            profile_sha256: What they were made under.
            commitment_sha256: Whose blocks they are.
            block_indices: Which of them, n distinct ones.

        Raises:
            InvalidInputError: As for `lookup`, or the indices are not such.
        """
        _, rows = encode(vectors, self._dimension(profile_sha256))
        indices = [int(index) for index in block_indices]
        inside = all(0 <= index < MAX_BLOCKS for index in indices)
        if len(indices) != len(rows) or len(set(indices)) != len(indices) or not inside:
            msg = (
                f"wanted {len(rows)} distinct block indices from 0 to {MAX_BLOCKS - 1}, one for "
                f"each vector; found {indices[:16]}"
            )
            raise InvalidInputError(msg)
        queries.insert_blocks(
            connection,
            rows,
            provider=_provider(provider),
            profile_sha256=profile_sha256,
            commitment_sha256=_commitment(commitment_sha256),
            block_indices=indices,
        )

    def forget(self, connection: Connection, before: float, *, at_most: int = 10_000) -> int:
        """Delete the oldest blocks, in the caller's transaction; return how many.

        They are found no more once that is committed. From memory and from this machine's disk
        they vanish with the next `maintain`, from that of others with theirs.

        Args:
            connection: Of a transaction that writes.
            before: Seconds since 1970, by the database's clock: what was remembered earlier goes.
            at_most: In one transaction, so that it keeps nobody waiting: call until it returns 0.
        """
        return queries.delete_blocks(connection, before=before, at_most=at_most)

    def maintain(self, *, wait: bool = False) -> bool:
        """Seal what has settled, and let go of what was forgotten; call it every minute or so.

        Lookups see to it too, so that only forgetting waits for whoever does not call it.

        Args:
            wait: For another process of this machine that is at it.

        Returns:
            Whether it was done here.

        Raises:
            StoreUnavailableError: The database does not answer.
            InvalidInputError: The cache folder cannot be written to.
        """
        self._upkeep_due = time.monotonic() + _UPKEEP_SECONDS
        done = self._keeper.keep(wait=wait)
        with self._lock:
            self._load()
            with reading(self._engine) as connection:
                first = self._tail.first
                there = first is None or first in queries.digests_of(connection, [first])
                if not there or queries.last_id(connection) < self._tail.last:
                    self._tail = Tail(self._tail.after, self._sizes.settle_seconds)
                self._catch_up(connection, None)
        return done

    def state(self) -> MemoryState:
        """Return what is held, as of the last lookup."""
        with self._lock:
            segments = self._segments
            return MemoryState(
                blocks=sum(one.header.blocks for one in segments),
                vectors=sum(one.header.vectors for one in segments),
                segments=len(segments),
                tail=len(self._tail),
            )

    def close(self) -> None:
        """End what is under way in the background. The engine is the caller's."""
        self._closing.set()
        # Whoever is about to start it has started it by then, or sees that it is closing.
        with self._lock:
            upkeep = self._upkeep
        if upkeep is not None:
            upkeep.join()

    def _dimension(self, profile_sha256: bytes) -> int:
        try:
            return self._dimensions[profile_sha256]
        except KeyError:
            msg = (
                f"the memory was not opened for profile {profile_sha256.hex()[:16]}, only for "
                f"{sorted(digest.hex()[:16] for digest in self._dimensions)}"
            )
            raise InvalidInputError(msg) from None

    def _recall(self, asked: _Asked, *, patience: int | None) -> list[Recalled | None]:
        """Look up in one transaction: what is committed before it is found."""
        found: list[Recalled | None] = []
        with ExitStack() as stack:
            with self._lock:
                self._load()
                connection = stack.enter_context(reading(self._engine))
                self._catch_up(connection, patience)
                sources = self._sources(asked)

            def resolve(digests: Collection[bytes]) -> dict[bytes, Known]:
                return queries.resolve(
                    connection,
                    digests,
                    provider=asked.provider,
                    profile_sha256=asked.profile_sha256,
                    excluding=asked.excluding,
                )

            for start in range(0, len(asked.rows), MOST_QUERIES):
                part = slice(start, start + MOST_QUERIES)
                found += recall(sources, asked.unit[part], asked.rows[part], resolve)
        return found

    def _sources(self, asked: _Asked) -> list[Source]:
        """Return where a provider's vectors lie; the lock is held."""
        profile = asked.profile_sha256
        found: list[Source | None] = [
            segment.slice(asked.provider)
            for segment in self._segments
            if segment.header.profile_sha256 == profile
        ]
        found.append(self._tail.slice(profile, asked.provider, self._dimensions[profile]))
        return [one for one in found if one is not None]

    def _catch_up(self, connection: Connection, patience: int | None) -> None:
        """Read what no segment has yet; the lock is held.

        Args:
            connection: In a transaction that reads.
            patience: Pages that are read at most; None for all.

        Raises:
            _BehindError: There are more.
        """
        cursor: int | None = 0
        pages = 0
        while cursor is not None:
            if pages == patience:
                msg = "the memory is behind its database"
                raise _BehindError(msg)
            self._go_on()
            cursor = self._tail.read(connection, cursor)
            pages += 1

    def _load(self) -> None:
        """Open the segments that the manifest names, those that are damaged made anew; locked."""
        for _ in range(_ATTEMPTS):
            stamp = self._shelf.stamp()
            if stamp == self._stamp:
                return
            manifest = self._shelf.read()
            damaged = self._open(manifest.segments)
            if not damaged:
                self._shelf.let_go(manifest)
                self._stamp = stamp
                if manifest.sealed < self._tail.after:
                    self._tail = Tail(manifest.sealed, self._sizes.settle_seconds)
                self._tail.drop(manifest.sealed)
                return
            if self._shelf.stamp() == stamp:
                self._keeper.keep(wait=True, damaged=damaged)
        msg = "the memory's segments cannot be read as soon as they are written; is the disk well?"
        raise StoreUnavailableError(msg)

    def _open(self, listed: Iterable[Listed]) -> list[Listed]:
        """Open segments of the profiles that are known; return those that cannot be."""
        opened, damaged = [], []
        for one in listed:
            try:
                if self._shelf.header(one).profile_sha256 in self._dimensions:
                    opened.append(self._shelf.open(one))
            except VerificationError as error:
                _LOG.warning("a segment of the memory cannot be used: %s", error)
                damaged.append(one)
        if not damaged:
            self._segments = tuple(opened)
        return damaged

    def _look_after(self) -> None:
        """Have the segments looked after in the background, now and then."""
        with self._lock:
            running = self._upkeep is not None and self._upkeep.is_alive()
            if running or time.monotonic() < self._upkeep_due or self._closing.is_set():
                return
            self._upkeep_due = time.monotonic() + _UPKEEP_SECONDS
            self._upkeep = threading.Thread(target=self._maintain_softly, name="coin-memory")
            self._upkeep.start()

    def _maintain_softly(self) -> None:
        try:
            self.maintain()
        except _ClosedError:
            pass
        except CoinError as error:
            _LOG.warning("the memory's segments could not be looked after: %s", error)
        except Exception:  # noqa: BLE001 - a thread that nobody waits for
            _LOG.exception("the memory's segments could not be looked after")

    def _go_on(self) -> None:
        if self._closing.is_set():
            msg = "the memory was closed"
            raise _ClosedError(msg)


def _provider(name: str) -> str:
    """Spell out what PostgreSQL or UTF-8 cannot hold: names come from outside."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:MAX_NAME_BYTES]


def _commitment(digest: bytes) -> bytes:
    if len(digest) != HASH_BYTES:
        msg = f"a commitment's digest has {HASH_BYTES} bytes; found {len(digest)}"
        raise InvalidInputError(msg)
    return digest
