"""Merkle trees against the definitions, for any size, index, change and rubbish."""

from __future__ import annotations

from hashlib import shake_256
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from coin_protocol import merkle
from coin_protocol.errors import ConsistencyProofError, InclusionProofError
from coin_protocol.testing import reference
from tests.support.examples import examples

MOST_BUILT = 300
GREATEST = 1 << 63
ALL_LEAVES = [merkle.leaf_hash(b"%d" % number) for number in range(MOST_BUILT)]


def near_powers_of_two(most: int) -> st.SearchStrategy[int]:
    """Return positive integers up to `most`, many of them beside a power of two."""
    beside = st.builds(
        lambda exponent, step: (1 << exponent) + step,
        st.integers(0, most.bit_length()),
        st.integers(-2, 2),
    )
    return st.one_of(beside.filter(lambda size: 1 <= size <= most), st.integers(1, most))


def hashes(count: int, name: int) -> list[bytes]:
    raw = shake_256(b"%d" % name).digest(32 * count)
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]


def flipped(value: bytes, bit: int) -> bytes:
    """Return `value` with one bit changed, counted modulo its length."""
    at, shift = divmod(bit % (8 * len(value)), 8)
    return value[:at] + bytes((value[at] ^ 1 << shift,)) + value[at + 1 :]


@st.composite
def inclusions(draw: st.DrawFn) -> dict[str, Any]:
    """Return arguments of a true inclusion, in trees up to the greatest size."""
    size = draw(near_powers_of_two(GREATEST))
    index = draw(st.one_of(st.integers(0, size - 1), near_powers_of_two(size).map(lambda i: i - 1)))
    leaf, *proof = hashes(1 + reference.inclusion_length(index, size), draw(st.integers(0, 99)))
    root = reference.implied_root(leaf, index, size, proof)
    return {"leaf_hash": leaf, "index": index, "size": size, "proof": proof, "root": root}


@st.composite
def consistencies(draw: st.DrawFn) -> dict[str, Any]:
    """Return arguments of a true consistency of two sizes, in trees up to the greatest size."""
    new_size = draw(near_powers_of_two(GREATEST))
    old_size = draw(near_powers_of_two(new_size))
    known, *proof = hashes(
        1 + reference.consistency_length(old_size, new_size), draw(st.integers(0, 99))
    )
    old_root, new_root = reference.implied_roots(known, old_size, new_size, proof)
    return {
        "old_size": old_size,
        "new_size": new_size,
        "old_root": old_root,
        "new_root": new_root,
        "proof": proof,
    }


def view(raw: bytes) -> memoryview:
    return memoryview(raw)


RUBBISH = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 4000), 1 << 4000),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.binary(min_size=32, max_size=32),
    st.lists(st.one_of(st.none(), st.integers(), st.binary(max_size=40)), max_size=70),
    st.tuples(st.binary(min_size=32, max_size=32)),
    st.dictionaries(st.integers(), st.none(), max_size=2),
    st.builds(bytearray, st.binary(max_size=40)),
    st.binary(max_size=40).map(view),
    st.builds(object),
)


@given(size=st.one_of(st.integers(0, MOST_BUILT), near_powers_of_two(MOST_BUILT)), data=st.data())
@examples(60)
def test_roots_and_proofs_are_those_of_the_definitions(size: int, data: st.DataObject) -> None:
    leaves = ALL_LEAVES[:size]
    assert merkle.root(leaves) == reference.root(leaves)
    assume(size)
    index = data.draw(st.integers(0, size - 1))
    assert merkle.inclusion_proof(leaves, index) == reference.inclusion_proof(leaves, index)
    old_size = data.draw(near_powers_of_two(size))
    wanted = reference.consistency_proof(leaves, old_size)
    assert merkle.consistency_proof(leaves, old_size) == wanted


@given(size=near_powers_of_two(MOST_BUILT), data=st.data())
@examples(60)
def test_any_prefix_of_a_growing_tree_is_the_tree_of_that_prefix(
    size: int, data: st.DataObject
) -> None:
    tree = merkle.IncrementalTree(ALL_LEAVES[:size])
    for _ in range(3):
        prefix = data.draw(near_powers_of_two(size))
        leaves = ALL_LEAVES[:prefix]
        assert tree.root(prefix) == reference.root(leaves)
        index = data.draw(st.integers(0, prefix - 1))
        assert tree.inclusion_proof(index, prefix) == reference.inclusion_proof(leaves, index)
        old_size = data.draw(near_powers_of_two(prefix))
        wanted = reference.consistency_proof(leaves, old_size)
        assert tree.consistency_proof(old_size, prefix) == wanted


@given(chunks=st.lists(st.integers(0, 40), max_size=12))
@examples(60)
def test_a_tree_is_the_same_however_its_leaves_arrive(chunks: list[int]) -> None:
    tree, taken = merkle.IncrementalTree(), 0
    for chunk in chunks:
        fresh = [merkle.leaf_hash(b"%d" % number) for number in range(taken, taken + chunk)]
        if chunk == 1:
            tree.append(fresh[0])
        else:
            tree.extend(iter(fresh))
        taken += chunk
        # Asking in between must not disturb what comes later.
        assert tree.root() == merkle.root(tree.leaf_hashes)
    whole = merkle.IncrementalTree(tree.leaf_hashes)
    assert len(tree) == taken
    for size in range(1, taken + 1):
        assert tree.inclusion_proof(size - 1, size) == whole.inclusion_proof(size - 1, size)
        assert tree.consistency_proof(size) == whole.consistency_proof(size)


