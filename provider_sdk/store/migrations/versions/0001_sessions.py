"""Sessions, their blocks, and the challenges that they have answered."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "process",
        sa.Column("process_id", sa.String(64), nullable=False),
        sa.Column("beat_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("process_id", name="pk_process"),
        comment="Processes that hold open sessions, and when each last showed that it lives.",
    )
    op.create_table(
        "session",
        sa.Column("session_id", sa.LargeBinary(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("process_id", sa.String(64), comment="Who holds it, while it is open."),
        sa.Column("response_id", sa.String(256)),
        sa.Column("choice", sa.Integer),
        sa.Column("caller", sa.LargeBinary(32)),
        sa.Column("nonce_from_client", sa.Boolean),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("committed_at", sa.Double),
        sa.Column(
            "statement", sa.LargeBinary, nullable=False, comment="The commitment as it began."
        ),
        sa.Column("secrets", sa.LargeBinary, comment="Sealed: session secret, flip secret."),
        sa.Column("commitment_sha256", sa.LargeBinary(32)),
        sa.Column("commitment", sa.LargeBinary),
        sa.Column("manifest", sa.LargeBinary),
        sa.Column("block_count", sa.Integer),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("delivery", sa.LargeBinary, comment="What is handed over beside the commitment."),
        sa.Column("fingerprints", sa.LargeBinary),
        sa.Column(
            "claimed_until", sa.Double, comment="A worker makes its fingerprints until then."
        ),
        sa.Column("claimed_by", sa.String(64)),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failure", sa.String(256)),
        sa.PrimaryKeyConstraint("session_id", name="pk_session"),
        sa.UniqueConstraint("commitment_sha256", name="uq_session_commitment_sha256"),
    )
    op.create_index("ix_session_response_id", "session", ["response_id"])
    op.create_index("ix_session_waiting", "session", ["state", "committed_at"])
    op.create_table(
        "block",
        sa.Column("session_id", sa.LargeBinary(16), nullable=False),
        sa.Column("block_index", sa.Integer, nullable=False),
        sa.Column("token_count", sa.Integer, nullable=False),
        sa.Column("ids", sa.LargeBinary, nullable=False, comment="Sealed: packed token ids."),
        sa.Column("windows", sa.LargeBinary, comment="Sealed: quantised window embeddings."),
        sa.PrimaryKeyConstraint("session_id", "block_index", name="pk_block"),
        sa.ForeignKeyConstraint(["session_id"], ["session.session_id"], name="fk_block_session_id"),
    )
    op.create_table(
        "answered",
        sa.Column("session_id", sa.LargeBinary(16), nullable=False),
        sa.Column("flip_index", sa.Integer, nullable=False),
        sa.Column("challenge_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("challenge", sa.LargeBinary, nullable=False),
        sa.Column("answered_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "flip_index", name="pk_answered"),
        sa.UniqueConstraint("session_id", "challenge_sha256", name="uq_answered_session_id"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["session.session_id"], name="fk_answered_session_id"
        ),
        comment="The exposure ledger: what was opened is drawn again from it.",
    )


def downgrade() -> None:
    """Drop them, with all that they hold."""
    for table in ("answered", "block", "session", "process"):
        op.drop_table(table)
