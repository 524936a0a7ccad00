"""A report in words and tables, for people. Reads the report alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from verifier_sdk.semantic.calibration import TIERS
from verifier_sdk.training.results import BLOCK_RANGES
from verifier_sdk.training.tables import Item

_PLOTS: Final = {
    "Detection": {
        "detection.png": "Detection by rate, one panel a family",
        "roc.png": "Detection by false alarms allowed, one panel a family",
    },
    "False alarms": {"false_alarms.png": "False alarms by domain, with intervals"},
    "Exposure": {"exposure.png": "What is opened, by length of the session"},
    "Calibration": {"calibration.png": "Inflated sessions by probability"},
    "Sessions of one provider": {
        "sessions_needed.png": "Sessions needed by rate, one panel a family"
    },
}
"""What plots show, by section and name."""

_OTHER_MODEL: Final = "other_model"

_LIMIT: Final = """\
**Another model's reasoning passes every semantic test.** A provider that has a cheaper model \
reason about the same question, and bills for that, commits to real reasoning: no score of \
meaning tells who wrote it.{seen} What follows says how much of the cheaper kinds of filler is \
found, and how many honest sessions are accused.

{sessions:,} sessions. A session counts as detected if it was failed; an inconclusive one was not \
detected. Intervals are of 95 % (Wilson) and take sessions as independent, which several sessions \
of one question are not quite."""

_ABOUT_TARGETS: Final = """\
Replies whose own reasoning fills 4 blocks of 256 tokens or more; all placements and the rates \
named are pooled. A target is met where what was found is no lower than what was wanted, whatever \
the interval. Of {wanted} targets {met} are met, {missed} missed and {unknown} not measured."""

_ABOUT_FALSE_ALARMS: Final = """\
Share of honest sessions that were failed: all lengths, block sizes and kinds. At most 5 % are \
wanted overall, and 10 % in any domain with 30 sessions or more."""

_ABOUT_DETECTION: Final = """\
Percent of sessions that were failed, by injected tokens for each original one. Replies whose own \
reasoning fills 4 blocks of 256 tokens or more."""

_ABOUT_SIZES: Final = """\
Percent of sessions that were failed, sessions in brackets; rates pooled as for the targets. By \
the blocks that the reasoning alone fills, at block size 256; then by block size, all lengths."""

_ABOUT_EXPOSURE: Final = """\
Means of what was opened until the audit ended, at block size 256; in brackets the share of the \
session. Tokens of blocks opened whole are not among the tokens."""

_ABOUT_OVERCHARGE: Final = """\
Injected tokens for each original one that the provider is paid for after the audit: the mean over \
sessions, 0 where it was failed. The last column names the rate that pays best. Block size 256, \
all lengths; every session is audited."""

_ABOUT_CALIBRATION: Final = """\
Probabilities of inflation beside the share of sessions that were inflated, where half of all \
sessions are (they are weighted so). Elsewhere the odds are to be multiplied by those of one's own \
prior."""

_ABOUT_SHARES: Final = """\
Of inflated sessions that were failed: how often the interval given for the inflated share held \
the true share of injected tokens, how wide it was, and how far the likeliest share lay from the \
true one. Intervals are of one family's blocks, and meant to hold 95 %."""

_ABOUT_JUDGES: Final = """\
What other judges noticed in what was open when the audit ended, at tier committed and block size \
256: replies of four blocks or more, inflated by their own length or more, and honest ones. Of \
`learned` what it failed; of the others what they did not pass."""

_ABOUT_SESSIONS: Final = """\
Sessions until the sequential judge fails the provider: median, and in brackets the 90th \
percentile, of resampled sessions. It fails an honest provider with probability {alpha:g} at most, \
ever, for all but {doubt:g} of calibration sets of {calibration_sessions:,} sessions. \
>{most_sessions}: not within {most_sessions} sessions."""


