"""The node's log: its newest head, who cosigned it, and proofs of single entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, or_, select
from starlette.requests import Request
from starlette.responses import Response

from coin_protocol.database.engine import reading
from coin_protocol.merkle import leaf_hash
from verifier_sdk.store.tables import AUDIT
from verifier_sdk.web.charts import Chart, Series
from verifier_sdk.web.log_reader import LogReader
from verifier_sdk.web.pages import render
from verifier_sdk.web.problems import Problem
from verifier_sdk.web.queries import audit as queries
from verifier_sdk.web.site import Site, digest_in_path, digits_of
from verifier_sdk.web.views.audit import as_file
from verifier_sdk.web.views.proofs import INCLUDED, LogProof, leaves_of, prove

MOST_FOUND: Final = 20
"""Audits of one commitment whose entries are looked up."""

_WORDS: Final = {
    "commitment": "that the provider committed to the session",
    "verdict": "that this node gave a verdict on the commitment",
}
_DIGITS: Final = 64
_NO_EVIDENCE: Final = "This node has no evidence of that id."
_NO_HEAD: Final = "This node keeps no log, or has signed no head yet."


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that was looked for.

    Attributes:
        what: What it says, in words.
        data: What is hashed; None where only the hash was given.
        leaf_hash: 32 bytes.
        proof: That the newest head covers it, or why not.
        audit_id: Whose it is; None where it was found by its hash alone.
    """

    what: str
    data: bytes | None
    leaf_hash: bytes
    proof: LogProof
    audit_id: bytes | None


def log(site: Site, request: Request) -> Response:
    """Answer `GET /log`."""
    sought = digits_of(request, "find")
    if sought is not None and len(sought) != _DIGITS:
        raise Problem(400, "An entry is looked for by all 64 hexadecimal digits of its digest.")
    head = None if site.log is None else site.log.head()
    growth = [] if site.log is None else site.log.growth()
    with reading(site.engine) as connection:
        evidence = queries.evidence(connection)
        rows = [] if sought is None else _audits(connection, bytes.fromhex(sought))
    return render(
        request,
        "log.html",
        head=head,
        kept=site.log is not None,
        sought=sought,
        found=[] if sought is None else list(_found(site.log, bytes.fromhex(sought), rows)),
        evidence=evidence,
        chart_data=_growth(growth),
    )


def checkpoint(site: Site, request: Request) -> Response:
    """Answer `GET /log/checkpoint`: the signed note, exact bytes."""
    del request
    head = None if site.log is None else site.log.head()
    if head is None:
        raise Problem(404, _NO_HEAD)
    return as_file(head.note, "text/plain; charset=utf-8", f"checkpoint-{head.size}.txt")


def evidence(site: Site, request: Request) -> Response:
    """Answer `GET /log/evidence/ID.binpb`."""
    evidence_id = digest_in_path(request, "evidence_id", _NO_EVIDENCE)
    with reading(site.engine) as connection:
        raw = queries.evidence_file(connection, evidence_id)
    if raw is None:
        raise Problem(404, _NO_EVIDENCE)
    name = f"coin-evidence-{evidence_id.hex()[:16]}.binpb"
    return as_file(raw, "application/octet-stream", name)


def _audits(connection: Connection, digest: bytes) -> Sequence[Row[Any]]:
    query: Select[Any] = (
        select(
            AUDIT.c.audit_id,
            AUDIT.c.provider,
            AUDIT.c.session_id,
            AUDIT.c.commitment_sha256,
            AUDIT.c.verdict_sha256,
        )
        .where(or_(AUDIT.c.audit_id == digest, AUDIT.c.commitment_sha256 == digest))
        .order_by(AUDIT.c.number)
        .limit(MOST_FOUND)
    )
    return connection.execute(query).all()


def _found(log: LogReader | None, digest: bytes, rows: Sequence[Row[Any]]) -> Iterator[Found]:
    seen = set()
    for row in rows:
        for what, data in leaves_of(row):
            hashed = leaf_hash(data)
            if hashed not in seen:
                seen.add(hashed)
                yield Found(_WORDS[what], data, hashed, prove(log, hashed), bytes(row.audit_id))
    proof = prove(log, digest)
    if digest not in seen and proof.state == INCLUDED:
        yield Found("an entry with this leaf hash", None, digest, proof, None)


def _growth(points: Sequence[tuple[float, int]]) -> Chart:
    told = f"{points[-1][1]:,} entries by now." if points else "No head was signed yet."
    return Chart(
        name="growth",
        title="Entries in the tree",
        summary=f"Size of the heads that this log signed. {told}",
        x=[at for at, _ in points],
        axis="time",
        x_label="Signed",
        y_label="entries",
        series=[Series("Entries", "accent", "step", [size for _, size in points])],
    )
