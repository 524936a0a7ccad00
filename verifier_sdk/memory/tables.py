"""The table of remembered blocks. Times are seconds since 1970, as float."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from coin_protocol.limits import HASH_BYTES, MAX_NAME_BYTES


def add_tables(metadata: MetaData) -> Table:
    """Add the memory's table to a database's metadata, and return it."""
    block = Table(
        "memory_block",
        metadata,
        Column(
            "id",
            BigInteger().with_variant(Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        Column("provider", String(MAX_NAME_BYTES), nullable=False),
        Column("profile_sha256", LargeBinary(HASH_BYTES), nullable=False),
        Column("commitment_sha256", LargeBinary(HASH_BYTES), nullable=False),
        Column("block_index", Integer, nullable=False),
        Column("vector_sha256", LargeBinary(HASH_BYTES), nullable=False),
        Column("vector", LargeBinary, nullable=False, comment="int8-symmetric."),
        Column("remembered_at", Double, nullable=False, comment="By the database's clock."),
        UniqueConstraint("commitment_sha256", "block_index"),
        comment="Block embeddings that providers opened: what is served twice shows here.",
        # An id that was forgotten is never given again.
        sqlite_autoincrement=True,
    )
    of = block.c
    Index("ix_memory_block_same", of.provider, of.profile_sha256, of.vector_sha256, of.id)
    Index("ix_memory_block_remembered_at", of.remembered_at)
    return block


MEMORY_BLOCK: Final = add_tables(MetaData())
"""For statements; migrations go by the metadata that `add_tables` was given."""
