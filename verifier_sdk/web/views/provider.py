"""What is known of one provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import Response

from coin_protocol.checks import CHECKS
from coin_protocol.database.engine import reading
from coin_protocol.limits import MAX_NAME_BYTES
from coin_protocol.v1 import receipt_pb2 as pb
from verifier_sdk.web import links, words
from verifier_sdk.web.charts import Chart, Line, Series, thinned
from verifier_sdk.web.pages import render
from verifier_sdk.web.problems import Problem
from verifier_sdk.web.queries import audit as one_audit
from verifier_sdk.web.queries import provider as figures
from verifier_sdk.web.queries.audits import Wanted
from verifier_sdk.web.queries.provider import BINS
from verifier_sdk.web.queries.standing import Standing, standings_of
from verifier_sdk.web.site import Site
from verifier_sdk.web.views.audits import read_listing

_UNKNOWN = "This node has no audit of a provider of that name, and is not set up to audit it."
_CLAIMS = {check.code: check.claim for check in CHECKS}


def provider(site: Site, request: Request) -> Response:
    """Answer `GET /providers/NAME`; the name may hold anything, slashes too."""
    name = request.path_params["name"] or request.query_params.get("name", "")
    if len(name) > MAX_NAME_BYTES:
        raise Problem(404, _UNKNOWN)
    with reading(site.engine) as connection:
        if name not in site.providers and not figures.exists(connection, name):
            raise Problem(404, _UNKNOWN)
        standings = standings_of(connection, name)
        path = figures.evidence_path(connection, name)
        shares = figures.shares(connection, name)
        bars = figures.p_values(connection, name)
        values: dict[str, Any] = {
            "outcomes": figures.outcomes(connection, name),
            "own_failures": figures.own_failures(connection, name),
            "tiers": figures.tiers(connection, name),
            "checks": figures.failed_checks(connection, name),
            "pooled": figures.pooled_share(connection, name),
            "evidence": one_audit.evidence(connection, name),
            "listing": read_listing(
                connection,
                request,
                Wanted(provider=name),
                path=links.provider(name).partition("?")[0],
                given={},
                label="Audits of this provider",
                with_provider=False,
                fixed={"name": name} if "?" in links.provider(name) else {},
            ),
        }
    return render(
        request,
        "provider.html",
        provider=name,
        configured=name in site.providers,
        standings=standings,
        claims=_CLAIMS,
        over_time=_over_time(path, standings),
        intervals=_intervals(shares),
        histogram=_histogram(bars),
        outcome_order=(pb.OUTCOME_PASS, pb.OUTCOME_INCONCLUSIVE, pb.OUTCOME_FAIL),
        **values,
    )


def _over_time(path: Sequence[tuple[float, float]], standings: Sequence[Standing]) -> Chart:
    points = thinned(path)
    newest = next((standing for standing in standings if standing.line is not None), None)
    lines = [Line(0.0, "none either way")]
    told = ""
    if newest is not None and newest.line is not None and newest.highest is not None:
        lines.append(Line(newest.line, f"FAIL at {10**newest.line:,.0f} to 1", "fail"))
        past = "has reached" if newest.failed else "has not reached"
        told = f" Its highest value {past} the line at which FAIL follows."
    last = f" It stands at {_odds(path[-1][1])} now.{told}" if path else ""
    return Chart(
        name="evidence",
        title="Evidence over sessions",
        summary="Decimal logarithm of the evidence that this provider inflates, after each "
        f"weighed session: 0 is none, 2 is 100 to 1.{last}",
        x=[at for at, _ in points],
        axis="time",
        x_label="Decided",
        y_label="log10 of the evidence",
        series=[Series("Evidence", "accent", "step", [value for _, value in points])],
        form="power",
        lines=lines,
        from_zero=False,
    )


def _intervals(shares: Sequence[Row[Any]]) -> Chart:
    newest = f"The newest {len(shares):,} audits" if len(shares) != 1 else "One audit"
    return Chart(
        name="shares",
        title="Inflated share, audit by audit",
        summary=f"{newest} with an interval: from its lower to its upper end, as the judge "
        "estimates the share of blocks that are filler. A wide interval says little.",
        x=[row.decided_at for row in shares],
        axis="time",
        x_label="Decided",
        y_label="share of blocks",
        series=[
            Series(
                words.OUTCOMES[outcome],
                words.TONES[outcome],
                "range",
                [row.share_low if row.outcome == outcome else None for row in shares],
                [row.share_high if row.outcome == outcome else None for row in shares],
            )
            for outcome in (pb.OUTCOME_PASS, pb.OUTCOME_INCONCLUSIVE, pb.OUTCOME_FAIL)
        ],
        form="percent",
    )


def _histogram(bars: Sequence[int]) -> Chart:
    total = sum(bars)
    low = sum(bars[: BINS // 10])
    return Chart(
        name="p-values",
        title="p-values of weighed sessions",
        summary=f"Of {total:,} sessions, {low:,} have a p-value of 0.1 or less; of an honest "
        f"provider about {total / 10:,.0f} would. Honest p-values lie flat or lean to the right.",
        x=[(at + 0.5) / BINS for at in range(BINS)] if total else [],
        axis="number",
        x_label="p-value",
        y_label="sessions",
        series=[Series("Sessions", "accent", "bar", list(bars))] if total else [],
        lines=[Line(total / BINS, "uniform")],
        cells=[f"{at / BINS:.2f} to {(at + 1) / BINS:.2f}" for at in range(BINS)] if total else [],
    )


def _odds(power: float) -> str:
    return f"{10**power:,.3g} to 1" if abs(power) < 6 else f"10^{power:.0f} to 1"
