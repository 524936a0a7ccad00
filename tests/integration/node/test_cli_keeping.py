"""Looking after what a node keeps: backups, purges, accounts, the log's key."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select

from coin_protocol.database.engine import open_engine, reading
from coin_protocol.note import NoteVerifier
from tests.support.command import Coin
from tests.support.databases import database
from tests.support.submissions import submission, submit
from verifier_sdk.store.tables import AUDIT
from verifier_sdk.web.accounts import AccountFile

pytestmark = pytest.mark.usefixtures("own_folders")

ORIGIN = "example.org/coin-log"
SECRET = "sesame-open"  # noqa: S105 - what must be seen nowhere


def test_a_backup_of_sqlite_goes_on_in_postgresql(
    coin: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = f"sqlite:///{tmp_path / 'node.db'}"
    assert coin("verifier", "migrate", "--database", first).document == {"tables": "up to date"}
    engine = open_engine(first)
    submit(engine, *map(submission, range(5)))
    engine.dispose()
    made = coin("verifier", "backup", tmp_path / "node.zip", "--database", first)
    assert made.document["rows"]["audit"] == 5
    assert stat.S_IMODE((tmp_path / "node.zip").stat().st_mode) == 0o600
    again = coin("verifier", "backup", tmp_path / "node.zip", "--database", first)
    assert (again.code, "never overwrites" in again.said) == (2, True)
    with database("postgresql", tmp_path) as url:
        # Not on the command line: other users of the machine see that.
        secret = make_url(url).set(password=SECRET).render_as_string(hide_password=False)
        monkeypatch.setenv("COIN_VERIFIER_DATABASE", secret)
        filled = coin("verifier", "restore", tmp_path / "node.zip")
        assert filled.document["rows"] == made.document["rows"]
        full = coin("verifier", "restore", tmp_path / "node.zip")
        assert (full.code, "empty" in full.said) == (2, True)
        assert SECRET not in filled.said + full.said
        engine = open_engine(url)
        with reading(engine) as connection:
            kept = connection.execute(select(AUDIT.c.audit_id)).scalars().all()
        engine.dispose()
    assert {*kept} == {submission(number).audit_id for number in range(5)}
    (tmp_path / "other.zip").write_bytes(b"no zip")
    wrong = coin("verifier", "restore", tmp_path / "other.zip", "--database", first)
    assert (wrong.code, "cannot be read as a backup" in wrong.said) == (2, True)


def test_a_purge_deletes_what_is_past_its_retention(coin: Coin, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    assert coin("verifier", "migrate", "--database", url).code == 0
    engine = open_engine(url)
    submit(engine, submission(1, drawn=None))
    engine.dispose()
    purge = ("verifier", "purge", "--database", url)
    assert coin(*purge).document == {"purged": 0}
    assert coin(*purge, "--days", "0").document == {"purged": 1}
    assert coin(*purge, "--days", "0").document == {"purged": 0}


def test_an_account_is_added_by_a_pipe_and_read_by_its_owner_alone(
    coin: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "accounts"

    def add(name: str, password: str) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
        done = coin("verifier", "account", name, "--file", file)
        assert password not in done.said
        return done

    assert add("ann", "correct horse battery").document == {"account": "ann", "file": str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "correct" not in file.read_text()
    assert AccountFile(file).check("ann", "correct horse battery") is not None
    before = file.read_text()
    for name, password, said in (
        ("ann", "another long password", "already"),
        ("bob", "too short", "12 characters or more; found 9"),
        ("a:b", "another long password", "an account's name has"),
    ):
        done = add(name, password)
        assert done.code == 2
        assert said in done.said
    assert file.read_text() == before
    assert add("bob", "another long password").code == 0
    assert {*AccountFile(file).accounts()} == {"ann", "bob"}
    file.chmod(0o644)
    done = add("eve", "another long password")
    assert (done.code, "chmod 600" in done.said) == (2, True)


def test_a_logs_key_is_shown_as_it_was_made(
    coin: Coin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.pem"
    monkeypatch.setenv("COIN_KEY_PASSWORD", "some password")
    make = ("verifier", "log-key", "--origin", ORIGIN, "--out", file)
    made = coin(*make).document
    assert made["origin"] == NoteVerifier.from_vkey(made["vkey"]).key.name == ORIGIN
    assert b"ENCRYPTED" in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    show = ("verifier", "log-key", "--origin", ORIGIN, "--key", f"file:{file}")
    assert coin(*show).document == made
    for arguments, said in (
        (make, "never overwritten"),
        (make[:4], "give --out FILE"),
        ((*make, *show[4:]), "give --out FILE"),
        ((*show[:3], "a b", *show[4:]), "no name"),
    ):
        done = coin(*arguments)
        assert done.code == 2, done.said
        assert said in done.said, done.said
    monkeypatch.delenv("COIN_KEY_PASSWORD")
    assert coin(*show).code == 2
