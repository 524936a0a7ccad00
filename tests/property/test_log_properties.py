"""A log in a database against the tree in memory, for any interleaving, size and index."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coin_protocol.database.engine import open_engine
from coin_protocol.merkle import IncrementalTree, verify_consistency, verify_inclusion
from tests.support.log_entries import ORIGIN, House, leaves
from verifier_sdk.log import check_log, tree
from verifier_sdk.log.tiles import Tile, width
from verifier_sdk.store.metadata import METADATA

LARGEST = 1_200
LEAVES = [sha256(b"%d" % number).digest() for number in range(LARGEST)]
MEMORY = IncrementalTree(LEAVES)
SEEDED = Random(1)  # noqa: S311 - picks indices


def complete(height: int, index: int) -> bytes:
    """Return a complete node of the tree in memory."""
    return MEMORY._levels[height][index]


@given(st.integers(0, LARGEST))
def test_the_root_is_that_of_the_tree_in_memory(size: int) -> None:
    assert tree.root(size, complete) == MEMORY.root(size)


@given(st.data())
def test_proofs_are_those_of_the_tree_in_memory_and_verify(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LARGEST))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    inclusion = tree.inclusion_proof(index, size, complete)
    assert inclusion == MEMORY.inclusion_proof(index, size)
    consistency = tree.consistency_proof(old, size, complete)
    assert consistency == MEMORY.consistency_proof(old, size)
    root = MEMORY.root(size)
    verify_inclusion(leaf_hash=LEAVES[index], index=index, size=size, proof=inclusion, root=root)
    verify_consistency(
        old_size=old, new_size=size, old_root=MEMORY.root(old), new_root=root, proof=consistency
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda: tree.inclusion_proof(3, 3, complete),
        lambda: tree.inclusion_proof(-1, 3, complete),
        lambda: tree.consistency_proof(0, 3, complete),
        lambda: tree.consistency_proof(4, 3, complete),
        lambda: width(600, 0, 3),
        lambda: width(600, 2, 0),
    ],
)
def test_what_a_tree_has_not_is_refused(ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"must|no tile"):
        ask()


@given(st.integers(1, 256))
def test_a_tile_has_the_complete_nodes_above_its_hashes(count: int) -> None:
    tile = Tile(LEAVES[:count])
    assert tile.hashes == b"".join(LEAVES[:count])
    for height in range(9):
        for index in range(count >> height):
            assert tile.node(height, index) == complete(height, index)


@contextmanager
def log_in_sqlite() -> Iterator[House]:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{folder}/log.db")
        tables = [table for name, table in METADATA.tables.items() if name.startswith("log_")]
        METADATA.create_all(engine, tables)
        yield House(engine, Path(folder))
        engine.dispose()


@settings(max_examples=12)  # each over a database of its own
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 5, 100, 255, 256, 257, 700]), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
@example([(256, True), (1, True)], SEEDED)
@example([(700, False), (700, True), (1, True)], SEEDED)
def test_any_batches_give_the_tree_in_memory(
    batches: list[tuple[int, bool]], chance: Random
) -> None:
    with log_in_sqlite() as house:
        signed = []
        for count, sequenced in batches:
            size = len(house.tree)
            house.tree.extend(house.say(leaves(size, size + count)))
            if sequenced:
                house.sequencer().run_once()
                signed.append(len(house.tree))
        house.sequencer().run_once()
        log, memory = house.log, house.tree
        assert log.head().root == memory.root()
        for _ in range(20):
            new = chance.randint(1, len(memory))
            old, index = chance.randint(1, new), chance.randrange(new)
            proof = log.inclusion(index, new, unsigned=True).proof
            assert proof == memory.inclusion_proof(index, new)
            proof = log.consistency(old, new, unsigned=True)
            assert proof == memory.consistency_proof(old, new)
        for size in signed:
            assert log.inclusion(size - 1, size).proof == memory.inclusion_proof(size - 1, size)
        checked = check_log(house.engine, [house.signer.verifier], ORIGIN)
        assert checked.entries == len(memory)
