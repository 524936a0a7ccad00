"""Inclusion proofs among 100,000 leaves take microseconds to make and to check."""

from __future__ import annotations

import os
import random
from hashlib import sha256

from benchmarks._common import TOKENS, least_seconds, report
from coin_protocol.merkle import IncrementalTree, verify_inclusion

_SAMPLE = 2_000
_LEVELS = 17
_PER_HASH = 1.5
_FIXED_US = 5.0


def main() -> None:
    """Measure making a proof, and checking one against the hashes in it."""
    leaves = [os.urandom(32) for _ in range(TOKENS)]
    tree = IncrementalTree(leaves)
    root = tree.root()
    # Leaves whose proof has the full number of hashes, so that both sides hash as often.
    indices = random.Random(1).sample(range(1 << (_LEVELS - 1)), _SAMPLE)  # noqa: S311 - a seeded sample, no secret
    proofs = [(index, leaves[index], tree.inclusion_proof(index)) for index in indices]
    nodes = [os.urandom(65) for _ in range(_LEVELS)]

    def prove() -> None:
        for index in indices:
            tree.inclusion_proof(index)

    def verify() -> None:
        for index, leaf, proof in proofs:
            verify_inclusion(leaf_hash=leaf, index=index, size=TOKENS, proof=proof, root=root)

    def hash_only() -> None:
        for _ in indices:
            for node in nodes:
                sha256(node).digest()

    seconds = least_seconds(prove, verify, hash_only)
    made, checked, bare = (taken / _SAMPLE * 1e6 for taken in seconds)
    report("proofs.inclusion_proof", made, unit="us", better="lower", limit=5.0)
    allowed = _PER_HASH * bare + _FIXED_US
    report("proofs.verify_inclusion", checked / allowed, unit="ratio", better="lower", limit=1.0)
    report("proofs.verify_inclusion_time", checked, unit="us", better="lower")


if __name__ == "__main__":
    main()
