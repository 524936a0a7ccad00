"""The tables of audits. Times are seconds since 1970, as float; digests are raw bytes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from verifier_sdk.store.metadata import METADATA

MIGRATIONS: Final = "verifier_sdk.store.migrations"
"""Package of what makes the tables of a node."""

SUBMITTED: Final = "submitted"
"""Kept, and not drawn for an audit."""
QUEUED: Final = "queued"
"""Waits for a worker, from `due_at` on."""
RUNNING: Final = "running"
"""Held by `claimed_by` until `claimed_until`; then anyone may take it over."""
DECIDED: Final = "decided"
"""Has its verdict, which never changes."""
ERROR: Final = "error"
"""Given up; nothing is said of the provider. It can be asked for again."""
PURGED: Final = "purged"
"""Past its retention: the verdict's figures are kept, receipt and bundle are deleted."""

BY_SHARE: Final = "share"
"""Drawn at random: these alone are weighed over sessions."""
BY_RISK: Final = "risk"
"""Audited for what the receipt shows."""
ASKED: Final = "asked"
"""Somebody asked for it."""

# SQLite counts up by itself only in a column of its own INTEGER.
_NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")

AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("audit_id", LargeBinary(32), nullable=False),
    Column("provider", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("session_id", LargeBinary(16), nullable=False),
    Column("commitment_sha256", LargeBinary(32), nullable=False),
    Column("request_sha256", LargeBinary(32), nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("submitted_by", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("drawn", String(16), comment="Why it is audited: share, risk or asked."),
    Column("priority", Integer, nullable=False, comment="The greater is audited first."),
    Column("due_at", Double, comment="No attempt is made before."),
    Column("announced_at", Double, comment="Last put on the message queue, where there is one."),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("claimed_by", String(64)),
    Column("claimed_until", Double),
    Column("failure", Text, comment="Why the last attempt did not decide it."),
    # What the verdict says, for lists and figures. The bundle is what counts.
    Column("decided_at", Double),
    Column("outcome", Integer),
    Column("tier", Integer),
    Column("fault", Integer),
    Column("failed_check", String(64)),
    Column("p_value", Double),
    Column("inflation_probability", Double),
    Column("share_low", Double),
    Column("share_high", Double),
    Column("exposed_tokens", BigInteger),
    Column("rounds", Integer),
    Column("log_evidence", Double, comment="Of the provider's sessions up to this one, ln."),
    Column("verdict_sha256", LargeBinary(32)),
    UniqueConstraint("audit_id"),
)
Index("ix_audit_waiting", AUDIT.c.state, AUDIT.c.priority.desc(), AUDIT.c.due_at, AUDIT.c.number)
Index("ix_audit_claimed_until", AUDIT.c.state, AUDIT.c.claimed_until)
Index("ix_audit_provider", AUDIT.c.provider, AUDIT.c.number)
Index("ix_audit_session", AUDIT.c.provider, AUDIT.c.session_id)
Index("ix_audit_commitment_sha256", AUDIT.c.commitment_sha256)
Index("ix_audit_request", AUDIT.c.provider, AUDIT.c.request_sha256)
Index("ix_audit_outcome", AUDIT.c.state, AUDIT.c.outcome, AUDIT.c.number)
# The figures of the first page are read from these alone, without the rows.
Index("ix_audit_decided_at", AUDIT.c.decided_at, AUDIT.c.outcome, AUDIT.c.submitted_at)
Index("ix_audit_submitted_at", AUDIT.c.submitted_at)
Index("ix_audit_age", AUDIT.c.state, AUDIT.c.submitted_at)
Index("ix_audit_provider_outcome", AUDIT.c.provider, AUDIT.c.outcome, AUDIT.c.number)

FILE: Final = Table(
    "audit_file",
    METADATA,
    Column("number", _NUMBER, ForeignKey(AUDIT.c.number), primary_key=True, autoincrement=False),
    Column("receipt", LargeBinary, comment="Until the bundle holds it."),
    Column("progress", LargeBinary, comment="A bundle without verdict: what was opened so far."),
    Column("bundle", LargeBinary),
    comment="What an audit is about. As private as the conversation.",
)

EVIDENCE: Final = Table(
    "evidence",
    METADATA,
    Column("evidence_id", LargeBinary(32), primary_key=True, comment="SHA-256 of the file."),
    Column("kind", String(32), nullable=False),
    Column("provider", String(256), comment="Whom it is against, where it is a provider."),
    Column("found_at", Double, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("file", LargeBinary, nullable=False),
    comment="Two signed statements that no honest party signs both.",
)

STANDING: Final = Table(
    "standing",
    METADATA,
    Column("provider", String(256), primary_key=True),
    Column("judge", String(64), primary_key=True, comment="SHA-256 of the judge's file, hex."),
    Column("state", Text, nullable=False, comment="Of the sequential judge, JSON."),
    Column("sessions", Integer, nullable=False),
    Column("updated_at", Double, nullable=False),
    comment="What a provider's sessions add up to.",
)

SPENT: Final = Table(
    "spent",
    METADATA,
    Column("provider", String(256), primary_key=True),
    Column("day", Integer, primary_key=True, comment="Days since 1970, UTC."),
    Column("audits", Integer, nullable=False),
    Column(
        "chosen", Integer, nullable=False, comment="Of these, such as were not drawn at random."
    ),
    comment="Audits begun, for the budget of a day.",
)

HANDED_IN: Final = Table(
    "handed_in",
    METADATA,
    Column("client", String(256), primary_key=True),
    Column("day", Integer, primary_key=True, comment="Days since 1970, UTC."),
    Column("receipts", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    comment="Receipts kept, for the quota of a day.",
)

WORKER: Final = Table(
    "worker",
    METADATA,
    Column("worker_id", String(64), primary_key=True),
    Column("started_at", Double, nullable=False),
    Column("beat_at", Double, nullable=False),
    Column("decided", Integer, nullable=False, server_default="0"),
    comment="Processes that audit, and when each last showed that it lives.",
)

SECRET: Final = Table(
    "secret",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    comment="Random values that all processes of a node share.",
)
