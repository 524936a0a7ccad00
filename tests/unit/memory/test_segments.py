"""Segments are made once, shared, merged, made anew where they must be, and forget."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from sqlalchemy import Engine

from coin_protocol.database.engine import open_engine, writing
from coin_protocol.embedding import Vectors
from coin_protocol.errors import InvalidInputError, StoreUnavailableError
from coin_protocol.testing.small import small_profile
from tests.unit.memory.conftest import (
    DIMENSION,
    OTHER_PROFILE,
    PROFILE,
    MakeNode,
    Node,
    commitment,
    make_tables,
    near,
    vectors,
)
from verifier_sdk.memory import Recalled, Sizes, SqlMemory
from verifier_sdk.memory import keeper as keeper_module
from verifier_sdk.memory import sql as sql_module
from verifier_sdk.memory import tail as tail_module
from verifier_sdk.memory.build import write_segment
from verifier_sdk.memory.keeper import Piece, merge
from verifier_sdk.memory.segment import HEADER_FILE, LISTS_FILE, ROWS_FILE
from verifier_sdk.memory.vectors import encode

LISTED = Sizes(seal_rows=80, settle_seconds=0.0, flat_rows=64)
"""So small that lists are made."""
SHOWN = vectors(160)
ASKED = near(SHOWN, 0.999)


def refuse(*_: object, **__: object) -> None:
    msg = "nothing was to be built"
    raise AssertionError(msg)


def fill(node: Node, rows: Vectors = SHOWN) -> None:
    node.remember(1, rows[: len(rows) // 2])
    node.remember(2, rows[len(rows) // 2 :])


def numbers(found: list[Recalled | None]) -> list[bytes | None]:
    return [match.commitment_sha256 if match else None for match in found]


EACH = [commitment(1)] * 80 + [commitment(2)] * 80


def test_a_process_that_starts_builds_nothing(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    assert node.memory.maintain()
    assert numbers(node.lookup(ASKED)) == EACH
    monkeypatch.setattr(keeper_module, "write_segment", refuse)
    after = make_node(sizes=LISTED)
    assert numbers(after.lookup(ASKED)) == EACH
    assert (after.memory.state().vectors, after.memory.state().tail) == (160, 0)
    assert after.memory.maintain()


def test_segments_are_found_by_processes_that_run(make_node: MakeNode) -> None:
    node, other = make_node(sizes=LISTED), make_node(sizes=LISTED)
    fill(node)
    assert numbers(other.lookup(ASKED)) == EACH
    assert other.memory.state().tail == 160
    node.memory.maintain()
    assert numbers(other.lookup(ASKED)) == EACH
    assert (other.memory.state().vectors, other.memory.state().tail) == (160, 0)


def test_another_machine_makes_its_own(make_node: MakeNode) -> None:
    node, other = make_node(sizes=LISTED), make_node(sizes=LISTED, machine="there")
    fill(node)
    node.memory.maintain()
    assert numbers(other.lookup(ASKED)) == EACH
    assert other.memory.state().segments == 0
    other.memory.maintain()
    assert other.memory.state().vectors == 160
    assert {path.name for path in node.files()} >= {HEADER_FILE, ROWS_FILE, LISTS_FILE}


def test_files_are_for_their_owner_alone(make_node: MakeNode) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()
    files = [path for path in node.files() if path.name != "lock"]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert next(node.cache.glob("*")).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("blocks", "most", "wanted"),
    [
        ([8], 100, [8]),
        ([24, 8], 100, [32]),
        ([25, 8], 100, [25, 8]),
        ([90, 24, 8], 100, [90, 32]),
        ([90, 30, 8], 128, [90, 30, 8]),
        ([96, 24, 8], 200, [128]),
        ([60, 60], 100, [60, 60]),
    ],
)
def test_the_last_pieces_are_merged_while_they_are_alike(
    blocks: list[int], most: int, wanted: list[int]
) -> None:
    ends = np.cumsum(blocks)
    pieces = [Piece(int(end) - n + 1, int(end), n) for n, end in zip(blocks, ends, strict=True)]
    merged = merge(pieces, most)
    assert [piece.blocks for piece in merged] == wanted
    assert (merged[0].first, merged[-1].last) == (1, ends[-1])
    assert all(before.last + 1 == after.first for before, after in pairwise(merged))


def test_a_memory_that_grows_stays_in_few_segments(make_node: MakeNode) -> None:
    node = make_node(sizes=Sizes(seal_rows=4, segment_rows=64, settle_seconds=0.0))
    shown = vectors(100)
    for number in range(25):
        node.remember(number, shown[4 * number : 4 * number + 4])
        node.memory.maintain()
        state = node.memory.state()
        assert state.blocks == 4 * number + 4
        assert state.segments <= 3 + state.blocks // 33
    assert max(segment.header.blocks for segment in node.memory._segments) <= 64
    found = node.lookup(near(shown, 0.999))
    assert numbers(found) == [commitment(number // 4) for number in range(100)]
    folders = [path for path in next(node.cache.glob("*")).iterdir() if path.is_dir()]
    assert len(folders) == node.memory.state().segments


def test_rows_of_profiles_that_are_not_known_are_sealed_for_those_who_do(
    make_node: MakeNode,
) -> None:
    stranger = small_profile(projection=5)
    node, other = make_node(), make_node(profile=stranger)
    rows = vectors(6, dimension=5)
    other.remember(1, rows, profile=stranger)
    node.remember(2, SHOWN[:3])
    node.remember(3, SHOWN[3:6], profile=OTHER_PROFILE)
    node.memory.maintain()
    assert node.memory.state().blocks == 6
    found = other.lookup(near(rows, 0.999), profile=stranger)
    assert numbers(found) == [commitment(1)] * 6
    assert (other.memory.state().blocks, other.memory.state().tail) == (9, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seal_rows": 0},
        {"segment_rows": 100},
        {"flat_rows": 0},
        {"settle_seconds": -1.0},
        {"settle_seconds": float("nan")},
    ],
)
def test_sizes_that_cannot_be_kept_to_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        Sizes(**wrong)


# Damage


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


# Forgetting


def kept_on_disk(node: Node, rows: Vectors) -> list[int]:
    """Return which vectors lie in some file."""
    raw = b"".join(path.read_bytes() for path in node.files())
    _, encoded = encode(rows, DIMENSION)
    return [at for at, row in enumerate(encoded) if row.tobytes() in raw]


def test_what_is_forgotten_is_not_found_and_vanishes_from_disk_and_memory(
    make_node: MakeNode,
) -> None:
    here, there = make_node(sizes=LISTED), make_node(sizes=LISTED, machine="there")
    here.remember(1, SHOWN[:80])
    for node in (here, there):
        node.memory.maintain()
        assert len(kept_on_disk(node, SHOWN)) == 80
    here.remember(2, SHOWN[80:])
    assert here.forget(here.times()[80]) == 80
    for node in (here, there):
        assert numbers(node.lookup(ASKED)) == [commitment(2)] * 160
        assert [match and match.exact for match in node.lookup(SHOWN[:3])] == [False] * 3
        node.memory.maintain()
        assert numbers(node.lookup(ASKED)) == [commitment(2)] * 160
        assert kept_on_disk(node, SHOWN) == list(range(80, 160))
        assert node.memory.state().vectors == 80


def test_what_is_forgotten_before_it_was_sealed_leaves_the_tail(make_node: MakeNode) -> None:
    node = make_node(sizes=Sizes(settle_seconds=0.0))
    node.remember(1, SHOWN[:5])
    node.remember(2, SHOWN[5:8])
    assert node.lookup(SHOWN[:1])[0] is not None
    assert node.forget(node.times()[5]) == 5
    assert numbers(node.lookup(ASKED[:1])) == [commitment(2)]
    assert node.memory.state().tail == 8
    node.memory.maintain()
    assert node.memory.state().tail == 3


def test_forgetting_all_leaves_nothing(make_node: MakeNode) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.memory.maintain()
    assert node.forget(node.times()[-1] + 1) == 160
    node.memory.maintain()
    assert node.lookup(SHOWN) == [None] * 160
    assert kept_on_disk(node, SHOWN) == []
    node.remember(3, SHOWN[:3])
    assert numbers(node.lookup(ASKED[:3])) == [commitment(3)] * 3


def test_a_vector_whose_first_block_was_forgotten_is_found_by_its_next(
    make_node: MakeNode,
) -> None:
    node = make_node(sizes=LISTED)
    node.remember(1, SHOWN[:80])
    node.remember(2, SHOWN[:80])
    node.memory.maintain()
    assert node.forget(node.times()[80]) == 80
    for _ in range(2):
        assert numbers(node.lookup(ASKED[:80])) == [commitment(2)] * 80
        node.memory.maintain()
    assert node.memory.state().blocks == 80


def test_no_more_is_forgotten_at_once_than_asked(node: Node) -> None:
    node.remember(1, SHOWN[:5])
    before = node.times()[-1] + 1
    counts = []
    for _ in range(4):
        with writing(node.engine) as connection:
            counts.append(node.memory.forget(connection, before, at_most=2))
    assert counts == [2, 2, 1, 0]


def test_a_folder_that_cannot_be_made_is_named(make_node: MakeNode) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    node.cache.write_text("a file")
    with pytest.raises(InvalidInputError, match="here"):
        node.memory.maintain()
    # What is in memory is found all the same.
    assert numbers(node.lookup(ASKED)) == EACH


# At once


def test_only_one_process_at_a_time_builds(make_node: MakeNode) -> None:
    node = make_node(sizes=LISTED)
    fill(node)
    folder = node.memory._shelf._folder
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        assert not node.memory.maintain()
        assert node.memory.state().segments == 0
        waiting = threading.Thread(target=node.memory.maintain, kwargs={"wait": True})
        waiting.start()
        assert numbers(node.lookup(ASKED)) == EACH
    waiting.join()
    assert node.memory.state().segments == 1


def test_lookups_go_on_while_others_remember_seal_and_forget(make_node: MakeNode) -> None:
    node = make_node(sizes=Sizes(seal_rows=16, settle_seconds=0.0, flat_rows=16))
    others = [make_node(sizes=Sizes(seal_rows=16, settle_seconds=0.0)) for _ in range(2)]
    node.remember(0, SHOWN[:16])
    wrong: list[object] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            found = node.lookup(ASKED[:16], excluding=99)
            if not all(match and match.cosine > 0.99 for match in found):
                wrong.append(found)

    def work(other: Node, offset: int) -> None:
        for number in range(12):
            other.remember(offset + number, SHOWN[12 * number : 12 * number + 12])
            other.memory.maintain()

    looking = [threading.Thread(target=look) for _ in range(2)]
    working = [
        threading.Thread(target=work, args=(other, 100 * at + 1)) for at, other in enumerate(others)
    ]
    for thread in looking + working:
        thread.start()
    for thread in working:
        thread.join()
    done.set()
    for thread in looking:
        thread.join()
    assert wrong == []
    node.memory.maintain(wait=True)
    found = node.lookup(ASKED[:144], excluding=0)
    assert all(match is not None and match.cosine > 0.99 for match in found)
    assert node.memory.state().blocks + 16 > 16 + 24 * 12


def test_a_new_machine_seals_before_it_loads(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_module, "_TAIL_PAGES", 2)
    monkeypatch.setattr(tail_module, "_PAGE", 20)
    node = make_node(sizes=LISTED)
    fill(node)
    assert numbers(node.lookup(ASKED)) == EACH
    assert (node.memory.state().blocks, node.memory.state().tail) == (160, 0)


def test_lookups_have_the_segments_looked_after(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_module, "_UPKEEP_SECONDS", 0.0)
    node = make_node(sizes=LISTED)
    fill(node)
    assert numbers(node.lookup(ASKED)) == EACH
    upkeep = node.memory._upkeep
    assert upkeep is not None
    upkeep.join()
    assert node.memory.state().segments == 1


def test_upkeep_that_fails_is_logged_and_harms_nobody(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object, **__: object) -> None:
        msg = "the database is away"
        raise StoreUnavailableError(msg)

    monkeypatch.setattr(sql_module, "_UPKEEP_SECONDS", 0.0)
    node = make_node(sizes=LISTED)
    fill(node)
    monkeypatch.setattr(keeper_module, "write_segment", away)
    assert numbers(node.lookup(ASKED)) == EACH
    upkeep = node.memory._upkeep
    assert upkeep is not None
    upkeep.join()
    assert "the database is away" in caplog.text
    monkeypatch.setattr(keeper_module, "write_segment", refuse)
    node.lookup(ASKED)
    node.memory.close()
    assert "AssertionError" in caplog.text


def test_a_memory_that_was_closed_says_so(node: Node) -> None:
    node.memory.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        node.lookup(SHOWN[:1])


def test_two_databases_share_no_segments(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node()
    other = open_engine(f"sqlite:///{tmp_path / 'another.db'}")
    memory = SqlMemory(other, profiles=[PROFILE], folder=node.cache)
    assert memory._shelf._folder != node.memory._shelf._folder
    other.dispose()
