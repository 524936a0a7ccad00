"""RFC 9162 trees: definitions, proofs of every leaf, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest

from coin_protocol import merkle
from coin_protocol.errors import ConsistencyProofError, InclusionProofError, VerificationError
from coin_protocol.testing import reference

LEAVES = [merkle.leaf_hash(b"%d" % number) for number in range(70)]
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 70)


def test_leaf_and_node_hashes_are_separated_by_their_first_byte() -> None:
    left, right = bytes(32), bytes(range(32))
    assert merkle.leaf_hash(b"data") == sha256(b"\x00data").digest()
    assert merkle.node_hash(left, right) == sha256(b"\x01" + left + right).digest()
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)
    assert merkle.node_hash(left, right) != merkle.node_hash(right, left)


def test_the_empty_tree_has_the_hash_of_nothing_as_root() -> None:
    assert merkle.root([]) == sha256(b"").digest() == merkle.EMPTY_ROOT
    assert merkle.IncrementalTree().root() == merkle.EMPTY_ROOT
    assert merkle.IncrementalTree(LEAVES).root(0) == merkle.EMPTY_ROOT


def test_one_leaf_is_its_own_root_and_needs_no_proof() -> None:
    assert merkle.root(LEAVES[:1]) == LEAVES[0]
    assert merkle.inclusion_proof(LEAVES[:1], 0) == []
    merkle.verify_inclusion(leaf_hash=LEAVES[0], index=0, size=1, proof=[], root=LEAVES[0])


def test_a_leaf_without_partner_moves_up_unchanged() -> None:
    first, second, third = LEAVES[:3]
    assert merkle.root(LEAVES[:3]) == merkle.node_hash(merkle.node_hash(first, second), third)


def test_taking_the_root_leaves_the_leaves_as_they_were() -> None:
    leaves = LEAVES[:5]
    merkle.root(leaves)
    assert leaves == LEAVES[:5]


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_has_the_proof_of_the_definition_and_it_verifies(size: int) -> None:
    leaves = LEAVES[:size]
    root = merkle.root(leaves)
    assert root == reference.root(leaves)
    for index, leaf in enumerate(leaves):
        proof = merkle.inclusion_proof(leaves, index)
        assert proof == reference.inclusion_proof(leaves, index)
        merkle.verify_inclusion(leaf_hash=leaf, index=index, size=size, proof=proof, root=root)


@pytest.mark.parametrize("size", SIZES)
def test_every_prefix_has_the_proof_of_the_definition_and_it_verifies(size: int) -> None:
    leaves = LEAVES[:size]
    root = merkle.root(leaves)
    for old_size in range(1, size + 1):
        proof = merkle.consistency_proof(leaves, old_size)
        assert proof == reference.consistency_proof(leaves, old_size)
        merkle.verify_consistency(
            old_size=old_size,
            new_size=size,
            old_root=merkle.root(leaves[:old_size]),
            new_root=root,
            proof=proof,
        )


def test_a_proof_is_a_sequence_of_any_kind() -> None:
    proof = tuple(merkle.inclusion_proof(LEAVES[:5], 2))
    root = merkle.root(LEAVES[:5])
    merkle.verify_inclusion(leaf_hash=LEAVES[2], index=2, size=5, proof=proof, root=root)


@pytest.mark.parametrize("index", [-1, 5, 6])
def test_only_a_leaf_of_the_tree_can_be_proved(index: int) -> None:
    with pytest.raises(ValueError, match=f"one of 5 leaves; found {index}"):
        merkle.inclusion_proof(LEAVES[:5], index)


def test_the_empty_tree_proves_nothing() -> None:
    with pytest.raises(ValueError, match="one of 0 leaves; found 0"):
        merkle.inclusion_proof([], 0)
    with pytest.raises(ValueError, match="old size"):
        merkle.consistency_proof([], 0)


@pytest.mark.parametrize("old_size", [-1, 0, 6])
def test_only_a_prefix_of_the_tree_can_be_proved(old_size: int) -> None:
    with pytest.raises(ValueError, match=rf"\[1, 5\]; found {old_size}"):
        merkle.consistency_proof(LEAVES[:5], old_size)


@pytest.mark.parametrize(
    "ask",
    [
        lambda tree, size: tree.root(size),
        lambda tree, size: tree.inclusion_proof(0, size),
        lambda tree, size: tree.consistency_proof(1, size),
    ],
    ids=["root", "inclusion", "consistency"],
)
@pytest.mark.parametrize("size", [-1, 6])
def test_a_growing_tree_knows_no_prefix_longer_than_itself(
    ask: Callable[[merkle.IncrementalTree, int], object], size: int
) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 5\]; found {size}"):
        ask(merkle.IncrementalTree(LEAVES[:5]), size)


def test_a_growing_tree_shows_its_leaves_in_the_order_taken() -> None:
    tree = merkle.IncrementalTree()
    tree.append(LEAVES[0])
    tree.extend(iter(LEAVES[1:4]))
    tree.extend([])
    assert len(tree) == 4
    assert list(tree.leaf_hashes) == LEAVES[:4]


@pytest.mark.parametrize("parts", [(1,) * 70, (3, 1, 4, 1, 5, 9, 2, 6, 5, 34), (69, 1), (1, 69)])
def test_a_tree_that_grows_in_parts_is_the_tree_of_all_its_leaves(parts: tuple[int, ...]) -> None:
    tree, size = merkle.IncrementalTree(), 0
    for part in parts:
        tree.extend(LEAVES[size : size + part])
        size += part
        leaves = LEAVES[:size]
        assert tree.root() == reference.root(leaves)
        for index in (0, size // 2, size - 1):
            assert tree.inclusion_proof(index) == reference.inclusion_proof(leaves, index)
    assert size == len(LEAVES)


def test_a_growing_tree_answers_for_old_sizes_in_any_order() -> None:
    tree = merkle.IncrementalTree(LEAVES)
    for size in (70, 3, 70, 64, 1, 3, 33):
        assert tree.root(size) == reference.root(LEAVES[:size])
        assert tree.inclusion_proof(0, size) == reference.inclusion_proof(LEAVES[:size], 0)


@pytest.mark.parametrize("size", SIZES)
def test_a_growing_tree_hashes_for_a_root_only_what_joins_its_complete_subtrees(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    hashed: list[tuple[bytes, bytes]] = []

    def counting(left: bytes, right: bytes) -> bytes:
        hashed.append((left, right))
        return sha256(b"\x01" + left + right).digest()

    tree = merkle.IncrementalTree(LEAVES)
    monkeypatch.setattr(merkle, "node_hash", counting)
    for _ in range(2):
        assert tree.root(size) == reference.root(LEAVES[:size])
    assert len(hashed) == size.bit_count() - 1


def test_a_growing_tree_stays_whole_when_its_source_fails() -> None:
    def failing() -> Iterator[bytes]:
        yield from LEAVES[1:4]
        raise OSError

    tree = merkle.IncrementalTree(LEAVES[:1])
    with pytest.raises(OSError, match=r"^$"):
        tree.extend(failing())
    assert tree.root() == reference.root(tree.leaf_hashes)


INCLUSION: dict[str, Any] = {
    "leaf_hash": LEAVES[2],
    "index": 2,
    "size": 5,
    "proof": reference.inclusion_proof(LEAVES[:5], 2),
    "root": reference.root(LEAVES[:5]),
}
CONSISTENCY: dict[str, Any] = {
    "old_size": 3,
    "new_size": 5,
    "old_root": reference.root(LEAVES[:3]),
    "new_root": reference.root(LEAVES[:5]),
    "proof": reference.consistency_proof(LEAVES[:5], 3),
}
NO_INT: list[object] = [None, "2", 2.0, True, b"\x02", [2]]
NO_HASH: list[object] = [None, 0, "0" * 32, bytearray(32), [0] * 32]
NO_PROOF: list[object] = [
    None,
    3,
    bytes(32),
    "proof",
    {LEAVES[0]},
    iter(()),
    [None],
    [bytearray(32)],
    [[]],
]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("index", value) for value in NO_INT),
        *(("size", value) for value in NO_INT),
        *(("leaf_hash", value) for value in NO_HASH),
        *(("root", value) for value in NO_HASH),
        *(("proof", value) for value in NO_PROOF),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_a_wrong_type_makes_no_inclusion_proof(field: str, value: object) -> None:
    with pytest.raises(InclusionProofError, match="must be"):
        merkle.verify_inclusion(**INCLUSION | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("old_size", value) for value in NO_INT),
        *(("new_size", value) for value in NO_INT),
        *(("old_root", value) for value in NO_HASH),
        *(("new_root", value) for value in NO_HASH),
        *(("proof", value) for value in NO_PROOF),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_a_wrong_type_makes_no_consistency_proof(field: str, value: object) -> None:
    with pytest.raises(ConsistencyProofError, match="must be"):
        merkle.verify_consistency(**CONSISTENCY | {field: value})


@pytest.mark.parametrize("proof", [b"", ""], ids=repr)
def test_bytes_and_text_are_no_proof_even_where_none_is_needed(proof: Any) -> None:
    one = LEAVES[0]
    with pytest.raises(InclusionProofError, match="proof must be a sequence"):
        merkle.verify_inclusion(leaf_hash=one, index=0, size=1, proof=proof, root=one)
    with pytest.raises(ConsistencyProofError, match="proof must be a sequence"):
        merkle.verify_consistency(old_size=1, new_size=1, old_root=one, new_root=one, proof=proof)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("index", "2", "index must be an int; found str"),
        ("size", 5.0, "size must be an int; found float"),
        ("leaf_hash", bytearray(32), "leaf hash must be 32 bytes; found bytearray"),
        ("root", bytes(31), "root must be 32 bytes; found 31 bytes"),
        ("proof", {1: 2}, "proof must be a sequence of hashes; found dict"),
        ("proof", [LEAVES[0], bytes(33)], "proof[1] must be 32 bytes; found 33 bytes"),
        ("proof", [LEAVES[0], LEAVES[1], "x"], "proof[2] must be 32 bytes; found str"),
        ("old_size", True, "old size must be an int; found bool"),
        ("new_size", None, "new size must be an int; found NoneType"),
        ("old_root", bytes(64), "old root must be 32 bytes; found 64 bytes"),
        ("new_root", [0] * 32, "new root must be 32 bytes; found list"),
    ],
)
def test_what_is_malformed_is_named_with_what_was_wanted_of_it(
    field: str, value: object, says: str
) -> None:
    ways: list[tuple[Callable[..., None], dict[str, Any]]] = [
        (merkle.verify_inclusion, INCLUSION),
        (merkle.verify_consistency, CONSISTENCY),
    ]
    for verify, good in ways:
        if field in good:
            with pytest.raises(VerificationError, match=f"^{re.escape(says)}$"):
                verify(**good | {field: value})


def test_errors_name_what_was_found_and_what_was_wanted() -> None:
    with pytest.raises(InclusionProofError, match="found 5 of 5"):
        merkle.verify_inclusion(**INCLUSION | {"index": 5})
    with pytest.raises(InclusionProofError, match=f"wanted {bytes(32).hex()}"):
        merkle.verify_inclusion(**INCLUSION | {"root": bytes(32)})
    with pytest.raises(ConsistencyProofError, match="found 5 and 3"):
        merkle.verify_consistency(**CONSISTENCY | {"old_size": 5, "new_size": 3})
    with pytest.raises(ConsistencyProofError, match=rf"old root .* wanted {bytes(32).hex()}"):
        merkle.verify_consistency(**CONSISTENCY | {"old_root": bytes(32)})
    with pytest.raises(ConsistencyProofError, match=rf"new root .* wanted {bytes(32).hex()}"):
        merkle.verify_consistency(**CONSISTENCY | {"new_root": bytes(32)})
