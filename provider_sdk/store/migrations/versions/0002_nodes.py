"""What is kept of a block's tree; blocks from before have nothing, and are hashed in full."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "block",
        sa.Column(
            "nodes",
            sa.LargeBinary,
            comment="Of its tree: spares hashing when tokens are opened.",
        ),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("block", "nodes")
