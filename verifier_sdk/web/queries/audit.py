"""One audit: its row, its bundle, and what else the node has that is tied to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from verifier_sdk.store.tables import AUDIT, EVIDENCE, FILE

MOST_EVIDENCE: Final = 200
"""Pieces of evidence on a page, the newest ones."""

_ABOUT: Final = (
    EVIDENCE.c.evidence_id,
    EVIDENCE.c.kind,
    EVIDENCE.c.provider,
    EVIDENCE.c.found_at,
    EVIDENCE.c.sentence,
    func.length(EVIDENCE.c.file).label("bytes"),
)


def audit_row(connection: Connection, audit_id: bytes) -> Row[Any] | None:
    """Return all that the table says of an audit."""
    return connection.execute(select(AUDIT).where(AUDIT.c.audit_id == audit_id)).first()


def bundle_bytes(connection: Connection, number: int) -> int | None:
    """Return how large an audit's bundle is; None where there is none."""
    query = select(func.length(FILE.c.bundle)).where(FILE.c.number == number)
    found: int | None = connection.execute(query).scalar()
    return found


def bundle(connection: Connection, number: int) -> bytes | None:
    """Return an audit's bundle; None where there is none."""
    found = connection.execute(select(FILE.c.bundle).where(FILE.c.number == number)).scalar()
    return None if found is None else bytes(found)


def by_commitment(connection: Connection, digests: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return audit ids by the digest of their commitment."""
    query = select(AUDIT.c.commitment_sha256, AUDIT.c.audit_id).where(
        AUDIT.c.commitment_sha256.in_(list(digests))
    )
    return {bytes(digest): bytes(found) for digest, found in connection.execute(query)}


def evidence(connection: Connection, provider: str | None = None) -> Sequence[Row[Any]]:
    """Return the newest evidence, against one provider or at all, without the files."""
    query: Select[Any] = select(*_ABOUT).order_by(EVIDENCE.c.found_at.desc()).limit(MOST_EVIDENCE)
    if provider is not None:
        query = query.where(EVIDENCE.c.provider == provider)
    return connection.execute(query).all()


def evidence_file(connection: Connection, evidence_id: bytes) -> bytes | None:
    """Return the file of a piece of evidence."""
    query = select(EVIDENCE.c.file).where(EVIDENCE.c.evidence_id == evidence_id)
    found = connection.execute(query).scalar()
    return None if found is None else bytes(found)
