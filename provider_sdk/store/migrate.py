"""Bring a database's tables up to date with Alembic, one process at a time."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from coin_protocol.errors import ConfigurationError
from provider_sdk.store.engine import shown, writing

_LOCK: Final = 0x436F494E  # "CoIN": any number that others do not lock by


def upgrade(engine: Engine) -> None:
    """Make the tables, or change those of an older release, in one transaction.

    Raises:
        ConfigurationError: A newer release made them.
        StoreUnavailableError: The database does not answer.
    """
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        try:
            command.upgrade(_config(connection), "head")
        except CommandError as error:
            msg = f"the tables of {shown(engine)} are of a newer release: update coin-audit"
            raise ConfigurationError(msg) from error


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("provider_sdk.store") / "migrations"))
    config.attributes["connection"] = connection
    return config
