"""The database: its tables are those of the code, its errors are ours."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, inspect, make_url, select, text

from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.database.migrate import _config, upgrade
from coin_protocol.errors import ConfigurationError, StoreUnavailableError
from coin_protocol.testing.small import small_profile
from provider_sdk.store import KeySealer, SqlStore
from provider_sdk.store.tables import METADATA, MIGRATIONS, PROCESS
from provider_sdk.store.writer import Operation, Writer
from tests.unit.store.conftest import MakeStore


def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, MIGRATIONS)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    upgrade(engine, MIGRATIONS)  # changes nothing
    engine.dispose()


def test_many_processes_may_start_at_once(url: str) -> None:
    engines = [open_engine(url) for _ in range(4)]
    threads = [threading.Thread(target=upgrade, args=(engine, MIGRATIONS)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engines[0].connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    for engine in engines:
        engine.dispose()


def test_a_new_sqlite_file_that_another_is_writing_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.3, other.execute, args=("COMMIT",))
    done.start()
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine, MIGRATIONS)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    done.join()
    other.close()
    engine.dispose()


def test_a_sqlite_connection_keeps_little(tmp_path: Path) -> None:
    """Sixteen of them may be open, and each fills its cache sooner or later."""
    engine = open_engine(f"sqlite:///{tmp_path / 'new.db'}")
    with engine.connect() as first, engine.connect() as second:
        last = first.connection.driver_connection
        for connection in (first, second):
            # Negative numbers are KiB.
            assert -1024 <= connection.execute(text("PRAGMA cache_size")).scalar_one() < 0
    # The one that was given back last is taken again.
    with engine.connect() as again:
        assert again.connection.driver_connection is last
    engine.dispose()


def test_tables_of_a_newer_release_are_left_alone(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, MIGRATIONS)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer release"):
        upgrade(engine, MIGRATIONS)
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "nodialect:///x"],
)
def test_a_url_that_cannot_be_used_says_what_is_wanted(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"wanted|needs"):
        open_engine(url)


def test_no_password_and_no_driver_is_in_an_error() -> None:
    url = "postgresql://coin:hunter2@127.0.0.1:1/coin"
    with pytest.raises(StoreUnavailableError) as caught:
        SqlStore(url, profile=small_profile(), sealer=KeySealer.generate())
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert caught.value.__cause__ is None


def test_why_a_connection_failed_is_said(url: str) -> None:
    wrong = make_url(url).set(database="no_such_database_here")
    if wrong.get_backend_name() == "sqlite":
        pytest.skip("SQLite makes what is not there")
    with pytest.raises(StoreUnavailableError, match='"no_such_database_here" does not exist'):
        SqlStore(
            wrong.render_as_string(hide_password=False),
            profile=small_profile(),
            sealer=KeySealer.generate(),
        )


def test_what_a_statement_held_is_in_no_error(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, MIGRATIONS)
    sqlite = engine.dialect.name == "sqlite"

    def write() -> None:
        with writing(engine) as connection:
            only = "PRAGMA query_only=ON" if sqlite else "SET TRANSACTION READ ONLY"
            connection.exec_driver_sql(only)
            connection.execute(PROCESS.insert().values(process_id="a-secret", beat_at=1.0))

    with pytest.raises(StoreUnavailableError) as caught:
        write()
    assert "secret" not in str(caught.value)
    assert re.search(r"readonly database|ReadOnlySqlTransaction", str(caught.value))
    engine.dispose()


def test_a_database_that_cannot_be_written_to_is_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "coin.db"
    path.touch()
    # Tests may run as root, whom no mode keeps out.
    access = os.access
    monkeypatch.setattr(os, "access", lambda at, mode: str(at) != str(path) and access(at, mode))
    with pytest.raises(ConfigurationError, match=r"cannot write to the database .*coin\.db"):
        open_engine(f"sqlite:///{path}")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "coin.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises((ConfigurationError, StoreUnavailableError), match=r"coin\.db"):
        SqlStore(f"sqlite:///{path}", profile=small_profile(), sealer=KeySealer.generate())


def test_the_folder_of_a_new_database_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "coin" / "coin.db"
    store = SqlStore(f"sqlite:///{path}", profile=small_profile(), sealer=KeySealer.generate())
    store.close()
    assert path.exists()
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot make .*file"):
        open_engine(f"sqlite:///{tmp_path / 'file' / 'coin.db'}")


def test_two_writers_take_turns(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, MIGRATIONS)
    order: list[str] = []
    inside = threading.Event()

    def first() -> None:
        with writing(engine) as connection:
            connection.execute(PROCESS.insert().values(process_id="a", beat_at=1.0))
            inside.set()
            time.sleep(0.2)
            order.append("first")

    def second() -> None:
        inside.wait()
        with writing(engine) as connection:
            connection.execute(PROCESS.insert().values(process_id="b", beat_at=1.0))
        order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as connection:
        found = set(connection.execute(select(PROCESS.c.process_id)).scalars())
    assert found == {"a", "b"}
    assert sorted(order) == ["first", "second"]
    engine.dispose()


# The writer


def open_operation(store: SqlStore, session_id: bytes, statement: bytes = b"") -> Operation:
    row = {
        "session_id": session_id,
        "state": "open",
        "process_id": store.process_id,
        "opened_at": 1.0,
        "statement": statement,
    }
    return Operation(session_id, opens=row)


def test_writes_wait_for_a_database_that_is_away_and_are_then_made(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    away = threading.Event()
    away.set()
    transact = Writer._transact

    def flaky(self: Writer, batch: list[Operation]) -> set[bytes]:
        if away.is_set():
            msg = "the database is away"
            raise StoreUnavailableError(msg)
        return transact(self, batch)

    monkeypatch.setattr(Writer, "_transact", flaky)
    written = store.writer.submit(open_operation(store, bytes(16)))
    with pytest.raises(TimeoutError):
        written.result(0.3)
    assert store.writer.failures > 0
    away.clear()
    assert written.result(10.0) is None


def test_a_database_that_is_away_is_not_hurried_by_what_comes_meanwhile(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> set[bytes]:
        msg = "the database is away"
        raise StoreUnavailableError(msg)

    store = make_store()
    monkeypatch.setattr(Writer, "_transact", away)
    monkeypatch.setattr("provider_sdk.store.writer._FIRST_PAUSE", 30.0)
    store.writer.submit(open_operation(store, bytes(16)))
    while not store.writer.failures:
        time.sleep(0.01)
    for number in range(1, 100):
        store.writer.submit(open_operation(store, number.to_bytes(16, "big")))
    time.sleep(0.1)
    assert store.writer.failures == 1
    store.close()  # ends the pause too
    assert not store.writer._thread.is_alive()


def test_blocks_wait_for_others_and_for_nobody_who_waits(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[Operation]] = []

    def seen(_: Writer, batch: list[Operation]) -> set[bytes]:
        batches.append(batch)
        return set()

    store = make_store(lease_seconds=300.0)
    monkeypatch.setattr(Writer, "_transact", seen)
    monkeypatch.setattr("provider_sdk.store.writer._GATHERING", 30.0)
    store.writer.submit(open_operation(store, bytes(16))).result(10.0)
    blocks = [Operation(bytes(16), block={"block_index": index}) for index in range(3)]
    done = [store.writer.submit(block) for block in blocks]
    with pytest.raises(TimeoutError):
        done[0].result(0.2)
    end = Operation(bytes(16), ends={"state": "committed"})
    store.writer.submit(end).result(10.0)
    assert [each.result(0.0) for each in done] == [None] * 3
    assert batches[-1] == [*blocks, end]


@pytest.mark.parametrize("pragma", ["max_page_count=1", "query_only=ON"])
def test_writes_wait_for_a_disk_that_is_full_or_read_only(
    make_store: MakeStore, url: str, pragma: str
) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("done by pragmas of SQLite")
    store = make_store(lease_seconds=300.0)

    def spoil(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA {pragma}").close()

    event.listen(store.engine, "checkout", spoil)
    written = store.writer.submit(open_operation(store, bytes(16), statement=bytes(100_000)))
    with pytest.raises(TimeoutError):
        written.result(0.5)
    assert store.writer.failures > 0
    event.remove(store.engine, "checkout", spoil)
    store.engine.dispose()  # what was set stays with its connections
    assert written.result(10.0) is None


def test_a_commit_whose_answer_was_lost_is_made_once(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    transact, lost = Writer._transact, [True]

    def unsure(self: Writer, batch: list[Operation]) -> set[bytes]:
        found = transact(self, batch)
        if batch and lost.pop() if lost else False:
            msg = "the connection died in the commit"
            raise StoreUnavailableError(msg)
        return found

    monkeypatch.setattr(Writer, "_transact", unsure)
    assert store.writer.submit(open_operation(store, bytes(16))).result(10.0) is None
    assert not lost


def test_one_write_that_cannot_be_made_does_not_stop_the_others(make_store: MakeStore) -> None:
    store = make_store()
    good = [open_operation(store, bytes([at]) * 16) for at in range(3)]
    assert good[1].opens is not None
    good[1].opens["opened_at"] = "not a time"
    good[1].opens["state"] = None
    done = [store.writer.submit(operation) for operation in good]
    assert done[0].result(10.0) is None
    assert done[2].result(10.0) is None
    assert done[1].exception(10.0) is not None


def test_a_closed_writer_takes_nothing_more(make_store: MakeStore) -> None:
    store = make_store()
    store.writer.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.writer.submit(open_operation(store, bytes(16)))


def test_a_writer_that_is_too_far_behind_takes_nothing_more(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provider_sdk.store.writer._MOST_WAITING", 0)
    store = make_store()
    with pytest.raises(StoreUnavailableError, match="behind"):
        store.writer.submit(open_operation(store, bytes(16)))


def test_tables_go_and_come_again(url: str) -> None:
    engine = open_engine(url)
    for _ in range(2):
        upgrade(engine, MIGRATIONS)
        with writing(engine) as connection:
            command.downgrade(_config(connection, MIGRATIONS), "base")
        assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_a_postgresql_server_that_has_vanished_is_given_up(url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no server")
    own = make_url(url).update_query_dict({"tcp_user_timeout": "4000"})
    for found, milliseconds in (
        (url, "10000"),
        (own.render_as_string(hide_password=False), "4000"),
    ):
        engine = open_engine(found)
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            parameters = driver.info.get_parameters()
            assert parameters["tcp_user_timeout"] == milliseconds
            assert parameters["keepalives_idle"] == "5"
        engine.dispose()


def test_connections_that_are_not_needed_at_once_stay_unused(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as one, engine.connect() as other:
        drivers = {one.connection.driver_connection, other.connection.driver_connection}
    used = set()
    for _ in range(5):
        with engine.connect() as connection:
            used.add(connection.connection.driver_connection)
    engine.dispose()
    assert len(drivers) == 2
    assert len(used) == 1
