"""What is kept is on disk whole or not at all, whoever else writes there."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from coin_protocol.collection import collected
from coin_protocol.errors import InvalidInputError
from coin_protocol.testing.world import World
from verifier_sdk.collecting import keeping
from verifier_sdk.collecting.keeping import Folder, Lines, keeper
from verifier_sdk.collecting.settling import Kept

RECEIPT = World().reply(tokens=20).receipt
EACH = 40


def kept(response_id: str = "chatcmpl-1", choice: int = 0) -> Kept:
    return Kept(response_id, "m", choice, "2026-11-03T14:15:02.123456Z", RECEIPT)


def test_a_name_says_what_keeps(tmp_path: Path) -> None:
    assert isinstance(keeper(tmp_path / "a.jsonl", "json"), Lines)
    assert isinstance(keeper(tmp_path / "a", "json"), Folder)
    for single in ("a.json", "a.binpb"):
        with pytest.raises(InvalidInputError, match="names a single receipt"):
            keeper(tmp_path / single, "json")


@pytest.mark.parametrize("form", ["json", "binpb"])
def test_a_folder_has_a_file_for_each_that_no_id_can_replace(tmp_path: Path, form: Any) -> None:
    folder = Folder(tmp_path / "new" / "receipts", form)
    for name in ("a", "a", "../../etc/passwd", ".hidden", "", "\u0000\n" * 90, "x" * 500):
        folder.keep(kept(name))
    folder.keep(kept("a", choice=3))
    files = sorted((tmp_path / "new" / "receipts").iterdir())
    assert len(files) == 8
    assert all(file.name.startswith("2026-11-03T141502-") for file in files)
    assert all(file.suffix == f".{form}" and len(file.name) < 130 for file in files)
    assert sum("-3-" in file.name for file in files) == 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert [found.receipt for found in collected([tmp_path / "new" / "receipts"])] == [RECEIPT] * 8


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Folder(tmp_path, "json").keep(kept())
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_that_went_away_is_an_error_of_ours(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "receipts", "json")
    (tmp_path / "receipts").rmdir()
    with pytest.raises(InvalidInputError, match="cannot write"):
        folder.keep(kept())


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    path.write_text("{}\n")
    Lines(path).keep(kept())
    Lines(path).note({"response_id": "chatcmpl-2"})
    first, second, third = path.read_text().splitlines()
    assert first == "{}"
    assert json.loads(second)["received_at"] == "2026-11-03T14:15:02.123456Z"
    assert json.loads(third) == {"response_id": "chatcmpl-2"}


def test_half_a_line_that_a_killed_writer_left_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(b'{"response_id": "chatcm')
    Lines(path).keep(kept())
    half, whole = collected([path])
    assert half.problem
    assert whole.receipt == RECEIPT


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "receipts.jsonl"
    lines = Lines(path)
    lines.keep(kept())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InvalidInputError, match="No space left"):
            lines.keep(kept())
    assert path.read_bytes() == before
    lines.keep(kept())
    assert [found.receipt for found in collected([path])] == [RECEIPT] * 2


def test_a_lock_that_is_held_for_ever_is_an_error_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_LOCK_SECONDS", 0.05)
    path = tmp_path / "receipts.jsonl"
    with (
        FileLock(tmp_path / "receipts.jsonl.lock", thread_local=False),
        pytest.raises(InvalidInputError, match="another process holds"),
    ):
        Lines(path).keep(kept())
    assert not path.exists()


def append(path: Path, writer: int) -> None:
    lines = Lines(path)
    for number in range(EACH):
        lines.note({"response_id": f"{writer}-{number}", "usage": "x" * 3000})


def test_several_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append, args=(path, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    found = [json.loads(line)["response_id"] for line in path.read_text().splitlines()]
    assert sorted(found) == sorted(f"{w}-{n}" for w in range(4) for n in range(EACH))
    for writer in range(4):
        own = [each for each in found if each.startswith(f"{writer}-")]
        assert own == [f"{writer}-{number}" for number in range(EACH)], "each in its order"
