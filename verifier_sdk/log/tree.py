"""RFC 9162 roots and proofs from the roots of complete subtrees. Pure.

A node (height, index) is the root of the complete subtree over the leaves from `index * 2**height`
to before `(index + 1) * 2**height`. Each function asks for O(log size) nodes, all of them complete
in a tree of `size` leaves.
"""

from __future__ import annotations

from collections.abc import Callable

from coin_protocol.merkle import EMPTY_ROOT, node_hash

Nodes = Callable[[int, int], bytes]
"""Takes (height, index), and returns the node's hash."""


def root(size: int, node: Nodes) -> bytes:
    """Return the root of a tree of `size` leaves."""
    return _edge(size, size.bit_length(), node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: Nodes) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of `size` leaves.

    Raises:
        ValueError: There is no such leaf.

    Source: RFC 9162 section 2.1.3.1.
    """
    if not 0 <= index < size:
        msg = f"index must be that of one of {size} leaves; found {index}"
        raise ValueError(msg)
    return _path(0, index, size, node)


def consistency_proof(old_size: int, size: int, node: Nodes) -> list[bytes]:
    """Return the proof that the tree of `old_size` leaves is a prefix of that of `size` leaves.

    Raises:
        ValueError: Not 0 < `old_size` <= `size`.

    Source: RFC 9162 section 2.1.4.1.
    """
    if not 0 < old_size <= size:
        msg = f"old size must lie in [1, {size}]; found {old_size}"
        raise ValueError(msg)
    if old_size == size:
        return []
    # The largest complete subtree that ends where the old tree ends, then its path.
    height = (old_size & -old_size).bit_length() - 1
    place = (old_size >> height) - 1
    known = [node(height, place)] if place else []
    return known + _path(height, place, size, node)


def _path(height: int, place: int, size: int, node: Nodes) -> list[bytes]:
    """Return the siblings from a complete node up to the root."""
    found = []
    while (size - 1) >> height:
        sibling = place ^ 1
        if (sibling + 1) << height <= size:
            found.append(node(height, sibling))
        elif sibling << height < size:
            found.append(_edge(size, height, node))
        place >>= 1
        height += 1
    return found


def _edge(size: int, height: int, node: Nodes) -> bytes:
    """Return the root over the last leaves, those that fill no subtree of `height`. Not none."""
    found: bytes | None = None
    for below in range(height):
        if size >> below & 1:
            left = node(below, (size >> below) - 1)
            found = left if found is None else node_hash(left, found)
    if found is None:
        msg = f"a tree of {size} leaves has no edge below height {height}"
        raise ValueError(msg)
    return found
