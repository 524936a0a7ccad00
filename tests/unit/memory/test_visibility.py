"""Rows whose ids become visible out of order are found, as soon as they are visible."""

from __future__ import annotations

import time
from hashlib import sha256

import pytest
from sqlalchemy import insert

from coin_protocol.database.engine import reading, writing
from tests.unit.memory.conftest import (
    DIMENSION,
    PROFILE,
    MakeNode,
    Node,
    commitment,
    near,
    vectors,
)
from verifier_sdk.memory import Sizes
from verifier_sdk.memory import tail as tail_module
from verifier_sdk.memory.tables import MEMORY_BLOCK
from verifier_sdk.memory.tail import Tail
from verifier_sdk.memory.vectors import encode

SHOWN = vectors(64)
ASKED = near(SHOWN, 0.999)
"""Near, so that they are found in tail or segments and not by their digest."""


def put(node: Node, *ids: int, at: float | None = None) -> None:
    """Write rows under these ids, as if the rest of a sequence were other transactions'."""
    _, rows = encode(SHOWN, DIMENSION)
    with writing(node.engine) as connection:
        connection.execute(
            insert(MEMORY_BLOCK),
            [
                {
                    "id": row_id,
                    "provider": "acme",
                    "profile_sha256": PROFILE.digest,
                    "commitment_sha256": commitment(row_id),
                    "block_index": 0,
                    "vector_sha256": sha256(rows[row_id].tobytes()).digest(),
                    "vector": rows[row_id].tobytes(),
                    "remembered_at": time.time() if at is None else at,
                }
                for row_id in ids
            ],
        )


def seen(node: Node) -> set[int]:
    """Return the ids of rows whose vectors are in segments or tail."""
    node.lookup(ASKED[:1])
    memory = node.memory
    with memory._lock:
        _, rows = encode(SHOWN, DIMENSION)
        held = set()
        parts = [segment.rows for segment in memory._segments]
        tail = memory._tail.slice(PROFILE.digest, "acme", DIMENSION)
        parts += [tail.rows] if tail else []
        for part in parts:
            held |= {row.tobytes() for row in part}
    return {number for number, row in enumerate(rows) if row.tobytes() in held}


def test_a_row_of_a_transaction_that_ends_late_is_found(make_node: MakeNode) -> None:
    node = make_node(sizes=Sizes(settle_seconds=60.0))
    if node.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer, so ids become visible in order")
    late = make_node(machine="there")
    with writing(late.engine) as connection:
        late.memory.remember(
            connection,
            SHOWN[:2],
            provider="acme",
            profile_sha256=PROFILE.digest,
            commitment_sha256=commitment(1),
            block_indices=[0, 1],
        )
        node.remember(2, SHOWN[2:4])
        found = node.lookup(ASKED[:4])
        assert [match and match.commitment_sha256 for match in found] == [commitment(2)] * 4
    found = node.lookup(ASKED[:4])
    wanted = [commitment(1)] * 2 + [commitment(2)] * 2
    assert [match and match.commitment_sha256 for match in found] == wanted


def test_gaps_are_filled_in_any_order(make_node: MakeNode) -> None:
    node = make_node(sizes=Sizes(settle_seconds=60.0))
    put(node, 5, 9)
    assert seen(node) == {5, 9}
    put(node, 3, 7, 12)
    assert seen(node) == {3, 5, 7, 9, 12}
    put(node, 1, 2, 4, 6, 8, 10, 11)
    assert seen(node) == set(range(1, 13))
    assert node.memory._tail._gaps == []


def test_more_gaps_than_are_told_apart_lose_nothing(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "_MOST_GAPS", 3)
    monkeypatch.setattr(tail_module, "_PAGE", 4)
    node = make_node(sizes=Sizes(settle_seconds=60.0))
    put(node, *range(2, 60, 2))
    assert seen(node) == set(range(2, 60, 2))
    assert len(node.memory._tail._gaps) == 3
    put(node, *range(1, 30, 2))
    assert seen(node) == {*range(1, 30), *range(30, 60, 2)}
    put(node, *range(31, 60, 2))
    assert seen(node) == set(range(1, 60))


def test_ids_that_never_come_are_given_up(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(tail_module, "monotonic", lambda: clock[0])
    node = make_node(sizes=Sizes(settle_seconds=60.0))
    tail = Tail(0, 60.0)
    put(node, 3, 8)
    with reading(node.engine) as connection:
        assert tail.read(connection) is None
        clock[0] = 59.0
        tail.read(connection)
        assert [(gap.first, gap.last) for gap in tail._gaps] == [(1, 2), (4, 7)]
        clock[0] = 61.0
        tail.read(connection)
        assert tail._gaps == []


def test_only_what_has_settled_is_sealed(make_node: MakeNode) -> None:
    node = make_node(sizes=Sizes(seal_rows=2, settle_seconds=60.0))
    now = time.time()
    put(node, 1, 2, at=now - 100)
    # Id 3 may still come: what is above it was written a moment ago.
    put(node, 4, 5, at=now)
    node.memory.maintain()
    assert [segment.header.last for segment in node.memory._segments] == [2]
    put(node, 3, at=now)
    assert seen(node) == {1, 2, 3, 4, 5}
    put(node, 6, at=now - 61)
    node.memory.maintain()
    assert node.memory.state().segments == 1
    assert [segment.header.last for segment in node.memory._segments] == [6]
    assert seen(node) == {1, 2, 3, 4, 5, 6}


def test_a_row_that_comes_after_its_ids_were_sealed_is_in_the_next_merge(
    make_node: MakeNode,
) -> None:
    node = make_node(sizes=Sizes(seal_rows=3, settle_seconds=0.0))
    put(node, 1, 2, 4)
    node.memory.maintain()
    put(node, 3)
    assert seen(node) == {1, 2, 4}
    put(node, 5, 6, 7)
    node.memory.maintain()
    assert seen(node) == {1, 2, 3, 4, 5, 6, 7}


def test_the_last_rows_are_dropped_from_the_tail_once_they_are_sealed(node: Node) -> None:
    put(node, *range(1, 7))
    assert seen(node) == set(range(1, 7))
    assert node.memory.state().tail == 6
    node.memory.maintain()
    assert (node.memory.state().tail, node.memory.state().vectors) == (0, 6)
    put(node, 7)
    assert seen(node) == set(range(1, 8))
    assert node.memory.state().tail == 1
