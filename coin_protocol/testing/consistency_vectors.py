"""Test vectors of RFC 9162 consistency proofs: honest ones, and what attackers would send."""

from __future__ import annotations

from hashlib import sha256

from coin_protocol.testing import reference
from coin_protocol.testing.vector_documents import (
    CONSISTENCY_ERROR,
    GREATEST_SIZE,
    OK,
    AttackCase,
    Documents,
    MalformedCase,
    by_file,
    document,
    flip,
    hash_leaf,
    leaf_hashes,
    made_siblings,
    tree_root,
)


def consistency_vectors() -> Documents:
    """Return consistency proofs that verify, some of them of more than they should."""
    pairs = (
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 3),
        (3, 4),
        (3, 7),
        (4, 7),
        (6, 7),
        (4, 8),
        (6, 8),
        (7, 8),
        (8, 8),
        (7, 9),
        (8, 9),
        (8, 33),
        (31, 33),
        (32, 33),
    )
    honest = [
        _consistency(f"consistency-{old}-to-{new}", f"{old} leaves, then {new}.", old=old, new=new)
        for old, new in pairs
    ]
    unbound = [
        _consistency(
            f"consistency-4-to-8-claimed-as-to-{size}",
            f"A proof binds no size: that from 4 to 8 leaves verifies as one from 4 to {size}, "
            f"and only a size from signed bytes keeps it out.",
            old=4,
            new=8,
            claim={"new_size": size},
        )
        for size in (5, 7)
    ]
    old, new = GREATEST_SIZE - 1, GREATEST_SIZE
    proof = made_siblings(reference.consistency_length(old, new))
    old_root, new_root = reference.implied_roots(b"", old, new, proof)
    greatest = _consistency(
        "consistency-to-the-greatest-size",
        "One leaf more makes 2^63, the greatest size that is taken.",
        old=1,
        new=1,
        claim={
            "old_size": old,
            "new_size": new,
            "old_root": old_root,
            "new_root": new_root,
            "proof": proof,
        },
    )
    return by_file([*honest, *unbound, greatest])


def consistency_attacks() -> Documents:
    """Return well-formed consistency proofs of what is not so."""
    leaves, root = leaf_hashes(8), tree_root(8)
    changed = [leaves[0], hash_leaf(b"rewritten"), *leaves[2:]]
    swapped = [leaves[1], leaves[0], *leaves[2:]]
    proof = reference.consistency_proof(leaves, 6)
    three = leaf_hashes(3)
    padded = [*three, three[2]]
    attacks: list[AttackCase] = [
        (
            "history-rewritten",
            "A leaf of the old tree was changed: the new tree's own proof does not fit.",
            6,
            8,
            {
                "new_root": reference.root(changed),
                "proof": reference.consistency_proof(changed, 6),
            },
        ),
        (
            "history-rewritten-honest-proof",
            "A leaf of the old tree was changed, and the proof is that of the honest tree.",
            6,
            8,
            {"new_root": reference.root(changed)},
        ),
        (
            "history-reordered",
            "Two leaves of the old tree changed places.",
            6,
            8,
            {
                "new_root": reference.root(swapped),
                "proof": reference.consistency_proof(swapped, 6),
            },
        ),
        (
            "history-leaf-dropped",
            "A leaf of the old tree is gone from the new one.",
            6,
            7,
            {
                "new_root": reference.root(leaves[1:]),
                "proof": reference.consistency_proof(leaves[1:], 6),
            },
        ),
        (
            "two-trees-of-one-size",
            "Two roots of one size are two histories.",
            8,
            8,
            {"old_root": reference.root(changed)},
        ),
        (
            "repeated-last-leaf",
            "Repeating the last leaf does not leave the root as it is (CVE-2012-2459).",
            3,
            4,
            {"new_root": tree_root(3), "proof": reference.consistency_proof(padded, 3)},
        ),
        (
            "padded-old-root",
            "The old root is over leaves padded by repetition.",
            3,
            4,
            {"old_root": reference.root(padded)},
        ),
        (
            "sizes-differ-roots-equal",
            "More leaves under the very same root.",
            4,
            8,
            {"new_root": tree_root(4), "proof": []},
        ),
        (
            "roots-swapped",
            "Old and new root in each other's place.",
            6,
            8,
            {"old_root": root, "new_root": tree_root(6)},
        ),
        (
            "old-root-in-the-proof",
            "A complete old tree is not in its own proof.",
            4,
            8,
            {"proof": [tree_root(4), *reference.consistency_proof(leaves, 4)]},
        ),
        ("proof-of-equal-sizes", "Equal sizes need no proof.", 8, 8, {"proof": [root]}),
        ("proof-empty", "Sizes differ: some proof is needed.", 6, 8, {"proof": []}),
        ("proof-empty-complete-old", "Sizes differ: some proof is needed.", 4, 8, {"proof": []}),
        ("proof-truncated-above", "The last hash is cut off.", 6, 8, {"proof": proof[:-1]}),
        ("proof-truncated-below", "The first hash is cut off.", 6, 8, {"proof": proof[1:]}),
        ("proof-extended-above", "One more hash at the end.", 6, 8, {"proof": [*proof, bytes(32)]}),
        ("proof-extended-below", "One more hash in front.", 6, 8, {"proof": [bytes(32), *proof]}),
        ("proof-of-100-hashes", "No tree has so many levels.", 6, 8, {"proof": made_siblings(100)}),
        ("proof-reversed", "From the root down.", 6, 8, {"proof": proof[::-1]}),
        (
            "proof-from-another-size",
            "The proof from 5 leaves, not from 6.",
            6,
            8,
            {"proof": reference.consistency_proof(leaves, 5)},
        ),
        (
            "proof-is-an-inclusion-proof",
            "The path of the last old leaf proves another thing.",
            6,
            8,
            {"proof": reference.inclusion_proof(leaves, 5)},
        ),
        ("old-size-one-less", "The old root is that of 6 leaves.", 6, 8, {"old_size": 5}),
        ("old-size-one-more", "The old root is that of 6 leaves.", 6, 8, {"old_size": 7}),
        ("new-size-one-more", "The proof is too short for 9 leaves.", 6, 8, {"new_size": 9}),
        (
            "old-root-bit-flipped",
            "One bit of the old root.",
            6,
            8,
            {"old_root": flip(tree_root(6))},
        ),
        (
            "complete-old-root-bit-flipped",
            "One bit of an old root that starts the proof itself.",
            4,
            8,
            {"old_root": flip(tree_root(4))},
        ),
        ("new-root-bit-flipped", "One bit of the new root.", 6, 8, {"new_root": flip(root)}),
    ]
    flipped: list[AttackCase] = [
        (
            f"proof-bit-flipped-at-{level}",
            f"One bit of hash {level} of the proof.",
            6,
            8,
            {"proof": [*proof[:level], flip(proof[level]), *proof[level + 1 :]]},
        )
        for level in range(len(proof))
    ]
    return by_file(
        _consistency(
            f"consistency-{name}", about, old=old, new=new, claim=claim, expect=CONSISTENCY_ERROR
        )
        for name, about, old, new, claim in [*attacks, *flipped]
    )


