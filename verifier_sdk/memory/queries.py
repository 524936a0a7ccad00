"""What the memory asks of the database; every connection is the caller's, and so its transaction.

Ids grow, but where several machines write, a smaller one can become visible after a larger one:
its transaction was open for longer. Nothing here may take the largest id seen for all that is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    LargeBinary,
    bindparam,
    cast,
    delete,
    extract,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from coin_protocol.limits import HASH_BYTES
from verifier_sdk.memory.tables import MEMORY_BLOCK as BLOCK
from verifier_sdk.memory.vectors import Rows

_C: Final = BLOCK.c
_ASKED_AT_ONCE: Final = 512
"""Digests in one statement: 16 KiB of them."""


@dataclass(frozen=True, slots=True)
class Known:
    """The first block that another commitment showed with some vector."""

    commitment_sha256: bytes
    block_index: int


def now(connection: Connection) -> ColumnElement[float]:
    """Return the time by one clock for all: the server's, or this machine's beside its file."""
    if connection.dialect.name == "postgresql":
        # When the row is made, not when its transaction began: `settled` rests on that.
        return cast(extract("epoch", func.clock_timestamp()), Double)
    return literal(time.time(), Double)


def insert_blocks(
    connection: Connection,
    rows: Rows,
    *,
    provider: str,
    profile_sha256: bytes,
    commitment_sha256: bytes,
    block_indices: Sequence[int],
) -> None:
    """Write encoded vectors of a commitment's blocks; those that are there stay as they are."""
    # What is left out here takes no id: each that is taken for nothing is looked for later on.
    there = set(
        connection.execute(
            select(_C.block_index).where(_C.commitment_sha256 == commitment_sha256)
        ).scalars()
    )
    vectors = {index: row.tobytes() for index, row in zip(block_indices, rows, strict=True)}
    new = [
        {
            "provider": provider,
            "profile_sha256": profile_sha256,
            "commitment_sha256": commitment_sha256,
            "block_index": index,
            "vector_sha256": sha256(vector).digest(),
            "vector": vector,
        }
        for index, vector in vectors.items()
        if index not in there
    ]
    if new:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(BLOCK).values(remembered_at=now(connection))
        connection.execute(statement.on_conflict_do_nothing(), new)


def delete_blocks(connection: Connection, *, before: float, at_most: int) -> int:
    """Delete the oldest blocks that were remembered before a time; return how many."""
    oldest = (
        select(_C.id)
        .where(_C.remembered_at < before)
        .order_by(_C.remembered_at, _C.id)
        .limit(at_most)
    )
    return int(connection.execute(delete(BLOCK).where(_C.id.in_(oldest))).rowcount)


def resolve(
    connection: Connection,
    digests: Iterable[bytes],
    *,
    provider: str,
    profile_sha256: bytes,
    excluding: bytes,
) -> dict[bytes, Known]:
    """Return which vectors, by digest, another commitment of the provider has, and where first."""
    wanted, found = list(digests), {}
    for start in range(0, len(wanted), _ASKED_AT_ONCE):
        part = wanted[start : start + _ASKED_AT_ONCE]
        rows = connection.execute(
            _RESOLVE,
            {
                "count": len(part),
                "digests": b"".join(part),
                "provider": provider,
                "profile": profile_sha256,
                "excluding": excluding,
            },
        )
        for row in rows:
            found[row.vector_sha256] = Known(row.commitment_sha256, row.block_index)
    return found


def _resolve_statement() -> Any:  # noqa: ANN401 - SQLAlchemy's type says less than the text
    """Look each digest up by itself, so that one with a million blocks costs as much as any."""
    asked = select(literal_column("0").label("n")).cte("asked", recursive=True)
    following = asked.c.n + literal_column("1")
    asked = asked.union_all(select(following).where(following < bindparam("count")))
    digest = func.substr(
        bindparam("digests", type_=LargeBinary),
        asked.c.n * literal_column(str(HASH_BYTES)) + literal_column("1"),
        literal_column(str(HASH_BYTES)),
        type_=LargeBinary,
    )
    same = BLOCK.alias("same")
    first = (
        select(same.c.id)
        .where(
            same.c.provider == bindparam("provider"),
            same.c.profile_sha256 == bindparam("profile"),
            same.c.vector_sha256 == digest,
            same.c.commitment_sha256 != bindparam("excluding"),
        )
        .order_by(same.c.id)
        .limit(1)
        .correlate(asked)
        .scalar_subquery()
    )
    return select(_C.commitment_sha256, _C.block_index, _C.vector_sha256).where(
        _C.id.in_(select(first).select_from(asked))
    )


_RESOLVE: Final = _resolve_statement()


_ROWS: Final = (
    select(_C.id, _C.provider, _C.profile_sha256, _C.vector)
    .where(_C.id >= bindparam("least"))
    .order_by(_C.id)
    .limit(bindparam("at_most"))
)
"""One bound alone, so that neither database looks at what lies below it."""


def rows_after(
    connection: Connection, after: int, gaps: Sequence[tuple[int, int]], *, at_most: int
) -> Sequence[Any]:
    """Return rows by id: with ids above `after`, or in one of the gaps below, ends included."""
    statement, least = _ROWS, after + 1
    if gaps:
        within = [_C.id.between(first, last) for first, last in gaps]
        statement = statement.where(or_(_C.id > after, *within))
        least = min(first for first, _ in gaps)
    return connection.execute(statement, {"least": least, "at_most": at_most}).all()


def rows_of(
    connection: Connection, profile_sha256: bytes, first: int, last: int, *, at_most: int
) -> Sequence[Any]:
    """Return a profile's rows with ids in a range, ends included, by id."""
    return connection.execute(
        select(_C.id, _C.provider, _C.vector, _C.remembered_at)
        .where(_C.id.between(first, last), _C.profile_sha256 == profile_sha256)
        .order_by(_C.id)
        .limit(at_most)
    ).all()


def last_id(connection: Connection) -> int:
    """Return the largest id, or 0."""
    return connection.execute(select(func.max(_C.id))).scalar() or 0


def settled(connection: Connection, after: int, seconds: float) -> int:
    """Return an id, `after` or more, up to which nothing more will become visible.

    A row's time is taken with its id, so what has a smaller id than a row of some age has at
    least about that age. No transaction of ours is open for so long.
    """
    aged = _C.remembered_at <= now(connection) - literal(seconds, Double)
    statement = select(_C.id).where(_C.id > after, aged).order_by(_C.id.desc()).limit(1)
    return connection.execute(statement).scalar() or after


def nth_id(connection: Connection, after: int, number: int) -> int | None:
    """Return the id of the n-th row above `after`, counted from 1; None where there are fewer."""
    return connection.execute(
        select(_C.id).where(_C.id > after).order_by(_C.id).limit(1).offset(number - 1)
    ).scalar()


def count_by_profile(connection: Connection, first: int, last: int) -> dict[bytes, int]:
    """Return how many rows each profile has in a range of ids, ends included."""
    rows = connection.execute(
        select(_C.profile_sha256, func.count())
        .where(_C.id.between(first, last))
        .group_by(_C.profile_sha256)
    )
    return {profile: count for profile, count in rows}  # noqa: C416 - rows are not pairs to mypy


def digests_of(connection: Connection, ids: Iterable[int]) -> dict[int, bytes]:
    """Return the digests of the rows that are there."""
    rows = connection.execute(select(_C.id, _C.vector_sha256).where(_C.id.in_(list(ids))))
    return {row.id: row.vector_sha256 for row in rows}
