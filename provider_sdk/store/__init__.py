"""Where sessions are kept: SQLite by default, PostgreSQL by URL, secrets sealed."""

from provider_sdk.store.sealing import KeySealer, Sealer, sealer_from_uri, write_sealing_key
from provider_sdk.store.sql import SqlStore

__all__ = ["KeySealer", "Sealer", "SqlStore", "sealer_from_uri", "write_sealing_key"]
