"""A database for each test, and a witness over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import KINDS, database
from tests.support.witnesses import Log, sqlite_witness
from verifier_sdk.witness.witness import Witness


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of each kind."""
    with database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def log() -> Log:
    """A log of ten leaves."""
    return Log().grow(10)


@pytest.fixture
def witness(tmp_path: Path, log: Log) -> Iterator[Witness]:
    """A witness of that log, in SQLite."""
    with sqlite_witness(tmp_path, log) as witness:
        yield witness
