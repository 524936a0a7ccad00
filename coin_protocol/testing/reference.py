"""A slow Merkle tree, written down from RFC 9162 section 2.1 as its definitions read.

Recursive, without a cache and without a thought for speed: what `coin_protocol.merkle` is
checked against. Leaves are given by their hashes, `SHA-256(0x00 || data)`. Imports nothing
of this project, so that a mistake there cannot hide here.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def split(size: int) -> int:
    """Return `k`, the largest power of two smaller than `size` > 1: the size of the left side."""
    k = 1
    while 2 * k < size:
        k = 2 * k
    return k


def node(left: bytes, right: bytes) -> bytes:
    """Return `HASH(0x01 || left || right)`."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the Merkle Tree Hash MTH(D_n) (section 2.1.1)."""
    n = len(leaf_hashes)
    if n == 0:
        return sha256(b"").digest()
    if n == 1:
        return leaf_hashes[0]
    k = split(n)
    return node(root(leaf_hashes[:k]), root(leaf_hashes[k:]))


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return PATH(m, D_n), with `index` as m (section 2.1.3.1)."""
    n, m = len(leaf_hashes), index
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*inclusion_proof(leaf_hashes[:k], m), root(leaf_hashes[k:])]
    return [*inclusion_proof(leaf_hashes[k:], m - k), root(leaf_hashes[:k])]


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """Return PROOF(m, D_n), with `old_size` as m, 0 < m <= n (section 2.1.4.1)."""
    return _subproof(old_size, leaf_hashes, known=True)


def _subproof(m: int, leaf_hashes: Sequence[bytes], *, known: bool) -> list[bytes]:
    """Return SUBPROOF(m, D_n, b); `known` is b: the verifier has this subtree's root."""
    n = len(leaf_hashes)
    if m == n:
        return [] if known else [root(leaf_hashes)]
    k = split(n)
    if m <= k:
        return [*_subproof(m, leaf_hashes[:k], known=known), root(leaf_hashes[k:])]
    return [*_subproof(m - k, leaf_hashes[k:], known=False), root(leaf_hashes[:k])]


def inclusion_length(index: int, size: int) -> int:
    """Return the number of hashes in PATH(index, D_size)."""
    if size == 1:
        return 0
    k = split(size)
    return 1 + (inclusion_length(index, k) if index < k else inclusion_length(index - k, size - k))


def implied_root(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Return the root of the tree of `size` leaves for which `proof` is PATH(index, D_size).

    The recursion of `inclusion_proof` read backwards, so that trees too large to be built
    can be tested. `proof` has `inclusion_length(index, size)` hashes.
    """
    if size == 1:
        return leaf_hash
    k = split(size)
    if index < k:
        return node(implied_root(leaf_hash, index, k, proof[:-1]), proof[-1])
    return node(proof[-1], implied_root(leaf_hash, index - k, size - k, proof[:-1]))


def consistency_length(old_size: int, size: int) -> int:
    """Return the number of hashes in PROOF(old_size, D_size)."""
    return _subproof_length(old_size, size, known=True)


def _subproof_length(m: int, n: int, *, known: bool) -> int:
    if m == n:
        return 0 if known else 1
    k = split(n)
    if m <= k:
        return 1 + _subproof_length(m, k, known=known)
    return 1 + _subproof_length(m - k, n - k, known=False)


def implied_roots(
    old_root: bytes, old_size: int, size: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """Return the old and the new root for which `proof` is PROOF(old_size, D_size).

    The recursion of `consistency_proof` read backwards. The old root is `old_root` itself
    where the old tree is complete, else what the proof makes it.
    """
    return _implied(old_root, old_size, size, proof, known=True)


def _implied(
    old_root: bytes, m: int, n: int, proof: Sequence[bytes], *, known: bool
) -> tuple[bytes, bytes]:
    if m == n:
        both = old_root if known else proof[0]
        return both, both
    k = split(n)
    if m <= k:
        old, new = _implied(old_root, m, k, proof[:-1], known=known)
        return old, node(new, proof[-1])
    old, new = _implied(old_root, m - k, n - k, proof[:-1], known=False)
    return node(proof[-1], old), node(proof[-1], new)
