"""The database under attack: one of its own, and what its tables say of sessions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url, select, text

from provider_sdk.store.tables import SESSION


def engine_of(url: str, database: str = "", *, autocommit: bool = False) -> Engine:
    """Return an engine for this process alone; dispose of it.

    Args:
        url: As the provider's settings name it.
        database: Another one on the same server.
        autocommit: For statements that take no transaction.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if database:
        parsed = parsed.set(database=database)
    level = "AUTOCOMMIT" if autocommit else None
    return create_engine(parsed, **({"isolation_level": level} if level else {}))


def states(url: str) -> dict[bytes, str]:
    """Return every session's state."""
    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(select(SESSION.c.session_id, SESSION.c.state)).all()
            return {row.session_id: row.state for row in rows}
    finally:
        engine.dispose()


@contextmanager
def own(server: str | None, folder: Path) -> Iterator[str]:
    """Give the URL of an empty database, dropped afterwards.

    Args:
        server: URL of a PostgreSQL database, beside which one is made; None for a SQLite file.
        folder: For that file.
    """
    if server is None or make_url(server).get_backend_name() == "sqlite":
        yield f"sqlite:///{folder / 'coin.db'}"
        return
    name = f"coin_faults_{secrets.token_hex(6)}"
    engine = engine_of(server, autocommit=True)
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()
