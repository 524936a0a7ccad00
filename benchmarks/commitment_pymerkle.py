"""A tree of 100,000 leaves is built several times faster than by pymerkle 7.

pymerkle is licensed under the GPL and no dependency: `make bench PYMERKLE=1` installs it.
Both trees keep every node in memory, can prove any leaf, and must end in the same root.
"""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec

from benchmarks._common import TOKENS, least_seconds, report, skip
from coin_protocol import merkle

_NAME = "commitment_pymerkle.times_faster"
_LEAF_BYTES = 86


def main() -> None:
    """Measure both, from the leaves' data to the root."""
    if find_spec("pymerkle") is None:
        skip(_NAME, "pymerkle is not installed: make bench PYMERKLE=1")
        return
    peer = importlib.import_module("pymerkle")
    leaves = [os.urandom(_LEAF_BYTES) for _ in range(TOKENS)]

    def ours() -> bytes:
        return merkle.IncrementalTree(map(merkle.leaf_hash, leaves)).root()

    def theirs() -> bytes:
        tree = peer.InmemoryTree(algorithm="sha256")
        tree.append_entries(leaves)
        root: bytes = tree.get_root()
        return root

    if ours() != theirs():
        msg = "the two trees have different roots, so their times say nothing"
        raise RuntimeError(msg)
    fast, slow = least_seconds(ours, theirs, rounds=5)
    report(_NAME, slow / fast, unit="ratio", better="higher", limit=6)


if __name__ == "__main__":
    main()
