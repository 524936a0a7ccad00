"""Heads that were cosigned, heads that were seen, and evidence."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "witness_key",
        sa.Column("vkey", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("vkey", name="pk_witness_key"),
        comment="Keys whose cosignatures all heads below were kept for. No other key signs from "
        "here.",
    )
    op.create_table(
        "witness_head",
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column(
            "note", sa.LargeBinary, nullable=False, comment="As its log signed it; empty at first."
        ),
        sa.Column("cosigned_at", sa.BigInteger, nullable=False, comment="0 for never."),
        sa.PrimaryKeyConstraint("origin", name="pk_witness_head"),
        comment="The latest head of each log that was cosigned.",
    )
    op.create_table(
        "witness_seen",
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("note", sa.LargeBinary, nullable=False, comment="As its log signed it."),
        sa.PrimaryKeyConstraint("origin", "size", name="pk_witness_seen"),
        comment="The largest heads that a log signed, cosigned or not: one root for each size.",
    )
    op.create_table(
        "witness_evidence",
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("found_at", sa.BigInteger, nullable=False),
        sa.Column("evidence", sa.LargeBinary, nullable=False, comment="A file: coin.evidence.v1."),
        sa.PrimaryKeyConstraint("sha256", name="pk_witness_evidence"),
        comment="Two heads of one size that a log signed.",
    )
    op.create_index("ix_witness_evidence_origin", "witness_evidence", ["origin"])


def downgrade() -> None:
    """Drop them."""
    for name in ("witness_evidence", "witness_seen", "witness_head", "witness_key"):
        op.drop_table(name)
