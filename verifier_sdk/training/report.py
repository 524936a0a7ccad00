"""From results to a report: `report.json`, `report.md`, and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from coin_protocol.errors import InvalidInputError
from coin_protocol.files import replace_file
from verifier_sdk.training import curves, tables
from verifier_sdk.training.markdown import as_markdown
from verifier_sdk.training.plots import draw_all
from verifier_sdk.training.results import SessionResult
from verifier_sdk.training.tables import Item

FORMAT: Final = "coin.detection-report.v1"


def build_report(
    results: Sequence[SessionResult],
    extra: Mapping[str, Any],
    *,
    calibration_sessions: int | None = None,
) -> Item:
    """Compute a report.

    Args:
        results: Of all sessions, honest ones among them.
        extra: What else belongs into the report: digests, seeds, ablations; JSON-ready.
        calibration_sessions: Independent honest sessions that p-values were computed from: of
            several draws of one question count one, of several calibration sets the smallest.
            Without it nothing is said on how many sessions the sequential judge needs.

    Returns:
        JSON-ready values.

    Raises:
        InvalidInputError: There are no results.
    """
    if not results:
        msg = "there are no results to report on: evaluate some sessions first"
        raise InvalidInputError(msg)
    return {
        "format": FORMAT,
        "sessions": len(results),
        "targets": tables.targets(results),
        "false_alarms": tables.false_alarms(results),
        "honest_kinds": tables.honest_kinds(results),
        "detection": tables.detection(results),
        "detection_by_block_size": tables.detection_by_block_size(results),
        "detection_by_length": tables.detection_by_length(results),
        "exposure": tables.exposure(results),
        "overcharge": tables.overcharge(results),
        "calibration": curves.calibration(results),
        "inflated_shares": tables.inflated_shares(results),
        "sessions_needed": None
        if calibration_sessions is None
        else curves.sessions_needed(results, calibration_sessions),
        "roc": curves.roc(results),
        "extra": dict(extra),
        "rows": tables.rows(results),
    }


def write_report(
    results: Sequence[SessionResult],
    folder: Path,
    extra: Mapping[str, Any],
    *,
    calibration_sessions: int | None = None,
) -> Item:
    """Write `report.json`, `report.md` and the plots, each as a whole or not at all.

    Args:
        results: As for `build_report`, like the other arguments.
        folder: Made if it is not there.
        extra: See there.
        calibration_sessions: See there.

    Returns:
        The report.

    Raises:
        InvalidInputError: There are no results, `extra` is not JSON-ready, or the folder is a
            file or cannot be written to.
        MissingDependencyError: matplotlib is not installed. Nothing was written.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file: give a folder"
        raise InvalidInputError(msg)
    report = build_report(results, extra, calibration_sessions=calibration_sessions)
    files = {"report.json": as_json(report).encode(), **draw_all(report)}
    plots = [name for name in files if name.endswith(".png")]
    files["report.md"] = as_markdown(report, plots).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {folder}: {error.strerror}"
        raise InvalidInputError(msg) from error
    for name, raw in files.items():
        replace_file(folder / name, raw)
    return report


def as_json(report: Item) -> str:
    """Return a report as JSON, each entry of a list on a line of its own.

    Raises:
        InvalidInputError: It holds what JSON cannot, such as NaN.
    """
    try:
        parts = [f"{json.dumps(key)}: {_value(value)}" for key, value in report.items()]
    except (TypeError, ValueError) as error:
        msg = f"the report holds what JSON cannot: {error}"
        raise InvalidInputError(msg) from error
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _value(value: object) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(_dump(item) for item in value) + "\n]"
    return _dump(value)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
