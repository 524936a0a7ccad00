"""The tables of a provider's database. Times are seconds since 1970, as float."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

MIGRATIONS: Final = "provider_sdk.store.migrations"
"""Package of what makes these tables."""

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

OPEN: Final = "open"
"""Still being generated, by `process`; or left behind by it, if it beats no more."""
COMMITTED: Final = "committed"
"""Ended; waits for its fingerprints."""
READY: Final = "ready"
"""Has its fingerprints: challenges are answered."""
PURGED: Final = "purged"
"""Past its retention: the statements are kept, all secrets are deleted."""

PROCESS: Final = Table(
    "process",
    METADATA,
    Column("process_id", String(64), primary_key=True),
    Column("beat_at", Double, nullable=False),
    comment="Processes that hold open sessions, and when each last showed that it lives.",
)

SESSION: Final = Table(
    "session",
    METADATA,
    Column("session_id", LargeBinary(16), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("process_id", String(64), comment="Who holds it, while it is open."),
    Column("response_id", String(256)),
    Column("choice", Integer),
    Column("caller", LargeBinary(32)),
    Column("nonce_from_client", Boolean),
    Column("opened_at", Double, nullable=False),
    Column("committed_at", Double),
    Column("statement", LargeBinary, nullable=False, comment="The commitment as it began."),
    Column("secrets", LargeBinary, comment="Sealed: session secret, flip secret."),
    Column("commitment_sha256", LargeBinary(32)),
    Column("commitment", LargeBinary),
    Column("manifest", LargeBinary),
    Column("block_count", Integer),
    Column("reasoning_tokens", BigInteger),
    Column("delivery", LargeBinary, comment="What is handed over beside the commitment."),
    Column("fingerprints", LargeBinary),
    Column("claimed_until", Double, comment="A worker makes its fingerprints until then."),
    Column("claimed_by", String(64)),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failure", String(256)),
    UniqueConstraint("commitment_sha256"),
)
Index("ix_session_response_id", SESSION.c.response_id)
Index("ix_session_waiting", SESSION.c.state, SESSION.c.committed_at)

BLOCK: Final = Table(
    "block",
    METADATA,
    Column("session_id", LargeBinary(16), ForeignKey(SESSION.c.session_id), primary_key=True),
    Column("block_index", Integer, primary_key=True),
    Column("token_count", Integer, nullable=False),
    Column("ids", LargeBinary, nullable=False, comment="Sealed: packed token ids."),
    Column("windows", LargeBinary, comment="Sealed: quantised window embeddings."),
    Column("nodes", LargeBinary, comment="Of its tree: spares hashing when tokens are opened."),
)

ANSWERED: Final = Table(
    "answered",
    METADATA,
    Column("session_id", LargeBinary(16), ForeignKey(SESSION.c.session_id), primary_key=True),
    Column("flip_index", Integer, primary_key=True),
    Column("challenge_sha256", LargeBinary(32), nullable=False),
    Column("challenge", LargeBinary, nullable=False),
    Column("answered_at", Double, nullable=False),
    UniqueConstraint("session_id", "challenge_sha256"),
    comment="The exposure ledger: what was opened is drawn again from it.",
)