@given(inclusion=inclusions())
@examples(300)
def test_a_true_inclusion_verifies_at_any_size(inclusion: dict[str, Any]) -> None:
    merkle.verify_inclusion(**inclusion)


@given(inclusion=inclusions(), bit=st.integers(0, 1 << 20), data=st.data())
@examples(300)
def test_no_bit_of_an_inclusion_can_be_changed(
    inclusion: dict[str, Any], bit: int, data: st.DataObject
) -> None:
    proof = inclusion["proof"]
    at = data.draw(st.integers(-2, len(proof) - 1))
    if at == -2:
        changed: dict[str, Any] = {"leaf_hash": flipped(inclusion["leaf_hash"], bit)}
    elif at == -1:
        changed = {"root": flipped(inclusion["root"], bit)}
    else:
        changed = {"proof": [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]}
    with pytest.raises(InclusionProofError):
        merkle.verify_inclusion(**inclusion | changed)


@given(inclusion=inclusions(), data=st.data())
@examples(200)
def test_an_inclusion_holds_for_no_other_index_of_its_tree(
    inclusion: dict[str, Any], data: st.DataObject
) -> None:
    size = inclusion["size"]
    other = data.draw(st.one_of(near_powers_of_two(size).map(lambda i: i - 1), st.integers()))
    assume(other != inclusion["index"])
    with pytest.raises(InclusionProofError):
        merkle.verify_inclusion(**inclusion | {"index": other})


@given(inclusion=inclusions(), count=st.integers(0, 140))
@examples(200)
def test_an_inclusion_proof_has_exactly_as_many_hashes_as_its_place_needs(
    inclusion: dict[str, Any], count: int
) -> None:
    proof = inclusion["proof"]
    assume(count != len(proof))
    longer = [*proof, *hashes(140, 0)]
    with pytest.raises(InclusionProofError, match="hashes"):
        merkle.verify_inclusion(**inclusion | {"proof": longer[:count]})


@given(consistency=consistencies())
@examples(300)
def test_a_true_consistency_verifies_at_any_size(consistency: dict[str, Any]) -> None:
    merkle.verify_consistency(**consistency)


@given(consistency=consistencies(), bit=st.integers(0, 1 << 20), data=st.data())
@examples(300)
def test_no_bit_of_a_consistency_can_be_changed(
    consistency: dict[str, Any], bit: int, data: st.DataObject
) -> None:
    proof = consistency["proof"]
    at = data.draw(st.integers(-2, len(proof) - 1))
    if at < 0:
        name = ("old_root", "new_root")[at]
        changed: dict[str, Any] = {name: flipped(consistency[name], bit)}
    else:
        changed = {"proof": [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]}
    with pytest.raises(ConsistencyProofError):
        merkle.verify_consistency(**consistency | changed)


@given(consistency=consistencies(), count=st.integers(0, 140))
@examples(200)
def test_a_consistency_proof_has_exactly_as_many_hashes_as_its_sizes_need(
    consistency: dict[str, Any], count: int
) -> None:
    proof = consistency["proof"]
    assume(count != len(proof))
    longer = [*proof, *hashes(140, 0)]
    with pytest.raises(ConsistencyProofError):
        merkle.verify_consistency(**consistency | {"proof": longer[:count]})


@given(
    size=near_powers_of_two(MOST_BUILT),
    changed=st.integers(0, MOST_BUILT - 1),
    data=st.data(),
)
@examples(100)
def test_a_tree_that_rewrote_its_past_has_no_consistency_proof(
    size: int, changed: int, data: st.DataObject
) -> None:
    old_size = data.draw(near_powers_of_two(size))
    leaves = ALL_LEAVES[:size]
    leaves[changed % old_size] = merkle.leaf_hash(b"rewritten")
    old_root, new_root = merkle.root(ALL_LEAVES[:old_size]), merkle.root(leaves)
    for source in (leaves, ALL_LEAVES[:size]):
        with pytest.raises(ConsistencyProofError):
            merkle.verify_consistency(
                old_size=old_size,
                new_size=size,
                old_root=old_root,
                new_root=new_root,
                proof=merkle.consistency_proof(source, old_size),
            )


@given(
    inclusion=inclusions(),
    rubbish=st.dictionaries(
        st.sampled_from(["leaf_hash", "index", "size", "proof", "root"]), RUBBISH, min_size=1
    ),
)
@example(inclusion={}, rubbish=dict.fromkeys(["leaf_hash", "index", "size", "proof", "root"]))
@examples(500)
def test_rubbish_raises_nothing_but_an_inclusion_proof_error(
    inclusion: dict[str, Any], rubbish: dict[str, Any]
) -> None:
    try:
        merkle.verify_inclusion(**inclusion | rubbish)
    except InclusionProofError:
        return
    # What was taken is a true inclusion, by the definition.
    taken = inclusion | rubbish
    wanted = reference.implied_root(
        taken["leaf_hash"], taken["index"], taken["size"], taken["proof"]
    )
    assert wanted == taken["root"]


@given(
    consistency=consistencies(),
    rubbish=st.dictionaries(
        st.sampled_from(["old_size", "new_size", "old_root", "new_root", "proof"]),
        RUBBISH,
        min_size=1,
    ),
)
@examples(500)
def test_rubbish_raises_nothing_but_a_consistency_proof_error(
    consistency: dict[str, Any], rubbish: dict[str, Any]
) -> None:
    try:
        merkle.verify_consistency(**consistency | rubbish)
    except ConsistencyProofError:
        return
    taken = consistency | rubbish
    wanted = reference.implied_roots(
        taken["old_root"], taken["old_size"], taken["new_size"], taken["proof"]
    )
    assert wanted == (taken["old_root"], taken["new_root"])
