"""The tables of a witness, in a database of its own. Times are POSIX seconds."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, String, Table

MIGRATIONS: Final = "verifier_sdk.witness.migrations"
"""Package of what makes these tables."""

VERSION_TABLE: Final = "witness_alembic_version"
"""A name of its own: what another program of ours has in a database by mistake is left alone."""

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

KEY: Final = Table(
    "witness_key",
    METADATA,
    Column("vkey", String(512), primary_key=True),
    comment="Keys whose cosignatures all heads below were kept for. No other key signs from here.",
)

HEAD: Final = Table(
    "witness_head",
    METADATA,
    Column("origin", String(255), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", LargeBinary, nullable=False, comment="As its log signed it; empty at first."),
    Column("cosigned_at", BigInteger, nullable=False, comment="0 for never."),
    comment="The latest head of each log that was cosigned.",
)

SEEN: Final = Table(
    "witness_seen",
    METADATA,
    Column("origin", String(255), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", LargeBinary, nullable=False, comment="As its log signed it."),
    comment="The largest heads that a log signed, cosigned or not: one root for each size.",
)

EVIDENCE: Final = Table(
    "witness_evidence",
    METADATA,
    Column("sha256", LargeBinary(32), primary_key=True),
    Column("origin", String(255), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("found_at", BigInteger, nullable=False),
    Column("evidence", LargeBinary, nullable=False, comment="A file: coin.evidence.v1."),
    comment="Two heads of one size that a log signed.",
)