def as_markdown(report: Item, plots: Sequence[str]) -> str:
    """Return a report as Markdown.

    Args:
        report: As `build_report` makes it.
        plots: Names of the plots that lie beside it.
    """
    sections = [
        ("Targets", _targets(report["targets"])),
        ("False alarms", _false_alarms(report)),
        ("Detection", _detection(report["detection"])),
        ("By length and block size", _by_size(report)),
        ("Exposure", _exposure(report["exposure"])),
        ("Overcharge that is kept", _overcharge(report["overcharge"])),
        ("Calibration", _calibration(report["calibration"])),
        ("Inflated shares", _shares(report["inflated_shares"])),
        ("Sessions of one provider", _sessions_needed(report["sessions_needed"])),
        *(
            (_title(name), _judges(value) if name == "judges" else _extra(value))
            for name, value in report["extra"].items()
        ),
    ]
    lines = ["# What the judge detects, and whom it accuses falsely", "", *_opening(report)]
    for title, body in sections:
        lines += ["", f"## {title}", "", *body]
        for name, caption in _PLOTS.get(title, {}).items():
            if name in plots:
                lines += ["", f"![{caption}]({name})"]
    return "\n".join(lines) + "\n"


def _opening(report: Item) -> list[str]:
    measured = [
        f"{_percent(one['found'])} of {one['sessions']:,} such sessions were failed at tier "
        f"{one['tier']}"
        for one in report["targets"]
        if one["family"] == _OTHER_MODEL and one["sessions"]
    ]
    seen = f" Here {', '.join(measured)}." if measured else ""
    return [_LIMIT.format(seen=seen, sessions=report["sessions"])]


def _targets(items: Sequence[Item]) -> list[str]:
    missed = [one for one in items if one["met"] is False]
    wanted = sum(one["wanted"] is not None for one in items)
    met = sum(one["met"] is True for one in items)
    about = _ABOUT_TARGETS.format(
        wanted=wanted, met=met, missed=len(missed), unknown=wanted - met - len(missed)
    )
    lines = [about]
    if missed:
        lines += ["", "Missed:", ""]
        lines += [
            f"* {one['family']} at tier {one['tier']}, rate {_rates(one['rates'])}: "
            f"{_percent(one['found'])} of {one['sessions']:,} sessions, "
            f"wanted {_percent(one['wanted'])}"
            for one in missed
        ]
    rows = [
        [
            one["family"],
            one["tier"],
            _rates(one["rates"]),
            "as measured" if one["wanted"] is None else _percent(one["wanted"]),
            _percent(one["found"]),
            _interval(one) if one["sessions"] else "",
            f"{one['sessions']:,}",
            _met(one),
        ]
        for one in items
    ]
    heads = ["family", "tier", "rates", "wanted", "found", "interval", "sessions", "met"]
    return [*lines, "", *_table(heads, rows)]


def _false_alarms(report: Item) -> list[str]:
    alarms = report["false_alarms"]
    lines = [_ABOUT_FALSE_ALARMS]
    over = [
        f"* {one.get('domain', 'all domains')} at tier {one['tier']}: {_percent(one['rate'])} of "
        f"{one['sessions']:,} sessions, wanted at most {_percent(one['wanted'])}"
        for one in (*alarms["overall"], *alarms["by_domain"])
        if one["met"] is False
    ]
    lines += ["", "Missed:", "", *over] if over else []
    for title, key, items in (
        ("", "", alarms["overall"]),
        ("domain", "domain", alarms["by_domain"]),
        ("model", "model", alarms["by_model"]),
        ("block size", "block_size", alarms["by_block_size"]),
        ("kind of honest session", "kind", report["honest_kinds"]),
    ):
        names = list(dict.fromkeys(str(one.get(key, "all")) for one in items))
        cells = {(str(one.get(key, "all")), one["tier"]): one for one in items}
        rows = []
        for name in names:
            row = [name]
            for tier in TIERS:
                one = cells.get((name, tier))
                row += (
                    ["", "", ""]
                    if one is None
                    else [
                        f"{_percent(one['rate'])} ({_interval(one)})",
                        _percent(one["inconclusive"] / one["sessions"]),
                        f"{one['sessions']:,}",
                    ]
                )
            rows.append(row)
        heads = [head for tier in TIERS for head in (f"{tier}: failed", "inconclusive", "sessions")]
        if rows:
            lines += ["", *_table([title, *heads], rows)]
    return lines


