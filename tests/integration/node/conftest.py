"""Databases of nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.databases import KINDS
from tests.support.nodes import node_database
from tests.support.parties import Parties
from tests.support.workers import Node


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


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a node writes by default in the test's folder, and others' settings out."""
    monkeypatch.setenv("COIN_DATA_DIR", str(tmp_path / "data"))
    for variable in [*os.environ]:
        if variable.startswith("COIN_VERIFIER_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def node(parties: Parties, engine: Engine) -> Node:
    """A node over SQLite."""
    return Node(parties, engine)


@pytest.fixture
def either_node(parties: Parties, either_engine: Engine) -> Node:
    """A node over SQLite and over PostgreSQL."""
    return Node(parties, either_engine)
