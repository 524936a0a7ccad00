"""Open the database: SQLite by default, PostgreSQL by URL, the same rules on both."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from coin_protocol.database.sqlite_file import make_folder_of, make_private, require_place
from coin_protocol.database.url import sqlite_path
from coin_protocol.errors import ConfigurationError, StoreUnavailableError

_STATEMENTS: Final = 32
"""Prepared statements of one SQLite connection that are kept."""

_CACHE_KIB: Final = 512
"""Pages that one SQLite connection keeps. Connections that are seldom used fill it within an hour,
so that what all of them keep has to be little."""

_BUSY_MILLISECONDS: Final = 10_000
_POSTGRESQL: Final = {
    "connect_timeout": 5,
    # A machine that has vanished says nothing: without these a write would wait a quarter of an
    # hour for it, past any failover.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""What libpq goes by where the URL says nothing; seconds, and milliseconds for the user timeout."""
_SYNCED: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)
_WRITES: Final = "coin_writes"


def open_engine(url: str) -> Engine:
    """Return an engine for `sqlite:///PATH` or `postgresql://…`.

    SQLite runs in WAL mode and syncs every commit; a file that is not there yet is made, for its
    owner alone, by the first connection. PostgreSQL does as its server is configured;
    where `synchronous_commit` is off there, it is on for these connections.

    Raises:
        ConfigurationError: It is no such URL, or its driver is not installed.
    """
    path = sqlite_path(url)
    return _postgresql(make_url(url)) if path is None else _sqlite(make_url(url), path)


def shown(engine: Engine) -> str:
    """Return an engine's URL without its password."""
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that reads.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    with _failing_softly(engine), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that writes; committed when the block ends.

    Raises:
        StoreUnavailableError: The database does not answer; what was written may or may not
            be kept, so that whoever tries again must bear both.
    """
    with _failing_softly(engine), engine.connect() as plain:
        connection = plain.execution_options(**{_WRITES: True})
        with connection.begin():
            yield connection


def empty_log(engine: Engine) -> None:
    """Empty SQLite's write-ahead log, where deleted rows would lie on; else do nothing.

    Where others hold it for longer than it waits for them, it is left for the next time.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    if engine.dialect.name != "sqlite":
        return
    with _failing_softly(engine), engine.connect() as connection:
        driver = connection.connection.driver_connection
        if driver is not None:
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()


@contextmanager
def _failing_softly(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        msg = f"the database {shown(engine)} does not answer: {_why(error)}"
        raise StoreUnavailableError(msg) from None
    except PoolTimeoutError:
        msg = f"the database {shown(engine)} has no connection to spare"
        raise StoreUnavailableError(msg) from None


def _why(error: DBAPIError) -> str:
    """Return what the driver says, where that quotes no statement and so nothing that is kept."""
    quotes = error.statement is not None and not isinstance(error.orig, sqlite3.Error)
    text = "" if quotes else str(error.orig).strip()
    return text.splitlines()[0] if text else type(error.orig).__name__


def _sqlite(url: URL, path: Path) -> Engine:
    make_folder_of(path)
    require_place(path)
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=16,
        # Each connection caches pages and statements: in turn, all of them would come to hold as
        # much as the busiest.
        pool_use_lifo=True,
        connect_args={
            "timeout": _BUSY_MILLISECONDS / 1000,
            "check_same_thread": False,
            "cached_statements": _STATEMENTS,
        },
    )

    @event.listens_for(engine, "do_connect")
    def make(dialect: Dialect, record: object, given: list[str], options: object) -> None:
        del dialect, record, options
        make_private(given[0])

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: object) -> None:
        del record
        # The driver's own BEGIN would be deferred, and then fail where it turns to writing.
        connection.isolation_level = None
        _log_ahead(connection)
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",  # what retention deletes is overwritten
            f"busy_timeout={_BUSY_MILLISECONDS}",
            # The system caches the file as well, for all of them.
            f"cache_size=-{_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Turn on WAL mode, waiting as for any lock: SQLite itself does not where another writes.

    It fails at once beside another's first transaction in a new file, for fear of a deadlock.
    """
    patience = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > patience:
                raise
        else:
            return
        time.sleep(0.01)


def _postgresql(url: URL) -> Engine:
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=16,
            connect_args={name: _POSTGRESQL[name] for name in _POSTGRESQL.keys() - url.query},
        )
    except ModuleNotFoundError as error:
        msg = "PostgreSQL needs psycopg: pip install 'coin-audit[store]'"
        raise ConfigurationError(msg) from error

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, record: object) -> None:
        del record
        # A commit must be on disk before anybody holds what refers to it.
        cursor = connection.cursor()
        cursor.execute(_SYNCED)
        cursor.close()
        connection.commit()

    return engine
