"""What lies on disk is made anew where it is damaged, gone, or of another database."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from coin_protocol.errors import InvalidInputError, StoreUnavailableError
from tests.unit.memory.conftest import (
    ASKED,
    EACH,
    LISTED,
    SHOWN,
    MakeNode,
    commitment,
    fill,
    make_tables,
    near,
    numbers,
    vectors,
)
from verifier_sdk.memory import keeper as keeper_module
from verifier_sdk.memory.build import write_segment
from verifier_sdk.memory.segment import HEADER_FILE, LISTS_FILE, ROWS_FILE


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.unlink()
    path.write_bytes(raw)


def cut(path: Path) -> None:
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw[: len(raw) // 2])


@pytest.mark.parametrize("name", [HEADER_FILE, ROWS_FILE, LISTS_FILE, "manifest.json"])
@pytest.mark.parametrize("spoil", [flip, cut, Path.unlink])
def test_what_is_damaged_is_made_again(
    make_node: MakeNode, name: str, spoil: Callable[[Path], None]
) -> None:
    node = make_node(sizes=LISTED)
    if node.engine.dialect.name == "postgresql" and spoil is not flip:
        pytest.skip("files are the same whatever the database is")
    fill(node)
    node.memory.maintain()
    spoil(next(path for path in node.files() if path.name == name))
    after = make_node(sizes=LISTED)
    assert numbers(after.lookup(ASKED)) == EACH
    after.memory.maintain()
    assert (after.memory.state().vectors, after.memory.state().tail) == (160, 0)
    # Who had the old files open goes on, and takes the new ones.
    assert numbers(node.lookup(ASKED)) == EACH


def test_a_disk_that_loses_what_is_written_is_no_endless_loop(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()

    def spoilt(engine: Engine, folder: Path, **named: Any) -> object:
        written = write_segment(engine, folder, **named)
        flip(folder / ROWS_FILE)
        return written

    monkeypatch.setattr(keeper_module, "write_segment", spoilt)
    flip(next(path for path in node.files() if path.name == ROWS_FILE))
    after = make_node(sizes=LISTED)
    with pytest.raises(StoreUnavailableError, match="is the disk well"):
        after.lookup(ASKED)


def test_a_manifest_that_cannot_be_read_for_now_is_no_reason_to_begin_again(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()
    before = node.files()
    after = make_node(sizes=LISTED)
    read = Path.read_bytes

    def crowded(path: Path) -> bytes:
        if path.name == "manifest.json":
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", crowded)
        with pytest.raises(StoreUnavailableError, match="Too many open files"):
            after.memory.maintain()
        with pytest.raises(StoreUnavailableError, match="Too many open files"):
            after.lookup(ASKED)
    assert numbers(after.lookup(ASKED)) == EACH
    assert node.files() == before


def test_a_cache_that_is_emptied_is_made_again(make_node: MakeNode) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()
    shutil.rmtree(node.cache)
    assert numbers(node.lookup(ASKED)) == EACH
    assert node.memory.state().tail == 160
    node.memory.maintain()
    assert (node.memory.state().vectors, node.memory.state().tail) == (160, 0)


def test_what_an_interrupted_build_left_is_swept_away(make_node: MakeNode) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()
    folder = next(node.cache.glob("*"))
    (folder / "1-9-abandoned").mkdir()
    (folder / "1-9-abandoned" / ROWS_FILE).write_bytes(b"half")
    (folder / "manifest.json.part").write_bytes(b"half")
    node.memory.maintain()
    assert sorted(path.name for path in folder.iterdir() if "-" not in path.name) == [
        "lock",
        "manifest.json",
    ]
    assert not (folder / "1-9-abandoned").exists()


def test_builds_that_fail_again_and_again_do_not_pile_up(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(sizes=LISTED)
    fill(node)

    def fail(_engine: Engine, folder: Path, **_named: Any) -> object:
        folder.mkdir()
        (folder / ROWS_FILE).write_bytes(b"half")
        msg = "the database is away"
        raise StoreUnavailableError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(keeper_module, "write_segment", fail)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="away"):
                node.memory.maintain()
            assert [path.name for path in node.files() if path.name != "lock"] == [ROWS_FILE]
    node.memory.maintain()
    assert node.memory.state().segments == 1
    assert len([path for path in next(node.cache.glob("*")).iterdir() if path.is_dir()]) == 1


def test_a_database_that_was_made_anew_is_not_taken_for_the_old_one(
    make_node: MakeNode,
) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()
    make_tables(node.engine)
    other = vectors(160, seed=77)
    fill(node, other[::-1])
    assert not any(match and match.exact for match in node.lookup(SHOWN))
    node.memory.maintain()
    found = node.lookup(near(other, 0.999))
    assert numbers(found) == EACH[::-1]
    assert node.memory.state().vectors == 160


def test_a_database_that_was_set_back_is_not_taken_for_what_it_became(
    make_node: MakeNode,
) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()
    make_tables(node.engine)
    node.remember(3, SHOWN[:10])
    after = make_node(sizes=LISTED)
    after.memory.maintain()
    assert numbers(after.lookup(ASKED[:10])) == [commitment(3)] * 10
    node.memory.maintain()
    assert numbers(node.lookup(ASKED[:10])) == [commitment(3)] * 10


def test_a_folder_that_cannot_be_made_is_named(make_node: MakeNode) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.cache.write_text("a file")
    with pytest.raises(InvalidInputError, match="here"):
        node.memory.maintain()
    # What is in memory is found all the same.
    assert numbers(node.lookup(ASKED)) == EACH
