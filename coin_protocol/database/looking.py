"""Look into a database without changing it, or making it where it is not there yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url

from coin_protocol.database.engine import open_engine, reading
from coin_protocol.database.migrate import ours
from coin_protocol.database.sqlite_file import files_of, require_place
from coin_protocol.database.url import sqlite_path

_SECONDS: Final = 10.0


@contextmanager
def looking(url: str) -> Iterator[Connection | None]:
    """Give a connection that reads alone; None where SQLite's file is not there yet.

    Raises:
        ConfigurationError: It is no such URL, the database cannot be used by this user, or is
            none.
        StoreUnavailableError: The database does not answer.
    """
    path = sqlite_path(url)
    if path is not None:
        require_place(path)
        if not path.exists():
            yield None
            return
    engine = open_engine(url) if path is None else _read_only(url, path)
    try:
        with ours(engine), reading(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def database_files(url: str) -> list[Path]:
    """Return the files of a database on this machine that are there; none of a server's.

    Raises:
        ConfigurationError: It is no such URL.
    """
    path = sqlite_path(url)
    return [] if path is None else files_of(path)


def _read_only(url: str, path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        # Where nobody has it open SQLite would make the files of its write-ahead log, and, as it
        # may not write, leave them there.
        open_now = path.with_name(f"{path.name}-wal").exists()
        name = f"file:{quote(str(path.absolute()))}?mode=ro{'' if open_now else '&immutable=1'}"
        return sqlite3.connect(name, uri=True, timeout=_SECONDS)

    return create_engine(make_url(url), creator=connect, poolclass=NullPool, hide_parameters=True)
