"""Signed heads and the cosignatures that witnesses gave them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from coin_protocol.checkpoint import Checkpoint, parse_checkpoint, read_unverified
from coin_protocol.note import (
    NoteSignature,
    NoteVerifier,
    add_signatures,
    open_note,
    split_note,
)
from verifier_sdk.log.errors import NotLoggedYetError, NotSignedError
from verifier_sdk.log.tables import COSIGNATURE, HEAD


@dataclass(frozen=True, slots=True)
class Head:
    """A head that the log signed.

    Attributes:
        size: Entries under it.
        root: Of the tree over them, 32 bytes.
        note: The checkpoint, with the cosignatures there are.
        signed_at: Seconds since 1970.
    """

    size: int
    root: bytes
    note: bytes
    signed_at: float

    @property
    def checkpoint(self) -> Checkpoint:
        """What the note says."""
        return read_unverified(self.note)


def newest_head(connection: Connection, quorum: int = 0) -> Head | None:
    """Return the newest head with cosignatures of so many witnesses, if there is any."""
    query = select(HEAD).order_by(HEAD.c.size.desc()).limit(1)
    return _one(connection, query.where(HEAD.c.cosignatures >= quorum) if quorum else query)


def require_head(connection: Connection, quorum: int = 0) -> Head:
    """Return what `newest_head` does.

    Raises:
        NotLoggedYetError: There is none.
    """
    head = newest_head(connection, quorum)
    if head is None:
        by = f" that {quorum} witnesses cosigned" if quorum else ""
        msg = f"this log has no head{by} yet; try again shortly"
        raise NotLoggedYetError(msg)
    return head


def head_of_size(connection: Connection, size: int) -> Head:
    """Return the head of a size.

    Raises:
        NotSignedError: None was signed.
    """
    head = _one(connection, select(HEAD).where(HEAD.c.size == size))
    if head is None:
        raise _not_signed(size)
    return head


def add_head(connection: Connection, head: Head) -> None:
    """Keep a head that was signed and has not left yet."""
    row = {"size": head.size, "root": head.root, "note": head.note, "signed_at": head.signed_at}
    connection.execute(insert(HEAD).values(row))


def cosign_head(connection: Connection, note: bytes, witnesses: Iterable[NoteVerifier]) -> Head:
    """Keep the cosignatures of known witnesses of a head; older ones of the same keys go.

    Args:
        connection: In a transaction that writes.
        note: A head of this log with cosignatures, which are checked here: every one that is kept
            counts towards a quorum.
        witnesses: Their keys.

    Returns:
        The head with all its cosignatures.

    Raises:
        SignatureError: None of the witnesses signed it, or a signature of one is wrong.
        StatementError: It is no checkpoint.
        LimitError: It is too large.
        NotSignedError: It is no head of this log.
    """
    cosigned = open_note(note, witnesses)
    size = parse_checkpoint(cosigned.text).size
    # Locked, so that two witnesses' answers are counted one after the other.
    held = select(HEAD.c.note).where(HEAD.c.size == size).with_for_update()
    kept = connection.execute(held).scalar()
    if kept is None or split_note(kept)[0] != cosigned.text:
        raise _not_signed(size)
    for one in cosigned.verified:
        key = {"size": size, "name": one.name, "key_hash": one.key_hash}
        same = [COSIGNATURE.c[name] == value for name, value in key.items()]
        connection.execute(delete(COSIGNATURE).where(*same))
        connection.execute(insert(COSIGNATURE).values(key | {"signature": one.signature}))
    counted = select(func.count()).where(COSIGNATURE.c.size == size).scalar_subquery()
    connection.execute(update(HEAD).where(HEAD.c.size == size).values(cosignatures=counted))
    return head_of_size(connection, size)


def _one(connection: Connection, query: Select[Any]) -> Head | None:
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    note = add_signatures(row.note, _cosignatures(connection, row)) if row.cosignatures else None
    return Head(row.size, row.root, note or row.note, row.signed_at)


def _cosignatures(connection: Connection, head: Row[Any]) -> Sequence[NoteSignature]:
    rows = connection.execute(
        select(COSIGNATURE)
        .where(COSIGNATURE.c.size == head.size)
        .order_by(COSIGNATURE.c.name, COSIGNATURE.c.key_hash)
    )
    return [NoteSignature(row.name, row.key_hash, row.signature) for row in rows]


def _not_signed(size: int) -> NotSignedError:
    msg = f"this log signed no head of size {size}; take a size from one of its checkpoints"
    return NotSignedError(msg)
