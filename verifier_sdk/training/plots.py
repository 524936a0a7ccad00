"""Plots of a report, as PNG files of 1,200 pixels and more. Each reads the report alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Final

from coin_protocol.errors import MissingDependencyError
from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.training.panels import (
    COLOURS,
    DPI,
    GREY,
    MARKERS,
    STYLE,
    WIDTH,
    body_of,
    finish,
    panels_of,
    rate_axis,
)
from verifier_sdk.training.results import BLOCK_RANGES
from verifier_sdk.training.tables import (
    MOST_FALSE_ALARMS,
    MOST_FALSE_ALARMS_IN_A_DOMAIN,
    Item,
    wilson,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_all(report: Item) -> dict[str, bytes]:
    """Draw every plot for which the report has numbers.

    Args:
        report: As `build_report` makes it.

    Returns:
        PNG files by name, such as `detection.png`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "plots need matplotlib: install coin-audit[training]"
        raise MissingDependencyError(msg) from error
    found = {}
    with mpl.rc_context(STYLE):
        for name, draw in _PLOTS.items():
            figure = Figure(layout="constrained", dpi=DPI)
            FigureCanvasAgg(figure)
            if draw(figure, report):
                file = BytesIO()
                figure.savefig(file, format="png", metadata={"Software": None})
                found[f"{name}.png"] = file.getvalue()
    return found


def _detection(figure: Figure, report: Item) -> bool:
    """Draw detection over the rate, one panel a family, one line a tier."""
    families = _families(report["detection"])
    panels = panels_of(figure, families, height=2.1)
    for family, axes in zip(families, panels, strict=True):
        for tier in TIERS:
            counts: dict[float, list[int]] = {}
            for item in report["detection"]:
                if (item["family"], item["tier"]) == (family, tier):
                    cell = counts.setdefault(item["rate"], [0, 0])
                    cell[0] += item["detected"]
                    cell[1] += item["sessions"]
            rates = sorted(counts)
            if not rates:
                continue
            share = [100 * counts[rate][0] / counts[rate][1] for rate in rates]
            bounds = [wilson(*counts[rate]) for rate in rates]
            axes.plot(rates, share, color=COLOURS[tier], marker=MARKERS[tier], label=tier)
            axes.fill_between(
                rates,
                [100 * low for low, _ in bounds],
                [100 * high for _, high in bounds],
                color=COLOURS[tier],
                alpha=0.15,
                linewidth=0,
            )
        axes.set_title(family)
        rate_axis(axes)
        axes.set_ylim(-3, 103)
        axes.set_yticks([0, 25, 50, 75, 100])
    finish(
        figure,
        "Detection by inflation rate (replies of 4 blocks or more; band: 95 % interval)",
        "injected tokens for each original one",
        "sessions failed, %",
        panels,
    )
    return bool(families)


def _roc(figure: Figure, report: Item) -> bool:
    """Draw ROC curves, one panel a family; what raises no alarm at all stands at the left edge."""
    families = _families(report["roc"])
    panels = panels_of(figure, families, height=2.2)
    edge = 0.1
    for family, axes in zip(families, panels, strict=True):
        areas = []
        for tier in TIERS:
            for item in report["roc"]:
                if (item["family"], item["tier"]) != (family, tier):
                    continue
                points = [(max(100 * x, edge), 100 * y) for x, y in item["points"]]
                colour = COLOURS[tier]
                axes.step(*zip(*points, strict=True), where="post", color=colour, label=tier)
                axes.plot(
                    [max(100 * item["judged"][0], edge)],
                    [100 * item["judged"][1]],
                    MARKERS[tier],
                    color=colour,
                    markeredgecolor="white",
                    markersize=8,
                    clip_on=False,
                    zorder=3,
                )
                areas.append(f"{item['area']:.3f}")
        axes.set_title(f"{family} ({', '.join(areas)})")
        axes.set_xscale("log")
        axes.set_xlim(0.8 * edge, 140)
        axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        axes.minorticks_off()
        axes.set_ylim(-3, 103)
        axes.set_yticks([0, 25, 50, 75, 100])
    finish(
        figure,
        "Detection by false alarms allowed, rates pooled "
        "(in brackets: area by tier; mark: as judged)",
        "honest sessions failed, % (logarithmic)",
        "inflated sessions failed, %",
        panels,
    )
    return bool(families)


