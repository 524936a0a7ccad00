"""The tables of a node: audits, the log, what is remembered, logins to the pages."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "audit",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("audit_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("provider", sa.String(length=256), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("commitment_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=False),
        sa.Column("submitted_by", sa.String(length=256), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column(
            "drawn",
            sa.String(length=16),
            nullable=True,
            comment="Why it is audited: share, risk or asked.",
        ),
        sa.Column(
            "priority", sa.Integer(), nullable=False, comment="The greater is audited first."
        ),
        sa.Column("due_at", sa.Double(), nullable=True, comment="No attempt is made before."),
        sa.Column(
            "announced_at",
            sa.Double(),
            nullable=True,
            comment="Last put on the message queue, where there is one.",
        ),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claimed_by", sa.String(length=64), nullable=True),
        sa.Column("claimed_until", sa.Double(), nullable=True),
        sa.Column(
            "failure", sa.Text(), nullable=True, comment="Why the last attempt did not decide it."
        ),
        sa.Column("decided_at", sa.Double(), nullable=True),
        sa.Column("outcome", sa.Integer(), nullable=True),
        sa.Column("tier", sa.Integer(), nullable=True),
        sa.Column("fault", sa.Integer(), nullable=True),
        sa.Column("failed_check", sa.String(length=64), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("inflation_probability", sa.Double(), nullable=True),
        sa.Column("share_low", sa.Double(), nullable=True),
        sa.Column("share_high", sa.Double(), nullable=True),
        sa.Column("exposed_tokens", sa.BigInteger(), nullable=True),
        sa.Column("rounds", sa.Integer(), nullable=True),
        sa.Column(
            "log_evidence",
            sa.Double(),
            nullable=True,
            comment="Of the provider's sessions up to this one, ln.",
        ),
        sa.Column("verdict_sha256", sa.LargeBinary(length=32), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit")),
        sa.UniqueConstraint("audit_id", name=op.f("uq_audit_audit_id")),
    )
    op.create_index("ix_audit_age", "audit", ["state", "submitted_at"], unique=False)
    op.create_index("ix_audit_claimed_until", "audit", ["state", "claimed_until"], unique=False)
    op.create_index("ix_audit_commitment_sha256", "audit", ["commitment_sha256"], unique=False)
    op.create_index(
        "ix_audit_decided_at", "audit", ["decided_at", "outcome", "submitted_at"], unique=False
    )
    op.create_index("ix_audit_outcome", "audit", ["state", "outcome", "number"], unique=False)
    op.create_index("ix_audit_provider", "audit", ["provider", "number"], unique=False)
    op.create_index(
        "ix_audit_provider_outcome", "audit", ["provider", "outcome", "number"], unique=False
    )
    op.create_index("ix_audit_request", "audit", ["provider", "request_sha256"], unique=False)
    op.create_index("ix_audit_session", "audit", ["provider", "session_id"], unique=False)
    op.create_index("ix_audit_submitted_at", "audit", ["submitted_at"], unique=False)
    op.create_index(
        "ix_audit_waiting",
        "audit",
        ["state", sa.literal_column("priority DESC"), "due_at", "number"],
        unique=False,
    )
    op.create_table(
        "evidence",
        sa.Column(
            "evidence_id", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of the file."
        ),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column(
            "provider",
            sa.String(length=256),
            nullable=True,
            comment="Whom it is against, where it is a provider.",
        ),
        sa.Column("found_at", sa.Double(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("file", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("evidence_id", name=op.f("pk_evidence")),
        comment="Two signed statements that no honest party signs both.",
    )
    op.create_table(
        "handed_in",
        sa.Column("client", sa.String(length=256), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False, comment="Days since 1970, UTC."),
        sa.Column("receipts", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client", "day", name=op.f("pk_handed_in")),
        comment="Receipts kept, for the quota of a day.",
    )
    op.create_table(
        "log_entry",
        sa.Column("id", _NUMBER, nullable=False, comment="In the order in which they came."),
        sa.Column("leaf_index", _NUMBER, nullable=True, comment="None until it is sequenced."),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column(
            "session_key",
            sa.LargeBinary(length=16),
            nullable=True,
            comment="Of a commitment's provider and session.",
        ),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_entry")),
        sa.UniqueConstraint("leaf_hash", name=op.f("uq_log_entry_leaf_hash")),
        sa.UniqueConstraint("leaf_index", name=op.f("uq_log_entry_leaf_index")),
        comment="What the log says: entries with a place in its tree, and those that wait for one.",
    )
    op.create_index("ix_log_entry_session_key", "log_entry", ["session_key"], unique=False)
    op.create_index(
        "ix_log_entry_waiting",
        "log_entry",
        ["id"],
        unique=False,
        sqlite_where=sa.text("leaf_index IS NULL"),
        postgresql_where=sa.text("leaf_index IS NULL"),
    )
    op.create_table(
        "log_head",
        sa.Column("size", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False, comment="As the log signed it."),
        sa.Column("signed_at", sa.Double(), nullable=False),
        sa.Column("cosignatures", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_head")),
    )
    op.create_table(
        "log_subtree",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subtree_index", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("level", "subtree_index", name=op.f("pk_log_subtree")),
        comment="Roots of full subtrees of 256^level leaves, level 1 and up.",
    )
    op.create_table(
        "memory_block",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("provider", sa.String(length=256), nullable=False),
        sa.Column("profile_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("commitment_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("block_index", sa.Integer(), nullable=False),
        sa.Column("vector_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False, comment="int8-symmetric."),
        sa.Column("remembered_at", sa.Double(), nullable=False, comment="By the database's clock."),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memory_block")),
        sa.UniqueConstraint(
            "commitment_sha256", "block_index", name=op.f("uq_memory_block_commitment_sha256")
        ),
        comment="Block embeddings that providers opened: what is served twice shows here.",
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_memory_block_remembered_at", "memory_block", ["remembered_at"], unique=False
    )
    op.create_index(
        "ix_memory_block_same",
        "memory_block",
        ["provider", "profile_sha256", "vector_sha256", "id"],
        unique=False,
    )
    op.create_table(
        "secret",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secret")),
        comment="Random values that all processes of a node share.",
    )
    op.create_table(
        "spent",
        sa.Column("provider", sa.String(length=256), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False, comment="Days since 1970, UTC."),
        sa.Column("audits", sa.Integer(), nullable=False),
        sa.Column(
            "chosen",
            sa.Integer(),
            nullable=False,
            comment="Of these, such as were not drawn at random.",
        ),
        sa.PrimaryKeyConstraint("provider", "day", name=op.f("pk_spent")),
        comment="Audits begun, for the budget of a day.",
    )
    op.create_table(
        "standing",
        sa.Column("provider", sa.String(length=256), nullable=False),
        sa.Column(
            "judge",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of the judge's file, hex.",
        ),
        sa.Column("state", sa.Text(), nullable=False, comment="Of the sequential judge, JSON."),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "judge", name=op.f("pk_standing")),
        comment="What a provider's sessions add up to.",
    )
    op.create_table(
        "web_session",
        sa.Column(
            "token_sha256",
            sa.LargeBinary(length=32),
            nullable=False,
            comment="Of what the cookie holds.",
        ),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column(
            "account_sha256",
            sa.LargeBinary(length=32),
            nullable=False,
            comment="Of its line in the file.",
        ),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ends_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_web_session")),
        comment="Logins to the pages. A new password ends those made with the old one.",
    )
    op.create_index(op.f("ix_web_session_ends_at"), "web_session", ["ends_at"], unique=False)
    op.create_table(
        "worker",
        sa.Column("worker_id", sa.String(length=64), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("beat_at", sa.Double(), nullable=False),
        sa.Column("decided", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_worker")),
        comment="Processes that audit, and when each last showed that it lives.",
    )
    op.create_table(
        "audit_file",
        sa.Column("number", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("receipt", sa.LargeBinary(), nullable=True, comment="Until the bundle holds it."),
        sa.Column(
            "progress",
            sa.LargeBinary(),
            nullable=True,
            comment="A bundle without verdict: what was opened so far.",
        ),
        sa.Column("bundle", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["number"], ["audit.number"], name=op.f("fk_audit_file_number")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_file")),
        comment="What an audit is about. As private as the conversation.",
    )
    op.create_table(
        "log_cosignature",
        sa.Column("size", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("key_hash", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False, comment="Time and signature."),
        sa.ForeignKeyConstraint(["size"], ["log_head.size"], name=op.f("fk_log_cosignature_size")),
        sa.PrimaryKeyConstraint("size", "name", "key_hash", name=op.f("pk_log_cosignature")),
        comment="Of witnesses, whose keys were known when they came.",
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("log_cosignature")
    op.drop_table("audit_file")
    op.drop_table("worker")
    op.drop_index(op.f("ix_web_session_ends_at"), table_name="web_session")
    op.drop_table("web_session")
    op.drop_table("standing")
    op.drop_table("spent")
    op.drop_table("secret")
    op.drop_index("ix_memory_block_same", table_name="memory_block")
    op.drop_index("ix_memory_block_remembered_at", table_name="memory_block")
    op.drop_table("memory_block")
    op.drop_table("log_subtree")
    op.drop_table("log_head")
    op.drop_index(
        "ix_log_entry_waiting",
        table_name="log_entry",
        sqlite_where=sa.text("leaf_index IS NULL"),
        postgresql_where=sa.text("leaf_index IS NULL"),
    )
    op.drop_index("ix_log_entry_session_key", table_name="log_entry")
    op.drop_table("log_entry")
    op.drop_table("handed_in")
    op.drop_table("evidence")
    op.drop_index("ix_audit_waiting", table_name="audit")
    op.drop_index("ix_audit_submitted_at", table_name="audit")
    op.drop_index("ix_audit_session", table_name="audit")
    op.drop_index("ix_audit_request", table_name="audit")
    op.drop_index("ix_audit_provider_outcome", table_name="audit")
    op.drop_index("ix_audit_provider", table_name="audit")
    op.drop_index("ix_audit_outcome", table_name="audit")
    op.drop_index("ix_audit_decided_at", table_name="audit")
    op.drop_index("ix_audit_commitment_sha256", table_name="audit")
    op.drop_index("ix_audit_claimed_until", table_name="audit")
    op.drop_index("ix_audit_age", table_name="audit")
    op.drop_table("audit")
