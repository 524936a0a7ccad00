"""Segments are made once, shared and merged, by whichever process comes first."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from coin_protocol.database.engine import open_engine
from coin_protocol.errors import InvalidInputError, StoreUnavailableError
from coin_protocol.testing.small import small_profile
from tests.unit.memory.conftest import (
    ASKED,
    EACH,
    LISTED,
    OTHER_PROFILE,
    PROFILE,
    SHOWN,
    SMALL,
    MakeNode,
    Node,
    commitment,
    fill,
    near,
    numbers,
    vectors,
)
from verifier_sdk.memory import Sizes, SqlMemory
from verifier_sdk.memory import keeper as keeper_module
from verifier_sdk.memory import sql as sql_module
from verifier_sdk.memory import tail as tail_module
from verifier_sdk.memory.keeper import Piece, merge
from verifier_sdk.memory.segment import HEADER_FILE, LISTS_FILE, ROWS_FILE


def refuse(*_: object, **__: object) -> None:
    msg = "nothing was to be built"
    raise AssertionError(msg)


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
    # Before the memory closes: that would end it sooner.
    upkeep = node.memory._upkeep
    assert upkeep is not None
    upkeep.join()
    assert "AssertionError" in caplog.text


def test_who_closes_a_memory_waits_for_upkeep_that_is_about_to_start(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_module, "_UPKEEP_SECONDS", 0.0)
    node = make_node(sizes=LISTED)
    fill(node)
    closing: list[Future[None]] = []
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "coin-memory":
            closing.append(pool.submit(node.memory.close))
            wait(closing, 0.1)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    with ThreadPoolExecutor(1) as pool, suppress(StoreUnavailableError):
        node.lookup(ASKED)
    assert [one.exception() for one in closing] == [None]
    upkeep = node.memory._upkeep
    assert upkeep is not None
    assert not upkeep.is_alive()


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


def test_whoever_seals_gives_back(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(keeper_module, "give_back", lambda: given.append(None))
    node = make_node(sizes=SMALL)
    node.remember(0, vectors(SMALL.seal_rows))
    assert node.memory.maintain()
    assert len(given) == 1
    assert node.memory.maintain()
    assert len(given) == 1
