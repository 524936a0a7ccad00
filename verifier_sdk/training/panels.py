"""What plots share: colours, small multiples, and one legend below them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from verifier_sdk.lab.attack import RATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

COLOURS: Final = {"committed": "#0072B2", "opened": "#D55E00"}
"""Blue and vermilion of Okabe and Ito: apart for every kind of colour vision, and in grey."""

MARKERS: Final = {"committed": "o", "opened": "s"}

GREY: Final = "#666666"
DPI: Final = 150
WIDTH: Final = 10.0
_COLUMNS: Final = 4
_FOOT: Final = 0.5
"""Inches for a legend of two lines."""

STYLE: Final[Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


def panels_of(figure: Figure, names: Sequence[str], *, height: float) -> list[Axes]:
    """Return one panel for each name, four in a row at most, with the same axes."""
    if not names:
        return []
    columns = min(_COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    grid = body_of(figure, 1.3 + height * lines).subplots(
        lines, columns, sharex=True, sharey=True, squeeze=False
    )
    panels = list(grid.flat)
    for place, axes in enumerate(panels):
        if place >= len(names):
            axes.set_visible(False)
        elif place + columns >= len(names):
            # The last of its column: the row below it is not full.
            axes.tick_params(labelbottom=True)
    return panels[: len(names)]


def rate_axis(axes: Axes) -> None:
    """Let rates of injection run along the axis, logarithmic."""
    axes.set_xscale("log")
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES], fontsize=9)
    axes.minorticks_off()


def body_of(figure: Figure, height: float) -> SubFigure:
    """Return the part of a figure above its legend."""
    figure.set_size_inches(WIDTH, height)
    figure.subfigures(2, 1, height_ratios=[height - _FOOT, _FOOT])
    return figure.subfigs[0]


def finish(figure: Figure, title: str, across: str, up: str, panels: Sequence[Axes]) -> None:
    """Label the whole figure, and put one legend below it."""
    if not panels:
        return
    body, foot = figure.subfigs
    body.suptitle(title)
    body.supxlabel(across, fontsize=10)
    body.supylabel(up, fontsize=10)
    lines: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        lines.update(zip(labels, handles, strict=True))
    foot.legend(lines.values(), lines.keys(), loc="center", ncols=2)