def _calibration(figure: Figure, report: Item) -> bool:
    """Draw reliability, one panel a tier, with the weight of each bin below it."""
    tiers = [tier for tier in TIERS if any(one["tier"] == tier for one in report["calibration"])]
    if not tiers:
        return False
    figure.set_size_inches(WIDTH, 5.6)
    grid = figure.subplots(2, len(tiers), height_ratios=[3, 1], sharex=True, squeeze=False)
    for column, tier in enumerate(tiers):
        upper, lower = grid[0][column], grid[1][column]
        upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
        for which, style, shift in (("trained", "-", -0.016), ("all", "--", 0.016)):
            for item in report["calibration"]:
                if (item["tier"], item["families"]) != (tier, which):
                    continue
                bins = [one for one in item["bins"] if one["share"] is not None]
                solid = which == "trained"
                name = "families trained for" if solid else "all families"
                upper.plot(
                    [one["probability"] for one in bins],
                    [one["share"] for one in bins],
                    color=COLOURS[tier] if solid else GREY,
                    linestyle=style,
                    marker=MARKERS[tier],
                    label=f"{name} (mean error {item['error']:.3f})",
                )
                lower.bar(
                    [(one["low"] + one["high"]) / 2 + shift for one in item["bins"]],
                    [100 * one["weight"] for one in item["bins"]],
                    width=0.03,
                    color=COLOURS[tier] if solid else GREY,
                )
        upper.set_title(f"tier {tier}")
        upper.set_ylim(-0.03, 1.03)
        upper.set_xlim(-0.03, 1.03)
        upper.legend(loc="upper left", fontsize=9)
        lower.set_xlabel("probability of inflation, as judged")
    grid[0][0].set_ylabel("share of sessions inflated")
    grid[1][0].set_ylabel("sessions, %")
    figure.suptitle("Calibration (sessions weighted so that half are inflated)")
    return True


def _false_alarms(figure: Figure, report: Item) -> bool:
    """Draw false alarms, overall and by domain, with their intervals."""
    alarms = report["false_alarms"]
    names = ["all", *sorted({one["domain"] for one in alarms["by_domain"]})]
    cells = {("all", one["tier"]): one for one in alarms["overall"]}
    cells |= {(one["domain"], one["tier"]): one for one in alarms["by_domain"]}
    if not cells:
        return False
    figure.set_size_inches(WIDTH, 1.8 + 0.55 * len(names))
    axes = figure.subplots()
    for row, tier in enumerate(TIERS):
        for place, name in enumerate(names):
            one = cells.get((name, tier))
            if one is None:
                continue
            rate, (low, high) = 100 * one["rate"], one["ci"]
            axes.errorbar(
                [rate],
                [place - 0.14 + 0.28 * row],
                xerr=[[rate - 100 * low], [100 * high - rate]],
                fmt=MARKERS[tier],
                color=COLOURS[tier],
                capsize=3,
                label=tier if place == 0 else None,
            )
    for most, style, where in (
        (MOST_FALSE_ALARMS, "--", "overall"),
        (MOST_FALSE_ALARMS_IN_A_DOMAIN, ":", "in a domain"),
    ):
        name = f"target {where}: {100 * most:g} % at most"
        axes.axvline(100 * most, color=GREY, linestyle=style, linewidth=1.4, label=name)
    counts = [_first(cells, name)["sessions"] for name in names]
    axes.set_yticks(
        range(len(names)),
        [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)],
    )
    axes.set_ylim(len(names) - 0.5, -0.5)
    # Room for a mark at 0.
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("honest sessions failed, % (95 % interval)")
    figure.suptitle("False alarms (sessions at one tier in brackets)")
    figure.legend(loc="outside lower center", ncols=4)
    return True


