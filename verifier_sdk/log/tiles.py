"""Tiles: 256 neighbouring hashes of one level, read at once and kept. A tile never changes.

As in https://c2sp.org/tlog-tiles: level 0 holds leaf hashes, level `l` the roots of full subtrees
of `256**l` leaves. The last tile of a level may be cut short by the size of the tree; what it
holds does not change either, so that a wider one serves for each narrower one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, select

from coin_protocol.limits import HASH_BYTES
from verifier_sdk.log.errors import LogDamagedError
from verifier_sdk.log.tables import ENTRY, SUBTREE

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
CACHED_TILES: Final = 1024
"""Tiles kept in memory, 16 KiB each: those above half a million entries, and more of the newest."""


@dataclass(frozen=True, slots=True)
class TileKey:
    """Which tile.

    Attributes:
        level: From 0, the leaves.
        index: From 0, in its level.
        width: Hashes in it, 1 to 256.
    """

    level: int
    index: int
    width: int


class Tile:
    """The hashes of a tile, and those of the complete subtrees above them."""

    __slots__ = ("_rows",)

    def __init__(self, hashes: Sequence[bytes]) -> None:
        """Hash upwards from 1 to 256 hashes."""
        rows, row = [b"".join(hashes)], list(hashes)
        while len(row) > 1:
            pairs = iter(row)
            row = [
                sha256(b"\x01" + left + right).digest()
                for left, right in zip(pairs, pairs, strict=False)
            ]
            rows.append(b"".join(row))
        self._rows = tuple(rows)

    @property
    def width(self) -> int:
        """How many hashes it has."""
        return len(self._rows[0]) // HASH_BYTES

    @property
    def hashes(self) -> bytes:
        """The tile's hashes, one after the other."""
        return self._rows[0]

    @property
    def root(self) -> bytes:
        """The root over a full tile."""
        return self._rows[TILE_HEIGHT]

    def node(self, height: int, index: int) -> bytes:
        """Return the root of a complete subtree, counted within the tile."""
        return self._rows[height][HASH_BYTES * index : HASH_BYTES * (index + 1)]


class TileCache:
    """The tiles that were used last, each as wide as it was ever seen. Thread-safe."""

    def __init__(self, most: int = CACHED_TILES) -> None:
        """Keep `most` tiles."""
        self._most = most
        self._tiles: OrderedDict[tuple[int, int], Tile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: TileKey) -> Tile | None:
        """Return a tile of this width or more, if it is kept."""
        place = key.level, key.index
        with self._lock:
            tile = self._tiles.get(place)
            if tile is None or tile.width < key.width:
                return None
            self._tiles.move_to_end(place)
            return tile

    def put(self, key: TileKey, tile: Tile) -> None:
        """Keep a tile, in place of the one not used for the longest time."""
        place = key.level, key.index
        with self._lock:
            kept = self._tiles.get(place)
            if kept is None or kept.width < tile.width:
                self._tiles[place] = tile
            self._tiles.move_to_end(place)
            while len(self._tiles) > self._most:
                self._tiles.popitem(last=False)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._tiles)


class TreeReader:
    """The nodes of a tree of one size, read over one connection.

    Its rows must be committed: what is read goes into the cache.
    """

    def __init__(self, connection: Connection, size: int, cache: TileCache) -> None:
        """Read the tree of the first `size` entries."""
        self.size = size
        self._connection = connection
        self._cache = cache

    def node(self, height: int, index: int) -> bytes:
        """Return the root of a complete subtree, as `tree.Nodes`.

        Raises:
            LogDamagedError: Rows of the tree are missing.
        """
        level, within = divmod(height, TILE_HEIGHT)
        below = TILE_HEIGHT - within
        tile = self.tile(level, index >> below)
        return tile.node(within, index & ((1 << below) - 1))

    def tile(self, level: int, index: int) -> Tile:
        """Return a tile, at least as wide as the tree fills it.

        Raises:
            ValueError: The tree has nothing there.
            LogDamagedError: Rows of the tree are missing.
        """
        key = TileKey(level, index, width(self.size, level, index))
        tile = self._cache.get(key)
        if tile is None:
            tile = Tile(read_hashes(self._connection, key))
            self._cache.put(key, tile)
        return tile


def width(size: int, level: int, index: int) -> int:
    """Return how many hashes a tile has in a tree of `size` leaves.

    Raises:
        ValueError: None.
    """
    found = min((size >> (TILE_HEIGHT * level)) - TILE_WIDTH * index, TILE_WIDTH)
    if found <= 0:
        msg = f"a tree of {size} leaves has no tile {index} of level {level}"
        raise ValueError(msg)
    return found


def read_hashes(connection: Connection, key: TileKey) -> list[bytes]:
    """Return the hashes of a tile from its rows.

    Raises:
        LogDamagedError: Some are missing.
    """
    first = TILE_WIDTH * key.index
    if key.level:
        hashes, place = SUBTREE.c.root, SUBTREE.c.subtree_index
        query = select(hashes).where(SUBTREE.c.level == key.level)
    else:
        hashes, place = ENTRY.c.leaf_hash, ENTRY.c.leaf_index
        query = select(hashes)
    query = query.where(place >= first, place < first + key.width).order_by(place)
    found = list(connection.execute(query).scalars())
    if len(found) != key.width:
        msg = (
            f"the log's tree has {len(found)} of the {key.width} hashes from {first} of level "
            f"{key.level}: the database is not whole"
        )
        raise LogDamagedError(msg)
    return found
