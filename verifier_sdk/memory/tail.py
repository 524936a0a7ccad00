"""Rows that are in no segment yet, in memory and searched exactly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from time import monotonic
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection

from coin_protocol.quantise import SCALE_BYTES
from verifier_sdk.memory import queries
from verifier_sdk.memory.index import Positions, nearest_of_all
from verifier_sdk.memory.vectors import Directions, Rows, directions

_PAGE: Final = 8192
_MOST_GAPS: Final = 128
"""More are joined, and what lies between them is read again with them."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """Ids that no visible row has yet: of a transaction that is open, or of none."""

    first: int
    last: int
    since: float


@dataclass(frozen=True, slots=True)
class TailSlice:
    """One provider's vectors in the tail, as they were when this was taken."""

    rows: Rows
    units: Directions

    def nearest(self, queries: Directions, count: int, effort: int) -> tuple[Positions, bool]:
        """Return the positions of the nearest vectors, and whether there are no others."""
        del effort
        return nearest_of_all(queries, self.units, count), count >= len(self.rows)


class Tail:
    """Distinct vectors by profile and provider. Threads must not share one without a lock."""

    def __init__(self, after: int, settle_seconds: float) -> None:
        """Begin after the last sealed id."""
        self.after = after
        self.last = after
        self.first: int | None = None
        self._settle_seconds = settle_seconds
        self._gaps: list[_Gap] = []
        self._groups: dict[tuple[bytes, str], _Group] = {}

    def read(self, connection: Connection, cursor: int = 0) -> int | None:
        """Read a page of what has become visible above an id; return where the next one begins."""
        oldest = monotonic() - self._settle_seconds
        self._gaps = [gap for gap in self._gaps if gap.since >= oldest]
        gaps = [(max(gap.first, cursor + 1), gap.last) for gap in self._gaps if gap.last > cursor]
        after = max(self.last, cursor)
        rows = queries.rows_after(connection, after, gaps, at_most=_PAGE)
        if not rows:
            return None
        for row in rows:
            group = self._groups.setdefault((row.profile_sha256, row.provider), _Group())
            group.add(row.id, row.vector)
        self._note(np.array([row.id for row in rows], np.int64))
        return int(rows[-1].id) if len(rows) == _PAGE else None

    def slice(self, profile_sha256: bytes, provider: str, dimension: int) -> TailSlice | None:
        """Return one provider's vectors, if it has any; they stay as they are."""
        group = self._groups.get((profile_sha256, provider))
        return None if group is None else group.slice(dimension)

    def drop(self, sealed: int) -> None:
        """Let go of what a segment holds now."""
        self.after = sealed
        self.last = max(self.last, sealed)
        self._gaps = [
            _Gap(max(gap.first, sealed + 1), gap.last, gap.since)
            for gap in self._gaps
            if gap.last > sealed
        ]
        groups = {key: group.after(sealed) for key, group in self._groups.items()}
        self._groups = {key: group for key, group in groups.items() if len(group)}
        if self.first is not None and self.first <= sealed:
            ids = [group.first_id() for group in self._groups.values()]
            self.first = min(ids, default=None)

    def __len__(self) -> int:
        """Return the number of distinct vectors."""
        return sum(map(len, self._groups.values()))

    def _note(self, ids: npt.NDArray[np.int64]) -> None:
        """Fill gaps by ids that came, sorted, and find new ones before the last of them."""
        self.first = int(ids[0]) if self.first is None else min(self.first, int(ids[0]))
        gaps: list[_Gap] = []
        for gap in self._gaps:
            start, end = np.searchsorted(ids, [gap.first, gap.last + 1])
            gaps += _between(gap.first - 1, ids[start:end], gap.last + 1, gap.since)
        new = ids[np.searchsorted(ids, self.last, side="right") :]
        if len(new):
            gaps += _between(self.last, new[:-1], int(new[-1]), monotonic())
            self.last = int(new[-1])
        excess = len(gaps) - _MOST_GAPS
        if excess > 0:
            since = max(gap.since for gap in gaps[: excess + 1])
            gaps[: excess + 1] = [_Gap(gaps[0].first, gaps[excess].last, since)]
        self._gaps = gaps


def _between(before: int, ids: npt.NDArray[np.int64], after: int, since: float) -> list[_Gap]:
    """Return the gaps between two ids that ids between them leave."""
    edges = [before, *ids.tolist(), after]
    return [_Gap(left + 1, right - 1, since) for left, right in pairwise(edges) if right - left > 1]


class _Group:
    """Vectors of one provider under one profile; each is kept once, under its last id.

    So it stays here while any row of it is in no segment: the rows before are forgotten first.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._waiting: list[bytes] = []
        self._count = 0
        self._rows: Rows | None = None
        self._units: Directions | None = None

    def __len__(self) -> int:
        return len(self._known)

    def add(self, row_id: int, vector: bytes) -> None:
        if vector not in self._known:
            self._waiting.append(vector)
        self._known[vector] = max(row_id, self._known.get(vector, row_id))

    def first_id(self) -> int:
        return min(self._known.values())

    def after(self, sealed: int) -> _Group:
        left = _Group()
        for vector, row_id in self._known.items():
            if row_id > sealed:
                left.add(row_id, vector)
        return left

    def slice(self, dimension: int) -> TailSlice | None:
        """Decode what came since; arrays that were handed out are not written to again."""
        width = SCALE_BYTES + dimension
        fresh = [vector for vector in self._waiting if len(vector) == width]
        self._waiting.clear()
        if fresh:
            rows = np.frombuffer(b"".join(fresh), np.uint8).reshape(-1, width)
            self._rows, self._units, self._count = _grown(
                (self._rows, self._units), rows, self._count
            )
        if self._rows is None or self._units is None:
            return None
        return TailSlice(self._rows[: self._count], self._units[: self._count])


def _grown(
    held: tuple[Rows | None, Directions | None], rows: Rows, count: int
) -> tuple[Rows, Directions, int]:
    """Return the arrays with rows appended: in place past `count`, or in larger ones."""
    end = count + len(rows)
    old_rows, old_units = held
    if old_rows is None or old_units is None or end > len(old_rows):
        room = max(64, 2 * end)
        new_rows = np.empty((room, rows.shape[1]), np.uint8)
        new_units = np.empty((room, rows.shape[1] - SCALE_BYTES), np.float32)
        if old_rows is not None and old_units is not None:
            new_rows[:count], new_units[:count] = old_rows[:count], old_units[:count]
        old_rows, old_units = new_rows, new_units
    old_rows[count:end] = rows
    old_units[count:end] = directions(rows)
    return old_rows, old_units, end
