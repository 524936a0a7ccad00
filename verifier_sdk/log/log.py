"""Read a log: its heads, its entries, and the proofs that tie the two together."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from coin_protocol.checkpoint import MAX_SIZE, Checkpoint
from coin_protocol.database.engine import reading, writing
from coin_protocol.errors import InvalidInputError
from coin_protocol.limits import HASH_BYTES, MAX_LOG_ENTRIES
from coin_protocol.note import NoteVerifier
from verifier_sdk.log import tree
from verifier_sdk.log.errors import (
    LogDamagedError,
    LogForkError,
    NotLoggedYetError,
    UnknownEntryError,
)
from verifier_sdk.log.heads import Head, cosign_head, head_of_size, newest_head, require_head
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.log.tiles import CACHED_TILES, TILE_WIDTH, TileCache, TreeReader


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That an entry is in the tree of a head.

    Attributes:
        index: The entry's.
        size: The head's.
        proof: As `coin_protocol.merkle.verify_inclusion` takes it.
        head: Where the newest one was asked for.
    """

    index: int
    size: int
    proof: list[bytes]
    head: Head | None


class Log:
    """Reads the log in a database, while others append to it. Thread-safe.

    Proofs are to heads that were signed. What a proof rests on is never changed, so that one made
    at any time is as good as any other.
    """

    def __init__(
        self, engine: Engine, *, quorum: int = 0, cached_tiles: int = CACHED_TILES
    ) -> None:
        """Read over `engine`.

        Args:
            engine: Of the database, its tables made.
            quorum: Witnesses that must have cosigned a head before it is the newest one.
            cached_tiles: Kept in memory, 16 KiB each at most.
        """
        self.quorum = quorum
        self._engine = engine
        self._cache = TileCache(cached_tiles)

    def head(self) -> Head:
        """Return the newest head.

        Raises:
            NotLoggedYetError: There is none yet.
            StoreUnavailableError: The database does not answer.
        """
        with reading(self._engine) as connection:
            return require_head(connection, self.quorum)

    def inclusion(
        self, entry: bytes | int, size: int | None = None, *, unsigned: bool = False
    ) -> Inclusion:
        """Return the proof that an entry is in a tree.

        Args:
            entry: Its leaf hash, 32 bytes, or its index.
            size: Of the tree, that of a head; None for the newest one.
            unsigned: Whether `size` may be any, up to that of the newest head.

        Raises:
            InvalidInputError: An argument is out of range, or the entry came after that head.
            UnknownEntryError: The log has no such entry.
            NotLoggedYetError: The entry waits for a head that covers it.
            NotSignedError: There is no head of this size.
            LogDamagedError: Rows of the tree are missing.
            StoreUnavailableError: The database does not answer.
        """
        _require_entry(entry)
        with reading(self._engine) as connection:
            index = entry if isinstance(entry, int) else _index_of(connection, entry)
            head = None
            if size is None:
                head = require_head(connection, self.quorum)
                size = head.size
                if index >= size:
                    _require_known(connection, index)
                    msg = f"entry {index} waits for a head that covers it; try again shortly"
                    raise NotLoggedYetError(msg)
            else:
                self._require_size(connection, size, unsigned=unsigned)
                if index >= size:
                    msg = f"a tree of {size} entries has none of index {index}; ask for a later one"
                    raise InvalidInputError(msg)
            node = TreeReader(connection, size, self._cache).node
            return Inclusion(index, size, tree.inclusion_proof(index, size, node), head)

    def consistency(self, old_size: int, new_size: int, *, unsigned: bool = False) -> list[bytes]:
        """Return the proof that the tree of one head is a prefix of that of another.

        Every tree begins with the empty one, which no proof shows: from 0 it is empty.

        Args:
            old_size: Of the smaller head.
            new_size: Of the greater one.
            unsigned: Whether both may be any, up to that of the newest head.

        Raises:
            InvalidInputError: A size is out of range, or the old one is greater.
            NotSignedError: There is no head of this size.
            LogDamagedError: Rows of the tree are missing.
            StoreUnavailableError: The database does not answer.
        """
        if not 0 <= old_size <= new_size <= MAX_SIZE:
            msg = f"wanted 0 <= old size <= new size; found {old_size} and {new_size}"
            raise InvalidInputError(msg)
        with reading(self._engine) as connection:
            for size in (old_size, new_size):
                self._require_size(connection, size, unsigned=unsigned or size == 0)
            if old_size == 0:
                return []
            node = TreeReader(connection, new_size, self._cache).node
            return tree.consistency_proof(old_size, new_size, node)

    def entries(self, start: int, count: int) -> list[bytes]:
        """Return the data of entries under the newest head, in order.

        Args:
            start: Index of the first.
            count: How many at most; never more than 1,024 are given.

        Raises:
            InvalidInputError: An argument is out of range.
            NotLoggedYetError: There is no head yet.
            LogDamagedError: Entries are missing.
            StoreUnavailableError: The database does not answer.
        """
        if not 0 <= start <= MAX_SIZE or count < 1:
            msg = f"wanted a start from 0 and a count from 1; found {start} and {count}"
            raise InvalidInputError(msg)
        with reading(self._engine) as connection:
            head = require_head(connection, self.quorum)
            return _data(connection, start, min(count, MAX_LOG_ENTRIES, max(0, head.size - start)))

    def tile(self, level: int, index: int, width: int = TILE_WIDTH) -> bytes:
        """Return a tile of https://c2sp.org/tlog-tiles, 32 bytes a hash.

        Args:
            level: From 0.
            index: From 0, in its level.
            width: Hashes in it, 1 to 256.

        Raises:
            UnknownEntryError: The tree of the newest head has no such tile.
            LogDamagedError: Rows of the tree are missing.
            StoreUnavailableError: The database does not answer.
        """
        with reading(self._engine) as connection:
            self._require_tile(connection, level, index, width)
            reader = TreeReader(connection, self._signed_size(connection), self._cache)
            return reader.tile(level, index).hashes[: HASH_BYTES * width]

    def entry_bundle(self, index: int, width: int = TILE_WIDTH) -> bytes:
        """Return the entries of a tile of level 0, each behind its length in two bytes.

        Arguments and errors as `tile`.
        """
        with reading(self._engine) as connection:
            self._require_tile(connection, 0, index, width)
            entries = _data(connection, TILE_WIDTH * index, width)
        return b"".join(struct.pack(">H", len(data)) + data for data in entries)

    def cosign(self, note: bytes, witnesses: Iterable[NoteVerifier]) -> Head:
        """Keep the cosignatures of known witnesses of a head, and return it with all it has.

        Args:
            note: A head of this log with cosignatures. They are checked here.
            witnesses: Their keys.

        Raises:
            SignatureError: None of the witnesses signed it, or a signature of one is wrong.
            StatementError: It is no checkpoint.
            LimitError: It is too large.
            NotSignedError: It is no head of this log.
            StoreUnavailableError: The database does not answer.
        """
        with writing(self._engine) as connection:
            return cosign_head(connection, note, witnesses)

    def require_prefix(self, checkpoint: Checkpoint) -> None:
        """Check that a head that somebody else kept is one of this log's tree.

        Args:
            checkpoint: Under a signature of this log's key that was checked.

        Raises:
            LogForkError: It is not; do not sign on.
            LogDamagedError: Rows of the tree are missing.
            StoreUnavailableError: The database does not answer.
        """
        with reading(self._engine) as connection:
            size = self._signed_size(connection)
            if checkpoint.size > size:
                msg = f"a head of {checkpoint.size} entries is out there, and this log has {size}"
                raise LogForkError(msg)
            node = TreeReader(connection, checkpoint.size, self._cache).node
            found = tree.root(checkpoint.size, node)
        if found != checkpoint.root:
            msg = (
                f"a head of {checkpoint.size} entries with root {checkpoint.root.hex()} is out "
                f"there, and this log's has {found.hex()}"
            )
            raise LogForkError(msg)

    def _require_size(self, connection: Connection, size: int, *, unsigned: bool) -> None:
        if not 0 <= size <= MAX_SIZE:
            msg = f"the size of a tree lies in [0, 2^63); found {size}"
            raise InvalidInputError(msg)
        if not unsigned:
            head_of_size(connection, size)
        elif size > (most := self._signed_size(connection)):
            msg = f"the newest head has {most} entries; found the size {size}"
            raise InvalidInputError(msg)

    def _require_tile(self, connection: Connection, level: int, index: int, width: int) -> None:
        size = self._signed_size(connection)
        if not (
            0 <= level < 8
            and 0 <= index <= MAX_SIZE
            and 0 < width <= TILE_WIDTH
            and TILE_WIDTH * index + width <= size >> (8 * level)
        ):
            msg = f"a tree of {size} entries has no tile {index} of level {level} and width {width}"
            raise UnknownEntryError(msg)

    def _signed_size(self, connection: Connection) -> int:
        """Return the size of the newest head, whoever cosigned it."""
        head = newest_head(connection)
        return 0 if head is None else head.size


