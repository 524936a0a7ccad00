"""SQLite's files are their owner's alone from the first byte on, and looking makes none."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.database.looking import database_files, looking
from coin_protocol.database.migrate import upgrade
from coin_protocol.database.sqlite_file import make_private
from coin_protocol.errors import ConfigurationError, StoreUnavailableError
from provider_sdk.store.tables import MIGRATIONS
from tests.support.command import Coin
from tests.support.databases import database


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Run under the umask that most machines have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(path: Path) -> dict[str, int]:
    """Return the modes of a database's files."""
    found = path.parent.glob(f"{path.name}*")
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in found}


def held(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what would tell that a folder, or a file in it, was changed."""
    files = [folder, *folder.rglob("*")]
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in files}


def test_all_files_of_a_new_database_are_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    engine = open_engine(f"sqlite:///{path}")
    assert modes(path) == {}
    upgrade(engine, MIGRATIONS)
    with reading(engine):
        assert modes(path) == dict.fromkeys(("new.db", "new.db-wal", "new.db-shm"), 0o600)
    engine.dispose()
    assert modes(path) == {"new.db": 0o600}


def test_so_are_those_that_commands_make(tmp_path: Path, coin: Coin) -> None:
    witness, node = tmp_path / "w.db", tmp_path / "v.db"
    name, key = "example.org/w1", tmp_path / "w.pem"
    assert coin("witness", "key", "--name", name, "--out", key).code == 0
    named = ("--name", name, "--key", f"file:{key}")
    assert coin("witness", "init", *named, "--database", f"sqlite:///{witness}").code == 0
    assert coin("verifier", "migrate", "--database", f"sqlite:///{node}").code == 0
    assert modes(witness) | modes(node) == {"w.db": 0o600, "v.db": 0o600}


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    path.touch(mode=0o640)
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine, MIGRATIONS)
    engine.dispose()
    assert modes(path) == {"old.db": 0o640}


def test_what_a_link_leads_to_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "real.db"
    path.parent.mkdir()
    (tmp_path / "link.db").symlink_to(path)
    engine = open_engine(f"sqlite:///{tmp_path / 'link.db'}")
    upgrade(engine, MIGRATIONS)
    with reading(engine):
        assert set(modes(path).values()) == {0o600}
    engine.dispose()


def test_a_file_that_went_away_is_made_anew_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine, MIGRATIONS)
    engine.dispose()
    path.unlink()
    upgrade(engine, MIGRATIONS)
    engine.dispose()
    assert modes(path) == {"new.db": 0o600}


def test_a_file_that_cannot_be_made_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.db"
    engine = open_engine(f"sqlite:///{path}")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coin_protocol.database.sqlite_file.os.open", full)
    with pytest.raises(StoreUnavailableError, match=r"unable to make .*: No space left"):
        upgrade(engine, MIGRATIONS)
    engine.dispose()
    assert modes(path) == {}  # and SQLite was not left to make it


def test_nobody_comes_to_a_file_before_it_is_closed_by_whoever_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a file drops the process's locks on it, another thread's among them."""
    close, closed, made = os.close, threading.Event(), threading.Event()

    def slowly(descriptor: int) -> None:
        made.set()
        time.sleep(0.2)
        close(descriptor)
        closed.set()

    monkeypatch.setattr("coin_protocol.database.sqlite_file.os.close", slowly)
    maker = threading.Thread(target=make_private, args=(str(tmp_path / "new.db"),))
    maker.start()
    assert made.wait(5)
    make_private(str(tmp_path / "new.db"))
    assert closed.is_set()
    maker.join()


@pytest.mark.parametrize(
    "rest", ["file:{}?uri=true", "file:{}?mode=ro&uri=true", "file::memory:?uri=true", "{}?uri=1"]
)
def test_a_uri_in_place_of_a_path_is_refused(tmp_path: Path, rest: str) -> None:
    url = f"sqlite:///{rest.format(tmp_path / 'x.db')}"
    with pytest.raises(ConfigurationError, match="a store needs a file: sqlite:///PATH"):
        open_engine(url)
    assert list(tmp_path.iterdir()) == []


def test_looking_makes_no_file_and_no_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.db", tmp_path / "no" / "folder" / "none.db"):
        with looking(f"sqlite:///{path}") as connection:
            assert connection is None
        assert database_files(f"sqlite:///{path}") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["plain.db", "100%25 of #1.db"])
def test_looking_changes_nothing_whether_others_have_it_open_or_not(
    tmp_path: Path, name: str
) -> None:
    url = f"sqlite:///{tmp_path}/{name}"
    engine = open_engine(url)
    upgrade(engine, MIGRATIONS)
    for _ in ("open", "closed"):
        before = held(tmp_path)
        with looking(url) as connection:
            assert connection is not None
            found = connection.execute(text("SELECT version_num FROM alembic_version")).all()
            assert len(found) == 1
            with pytest.raises(Exception, match="readonly"):
                connection.execute(text("DELETE FROM alembic_version"))
        assert held(tmp_path) == before
        engine.dispose()
    (only,) = database_files(url)
    only.write_bytes(b"")  # one that was made and never written to
    before = held(tmp_path)
    with looking(url) as connection:
        assert connection is not None
    assert held(tmp_path) == before


def test_looking_sees_what_others_have_just_written(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, MIGRATIONS)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'new'"))
    with looking(url) as found:
        assert found is not None
        assert found.execute(text("SELECT version_num FROM alembic_version")).scalar() == "new"
    engine.dispose()


def test_looking_at_what_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "coin.db"
    path.write_bytes(b"not a database" * 100)

    def look() -> None:
        with looking(f"sqlite:///{path}") as connection:
            assert connection is not None
            connection.execute(text("SELECT name FROM sqlite_master"))

    with pytest.raises(ConfigurationError, match="is it a database of ours"):
        look()


def test_where_no_database_can_lie_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    shut = tmp_path / "shut"
    shut.mkdir()
    access = os.access  # tests may run as root, whom no mode keeps out
    monkeypatch.setattr(os, "access", lambda at, mode: Path(at) != shut and access(at, mode))
    for folder, said in (("file", "file is no folder"), ("shut/new", "cannot write to .*shut")):
        with (
            pytest.raises(ConfigurationError, match=said),
            looking(f"sqlite:///{tmp_path / folder / 'coin.db'}"),
        ):
            pass


def test_the_files_of_a_database_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "coin.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE one (two)")
        (tmp_path / "coin.db.backup").touch()
        found = {file.name for file in database_files(f"sqlite:///{path}")}
    connection.close()
    assert found == {"coin.db", "coin.db-wal", "coin.db-shm"}
    with database("sqlite", tmp_path) as none:
        assert database_files(none) == []
    assert database_files("postgresql://localhost/coin") == []
