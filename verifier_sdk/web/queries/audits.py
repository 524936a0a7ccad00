"""The list of audits: filtered, sorted, one page after the other.

Pages are cut by what the last row shows and not by counting rows, so that a link to a page shows
what it showed while audits come in. Rows that lack what is sorted by come last, either way.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from coin_protocol.errors import InvalidInputError
from verifier_sdk.store.tables import AUDIT

PAGE: Final = 50
"""Rows on a page."""

COUNTED: Final = 10_000
"""So many rows are counted, and of more it is said that there are more."""

MOST_NAMES: Final = 500
"""Providers to choose from."""

_MAX_CURSOR: Final = 1024
_NUMBER: Final = AUDIT.c.number

SORTS: Final[dict[str, tuple[Column[Any], type]]] = {
    "submitted": (AUDIT.c.number, int),
    "decided": (AUDIT.c.decided_at, float),
    "provider": (AUDIT.c.provider, str),
    "model": (AUDIT.c.model, str),
    "tokens": (AUDIT.c.reasoning_tokens, int),
    "outcome": (AUDIT.c.outcome, int),
    "fault": (AUDIT.c.fault, int),
    "tier": (AUDIT.c.tier, int),
}
"""What a list can be sorted by. Audits are numbered as they are submitted."""

_SHOWN: Final = (
    AUDIT.c.number,
    AUDIT.c.audit_id,
    AUDIT.c.provider,
    AUDIT.c.model,
    AUDIT.c.reasoning_tokens,
    AUDIT.c.submitted_at,
    AUDIT.c.state,
    AUDIT.c.decided_at,
    AUDIT.c.outcome,
    AUDIT.c.fault,
    AUDIT.c.tier,
    AUDIT.c.failed_check,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which audits; what is None is not asked for.

    Attributes:
        provider: Its name.
        state: As in the table.
        outcome: As in the protocol.
        fault: Whose statement a failure contradicts, as in the protocol.
        tier: As in the protocol.
        check: Code of the check that failed.
        begins: First digits of the audit's id or of its commitment's digest, hex, lower case.
        since: Submitted at this time or later, seconds since 1970.
        until: Submitted before this time.
    """

    provider: str | None = None
    state: str | None = None
    outcome: int | None = None
    fault: int | None = None
    tier: int | None = None
    check: str | None = None
    begins: str | None = None
    since: float | None = None
    until: float | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what all must hold."""
        equal = (
            (AUDIT.c.provider, self.provider),
            (AUDIT.c.state, self.state),
            (AUDIT.c.outcome, self.outcome),
            (AUDIT.c.fault, self.fault),
            (AUDIT.c.tier, self.tier),
            (AUDIT.c.failed_check, self.check),
        )
        found = [column == value for column, value in equal if value is not None]
        if self.begins:
            ids = (AUDIT.c.audit_id, AUDIT.c.commitment_sha256)
            found.append(or_(*(_begins(column, self.begins) for column in ids)))
        if self.since is not None:
            found.append(AUDIT.c.submitted_at >= self.since)
        if self.until is not None:
            found.append(AUDIT.c.submitted_at < self.until)
        return found


@dataclass(frozen=True, slots=True)
class Order:
    """What a list is sorted by, one of `SORTS`, and which way."""

    by: str = "submitted"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins or ends: a row's value and number.

    Attributes:
        value: Of what is sorted by; None where the row has none.
        number: Of the audit.
        back: Whether the rows before it are meant, not those after.
    """

    value: float | str | None
    number: int
    back: bool = False

    def to_text(self) -> str:
        """Return it for an address."""
        raw = json.dumps([self.value, self.number], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str, order: Order, *, back: bool) -> Place:
        """Read what `to_text` wrote for a list in the same order.

        Raises:
            InvalidInputError: It is something else.
        """
        kind = SORTS[order.by][1]
        try:
            raw = base64.urlsafe_b64decode(text[:_MAX_CURSOR] + "=" * (-len(text) % 4))
            value, number = json.loads(raw)
        except (ValueError, TypeError, RecursionError) as error:
            raise _no_place() from error
        good = isinstance(value, kind) or (kind is float and type(value) is int)
        if type(number) is not int or not 0 <= number < 1 << 63 or type(value) is bool:
            raise _no_place()
        if value is None and SORTS[order.by][0].nullable:
            return cls(None, number, back)
        finite = not isinstance(value, (int, float)) or (
            math.isfinite(value) and abs(value) < 1 << 63
        )
        if not good or not finite or (isinstance(value, str) and "\0" in value):
            raise _no_place()
        return cls(value, number, back)


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a list.

    Attributes:
        rows: In order.
        previous: Where the rows before these are; None on the first page.
        following: Where the rows after these are; None on the last page.
    """

    rows: Sequence[Row[Any]]
    previous: Place | None
    following: Place | None


def page(
    connection: Connection, wanted: Wanted, order: Order, place: Place | None, *, size: int = PAGE
) -> Page:
    """Return the first page of a list, or the one at a place."""
    back = place is not None and place.back
    base = select(*_SHOWN).where(*wanted.conditions())
    rows: list[Row[Any]] = []
    for part in _parts(base, order, place):
        if len(rows) <= size:
            rows += connection.execute(part.limit(size + 1 - len(rows))).all()
    more = len(rows) > size
    rows = rows[:size]
    if back:
        rows.reverse()
    before, after = (more, True) if back else (place is not None, more)
    if not rows:
        return Page((), None, None)
    return Page(
        rows,
        _place_of(rows[0], order, back=True) if before else None,
        _place_of(rows[-1], order, back=False) if after else None,
    )


def count(connection: Connection, wanted: Wanted) -> int:
    """Return how many audits there are, one more than `COUNTED` where there are more."""
    some: Select[Any] = select(literal_column("1")).select_from(AUDIT).where(*wanted.conditions())
    query = select(func.count()).select_from(some.limit(COUNTED + 1).subquery())
    return connection.execute(query).scalar_one()


def provider_names(connection: Connection) -> list[str]:
    """Return the names of providers that there are audits of."""
    query = select(AUDIT.c.provider).distinct().order_by(AUDIT.c.provider).limit(MOST_NAMES)
    return list(connection.execute(query).scalars())


def _parts(base: Select[Any], order: Order, place: Place | None) -> list[Select[Any]]:
    """Return the queries whose rows, one after the other, are the list from a place on."""
    column = SORTS[order.by][0]
    back = place is not None and place.back
    down = order.descending != back
    by_number = _NUMBER.desc() if down else _NUMBER.asc()
    with_value = base
    if column is _NUMBER:
        with_value = base.order_by(by_number)
    else:
        with_value = base.order_by(column.desc() if down else column.asc(), by_number)
    parts = [with_value]
    if column.nullable:
        without = base.where(column.is_(None)).order_by(by_number)
        parts = [with_value.where(column.is_not(None)), without]
        if back:
            parts.reverse()
    if place is None:
        return parts
    if place.value is None:
        at = 0 if back else 1
        parts[at] = parts[at].where(_past((_NUMBER,), (place.number,), down=down))
    else:
        at = len(parts) - 1 if back else 0
        keys: tuple[Column[Any], ...] = (column, _NUMBER)
        values: tuple[Any, ...] = (place.value, place.number)
        if column is _NUMBER:
            keys, values = keys[1:], values[1:]
        parts[at] = parts[at].where(_past(keys, values, down=down))
    return parts[at:]


def _past(keys: Sequence[Column[Any]], values: Sequence[Any], *, down: bool) -> ColumnElement[bool]:
    left, right = tuple_(*keys), tuple_(*values)
    return left < right if down else left > right


def _place_of(row: Row[Any], order: Order, *, back: bool) -> Place:
    return Place(getattr(row, SORTS[order.by][0].name), row.number, back)


def _begins(column: Column[bytes], digits: str) -> ColumnElement[bool]:
    """Return that bytes begin with these hexadecimal digits."""
    end = f"{int(digits, 16) + 1:0{len(digits)}x}"
    condition = column >= _padded(digits)
    return condition if len(end) > len(digits) else condition & (column < _padded(end))


def _padded(digits: str) -> bytes:
    return bytes.fromhex(digits + "0" * (len(digits) % 2))


def _no_place() -> InvalidInputError:
    return InvalidInputError("the address names no place in this list; begin at its first page")
