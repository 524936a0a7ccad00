"""Test vectors of RFC 9162 inclusion proofs: honest ones, and what attackers would send."""

from __future__ import annotations

from hashlib import sha256

from coin_protocol.testing import reference
from coin_protocol.testing.vector_documents import (
    GREATEST_SIZE,
    INCLUSION_ERROR,
    OK,
    AttackCase,
    Documents,
    MalformedCase,
    bare_root,
    by_file,
    document,
    flip,
    hash_leaf,
    leaf_data,
    leaf_hashes,
    made_siblings,
    tree_root,
)


def inclusion_vectors() -> Documents:
    """Return inclusion proofs that verify, some of them of more than they should."""
    honest = [
        _inclusion(
            f"inclusion-{index}-of-{size}", f"Leaf {index} of {size}.", index=index, size=size
        )
        for size in (1, 2, 3, 7, 8, 9, 33)
        for index in sorted({0, size // 2, size - 2, size - 1} & set(range(size)))
    ]
    last_of_8 = [
        _inclusion(
            f"last-leaf-of-8-claimed-as-last-of-{size}",
            f"A proof binds no size: that of the last of 8 leaves verifies as that of the last "
            f"of {size}, and only a size from signed bytes keeps it out.",
            index=7,
            size=8,
            claim={"index": size - 1, "size": size},
        )
        for size in (12, 14, 15)
    ]
    first_of_8 = [
        _inclusion(
            f"first-leaf-of-8-claimed-as-first-of-{size}",
            f"A proof binds no size: that of the first of 8 leaves verifies as that of the first "
            f"of {size}, and only a size from signed bytes keeps it out.",
            index=0,
            size=8,
            claim={"size": size},
        )
        for size in (5, 7)
    ]
    leaves = leaf_hashes(8)
    inner = _inclusion(
        "inner-node-as-leaf-of-half-the-size",
        "A node above two leaves verifies as a leaf of a tree of half the size: only a leaf hash "
        "that the verifier made from the leaf's data, under a signed size, keeps it out.",
        index=0,
        size=8,
        claim={
            "leaf_hash": reference.node(leaves[0], leaves[1]),
            "size": 4,
            "proof": reference.inclusion_proof(leaves, 0)[1:],
        },
    )
    siblings = made_siblings(63)
    greatest = _inclusion(
        "inclusion-in-the-greatest-size",
        "Last leaf of 2^63, the greatest size that is taken.",
        index=0,
        size=1,
        claim={
            "index": GREATEST_SIZE - 1,
            "size": GREATEST_SIZE,
            "proof": siblings,
            "root": reference.implied_root(
                leaf_hashes(1)[0], GREATEST_SIZE - 1, GREATEST_SIZE, siblings
            ),
        },
    )
    return by_file([*honest, *last_of_8, *first_of_8, inner, greatest])


def inclusion_attacks() -> Documents:
    """Return well-formed inclusion proofs of what is not so."""
    leaves, root = leaf_hashes(8), tree_root(8)
    three = leaf_hashes(3)
    proof = reference.inclusion_proof(leaves, 2)
    padded = [*three, three[2]]
    bare = bare_root(leaf_data(4))
    attacks: list[AttackCase] = [
        (
            "inner-node-as-leaf",
            "A node above two leaves is no leaf of the same tree.",
            0,
            8,
            {
                "leaf_hash": reference.node(leaves[0], leaves[1]),
                "proof": reference.inclusion_proof(leaves, 0)[1:],
            },
        ),
        (
            "two-hashes-as-leaf-data",
            "A leaf whose data is two hashes does not hash to the node above them.",
            0,
            4,
            {
                "leaf_hash": hash_leaf(leaves[0] + leaves[1]),
                "proof": [reference.node(leaves[2], leaves[3])],
                "size": 2,
            },
        ),
        (
            "leaf-hashed-without-prefix",
            "A leaf is hashed behind 0x00, so that it cannot be taken for a node.",
            2,
            8,
            {"leaf_hash": sha256(leaf_data(8)[2]).digest()},
        ),
        (
            "nodes-hashed-without-prefix",
            "A tree whose hashes lack their prefixes has another root.",
            0,
            4,
            {"root": bare},
        ),
        (
            "repeated-last-leaf-in-the-proof",
            "A last leaf without partner is promoted, not paired with itself (CVE-2012-2459).",
            2,
            3,
            {"proof": [three[2], reference.node(three[0], three[1])]},
        ),
        (
            "repeated-last-leaf-counted",
            "Three leaves cannot pass for four by repeating the last (CVE-2012-2459).",
            2,
            3,
            {
                "index": 3,
                "size": 4,
                "proof": [three[2], reference.node(three[0], three[1])],
            },
        ),
        (
            "repeated-last-leaf-under-the-root",
            "A root over leaves padded by repetition is not the root of the leaves alone.",
            2,
            3,
            {"root": reference.root(padded)},
        ),
        (
            "promoted-leaf-padded-with-zeros",
            "A promoted leaf has no sibling to be filled with zeros.",
            8,
            9,
            {"proof": [bytes(32), *reference.inclusion_proof(leaf_hashes(9), 8)]},
        ),
        (
            "index-of-another-leaf",
            "A proof holds for its own index among those of one tree.",
            2,
            8,
            {"index": 3},
        ),
        (
            "leaf-of-another-index",
            "The leaf beside the proved one.",
            2,
            8,
            {"leaf_hash": leaves[3]},
        ),
        (
            "leaf-of-no-tree",
            "A leaf that was never committed.",
            2,
            8,
            {"leaf_hash": hash_leaf(b"never committed")},
        ),
        (
            "leaf-beyond-a-smaller-tree",
            "A leaf appended after the root was signed.",
            8,
            9,
            {"root": root},
        ),
        (
            "root-of-another-tree",
            "A proof under the root of other leaves.",
            2,
            8,
            {"root": reference.root(leaves[::-1])},
        ),
        (
            "root-of-the-empty-tree",
            "No leaf is in the empty tree.",
            0,
            1,
            {"root": sha256(b"").digest()},
        ),
        ("root-as-proof", "The root is no sibling of a leaf.", 0, 2, {"proof": [tree_root(2)]}),
        ("one-leaf-under-another-root", "The only leaf is the root.", 0, 1, {"root": leaves[1]}),
        ("size-one-larger", "The proof is too short for 9 leaves.", 2, 8, {"size": 9}),
        ("size-one-leaf", "The proof is too long for one leaf.", 0, 8, {"size": 1}),
        ("proof-empty", "Nothing between leaf and root.", 2, 8, {"proof": []}),
        (
            "proof-truncated-above",
            "The sibling below the root is cut off.",
            2,
            8,
            {"proof": proof[:-1]},
        ),
        (
            "proof-truncated-below",
            "The sibling of the leaf is cut off.",
            2,
            8,
            {"proof": proof[1:]},
        ),
        (
            "proof-extended-above",
            "One more hash, after the proof.",
            2,
            8,
            {"proof": [*proof, bytes(32)]},
        ),
        (
            "proof-extended-below",
            "One more hash, before the proof.",
            2,
            8,
            {"proof": [bytes(32), *proof]},
        ),
        (
            "proof-extended-above-and-its-root",
            "One more level and a root that fits it: more levels than the size has.",
            2,
            8,
            {"proof": [*proof, bytes(32)], "root": reference.node(root, bytes(32))},
        ),
        (
            "proof-for-one-leaf",
            "A tree of one leaf has an empty proof.",
            0,
            1,
            {"proof": [leaves[1]]},
        ),
        ("proof-of-100-hashes", "No tree has so many levels.", 2, 8, {"proof": made_siblings(100)}),
        (
            "proof-with-siblings-swapped",
            "Two siblings in each other's place.",
            2,
            8,
            {"proof": [proof[1], proof[0], proof[2]]},
        ),
        ("proof-reversed", "From the root down.", 2, 8, {"proof": proof[::-1]}),
        (
            "proof-with-a-sibling-repeated",
            "One sibling in the place of the next.",
            2,
            8,
            {"proof": [proof[0], proof[0], proof[2]]},
        ),
        ("leaf-bit-flipped", "One bit of the leaf hash.", 2, 8, {"leaf_hash": flip(leaves[2])}),
        ("root-bit-flipped", "One bit of the root.", 2, 8, {"root": flip(root)}),
    ]
    flipped: list[AttackCase] = [
        (
            f"proof-bit-flipped-at-{level}",
            f"One bit of sibling {level}.",
            2,
            8,
            {"proof": [*proof[:level], flip(proof[level]), *proof[level + 1 :]]},
        )
        for level in range(len(proof))
    ]
    return by_file(
        _inclusion(
            f"inclusion-{name}", about, index=index, size=size, claim=claim, expect=INCLUSION_ERROR
        )
        for name, about, index, size, claim in [*attacks, *flipped]
    )


def inclusion_malformed() -> Documents:
    """Return inclusion proofs that are refused before anything is hashed."""
    leaves, root = leaf_hashes(8), tree_root(8)
    proof = reference.inclusion_proof(leaves, 2)
    beyond = made_siblings(reference.inclusion_length(2, GREATEST_SIZE + 1))
    cases: list[MalformedCase] = [
        ("index-equals-size", "Indices end one below the size.", {"index": 8}),
        ("index-beyond-size", "Indices end one below the size.", {"index": 10}),
        ("index-wraps-at-2-64", "An index that 64 bits would cut to 2.", {"index": (1 << 64) + 2}),
        ("index-negative", "Indices start at 0.", {"index": -1}),
        ("index-negative-by-a-size", "No counting from the end.", {"index": 2 - 8}),
        ("size-zero", "The empty tree has no leaf.", {"index": 0, "size": 0}),
        (
            "size-zero-empty-root",
            "The empty tree has no leaf.",
            {"index": 0, "size": 0, "proof": [], "root": sha256(b"").digest()},
        ),
        ("size-negative", "Sizes count leaves.", {"size": -8}),
        (
            "size-past-2-63",
            "Sizes end at 2^63, even where leaf, proof and root fit.",
            {
                "size": GREATEST_SIZE + 1,
                "proof": beyond,
                "root": reference.implied_root(leaves[2], 2, GREATEST_SIZE + 1, beyond),
            },
        ),
        ("size-wraps-at-2-64", "A size that 64 bits would cut to 8.", {"size": (1 << 64) + 8}),
        ("leaf-hash-empty", "A hash has 32 bytes.", {"leaf_hash": b""}),
        ("leaf-hash-short", "A hash has 32 bytes.", {"leaf_hash": leaves[2][:-1]}),
        ("leaf-hash-long", "A hash has 32 bytes.", {"leaf_hash": leaves[2] + b"\0"}),
        ("root-empty", "A hash has 32 bytes.", {"root": b""}),
        ("root-short", "A hash has 32 bytes.", {"root": root[:-1]}),
        ("root-long", "A hash has 32 bytes.", {"root": root + b"\0"}),
        ("proof-hash-empty", "A hash has 32 bytes.", {"proof": [*proof[:2], b""]}),
        ("proof-hash-short", "A hash has 32 bytes.", {"proof": [proof[0][:-1], *proof[1:]]}),
        ("proof-hash-long", "A hash has 32 bytes.", {"proof": [proof[0] + b"\0", *proof[1:]]}),
        (
            "proof-hashes-cut-elsewhere",
            "The same bytes in other pieces.",
            {"proof": [proof[0] + proof[1][:1], proof[1][1:], proof[2]]},
        ),
        ("proof-hashes-joined", "All siblings as one hash.", {"proof": [b"".join(proof)]}),
    ]
    return by_file(
        _inclusion(f"inclusion-{name}", about, index=2, size=8, claim=claim, expect=INCLUSION_ERROR)
        for name, about, claim in cases
    )


def _inclusion(
    name: str,
    about: str,
    *,
    index: int,
    size: int,
    claim: dict[str, object] | None = None,
    expect: str = OK,
) -> dict[str, object]:
    """Return the honest proof of a leaf, with what `claim` puts in the place of its parts."""
    leaves = leaf_hashes(size)
    honest: dict[str, object] = {
        "leaf_hash": leaves[index],
        "index": index,
        "size": size,
        "proof": reference.inclusion_proof(leaves, index),
        "root": reference.root(leaves),
    }
    return document(name, about, "verify_inclusion", honest | (claim or {}), expect)
