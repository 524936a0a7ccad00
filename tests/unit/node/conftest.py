"""Databases of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.databases import KINDS
from tests.support.nodes import node_database


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A SQLite database with a node's tables."""
    with node_database("sqlite", tmp_path) as engine:
        yield engine


@pytest.fixture(params=KINDS)
def either_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database with a node's tables, SQLite and PostgreSQL in turn."""
    with node_database(request.param, tmp_path) as engine:
        yield engine