def _detection(items: Sequence[Item]) -> list[str]:
    lines = [_ABOUT_DETECTION]
    rates = sorted({one["rate"] for one in items})
    for tier in TIERS:
        cells: dict[tuple[str, str], dict[float, Item]] = {}
        for one in items:
            if one["tier"] == tier:
                cells.setdefault((one["attack"], one["placement"]), {})[one["rate"]] = one
        rows = [
            [
                attack,
                placement,
                *(_number(found[rate]["found"]) if rate in found else "" for rate in rates),
                f"{sum(one['sessions'] for one in found.values()):,}",
            ]
            for (attack, placement), found in sorted(cells.items())
        ]
        if rows:
            heads = ["attack", "placement", *(f"{rate:g}" for rate in rates), "sessions"]
            lines += ["", f"### Tier {tier}", "", *_table(heads, rows)]
    return lines


def _by_size(report: Item) -> list[str]:
    lines = [_ABOUT_SIZES]
    for key, items in (
        ("original_blocks", report["detection_by_length"]),
        ("block_size", report["detection_by_block_size"]),
    ):
        heads = [one for one in BLOCK_RANGES if any(item[key] == one for item in items)]
        heads = heads or sorted({item[key] for item in items})
        cells = {(item["family"], item["tier"], item[key]): item for item in items}
        rows = []
        for family, tier in sorted({(item["family"], item["tier"]) for item in items}):
            found = [cells.get((family, tier, head)) for head in heads]
            rows.append(
                [
                    family,
                    tier,
                    *(
                        f"{_number(one['found'])} ({one['sessions']:,})" if one else ""
                        for one in found
                    ),
                ]
            )
        if rows:
            names = [f"{head} blocks" if key != "block_size" else f"size {head}" for head in heads]
            lines += ["", *_table(["family", "tier", *names], rows)]
    return lines


def _exposure(items: Sequence[Item]) -> list[str]:
    rows = [
        [
            one["tier"],
            one["of"],
            one["blocks"],
            f"{one['tokens']:.1f} ({_percent(one['token_share'])})",
            f"{one['block_embeddings']:.1f} ({_percent(one['embedding_share'])})",
            f"{one['whole_blocks']:.1f} ({_percent(one['whole_share'])})",
            f"{one['rounds']:.2f}",
            f"{one['sessions']:,}",
        ]
        for one in items
    ]
    heads = ["tier", "sessions", "blocks", "tokens", "embeddings", "whole", "rounds", "number"]
    return [_ABOUT_EXPOSURE, "", *_table(heads, rows)]


def _overcharge(items: Sequence[Item]) -> list[str]:
    rates = sorted({one["rate"] for one in items})
    cells: dict[tuple[str, str], dict[float, Item]] = {}
    for one in items:
        cells.setdefault((one["attack"], one["tier"]), {})[one["rate"]] = one
    rows = []
    for (attack, tier), found in sorted(cells.items()):
        best = max(found.values(), key=lambda one: one["kept"])
        rows.append(
            [
                attack,
                tier,
                *(f"{found[rate]['kept']:.2f}" if rate in found else "" for rate in rates),
                f"{best['kept']:.2f} at {best['rate']:g}",
            ]
        )
    heads = ["attack", "tier", *(f"{rate:g}" for rate in rates), "most"]
    return [_ABOUT_OVERCHARGE, "", *_table(heads, rows)]


