"""The first page: how the node does, and whom it found what about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from coin_protocol.database.engine import reading
from coin_protocol.v1 import receipt_pb2 as pb
from verifier_sdk.store import tables
from verifier_sdk.web.charts import Chart, Series
from verifier_sdk.web.pages import render
from verifier_sdk.web.queries import overview as figures
from verifier_sdk.web.queries.overview import HOUR
from verifier_sdk.web.site import Site

_HOURS: Final = 48
_DAYS: Final = 30
_DAY: Final = 86_400
_STACK: Final = (
    (pb.OUTCOME_PASS, "PASS", "pass"),
    (pb.OUTCOME_INCONCLUSIVE, "INCONCLUSIVE", "unsure"),
    (pb.OUTCOME_FAIL, "FAIL", "fail"),
)


def overview(site: Site, request: Request) -> Response:
    """Answer `GET /`."""
    now = site.clock()
    last_hour, last_day = int(now // HOUR), int(now // _DAY)
    first_hour, first_day = last_hour - _HOURS + 1, last_day - _DAYS + 1
    with reading(site.engine) as connection:
        counts = figures.counts(connection)
        states = _by_state(counts)
        waiting = figures.waiting(connection, states.get(tables.QUEUED, 0))
        lag = figures.lag(connection, now - _DAY)
        submitted = figures.submitted_per_hour(connection, first_hour * HOUR)
        verdicts = figures.decided_per_hour(connection, first_day * _DAY)
        alive, listed = figures.workers(connection, now)
        evidence = figures.evidence_found(connection)
        providers = figures.providers(connection, site.providers)
    return render(
        request,
        "overview.html",
        now=now,
        states=states,
        outcome_order=[(outcome, label) for outcome, label, _ in _STACK],
        outcomes=_by_outcome(counts),
        waiting=waiting,
        lag=lag,
        alive=alive,
        listed=listed,
        evidence=evidence,
        providers=providers,
        most_providers=figures.MOST_PROVIDERS,
        per_hour=_per_hour(range(first_hour, last_hour + 1), submitted, verdicts),
        per_day=_per_day(range(first_day, last_day + 1), verdicts),
    )


def _by_state(counts: Mapping[tuple[str, int | None], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (state, _), audits in counts.items():
        found[state] = found.get(state, 0) + audits
    return found


def _by_outcome(counts: Mapping[tuple[str, int | None], int]) -> dict[int, int]:
    found: dict[int, int] = {outcome: 0 for outcome, _, _ in _STACK}
    for (_, outcome), audits in counts.items():
        if outcome in found:
            found[outcome] += audits
    return found


def _per_hour(
    hours: range, submitted: Mapping[int, int], verdicts: Mapping[tuple[int, int], int]
) -> Chart:
    decided: dict[int, int] = {}
    for (hour, _), audits in verdicts.items():
        decided[hour] = decided.get(hour, 0) + audits
    came = [submitted.get(hour, 0) for hour in hours]
    left = [decided.get(hour, 0) for hour in hours]
    return Chart(
        name="per-hour",
        title="Audits an hour",
        summary=f"In the last 48 hours {sum(came):,} receipts came in and {sum(left):,} verdicts "
        "went out. The last hour is not over.",
        x=[hour * HOUR for hour in hours],
        axis="time",
        x_label="Hour from",
        y_label="audits",
        series=[
            Series("Submitted", "accent", "step", came),
            Series("Decided", "ink", "step", left),
        ],
    )


def _per_day(days: range, verdicts: Mapping[tuple[int, int], int]) -> Chart:
    found: dict[tuple[int, int], int] = {}
    for (hour, outcome), audits in verdicts.items():
        key = hour * HOUR // _DAY, outcome
        found[key] = found.get(key, 0) + audits
    series = [
        Series(label, tone, "bar", [found.get((day, outcome), 0) for day in days])
        for outcome, label, tone in _STACK
    ]
    told = ", ".join(f"{sum(filter(None, one.values)):,} {one.label}" for one in series)
    return Chart(
        name="per-day",
        title="Verdicts a day",
        summary=f"In the last 30 days of UTC: {told}. The last day is not over.",
        x=[day * _DAY for day in days],
        axis="day",
        x_label="Day (UTC)",
        y_label="verdicts",
        series=series,
        stacked=True,
    )
