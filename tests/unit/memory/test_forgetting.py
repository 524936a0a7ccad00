"""What is forgotten is found no more, and vanishes from disk and memory."""

from __future__ import annotations

from coin_protocol.database.engine import writing
from coin_protocol.embedding import Vectors
from tests.unit.memory.conftest import (
    ASKED,
    DIMENSION,
    LISTED,
    SHOWN,
    MakeNode,
    Node,
    commitment,
    fill,
    numbers,
)
from verifier_sdk.memory import Sizes
from verifier_sdk.memory.vectors import encode


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


def test_a_vector_that_was_sealed_and_is_shown_again_outlives_its_first_block(
    make_node: MakeNode,
) -> None:
    node = make_node(sizes=Sizes(seal_rows=5, segment_rows=5, settle_seconds=0.0))
    node.remember(1, SHOWN[:5])
    node.remember(2, SHOWN[:2])
    assert numbers(node.lookup(ASKED[:2])) == [commitment(1)] * 2
    node.memory.maintain()
    assert (node.memory.state().blocks, node.memory.state().tail) == (5, 2)
    assert node.forget(node.times()[5]) == 5
    node.memory.maintain()
    assert (node.memory.state().blocks, node.memory.state().tail) == (0, 2)
    assert numbers(node.lookup(ASKED[:2])) == [commitment(2)] * 2
    assert node.forget(node.times()[-1] + 1) == 2
    node.memory.maintain()
    assert node.memory.state().tail == 0


def test_no_more_is_forgotten_at_once_than_asked(node: Node) -> None:
    node.remember(1, SHOWN[:5])
    before = node.times()[-1] + 1
    counts = []
    for _ in range(4):
        with writing(node.engine) as connection:
            counts.append(node.memory.forget(connection, before, at_most=2))
    assert counts == [2, 2, 1, 0]
