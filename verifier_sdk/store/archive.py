"""A node's whole database in one file, and back, whichever database it came from.

The archive is a zip with one file of JSON lines a table and a manifest with the digest of each, so
that what was kept on SQLite can go on in PostgreSQL, and nobody needs our code to read it.
"""

from __future__ import annotations

import base64
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import Connection, Engine, LargeBinary, Table, func, insert, select, text
from sqlalchemy.exc import StatementError

from coin_protocol.database.engine import reading, writing
from coin_protocol.errors import InvalidInputError, VerificationError
from verifier_sdk.store.all_tables import METADATA

FORMAT: Final = "coin.verifier-archive.v1"

_MANIFEST: Final = "manifest.json"
_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 16 * 1024 * 1024
_MAX_MANIFEST_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 1 << 30
_LEFT_OUT: Final = frozenset({"worker", "web_session"})
"""Of no use to another process at another time: who lives, and who is logged in."""

Told = Callable[[str, int, int], None]
"""Told a table's name, how many of its rows are done, and how many there are."""


def _unheard(_table: str, _done: int, _rows: int) -> None:
    pass


def back_up(engine: Engine, path: Path, told: Told = _unheard) -> dict[str, int]:
    """Write all that a node keeps into one new file, as it stands at one moment.

    The node may go on meanwhile. The file is as private as the database: it holds conversations.

    Args:
        engine: Of the node's database.
        path: Of the file; it must not be there.
        told: Of the progress.

    Returns:
        Rows by table.

    Raises:
        InvalidInputError: The file is there, or cannot be written.
        StoreUnavailableError: The database does not answer.
    """
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        msg = f"{path} is there already: a backup never overwrites one"
        raise InvalidInputError(msg)
    try:
        # A file that is there may be a link, or another's to read.
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            rows = _write(engine, file, told)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise InvalidInputError(msg) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return rows


def restore(engine: Engine, path: Path, told: Told = _unheard) -> dict[str, int]:
    """Fill an empty database with what a backup holds, in one transaction.

    Args:
        engine: Of the database, its tables made by this release and empty.
        path: Of the file.
        told: Of the progress.

    Returns:
        Rows by table.

    Raises:
        InvalidInputError: The file cannot be read, or is no backup; or the database is not empty.
        VerificationError: The file is damaged.
        StoreUnavailableError: The database does not answer.
    """
    try:
        with zipfile.ZipFile(path) as archive, writing(engine) as connection:
            tables = _checked_manifest(archive, connection)
            _require_empty(connection)
            return {
                table.name: _read_table(connection, archive, table, tables[table.name], told)
                for table in _tables()
                if table.name in tables
            }
    except (OSError, zipfile.BadZipFile, KeyError, RuntimeError) as error:
        # RuntimeError: of an encrypted zip, or one that is compressed in another way.
        msg = f"{path} cannot be read as a backup: {error}"
        raise InvalidInputError(msg) from error
    except (zlib.error, EOFError, OverflowError) as error:
        msg = f"the backup is damaged: {error or 'it ends too early'}"
        raise VerificationError(msg) from error
    except StatementError:
        # Its text may hold the row.
        msg = "the backup is damaged: a row fits no table of this release"
        raise VerificationError(msg) from None


def _tables() -> list[Table]:
    """Return the tables of an archive, each after those that it refers to."""
    return [table for table in METADATA.sorted_tables if table.name not in _LEFT_OUT]


