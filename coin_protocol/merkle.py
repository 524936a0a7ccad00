"""RFC 9162 Merkle trees: roots, inclusion proofs and consistency proofs. Pure functions.

Hashes are 32 bytes (SHA-256), proofs are lists of hashes, sizes and indices count leaves.
A proof binds neither size nor index by itself (a last-leaf proof of 8 leaves verifies as
the last of 12): take `size` from signed bytes only, never from what came with the proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from coin_protocol.errors import ConsistencyProofError, InclusionProofError, VerificationError
from coin_protocol.limits import HASH_BYTES

EMPTY_ROOT: Final = sha256(b"").digest()
"""Root of the tree with no leaf (RFC 9162 section 2.1.1)."""

_MAX_SIZE: Final = 1 << 63


def leaf_hash(data: bytes) -> bytes:
    """Return `SHA-256(0x00 || data)`, 32 bytes (RFC 9162 section 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return `SHA-256(0x01 || left || right)`, 32 bytes (RFC 9162 section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over `leaf_hashes`; `EMPTY_ROOT` for none. O(n) hashes.

    Works level by level: a node without a partner moves up unchanged, which gives the tree
    of RFC 9162 section 2.1.1.
    """
    if not leaf_hashes:
        return EMPTY_ROOT
    level = list(leaf_hashes)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree over `leaf_hashes`.

    O(n) hashes: for many proofs of one tree use `IncrementalTree`.

    Raises:
        ValueError: `index` is not that of a leaf.

    Source: RFC 9162 section 2.1.3.1.
    """
    return IncrementalTree(leaf_hashes).inclusion_proof(index)


def verify_inclusion(
    *, leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf_hash` is leaf `index` of the tree of `size` leaves under `root`.

    Args:
        leaf_hash: 32 bytes, hashed by the caller from the leaf's data. Never take a hash
            from the prover: it could be an inner node.
        index: Place of the leaf, from 0.
        size: Number of leaves, from signed bytes.
        proof: Hashes from the leaf up.
        root: 32 bytes, from signed bytes.

    Raises:
        InclusionProofError: Anything is malformed, or the proof leads to another root.

    Source: RFC 9162 section 2.1.3.2.
    """
    error = InclusionProofError
    _require_int(index, "index", error)
    _require_int(size, "size", error)
    if not 0 <= index < size <= _MAX_SIZE:
        msg = f"index must lie in [0, size) with size at most 2^63; found {index} of {size}"
        raise error(msg)
    _require_hash(leaf_hash, "leaf hash", error)
    _require_hash(root, "root", error)
    _require_proof(proof, error)

    place, last, node = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            msg = f"proof has {len(proof)} hashes, more than a tree of {size} leaves has levels"
            raise error(msg)
        if place & 1 or place == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        place >>= 1
        last >>= 1
    if last:
        msg = f"proof has {len(proof)} hashes, too few for leaf {index} of {size}"
        raise error(msg)
    if node != root:
        msg = f"proof of leaf {index} of {size} leads to {node.hex()}, wanted {root.hex()}"
        raise error(msg)


def consistency_proof(leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """Return the proof that the tree over the first `old_size` leaves is a prefix.

    Raises:
        ValueError: `old_size` is not in [1, number of leaves].

    Source: RFC 9162 section 2.1.4.1.
    """
    return IncrementalTree(leaf_hashes).consistency_proof(old_size)


def verify_consistency(  # noqa: C901, PLR0912 - the RFC's algorithm, step by step
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of `old_size` leaves is a prefix of that of `new_size` leaves.

    Raises:
        ConsistencyProofError: Anything is malformed, or the proof leads to other roots.

    Source: RFC 9162 section 2.1.4.2.
    """
    error = ConsistencyProofError
    _require_int(old_size, "old size", error)
    _require_int(new_size, "new size", error)
    if not 0 < old_size <= new_size <= _MAX_SIZE:
        msg = f"wanted 0 < old size <= new size <= 2^63; found {old_size} and {new_size}"
        raise error(msg)
    _require_hash(old_root, "old root", error)
    _require_hash(new_root, "new root", error)
    _require_proof(proof, error)
    if old_size == new_size:
        if proof:
            msg = f"a proof between equal sizes is empty; found {len(proof)} hashes"
            raise error(msg)
        if old_root != new_root:
            msg = f"two roots for one size {new_size}: {old_root.hex()} and {new_root.hex()}"
            raise error(msg)
        return

    hashes = list(proof)
    if old_size & (old_size - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        msg = f"proof is empty, but sizes {old_size} and {new_size} differ"
        raise error(msg)
    place, last = old_size - 1, new_size - 1
    while place & 1:
        place >>= 1
        last >>= 1
    old_node = new_node = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            msg = f"proof has {len(proof)} hashes, more than {old_size} of {new_size} needs"
            raise error(msg)
        if place & 1 or place == last:
            old_node = node_hash(sibling, old_node)
            new_node = node_hash(sibling, new_node)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            new_node = node_hash(new_node, sibling)
        place >>= 1
        last >>= 1
    if last:
        msg = f"proof has {len(proof)} hashes, too few for {old_size} of {new_size}"
        raise error(msg)
    for what, found, wanted in (("old", old_node, old_root), ("new", new_node, new_root)):
        if found != wanted:
            msg = f"proof leads to {what} root {found.hex()}, wanted {wanted.hex()}"
            raise error(msg)


class IncrementalTree:
    """A tree that takes leaves as they come and proves any of its prefixes.

    Keeps every complete subtree once, 64 bytes a leaf. `append` is amortised O(1),
    `root` and the proofs of any prefix O(log n).
    """

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        """Start with `leaf_hashes`, 32 bytes each."""
        self._levels: list[list[bytes]] = [[]]
        self._edges: tuple[int, list[bytes]] = (0, [])
        self.extend(leaf_hashes)

    def __len__(self) -> int:
        """Return the number of leaves."""
        return len(self._levels[0])

    @property
    def leaf_hashes(self) -> Sequence[bytes]:
        """The leaves so far; do not change them."""
        return self._levels[0]

    def append(self, leaf_hash: bytes) -> None:
        """Add one leaf hash, 32 bytes."""
        self.extend((leaf_hash,))

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add leaf hashes, 32 bytes each, in order."""
        level, depth = self._levels[0], 0
        level.extend(list(leaf_hashes))
        while pairs := len(level) >> 1:
            depth += 1
            if depth == len(self._levels):
                self._levels.append([])
            above = self._levels[depth]
            if len(above) == pairs:
                break
            above.extend(_parents(level[2 * len(above) : 2 * pairs]))
            level = above

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves (all of them by default).

        Raises:
            ValueError: There are not that many leaves.
        """
        size = self._prefix(size)
        return self._edge(size)[-1] if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the proof that leaf `index` is in the tree of the first `size` leaves.

        Raises:
            ValueError: `index` is not that of a leaf, or there are not that many leaves.
        """
        size = self._prefix(size)
        if not 0 <= index < size:
            msg = f"index must be that of one of {size} leaves; found {index}"
            raise ValueError(msg)
        return self._path(index, 0, size)

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the first `old_size` leaves are a prefix of `size` leaves.

        Raises:
            ValueError: Not 0 < `old_size` <= `size` <= number of leaves.
        """
        size = self._prefix(size)
        if not 0 < old_size <= size:
            msg = f"old size must lie in [1, {size}]; found {old_size}"
            raise ValueError(msg)
        if old_size == size:
            return []
        # The largest complete subtree that ends where the old tree ends, then its path.
        place, depth = old_size - 1, 0
        while place & 1:
            place >>= 1
            depth += 1
        proof = [] if place == 0 else [self._levels[depth][place]]
        return proof + self._path(place, depth, size)

    def _path(self, place: int, depth: int, size: int) -> list[bytes]:
        """Return the siblings from node `place` at `depth` up to the root of `size` leaves."""
        levels = self._levels
        if size & (size - 1) == 0:  # every sibling is there: most blocks, and most vocabularies
            above = levels[depth : size.bit_length() - 1]
            return [level[(place >> up) ^ 1] for up, level in enumerate(above)]
        path: list[bytes] = []
        complete, last = size >> depth, (size - 1) >> depth
        edges = self._edge(size)
        while last:
            sibling = place ^ 1
            if sibling < complete:
                path.append(levels[depth][sibling])
            elif sibling == last:
                path.append(edges[depth])
            place >>= 1
            complete >>= 1
            last >>= 1
            depth += 1
        return path

    def _prefix(self, size: int | None) -> int:
        leaves = len(self._levels[0])
        if size is None:
            return leaves
        if not 0 <= size <= leaves:
            msg = f"size must lie in [0, {leaves}]; found {size}"
            raise ValueError(msg)
        return size

    def _edge(self, size: int) -> list[bytes]:
        """Return the last node of each level of the tree of `size` > 0 leaves."""
        known, edge = self._edges
        if known == size:
            return edge
        node = self._levels[0][size - 1]
        edge = [node]
        count, depth = size, 0
        while count > 1:
            # An even count pairs the edge with its left neighbour, which is complete; an
            # odd one moves it up. A complete node above is read, not hashed again.
            if count & 1 == 0:
                above = (count >> 1) - 1
                complete = size >> (depth + 1)
                node = (
                    self._levels[depth + 1][above]
                    if above < complete
                    else node_hash(self._levels[depth][count - 2], node)
                )
            edge.append(node)
            count = (count + 1) >> 1
            depth += 1
        self._edges = (size, edge)
        return edge


def _parents(level: list[bytes]) -> list[bytes]:
    """Hash neighbours together; a last one without partner moves up unchanged."""
    pairs = iter(level)
    # node_hash written out: the call would cost a quarter of the hash.
    above = [
        sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)
    ]
    if len(level) & 1:
        above.append(level[-1])
    return above


def _require_int(value: object, what: str, error: type[VerificationError]) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{what} must be an int; found {type(value).__name__}"
        raise error(msg)


def _require_hash(value: object, what: str, error: type[VerificationError]) -> None:
    if not isinstance(value, bytes) or len(value) != HASH_BYTES:
        found = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        msg = f"{what} must be {HASH_BYTES} bytes; found {found}"
        raise error(msg)


def _require_proof(proof: object, error: type[VerificationError]) -> None:
    if not isinstance(proof, Sequence) or isinstance(proof, (bytes, str)):
        msg = f"proof must be a sequence of hashes; found {type(proof).__name__}"
        raise error(msg)
    for number, sibling in enumerate(proof):
        if type(sibling) is not bytes or len(sibling) != HASH_BYTES:
            _require_hash(sibling, f"proof[{number}]", error)
