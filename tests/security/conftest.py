"""Databases and nodes to attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.nodes import node_database
from tests.support.web_site import WebNode, web_node


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A SQLite database with a node's tables."""
    with node_database("sqlite", tmp_path) as engine:
        yield engine


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[WebNode]:
    """Pages over an empty database."""
    with web_node("sqlite", tmp_path) as found:
        yield found
