"""All tables of a node, of whichever part of it."""

from __future__ import annotations

from verifier_sdk.log import tables as _log
from verifier_sdk.memory.tables import add_tables
from verifier_sdk.store import tables as _store
from verifier_sdk.store.metadata import METADATA
from verifier_sdk.web import tables as _web

__all__ = ["METADATA"]

_PARTS = (_log, _store, _web)  # importing them is what defines their tables
add_tables(METADATA)
