"""Logs over both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coin_protocol.database.engine import open_engine
from tests.support.databases import KINDS, database
from tests.support.log_entries import House
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.store.metadata import METADATA


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind, with the tables of a log."""
    with database(request.param, tmp_path) as found:
        engine = open_engine(found)
        METADATA.create_all(engine, [METADATA.tables[name] for name in log_tables()])
        engine.dispose()
        yield found


@pytest.fixture
def house(url: str, tmp_path: Path) -> Iterator[House]:
    """A log in it."""
    engine = open_engine(url)
    yield House(engine, tmp_path)
    engine.dispose()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[House]:
    """A log in SQLite, for what no database changes."""
    engine = open_engine(f"sqlite:///{tmp_path / 'log.db'}")
    METADATA.create_all(engine, [METADATA.tables[name] for name in log_tables()])
    yield House(engine, tmp_path)
    engine.dispose()


def log_tables() -> list[str]:
    """Return the names of a log's tables."""
    assert ENTRY.name in METADATA.tables
    return [name for name in METADATA.tables if name.startswith("log_")]
