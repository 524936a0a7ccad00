"""Hash a whole log again: does what is in the database give the heads that were signed?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, func, select, text

from coin_protocol.database.engine import reading
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.merkle import EMPTY_ROOT, leaf_hash, node_hash
from coin_protocol.note import NoteVerifier
from verifier_sdk.log.errors import LogDamagedError
from verifier_sdk.log.memory import own_head
from verifier_sdk.log.tables import ENTRY, HEAD, SUBTREE
from verifier_sdk.log.tiles import TILE_HEIGHT

_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class Checked:
    """A log that is whole.

    Attributes:
        entries: With a place in the tree.
        heads: Signed over it.
    """

    entries: int
    heads: int


def check_log(engine: Engine, keys: Sequence[NoteVerifier], origin: str) -> Checked:
    """Hash every entry, and compare with all hashes and heads that are kept. O(n).

    Args:
        engine: Of the database.
        keys: Keys of the log, those of now and before.
        origin: The log's.

    Raises:
        LogDamagedError: Something is missing, or does not fit; the first such thing is named.
        StoreUnavailableError: The database does not answer.
    """
    with reading(engine) as connection:
        if connection.dialect.name == "postgresql":  # SQLite shows one moment anyway
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        heads = connection.execute(select(HEAD).order_by(HEAD.c.size)).yield_per(_AT_ONCE)
        edge, count = _Edge(), 0
        leaves = _leaves(connection)
        for head in heads:
            for hashed in islice(leaves, head.size - edge.size):
                edge.add(hashed)
                _check_subtrees(connection, edge)
            _check_head(head, edge, tuple(keys), origin)
            count += 1
        for hashed in leaves:
            edge.add(hashed)
            _check_subtrees(connection, edge)
        _check_count(connection, edge.size)
    return Checked(edge.size, count)


class _Edge:
    """A tree that only knows the complete subtrees at its right edge."""

    def __init__(self) -> None:
        self.size = 0
        self.completed: list[bytes] = []
        self._nodes: list[bytes | None] = []

    def add(self, hashed: bytes) -> None:
        """Add a leaf hash; `completed` are the subtrees that end with it, by height."""
        self.completed = [hashed]
        height = 0
        while self.size >> height & 1:
            left = self._nodes[height]
            assert left is not None  # noqa: S101 - the bit of the size says so
            hashed = node_hash(left, hashed)
            self._nodes[height] = None
            self.completed.append(hashed)
            height += 1
        if height == len(self._nodes):
            self._nodes.append(None)
        self._nodes[height] = hashed
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all leaves."""
        found: bytes | None = None
        for left in self._nodes:
            if left is not None:
                found = left if found is None else node_hash(left, found)
        return EMPTY_ROOT if found is None else found


def _leaves(connection: Connection) -> Iterator[bytes]:
    """Yield the leaf hashes of the data, checked against those that are kept."""
    place, index = ENTRY.c.leaf_index, 0
    while True:
        rows = connection.execute(
            select(place, ENTRY.c.leaf_hash, ENTRY.c.data)
            .where(place >= index)
            .order_by(place)
            .limit(_AT_ONCE)
        ).all()
        for row in rows:
            if row.leaf_index != index:
                msg = f"entry {index} is missing; the next one is {row.leaf_index}"
                raise LogDamagedError(msg)
            hashed = leaf_hash(row.data)
            if hashed != row.leaf_hash:
                msg = f"entry {index} hashes to {hashed.hex()}, kept is {row.leaf_hash.hex()}"
                raise LogDamagedError(msg)
            yield hashed
            index += 1
        if len(rows) < _AT_ONCE:
            return


def _check_subtrees(connection: Connection, edge: _Edge) -> None:
    """Compare the subtrees that are full just now with those that are kept."""
    for level, found in enumerate(edge.completed[TILE_HEIGHT::TILE_HEIGHT], 1):
        index = (edge.size >> (TILE_HEIGHT * level)) - 1
        query = select(SUBTREE.c.root).where(
            SUBTREE.c.level == level, SUBTREE.c.subtree_index == index
        )
        kept = connection.execute(query).scalar()
        if kept != found:
            what = "missing" if kept is None else kept.hex()
            msg = f"subtree {index} of level {level} has root {found.hex()}; kept is {what}"
            raise LogDamagedError(msg)


def _check_head(head: Row[Any], edge: _Edge, keys: tuple[NoteVerifier, ...], origin: str) -> None:
    if edge.size != head.size:
        msg = f"a head of {head.size} entries was signed, and the tree has {edge.size}"
        raise LogDamagedError(msg)
    try:
        signed = own_head(head.note, keys, origin)
    except (VerificationError, InvalidInputError) as error:
        msg = f"the head of {head.size} entries is none of this log: {error}"
        raise LogDamagedError(msg) from error
    found = edge.root()
    if not signed.root == head.root == found or signed.size != head.size:
        msg = (
            f"the head of {head.size} entries is signed with root {signed.root.hex()} and size "
            f"{signed.size}; the entries give {found.hex()}"
        )
        raise LogDamagedError(msg)


def _check_count(connection: Connection, size: int) -> None:
    """Check that no subtree is kept of entries that are not there."""
    for level in range(1, 8):
        query = select(func.count()).where(SUBTREE.c.level == level)
        kept = connection.execute(query).scalar_one()
        if kept != size >> (TILE_HEIGHT * level):
            msg = f"{kept} subtrees of level {level} are kept for {size} entries"
            raise LogDamagedError(msg)
