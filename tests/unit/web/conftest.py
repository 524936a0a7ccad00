"""The pages over filled databases, and browsers that are logged in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from coin_protocol.database.engine import writing
from tests.support.databases import KINDS
from tests.support.web_site import (
    WebNode,
    add_bundle,
    bundle_of,
    fill,
    fill_log,
    rows_of,
    visiting,
    web_node,
    write_accounts,
)
from verifier_sdk.store.metadata import METADATA


@pytest.fixture(scope="session")
def shared_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebNode]:
    """Pages over a PostgreSQL database that is emptied before each test."""
    with web_node("postgresql", tmp_path_factory.mktemp("shared")) as found:
        yield found


@pytest.fixture(params=KINDS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WebNode]:
    """Pages over an empty database, of either kind."""
    if request.param == "sqlite":
        with web_node("sqlite", tmp_path) as found:
            yield found
        return
    shared: WebNode = request.getfixturevalue("shared_postgresql")
    with writing(shared.engine) as connection:
        names = ", ".join(table.name for table in METADATA.sorted_tables)
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    yield WebNode(shared.engine, write_accounts(tmp_path))


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[WebNode]:
    """Pages over an empty SQLite database."""
    with web_node("sqlite", tmp_path) as found:
        yield found


@pytest.fixture(scope="session", params=KINDS)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebNode]:
    """Pages over a database with audits of every kind; nobody changes it."""
    folder = tmp_path_factory.mktemp("filled")
    with web_node(request.param, folder) as found:
        fill(found)
        add_bundle(found, "pass", bundle_of(), share_low=0.0, share_high=0.14)
        add_bundle(found, "fail", bundle_of(seed="f", forged=True), failed_check="BILL")
        fill_log(found, folder, rows_of(found, 6))
        yield found


@pytest.fixture(scope="session")
def reader(filled: WebNode) -> Iterator[TestClient]:
    """A browser that is logged in to the filled pages."""
    with visiting(filled) as client:
        yield client
