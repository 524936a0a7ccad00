"""A token tree does not depend on how its ids arrive; packed ids come back as they were."""

from __future__ import annotations

from array import array

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol import merkle
from coin_protocol.commitment import (
    CommitmentBuilder,
    PackedIds,
    Prefix,
    SessionSecret,
    TokenTree,
    block_leaf_hashes,
)
from coin_protocol.testing.small import VOCABULARY, small_table
from tests.support.examples import examples

SESSION = SessionSecret(bytes(range(16)), bytes(range(100, 132)))
IDS = st.lists(st.integers(0, VOCABULARY - 1), max_size=60)


def committed(chunks: list[list[int]], block_size: int) -> tuple[list[Prefix], TokenTree]:
    table = small_table()
    growing = CommitmentBuilder(SESSION, block_size=block_size, fingerprints=table.fingerprints)
    prefixes = [prefix for chunk in chunks for prefix in growing.append(chunk)]
    return prefixes, growing.finish()


@given(chunks=st.lists(IDS, max_size=6), block_size=st.integers(1, 20))
@examples(150)
def test_any_chunking_gives_the_same_root_prefixes_and_ids(
    chunks: list[list[int]], block_size: int
) -> None:
    ids = [token_id for chunk in chunks for token_id in chunk]
    prefixes, tree = committed(chunks, block_size)
    at_once, whole = committed([ids], block_size)
    assert prefixes == at_once
    assert (tree.token_root, tree.entries) == (whole.token_root, whole.entries)
    assert tree.token_ids.slice(0, len(ids)).tolist() == ids
    assert tree.reasoning_tokens == len(ids)
    assert tree.block_count == -(-len(ids) // block_size)


@given(ids=IDS, block_size=st.integers(1, 20))
@examples(100)
def test_every_prefix_is_consistent_with_the_final_tree(ids: list[int], block_size: int) -> None:
    prefixes, tree = committed([ids], block_size)
    leaves = merkle.IncrementalTree(block_leaf_hashes(SESSION.session_id, tree.entries))
    assert leaves.root() == tree.token_root
    assert [prefix.block_count for prefix in prefixes] == [
        count + 1 for count in range(len(ids) // block_size)
    ]
    for prefix in prefixes:
        assert prefix.token_count == prefix.block_count * block_size
        assert prefix.token_root == leaves.root(prefix.block_count)


@given(ids=IDS.filter(bool), at=st.integers(0, 59), other=st.integers(1, VOCABULARY - 1))
@examples(100)
def test_any_other_id_anywhere_gives_another_root(ids: list[int], at: int, other: int) -> None:
    changed = list(ids)
    changed[at % len(ids)] = (changed[at % len(ids)] + other) % VOCABULARY
    assert committed([changed], 8)[1].token_root != committed([ids], 8)[1].token_root


@given(
    bits=st.integers(1, 32),
    count=st.integers(0, 60) | st.integers(4090, 4100) | st.integers(8185, 8200),
    raw=st.binary(min_size=1, max_size=64),
    start=st.integers(0, 8300),
    length=st.integers(0, 100),
)
@examples(200)
def test_any_slice_of_packed_ids_is_what_was_packed(
    bits: int, count: int, raw: bytes, start: int, length: int
) -> None:
    words = np.resize(np.frombuffer(raw + bytes(-len(raw) % 4), np.uint32), count)
    ids = array("I", (words >> np.uint32(32 - bits)).tolist())
    packed = PackedIds(ids, bits=bits)
    assert len(packed) == count
    assert packed.nbytes == -(-count * bits // 8)
    for first, stop in ((start, start + length), (0, count), (0, count + 9), (count, 0)):
        found = packed.slice(first, stop)
        assert found.dtype == np.uint32
        assert found.tolist() == ids[first:stop].tolist()