def _calibration(items: Sequence[Item]) -> list[str]:
    rows = [
        [
            one["tier"],
            "trained for" if one["families"] == "trained" else "all",
            f"{one['error']:.3f}",
            f"{one['brier']:.3f}",
            f"{one['sessions']:,}",
        ]
        for one in items
    ]
    heads = ["tier", "families", "mean error", "Brier score", "sessions"]
    return [_ABOUT_CALIBRATION, "", *_table(heads, rows)]


def _shares(items: Sequence[Item]) -> list[str]:
    rows = [
        [
            one["family"],
            one["tier"],
            _percent(one["held"]),
            f"{one['width']:.2f}",
            f"{one['error']:.2f}",
            f"{one['sessions']:,}",
        ]
        for one in items
    ]
    heads = ["family", "tier", "held", "mean width", "mean error", "sessions"]
    return [_ABOUT_SHARES, "", *_table(heads, rows)]


def _sessions_needed(needed: Mapping[str, Any] | None) -> list[str]:
    if needed is None:
        return ["Not computed: the number of calibration sessions was not given."]
    providers = [one for one in needed["providers"] if one["family"] != "none"]
    rates = sorted({one["rate"] for one in providers})
    most = needed["most_sessions"]
    lines = [_ABOUT_SESSIONS.format(**needed), ""]
    lines += [
        f"* Of honest providers, resampled likewise, {_percent(one['failed'])} were failed within "
        f"{most} sessions at tier {one['tier']}."
        for one in needed["providers"]
        if one["family"] == "none"
    ]
    cells = {
        (one["family"], one["tier"], one["inflated_share"], one["rate"]): one for one in providers
    }
    rows = []
    for family, tier, share in sorted({key[:3] for key in cells}, key=lambda at: (*at[:2], -at[2])):
        row = [family, tier, "all" if share == 1 else f"1 in {1 / share:g}"]
        for rate in rates:
            one = cells.get((family, tier, share, rate))
            row.append("" if one is None else _needed(one, most))
        rows.append(row)
    heads = ["family", "tier", "sessions inflated", *(f"{rate:g}" for rate in rates)]
    return [*lines, "", *_table(heads, rows)] if rows else lines


def _needed(one: Item, most: int) -> str:
    if one["median"] is None:
        return f">{most}"
    return f"{one['median']} ({one['p90'] or f'>{most}'})"


def _judges(judges: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Return what each judge noticed of each family, `none` for honest sessions."""
    families = sorted({family for found in judges.values() for family in found})
    rows = [
        [
            f"`{name}`",
            *(
                _percent(found[family]["noticed"] / found[family]["sessions"])
                if family in found
                else ""
                for family in families
            ),
        ]
        for name, found in judges.items()
    ]
    most = {
        family: max(found[family]["sessions"] for found in judges.values() if family in found)
        for family in families
    }
    rows.append(["sessions", *(f"{most[family]:,}" for family in families)])
    heads = ["judge", *("honest" if family == "none" else family for family in families)]
    return [_ABOUT_JUDGES, "", *_table(heads, rows)]


def _extra(value: object) -> list[str]:
    """Show what was passed through: a list of like objects as a table, others as they are."""
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        heads = list(dict.fromkeys(str(key) for one in value for key in one))
        return _table(heads, [[_plain(one.get(head, "")) for head in heads] for one in value])
    if isinstance(value, Mapping) and value:
        return [f"* {key}: {_plain(one)}" for key, one in value.items()]
    return [_plain(value)]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows),
    ]


def _met(one: Item) -> str:
    if one["met"] is None:
        return "" if one["wanted"] is None else "not measured"
    return "yes" if one["met"] else "**no**"


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{_number(share)} %"


def _number(share: float) -> str:
    """Return a share in percent; 100 only where it is all."""
    shown = f"{100 * share:.1f}"
    return "99.9" if shown == "100.0" and share < 1 else shown


def _interval(one: Item) -> str:
    return f"{100 * one['ci'][0]:.1f} to {100 * one['ci'][1]:.1f}"
