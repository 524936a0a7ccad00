"""The tables of a log. Times are seconds since 1970, as float.

Rows are added and never changed, but for two things: an entry is given its place once, and a head
counts its cosignatures. No hash is kept twice: leaf hashes are with the entries, and above them one
row for each full subtree of 256, 65,536, … leaves. What lies between is hashed when it is asked
for. So the rows of one level, read in order, are the tiles of https://c2sp.org/tlog-tiles.
"""

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
)

from coin_protocol.limits import MAX_NOTE_NAME_BYTES
from verifier_sdk.store.metadata import METADATA

_Big: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite's row id is an `INTEGER`, and any 64 bits fit one."""

ENTRY: Final = Table(
    "log_entry",
    METADATA,
    Column("id", _Big, primary_key=True, comment="In the order in which they came."),
    Column("leaf_index", _Big, unique=True, comment="None until it is sequenced."),
    Column("leaf_hash", LargeBinary(32), nullable=False, unique=True),
    Column("session_key", LargeBinary(16), comment="Of a commitment's provider and session."),
    Column("data", LargeBinary, nullable=False),
    comment="What the log says: entries with a place in its tree, and those that wait for one.",
)
Index(
    "ix_log_entry_waiting",
    ENTRY.c.id,
    sqlite_where=ENTRY.c.leaf_index.is_(None),
    postgresql_where=ENTRY.c.leaf_index.is_(None),
)
Index("ix_log_entry_session_key", ENTRY.c.session_key)

SUBTREE: Final = Table(
    "log_subtree",
    METADATA,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("subtree_index", _Big, primary_key=True, autoincrement=False),
    Column("root", LargeBinary(32), nullable=False),
    comment="Roots of full subtrees of 256^level leaves, level 1 and up.",
)

HEAD: Final = Table(
    "log_head",
    METADATA,
    Column("size", _Big, primary_key=True, autoincrement=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", LargeBinary, nullable=False, comment="As the log signed it."),
    Column("signed_at", Double, nullable=False),
    Column("cosignatures", Integer, nullable=False, server_default="0"),
)

COSIGNATURE: Final = Table(
    "log_cosignature",
    METADATA,
    Column("size", _Big, ForeignKey(HEAD.c.size), primary_key=True, autoincrement=False),
    Column("name", String(MAX_NOTE_NAME_BYTES), primary_key=True),
    Column("key_hash", BigInteger, primary_key=True, autoincrement=False),
    Column("signature", LargeBinary, nullable=False, comment="Time and signature."),
    comment="Of witnesses, whose keys were known when they came.",
)
