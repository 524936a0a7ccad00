"""Strings that mean something to a database, a terminal or a file system; poisoned backups."""

from __future__ import annotations

import json
import random
import stat
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, func, insert, select

from coin_protocol.cli.common import WRONG_USAGE, guarded, printable, printable_lines
from coin_protocol.errors import CoinError, InvalidInputError, VerificationError
from tests.support.databases import KINDS
from tests.support.nodes import NodeParts, lease, node_database, running_node
from tests.support.parties import Parties
from tests.support.submissions import submission, submit, took
from tests.support.web_site import HOSTILE, WebNode, add_audits, audit_values, visiting
from verifier_sdk.store import archive
from verifier_sdk.store.archive import back_up, restore
from verifier_sdk.store.claims import postpone
from verifier_sdk.store.reading import Filter, failed_share, find_audit, list_audits
from verifier_sdk.store.tables import AUDIT

SQL = (
    "' or '1'='1",
    "'; drop table audit; --",
    '" or ""="',
    "acme' union select null --",
    "\\' or 1=1 --",
    "%",
    "_" * 4,
    ":provider",
    "?",
    "$1",
    "acme\x00",
)


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(AUDIT)).scalar_one())


@pytest.mark.parametrize("text", SQL)
def test_a_name_is_a_value_to_the_database(engine: Engine, text: str) -> None:
    submit(engine, *(submission(number) for number in range(3)), submission(9, provider=text))
    found = list_audits(engine, Filter(provider=text), most=10)
    assert [row.provider for row in found] == [text]
    assert failed_share(engine, text) == 0.0
    assert list_audits(engine, Filter(state=text), most=10) == []
    assert rows(engine) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_keeps_a_receipt_out(tmp_path: Path, kind: str) -> None:
    with node_database(kind, tmp_path) as engine:
        names = [*HOSTILE, "a\0b", "\0", "\ud800"]
        submit(
            engine,
            *(
                submission(number, model=name, submitted_by=name)
                for number, name in enumerate(names)
            ),
        )
        assert rows(engine) == len(names)
        # What a provider has somebody say of it must not end a worker.
        claim = took(engine)
        postpone(engine, claim, lease(), seconds=0.0, failure="said \0 and \ud800")
        row = find_audit(engine, claim.audit_id)
        assert row is not None
        assert row.failure == "said \ufffd and ?"


async def test_no_filter_of_a_list_says_more_than_it_is(
    parties: Parties, engine: Engine, tmp_path: Path
) -> None:
    submit(engine, *(submission(number, drawn=None) for number in range(3)))
    parts = NodeParts(parties, engine, "127.0.0.1:1", share=0.0)
    async with running_node(parts, tmp_path, workers=False) as client:
        for text in SQL:
            assert not (await client.page(provider=text)).audits
        assert len((await client.page(provider="acme")).audits) == 3
    assert rows(engine) == 3


@pytest.mark.parametrize("text", SQL)
def test_no_address_of_a_page_says_more_than_it_is(pages: WebNode, text: str) -> None:
    add_audits(pages.engine, [audit_values(number) for number in range(3)])
    with visiting(pages) as client:
        for name in ("provider", "model", "id", "sort", "after", "before", "state", "outcome"):
            answer = client.get("/audits", params={name: text})
            assert answer.status_code in {200, 400}, name
            assert "sqlite" not in answer.text.lower()
        assert client.get(f"/providers/{quote(text, safe='')}").status_code in {404, 400}
    assert rows(pages.engine) == 3


@pytest.mark.parametrize("text", [*HOSTILE, "\x1b]0;title\x07", "\x9b31m", "a\u2028b", "\u202e"])
def test_no_text_steers_a_terminal(text: str) -> None:
    shown = printable(f"{text}{text}")
    assert "\x1b" not in shown
    assert not any(char in shown for char in "\x07\x9b\u2028\u202e\r\n")


def test_others_text_is_one_line_unless_it_is_shown_by_itself() -> None:
    text = "lab\nsound: acme committed to 7 reasoning tokens\x1b[2J"
    assert printable(text) == r"lab\nsound: acme committed to 7 reasoning tokens" + "\ufffd[2J"
    assert printable_lines(text).splitlines()[0] == "lab"
    assert "\x1b" not in printable_lines(text)


def test_an_error_that_quotes_others_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        msg = "found lab\nerror: nothing is wrong [bold]"
        raise InvalidInputError(msg)

    assert guarded(fail) == WRONG_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line == r"error: found lab\nerror: nothing is wrong [bold]"


# Backups