def _write(engine: Engine, file: IO[bytes], told: Told) -> dict[str, int]:
    found: dict[str, dict[str, Any]] = {}
    with (
        _snapshot(engine) as connection,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for table in _tables():
            count = int(connection.execute(select(func.count()).select_from(table)).scalar_one())
            hashed, rows = sha256(), 0
            with archive.open(_file_of(table), "w", force_zip64=True) as lines:
                for row in _rows(connection, table):
                    line = json.dumps(_encoded(row), separators=(",", ":")).encode() + b"\n"
                    hashed.update(line)
                    lines.write(line)
                    rows += 1
                    if rows % _AT_ONCE == 0:
                        told(table.name, rows, count)
            told(table.name, rows, count)
            found[table.name] = {"rows": rows, "sha256": hashed.hexdigest()}
        manifest = {"format": FORMAT, "revision": _revision(connection), "tables": found}
        archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
    return {name: entry["rows"] for name, entry in found.items()}


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """Give a connection that sees the database as it is now, whatever is written meanwhile."""
    with reading(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


def _rows(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    query = select(table).order_by(*table.primary_key.columns)
    result = connection.execution_options(yield_per=_AT_ONCE).execute(query)
    for row in result.mappings():
        yield dict(row)


def _encoded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: base64.b64encode(value).decode() if isinstance(value, (bytes, memoryview)) else value
        for name, value in row.items()
    }


def _checked_manifest(archive: zipfile.ZipFile, connection: Connection) -> dict[str, Any]:
    if archive.getinfo(_MANIFEST).file_size > _MAX_MANIFEST_BYTES:
        msg = f"the manifest has more than {_MAX_MANIFEST_BYTES} bytes: it is none of a backup"
        raise InvalidInputError(msg)
    try:
        manifest = json.loads(archive.read(_MANIFEST))
        kind, revision = manifest["format"], manifest["revision"]
        tables = {
            str(name): {"rows": int(entry["rows"]), "sha256": str(entry["sha256"])}
            for name, entry in dict(manifest["tables"]).items()
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = "the manifest is none of a backup"
        raise InvalidInputError(msg) from error
    if kind != FORMAT:
        msg = f"the backup's format is {kind!r}, wanted {FORMAT!r}"
        raise InvalidInputError(msg)
    if revision != _revision(connection):
        msg = (
            f"the backup is of tables of revision {revision}, this release makes "
            f"{_revision(connection)}: restore it with the release that made it, then migrate"
        )
        raise InvalidInputError(msg)
    unknown = tables.keys() - {table.name for table in _tables()}
    if unknown:
        msg = f"the backup has tables that this release does not know: {sorted(unknown)}"
        raise InvalidInputError(msg)
    return tables


def _require_empty(connection: Connection) -> None:
    for table in _tables():
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            msg = f"the table {table.name} is not empty: restore into a new database"
            raise InvalidInputError(msg)


def _read_table(
    connection: Connection,
    archive: zipfile.ZipFile,
    table: Table,
    entry: Mapping[str, Any],
    told: Told,
) -> int:
    hashed, rows, size, batch = sha256(), 0, 0, []
    count = entry["rows"]
    with archive.open(_file_of(table)) as lines:
        while line := lines.readline(_MAX_LINE_BYTES):
            hashed.update(line)
            batch.append(_decoded(table, line))
            rows += 1
            size += len(line)
            if len(batch) == _AT_ONCE or size >= _BYTES_AT_ONCE:
                connection.execute(insert(table), batch)
                batch, size = [], 0
                told(table.name, rows, count)
    if batch:
        connection.execute(insert(table), batch)
    told(table.name, rows, count)
    if hashed.hexdigest() != entry["sha256"] or rows != count:
        msg = (
            f"the backup is damaged: table {table.name} has {rows} rows under "
            f"{hashed.hexdigest()}, its manifest says {count} under {entry['sha256']}"
        )
        raise VerificationError(msg)
    _count_on(connection, table)
    return rows


def _decoded(table: Table, line: bytes) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        for column in table.columns:
            if isinstance(column.type, LargeBinary) and row[column.name] is not None:
                row[column.name] = base64.b64decode(row[column.name], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        msg = f"the backup is damaged: a row of {table.name} cannot be read"
        raise VerificationError(msg) from error
    return row


def _count_on(connection: Connection, table: Table) -> None:
    """Have PostgreSQL number new rows after those that came with their numbers."""
    column = table.autoincrement_column
    if column is None or connection.dialect.name != "postgresql":
        return
    last = connection.execute(select(func.max(column))).scalar()
    if last is not None:
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        connection.execute(select(func.setval(sequence, last)))


def _revision(connection: Connection) -> str:
    found = connection.execute(text("SELECT version_num FROM verifier_alembic_version"))
    return str(found.scalar_one())


def _file_of(table: Table) -> str:
    return f"{table.name}.jsonl"
