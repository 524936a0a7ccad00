"""The tables that migrations make are those that the code reads and writes."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from coin_protocol.database.migrate import upgrade
from verifier_sdk.store.all_tables import METADATA
from verifier_sdk.store.tables import MIGRATIONS

_VERSION = "verifier_alembic_version"


def test_the_migrations_make_the_tables_of_the_code(either_engine: Engine) -> None:
    with either_engine.connect() as connection:
        found = MigrationContext.configure(connection, opts={"version_table": _VERSION})
        assert compare_metadata(found, METADATA) == []
    upgrade(either_engine, MIGRATIONS)  # changes nothing
