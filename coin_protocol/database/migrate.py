"""Bring a database's tables up to date with Alembic, one process at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DatabaseError

from coin_protocol.database.engine import shown, writing
from coin_protocol.errors import ConfigurationError

_LOCK: Final = 0x436F494E  # "CoIN": any number that others do not lock by


def upgrade(engine: Engine, migrations: str) -> None:
    """Make the tables, or change those of an older release, in one transaction.

    Args:
        engine: Of the database.
        migrations: Package with Alembic's `env.py` and `versions`.

    Raises:
        ConfigurationError: A newer release made them, or it is no database of ours.
        StoreUnavailableError: The database does not answer.
    """
    with ours(engine), writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        try:
            command.upgrade(_config(connection, migrations), "head")
        except CommandError as error:
            msg = f"the tables of {shown(engine)} are of a newer release: update coin-audit"
            raise ConfigurationError(msg) from error


@contextmanager
def ours(engine: Engine) -> Iterator[None]:
    """Say so where something else than our tables is found.

    Raises:
        ConfigurationError: It is.
    """
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError) as error:
        msg = f"{shown(engine)} cannot be used: {type(error).__name__}; is it a database of ours?"
        raise ConfigurationError(msg) from None


def _config(connection: Connection, migrations: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(migrations)))
    config.attributes["connection"] = connection
    return config