def _require_entry(entry: bytes | int) -> None:
    if isinstance(entry, int):
        if not 0 <= entry <= MAX_SIZE:
            msg = f"an index lies in [0, 2^63); found {entry}"
            raise InvalidInputError(msg)
    elif len(entry) != HASH_BYTES:
        msg = f"a leaf hash has {HASH_BYTES} bytes; found {len(entry)}"
        raise InvalidInputError(msg)


def _index_of(connection: Connection, leaf_hash: bytes) -> int:
    query = select(ENTRY.c.leaf_index).where(ENTRY.c.leaf_hash == leaf_hash)
    row = connection.execute(query).one_or_none()
    if row is None:
        msg = f"the log has no entry with leaf hash {leaf_hash.hex()}"
        raise UnknownEntryError(msg)
    if row.leaf_index is None:
        msg = "the entry waits for its place in the log; try again shortly"
        raise NotLoggedYetError(msg)
    return int(row.leaf_index)


def _require_known(connection: Connection, index: int) -> None:
    query = select(ENTRY.c.leaf_index).where(ENTRY.c.leaf_index == index)
    if connection.execute(query).scalar() is None:
        msg = f"the log has no entry of index {index} yet"
        raise UnknownEntryError(msg)


def _data(connection: Connection, start: int, count: int) -> list[bytes]:
    if count <= 0:
        return []
    place = ENTRY.c.leaf_index
    rows = connection.execute(
        select(ENTRY.c.data).where(place >= start, place < start + count).order_by(place)
    )
    found = list(rows.scalars())
    if len(found) != count:
        msg = f"the log has {len(found)} of the {count} entries from {start}: it is not whole"
        raise LogDamagedError(msg)
    return found
