"""Charts: data for the script that draws them, and the same data for a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

MOST_ROWS: Final = 400
"""Rows of a chart's table, the last ones."""

MOST_DRAWN: Final = 1200
"""Points of a drawn line."""

Kind = Literal["line", "step", "bar", "dots", "range"]
Axis = Literal["time", "day", "number"]
Form = Literal["number", "percent", "power", "seconds"]


@dataclass(frozen=True, slots=True)
class Series:
    """What is drawn in one colour.

    Attributes:
        label: In legend and table.
        tone: Colour, by its name in the style sheet.
        kind: How it is drawn.
        values: One for each x; None where there is none.
        high: Upper ends, where a range is drawn from `values` up.
    """

    label: str
    tone: str
    kind: Kind
    values: Sequence[float | None]
    high: Sequence[float | None] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line across the whole chart, with its name."""

    at: float
    label: str
    tone: str = "muted"


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: Unique on its page, as an id in HTML.
        title: Above it.
        summary: What it shows, in a sentence, for those who do not see it too.
        x: Where the points stand.
        axis: What x is: seconds since 1970, days of UTC, or a number.
        x_label: Heads the table's first column.
        y_label: What is counted.
        series: Drawn in this order.
        form: How values are written.
        stacked: Whether bars stand on each other.
        lines: Across, at a value.
        marks: From top to bottom, at an x.
        from_zero: Whether the axis of values begins at 0.
        cells: First column of the table where it is not x itself.
    """

    name: str
    title: str
    summary: str
    x: Sequence[float]
    axis: Axis
    x_label: str
    y_label: str
    series: Sequence[Series]
    form: Form = "number"
    stacked: bool = False
    lines: Sequence[Line] = ()
    marks: Sequence[Line] = ()
    from_zero: bool = True
    cells: Sequence[str] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.x

    @property
    def drawn(self) -> dict[str, Any]:
        """What the script is given."""
        return {
            "x": [_clean(value) for value in self.x],
            "axis": self.axis,
            "form": self.form,
            "label": self.y_label,
            "stacked": self.stacked,
            "fromZero": self.from_zero,
            "series": [_series(one) for one in self.series],
            "lines": [asdict(line) for line in self.lines],
            "marks": [asdict(mark) for mark in self.marks],
        }

    @property
    def rows(self) -> list[tuple[float | str, list[float | None]]]:
        """What the table holds: each x with its values."""
        first = max(0, len(self.x) - MOST_ROWS)
        columns: list[Sequence[float | None]] = []
        for one in self.series:
            columns += [one.values] if one.high is None else [one.values, one.high]
        return [
            (self.cells[at] if self.cells else self.x[at], [column[at] for column in columns])
            for at in range(first, len(self.x))
        ]

    @property
    def columns(self) -> list[str]:
        """Heads of the table's columns after the first."""
        found = []
        for one in self.series:
            ends = ("",) if one.high is None else (", from", ", to")
            found += [one.label + end for end in ends]
        return found

    @property
    def left_out(self) -> int:
        """How many rows the table leaves out."""
        return max(0, len(self.x) - MOST_ROWS)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_DRAWN` of many points: of each run the first, least, greatest, last."""
    width = -(-len(points) * 4 // MOST_DRAWN)
    if width <= 4:
        return list(points)
    kept = []
    for start in range(0, len(points), width):
        run = range(start, min(start + width, len(points)))
        low = min(run, key=lambda at: points[at][1])
        high = max(run, key=lambda at: points[at][1])
        kept += [points[at] for at in sorted({run[0], low, high, run[-1]})]
    return kept


def _series(one: Series) -> dict[str, Any]:
    found = {
        "label": one.label,
        "tone": one.tone,
        "kind": one.kind,
        "values": [_clean(value) for value in one.values],
    }
    if one.high is not None:
        found["high"] = [_clean(value) for value in one.high]
    return found


def _clean(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
