"""Test vectors of RFC 9162 trees: known answers, and proofs that attackers would send.

Every function returns JSON documents by file name. A document has `name`, `about` (why the
case is there), `operation`, the operation's inputs (hashes and leaf data in hex, sizes and
indices as integers) and `expect`: `ok`, or the name of the error that must come.

* `root`: the root over `leaves` (data, not yet hashed) is `root`.
* `verify_inclusion`: `leaf_hash`, `index`, `size`, `proof`, `root`.
* `verify_consistency`: `old_size`, `new_size`, `old_root`, `new_root`, `proof`.

Everything is computed by the slow tree of `reference`, nothing by the code under test. The
vectors do not depend on this implementation: any other can be run against the files.
"""

from __future__ import annotations

from collections.abc import Sequence

from coin_protocol.testing import reference
from coin_protocol.testing.consistency_vectors import (
    consistency_attacks,
    consistency_malformed,
    consistency_vectors,
)
from coin_protocol.testing.inclusion_vectors import (
    inclusion_attacks,
    inclusion_malformed,
    inclusion_vectors,
)
from coin_protocol.testing.vector_documents import (
    OK,
    PUBLISHED_LEAVES,
    PUBLISHED_ROOTS,
    Documents,
    by_file,
    document,
    leaf_data,
    leaf_hashes,
    tree_root,
)


def merkle_vectors() -> Documents:
    """Return all vectors."""
    return {
        **root_vectors(),
        **inclusion_vectors(),
        **inclusion_attacks(),
        **inclusion_malformed(),
        **consistency_vectors(),
        **consistency_attacks(),
        **consistency_malformed(),
    }


def root_vectors() -> Documents:
    """Return known roots."""
    published = [
        _root(
            f"root-of-{size}",
            "Root of the tree that Certificate Transparency publishes.",
            leaves=[bytes.fromhex(leaf) for leaf in PUBLISHED_LEAVES[:size]],
            root=bytes.fromhex(PUBLISHED_ROOTS[size]),
        )
        for size in range(9)
    ]
    computed = [
        _root(
            f"root-of-{size}",
            f"Root of {size} leaves, as the recursive definition gives it.",
            leaves=leaf_data(size),
            root=tree_root(size),
        )
        for size in (9, 31, 32, 33, 100)
    ]
    repeated = _root(
        "root-of-3-with-the-last-repeated",
        "Repeating the last leaf is another tree with another root than that of the three.",
        leaves=[*leaf_data(3), leaf_data(3)[-1]],
        root=reference.root([*leaf_hashes(3), leaf_hashes(3)[-1]]),
    )
    return by_file([*published, *computed, repeated])


def _root(name: str, about: str, *, leaves: Sequence[bytes], root: bytes) -> dict[str, object]:
    return document(name, about, "root", {"leaves": list(leaves), "root": root}, OK)