def _exposure(figure: Figure, report: Item) -> bool:
    """Draw what share of an honest session an audit opened, by its length."""
    honest = [one for one in report["exposure"] if one["of"] == "honest"]
    if not honest:
        return False
    ranges = [name for name in BLOCK_RANGES if any(one["blocks"] == name for one in honest)]
    panels = list(body_of(figure, 4.2).subplots(1, 3, sharex=True))
    for axes, (key, title) in zip(
        panels,
        (
            ("token_share", "tokens, but for whole blocks"),
            ("embedding_share", "block embeddings"),
            ("whole_share", "blocks opened whole"),
        ),
        strict=True,
    ):
        for tier in TIERS:
            shown = {one["blocks"]: 100 * one[key] for one in honest if one["tier"] == tier}
            places = [at for at, name in enumerate(ranges) if name in shown]
            if places:
                axes.plot(
                    places,
                    [shown[ranges[at]] for at in places],
                    # Both tiers often open the same: one shows through the other.
                    "--" if tier == "opened" else "-",
                    fillstyle="none" if tier == "opened" else "full",
                    markersize=8 if tier == "opened" else 5,
                    color=COLOURS[tier],
                    marker=MARKERS[tier],
                    label=tier,
                )
        axes.set_title(title)
        axes.set_xticks(range(len(ranges)), ranges)
        axes.set_xlim(-0.3, len(ranges) - 0.7)
        axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], 1.0))
    finish(
        figure,
        "What an audit opens of an honest session (mean)",
        "blocks of the session (256 tokens each)",
        "opened, % of the session",
        panels,
    )
    return True


def _sessions_needed(figure: Figure, report: Item) -> bool:
    """Draw how many sessions of a provider it takes, one panel a family."""
    needed = report["sessions_needed"]
    providers = [one for one in (needed or {}).get("providers", ()) if one["family"] != "none"]
    families = _families(providers)
    panels = panels_of(figure, families, height=2.2)
    most = needed["most_sessions"] if needed else 1
    beyond = 1.7 * most
    for family, axes in zip(families, panels, strict=True):
        axes.axhline(1.25 * most, color=GREY, linewidth=0.8)
        for tier in TIERS:
            for share, style, how in (
                (1.0, "-", "every session inflated"),
                (0.2, "--", "1 session in 5 inflated"),
            ):
                items = [
                    one
                    for one in providers
                    if (one["family"], one["tier"], one["inflated_share"]) == (family, tier, share)
                ]
                axes.plot(
                    [one["rate"] for one in items],
                    [one["median"] or beyond for one in items],
                    style,
                    color=COLOURS[tier],
                    marker=MARKERS[tier],
                    fillstyle="full" if share == 1.0 else "none",
                    label=f"{tier}, {how}",
                )
        axes.set_title(family)
        rate_axis(axes)
        axes.set_yscale("log")
        axes.set_ylim(0.8, 2.2 * most)
        axes.set_yticks([1, 10, 100, beyond], ["1", "10", "100", f">{most}"])
        axes.minorticks_off()
    finish(
        figure,
        "Sessions of one provider until it is failed (median)",
        "injected tokens for each original one, in the sessions inflated",
        "sessions",
        panels,
    )
    return bool(families)


_PLOTS: Final[dict[str, Callable[[Figure, Item], bool]]] = {
    "detection": _detection,
    "roc": _roc,
    "calibration": _calibration,
    "false_alarms": _false_alarms,
    "exposure": _exposure,
    "sessions_needed": _sessions_needed,
}


def _families(items: Iterable[Item]) -> list[str]:
    return sorted({item["family"] for item in items})


def _first(cells: dict[tuple[str, str], Item], name: str) -> Item:
    return next(cells[name, tier] for tier in TIERS if (name, tier) in cells)
