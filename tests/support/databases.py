"""Databases for tests: a SQLite file, and a PostgreSQL database of their own where one runs."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

SERVER = os.environ.get(
    "COIN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)
KINDS = ("sqlite", "postgresql")


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of an empty database, and drop it afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / f'{secrets.token_hex(4)}.db'}"
        return
    server = create_engine(
        SERVER, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3}
    )
    name = f"coin_test_{secrets.token_hex(6)}"
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
    except OperationalError:
        server.dispose()
        if os.environ.get("CI"):
            raise
        pytest.skip("no PostgreSQL at COIN_TEST_POSTGRESQL")
    try:
        yield server.url.set(database=name).render_as_string(hide_password=False)
    finally:
        _drop(server, name)
        server.dispose()


def _drop(server: Engine, name: str) -> None:
    """Drop a database; a busy server may take longer to end its backends than one attempt waits."""
    for left in reversed(range(5)):
        try:
            with server.connect() as connection:
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        except OperationalError:
            if not left:
                raise
            time.sleep(1)
        else:
            return