def consistency_malformed() -> Documents:
    """Return consistency proofs that are refused before anything is hashed."""
    old_root, new_root = tree_root(6), tree_root(8)
    proof = reference.consistency_proof(leaf_hashes(8), 6)
    empty = sha256(b"").digest()
    beyond = made_siblings(reference.consistency_length(6, GREATEST_SIZE + 1))
    beyond_roots = reference.implied_roots(b"", 6, GREATEST_SIZE + 1, beyond)
    cases: list[MalformedCase] = [
        (
            "old-size-zero",
            "Every tree continues the empty one: there is nothing to prove, and no such proof.",
            {"old_size": 0, "old_root": empty, "proof": []},
        ),
        (
            "both-sizes-zero",
            "The empty tree continues itself: there is nothing to prove, and no such proof.",
            {"old_size": 0, "new_size": 0, "old_root": empty, "new_root": empty, "proof": []},
        ),
        ("old-size-negative", "Sizes count leaves.", {"old_size": -6}),
        ("new-size-negative", "Sizes count leaves.", {"new_size": -8}),
        ("old-size-above-new", "A tree does not shrink.", {"old_size": 9}),
        (
            "sizes-swapped",
            "A tree does not shrink.",
            {"old_size": 8, "new_size": 6, "old_root": new_root, "new_root": old_root},
        ),
        (
            "new-size-past-2-63",
            "Sizes end at 2^63, even where proof and roots fit.",
            {
                "new_size": GREATEST_SIZE + 1,
                "old_root": beyond_roots[0],
                "new_root": beyond_roots[1],
                "proof": beyond,
            },
        ),
        ("new-size-wraps-at-2-64", "64 bits would cut it to 8.", {"new_size": (1 << 64) + 8}),
        ("old-root-empty", "A hash has 32 bytes.", {"old_root": b""}),
        ("old-root-short", "A hash has 32 bytes.", {"old_root": old_root[:-1]}),
        ("old-root-long", "A hash has 32 bytes.", {"old_root": old_root + b"\0"}),
        ("new-root-empty", "A hash has 32 bytes.", {"new_root": b""}),
        ("new-root-short", "A hash has 32 bytes.", {"new_root": new_root[:-1]}),
        ("new-root-long", "A hash has 32 bytes.", {"new_root": new_root + b"\0"}),
        ("proof-hash-empty", "A hash has 32 bytes.", {"proof": [*proof[:-1], b""]}),
        ("proof-hash-short", "A hash has 32 bytes.", {"proof": [proof[0][:-1], *proof[1:]]}),
        ("proof-hash-long", "A hash has 32 bytes.", {"proof": [proof[0] + b"\0", *proof[1:]]}),
        ("proof-hashes-joined", "All hashes as one.", {"proof": [b"".join(proof)]}),
    ]
    return by_file(
        _consistency(
            f"consistency-{name}", about, old=6, new=8, claim=claim, expect=CONSISTENCY_ERROR
        )
        for name, about, claim in cases
    )


def _consistency(
    name: str,
    about: str,
    *,
    old: int,
    new: int,
    claim: dict[str, object] | None = None,
    expect: str = OK,
) -> dict[str, object]:
    """Return the honest proof between sizes, with what `claim` puts in place of its parts."""
    honest: dict[str, object] = {
        "old_size": old,
        "new_size": new,
        "old_root": tree_root(old),
        "new_root": tree_root(new),
        "proof": reference.consistency_proof(leaf_hashes(new), old),
    }
    return document(name, about, "verify_consistency", honest | (claim or {}), expect)