def backup(engine: Engine, path: Path) -> bytes:
    made = (submission(number, receipt=random.Random(number).randbytes(300)) for number in range(7))  # noqa: S311 - nothing secret
    submit(engine, *made)
    back_up(engine, path)
    return path.read_bytes()


def remade(path: Path, edit: Callable[[dict[str, bytes]], object]) -> None:
    """Write an archive again after an edit of its files, with the digests that they then have."""
    with zipfile.ZipFile(path) as old:
        held = {name: old.read(name) for name in old.namelist()}
    edit(held)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, raw in held.items():
            new.writestr(name, raw)


def set_row(**values: Any) -> Callable[[dict[str, bytes]], object]:
    def edit(held: dict[str, bytes]) -> None:
        first, *rest = held["audit.jsonl"].splitlines()
        row = json.dumps(json.loads(first) | values).encode()
        held["audit.jsonl"] = b"\n".join([row, *rest]) + b"\n"
        manifest = json.loads(held["manifest.json"])
        manifest["tables"]["audit"]["sha256"] = sha256(held["audit.jsonl"]).hexdigest()
        held["manifest.json"] = json.dumps(manifest).encode()

    return edit


def set_entry(value: Any) -> Callable[[dict[str, bytes]], object]:
    def edit(held: dict[str, bytes]) -> None:
        manifest = json.loads(held["manifest.json"])
        manifest["tables"]["audit"] = value
        held["manifest.json"] = json.dumps(manifest).encode()

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        set_row(provider={"a": 1}),
        set_row(provider=None),
        set_row(number=10**30),
        set_row(number="x"),
        set_row(session_id=5),
        set_row(session_id="%%%"),
        set_row(state=[1]),
        set_entry(3),
        set_entry({"rows": "x", "sha256": 1}),
        lambda held: held.update({"manifest.json": b"[" * 100_000}),
        lambda held: held.update({"audit.jsonl": b"[" * 100_000}),
        lambda held: held.update({"audit.jsonl": b"null\n" + held["audit.jsonl"]}),
        lambda held: held.update({"manifest.json": b" " * (2 << 20)}),
    ],
)
def test_a_poisoned_backup_fills_nothing_and_is_told_in_a_sentence(
    engine: Engine, tmp_path: Path, edit: Callable[[dict[str, bytes]], object]
) -> None:
    path = tmp_path / "backup.zip"
    backup(engine, path)
    remade(path, edit)
    with node_database("sqlite", tmp_path / "other") as other:
        with pytest.raises((InvalidInputError, VerificationError)) as caught:
            restore(other, path)
        assert "acme-1" not in str(caught.value)
        assert "INSERT" not in str(caught.value)
        assert rows(other) == 0


def test_whatever_byte_of_a_backup_is_changed_the_error_is_one_of_ours(
    engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "backup.zip"
    raw = backup(engine, path)
    rng = random.Random(1)  # noqa: S311 - nothing secret
    refused = 0
    with node_database("sqlite", tmp_path / "other") as other:
        for _ in range(120):
            changed = bytearray(raw)
            changed[rng.randrange(len(raw))] ^= 1 + rng.randrange(255)
            path.write_bytes(changed)
            try:
                restore(other, path)
            except CoinError:
                refused += 1
            if rows(other):
                # What changed says nothing, such as a date: once is enough.
                break
    assert refused


def test_a_bomb_in_a_backup_is_unpacked_a_little_at_a_time(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "backup.zip"
    backup(engine, path)
    waiting: list[int] = []
    monkeypatch.setattr(archive, "_BYTES_AT_ONCE", 1000)

    def counting(table: Any) -> Any:
        waiting.append(1)
        return insert(table)

    monkeypatch.setattr(archive, "insert", counting)
    with node_database("sqlite", tmp_path / "other") as other:
        restore(other, path)
        assert rows(other) == 7
    assert len(waiting) > 6


def test_what_lies_where_a_backup_is_written_is_not_written_through(
    engine: Engine, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    others.write_bytes(b"kept")
    others.chmod(0o644)
    path = tmp_path / "backup.zip"
    path.with_name("backup.zip.part").symlink_to(others)
    back_up(engine, path)
    assert others.read_bytes() == b"kept"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_names_in_a_backup_write_no_file(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    backup(engine, path)
    remade(path, lambda held: held.update({"../../evil": b"x", "/evil": b"x"}))
    folder = tmp_path / "other"
    with node_database("sqlite", folder) as other:
        restore(other, path)
    assert not list(tmp_path.rglob("*evil*"))
