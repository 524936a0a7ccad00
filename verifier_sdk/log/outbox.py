"""What the log is to say: written in the transaction of what it speaks of, sequenced later."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from coin_protocol.log_leaf import CommitmentLeaf, parse_leaf
from coin_protocol.merkle import leaf_hash
from verifier_sdk.log.tables import ENTRY

_LOCK: Final = 0x434F4C53  # any number that others do not lock by
_SLOTS: Final = 1024
"""Locks that sessions share: a transaction never holds more, whatever it says at once."""
_KEY_BYTES: Final = 16
_MOST_OTHERS: Final = 100
"""Entries looked at under one key; other sessions' stand there by a collision of 128 bits only."""


def enqueue(connection: Connection, leaf_data: bytes) -> bytes:
    """Have the log say something, once: saying it again changes nothing.

    It is said if and only if the caller's transaction commits. On PostgreSQL that transaction
    waits here for any other that speaks of the same session, so that of two different commitments
    `find_equivocation` shows the second one the first.

    Args:
        connection: In a transaction that writes (`coin_protocol.database.engine.writing`).
        leaf_data: Of `CommitmentLeaf` or `VerdictLeaf`.

    Returns:
        The leaf hash, 32 bytes: by it the entry is found in the log.

    Raises:
        StatementError: It is no leaf of a log.
        LimitError: It is longer than any.
    """
    return enqueue_all(connection, [leaf_data])[0]


def enqueue_all(connection: Connection, leaves: Iterable[bytes]) -> list[bytes]:
    """Have the log say several things, in this order; arguments and errors as `enqueue`."""
    rows = [_row(data) for data in leaves]
    _take_turns(connection, (row["session_key"] for row in rows if row["session_key"] is not None))
    if rows:
        statement = _dialect(connection).insert(ENTRY)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["leaf_hash"]), rows)
    return [row["leaf_hash"] for row in rows]


def take_turns(connection: Connection, leaves: Iterable[bytes]) -> None:
    """Wait for other transactions about the sessions of these leaves, as `enqueue_all` does."""
    keys = (_row(data)["session_key"] for data in leaves)
    _take_turns(connection, (key for key in keys if key is not None))


def find_equivocation(connection: Connection, commitment: CommitmentLeaf) -> bytes | None:
    """Return the SHA-256 of another commitment of that provider to that session, or None.

    Call it after `enqueue`, in the same transaction. Where it finds one, give both envelopes to
    `coin_protocol.evidence.commitment_equivocation`, which says whether they prove anything.
    """
    key = _session_key(commitment.provider, commitment.session_id)
    rows = connection.execute(
        select(ENTRY.c.data)
        .where(ENTRY.c.session_key == key, ENTRY.c.leaf_hash != leaf_hash(commitment.to_bytes()))
        .order_by(ENTRY.c.id)
        .limit(_MOST_OTHERS)
    )
    for data in rows.scalars():
        other = parse_leaf(data)
        if (
            isinstance(other, CommitmentLeaf)
            and other.provider == commitment.provider
            and other.session_id == commitment.session_id
        ):
            return other.commitment_sha256
    return None


def waiting(connection: Connection) -> int:
    """Return how many entries wait for their place."""
    query = select(func.count()).select_from(ENTRY).where(ENTRY.c.leaf_index.is_(None))
    return int(connection.execute(query).scalar_one())


def _row(leaf_data: bytes) -> dict[str, Any]:
    leaf = parse_leaf(leaf_data)
    key = None
    if isinstance(leaf, CommitmentLeaf):
        key = _session_key(leaf.provider, leaf.session_id)
    return {"leaf_hash": leaf_hash(leaf_data), "session_key": key, "data": leaf_data}


def _session_key(provider: str, session_id: bytes) -> bytes:
    name = provider.encode()
    return sha256(struct.pack(">H", len(name)) + name + session_id).digest()[:_KEY_BYTES]


def _take_turns(connection: Connection, keys: Iterable[bytes]) -> None:
    """Wait for other transactions about these sessions; on SQLite all that write take turns."""
    # In one order, or two could wait for each other.
    slots = sorted({int.from_bytes(key) % _SLOTS for key in keys})
    if slots and connection.dialect.name == "postgresql":
        each = "unnest(CAST(:slots AS int[])) AS slot"
        lock = text(f"SELECT pg_advisory_xact_lock(:kind, slot) FROM {each}")  # noqa: S608 - ours
        connection.execute(lock, {"kind": _LOCK, "slots": slots})


def _dialect(connection: Connection) -> Any:  # noqa: ANN401 - two modules of one shape
    return sqlite if connection.dialect.name == "sqlite" else postgresql
