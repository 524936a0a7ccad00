"""The one table that the pages write: who is logged in."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Double, LargeBinary, String, Table

from verifier_sdk.store.metadata import METADATA

WEB_SESSION: Final = Table(
    "web_session",
    METADATA,
    Column("token_sha256", LargeBinary(32), primary_key=True, comment="Of what the cookie holds."),
    Column("account", String(64), nullable=False),
    Column("account_sha256", LargeBinary(32), nullable=False, comment="Of its line in the file."),
    Column("started_at", Double, nullable=False),
    Column("ends_at", Double, nullable=False, index=True),
    comment="Logins to the pages. A new password ends those made with the old one.",
)
