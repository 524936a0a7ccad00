"""One audit: its verdict, why, and on what it rests; and its bundle as a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import Response

from coin_protocol.database.engine import reading
from coin_protocol.errors import CoinError
from coin_protocol.merkle import leaf_hash
from coin_protocol.receipt import read_bundle, to_json
from verifier_sdk.web.charts import Chart, Line, Series
from verifier_sdk.web.pages import render
from verifier_sdk.web.problems import NO_SUCH_AUDIT, Problem
from verifier_sdk.web.queries import audit as queries
from verifier_sdk.web.reading.story import Story, read_story
from verifier_sdk.web.reading.timeline import Timeline
from verifier_sdk.web.site import Site, digest_in_path
from verifier_sdk.web.views.proofs import LogProof, leaves_of, prove

MAX_SHOWN_BYTES: Final = 64 << 20
"""A larger bundle is not taken apart for a page."""

MAX_JSON_BYTES: Final = 16 << 20
"""A larger bundle is handed out as protobuf only: JSON takes many times its size to make."""

_NO_BUNDLE: Final = "There is no bundle of this audit: it is not decided yet, or it was purged."
_NO_JSON: Final = "This bundle cannot be read, so there is no JSON of it. Take the protobuf file."
_TOO_LARGE: Final = (
    "This bundle is too large to be written as JSON here. Take the protobuf file; a program that "
    "knows the protocol writes it as JSON."
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the log should hold of an audit.

    Attributes:
        what: `commitment` or `verdict`.
        leaf_hash: 32 bytes.
        proof: That it does, or why there is none.
    """

    what: str
    leaf_hash: bytes
    proof: LogProof


def audit(site: Site, request: Request) -> Response:
    """Answer `GET /audits/ID`."""
    audit_id = digest_in_path(request, "audit_id", NO_SUCH_AUDIT)
    with reading(site.engine) as connection:
        row = queries.audit_row(connection, audit_id)
        if row is None:
            raise Problem(404, NO_SUCH_AUDIT)
        size = queries.bundle_bytes(connection, row.number)
        small = size is not None and size <= MAX_SHOWN_BYTES
        raw = queries.bundle(connection, row.number) if small else None
    story, unread = _story(site, raw)
    with reading(site.engine) as connection:
        others = queries.by_commitment(
            connection,
            {match.commitment_sha256 for match in (story.matches if story else ())},
        )
    return render(
        request,
        "audit.html",
        audit=row,
        story=story,
        unread=unread,
        bundle_bytes=size,
        json_too=size is not None and size <= MAX_JSON_BYTES,
        most_shown=MAX_SHOWN_BYTES,
        others=others,
        entries=_entries(site, row),
        log=site.log is not None,
        chart_data=None if story is None else _chart(story.timeline),
    )


def bundle(site: Site, request: Request) -> Response:
    """Answer `GET /audits/ID/bundle.binpb`."""
    audit_id, raw = _bundle(site, request, most=None)
    return as_file(raw, "application/octet-stream", f"coin-audit-{audit_id.hex()[:16]}.binpb")


def bundle_as_json(site: Site, request: Request) -> Response:
    """Answer `GET /audits/ID/bundle.json`."""
    audit_id, raw = _bundle(site, request, most=MAX_JSON_BYTES)
    try:
        document = to_json(read_bundle(raw)).encode()
    except CoinError as error:
        raise Problem(404, _NO_JSON) from error
    return as_file(document, "application/json", f"coin-audit-{audit_id.hex()[:16]}.json")


def _bundle(site: Site, request: Request, most: int | None) -> tuple[bytes, bytes]:
    audit_id = digest_in_path(request, "audit_id", NO_SUCH_AUDIT)
    with reading(site.engine) as connection:
        row = queries.audit_row(connection, audit_id)
        if row is None:
            raise Problem(404, NO_SUCH_AUDIT)
        size = queries.bundle_bytes(connection, row.number)
        if most is not None and size is not None and size > most:
            raise Problem(413, _TOO_LARGE)
        raw = queries.bundle(connection, row.number)
    if raw is None:
        raise Problem(404, _NO_BUNDLE)
    return audit_id, raw


def as_file(body: bytes, kind: str, name: str) -> Response:
    """Return bytes that browsers keep and never show.

    Args:
        body: The file.
        kind: Its `Content-Type`.
        name: Letters, digits, dots and dashes of our own: nobody else's words.
    """
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-type": kind}
    return Response(body, headers=headers)


def _story(site: Site, raw: bytes | None) -> tuple[Story | None, str]:
    if raw is None:
        return None, ""
    try:
        return read_story(raw, site.policies), ""
    except CoinError as error:
        return None, str(error)


def _entries(site: Site, row: Row[Any]) -> list[Entry]:
    hashed = [(what, leaf_hash(data)) for what, data in leaves_of(row)]
    return [Entry(what, found, prove(site.log, found)) for what, found in hashed]


def _chart(found: Timeline) -> Chart | None:
    if not found.points:
        return None
    marks = [Line(0.0, "request sent")]
    if found.answer_first is not None:
        marks.append(Line(found.answer_first, "answer begins"))
    if found.answer_last is not None and found.answer_last != found.answer_first:
        marks.append(Line(found.answer_last, "answer ends"))
    seen = [(point.seen, point.tokens) for point in found.points]
    dated = [(point.dated, point.tokens) for point in found.points]
    x = sorted({at for at, _ in (*seen, *dated)} | {mark.at for mark in marks})
    return Chart(
        name="timeline",
        title="Tokens over time",
        summary=_told(found),
        x=x,
        axis="number",
        x_label="Seconds",
        y_label="reasoning tokens",
        series=[
            Series("By the provider's dates", "unsure", "line", _at(dated, x)),
            Series("As the client saw them", "accent", "dots", _at(seen, x)),
        ],
        form="number",
        marks=marks,
    )


def _at(points: Sequence[tuple[float, int]], x: Sequence[float]) -> list[float | None]:
    found = dict(points)
    return [found.get(at) for at in x]


def _told(found: Timeline) -> str:
    last = found.points[-1]
    rate = "" if found.rate is None else f", at {found.rate:,.0f} tokens a second"
    answer = "" if found.answer_rate is None else f" The answer came at {found.answer_rate:,.0f}."
    return (
        f"The client saw {found.checkpoints:,} checkpoints up to {last.tokens:,} tokens, the last "
        f"{last.seen:,.1f} seconds after it sent the request{rate}.{answer} Client and provider "
        "each count from their own start, by their own clock."
    )
