"""How many bits a block of DEFLATE has (RFC 1951), with code lengths as zlib assigns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

Symbol = tuple[int, int, int]
"""Length and distance of a match; or 1, 0 and a literal byte."""

_END: Final = 256
_LITERALS: Final = 286
_DISTANCES: Final = 30

_LENGTH_BITS: Final = (*(0,) * 8, *(n for n in range(1, 6) for _ in range(4)), 0)
_DISTANCE_BITS: Final = (0, 0, *(n for n in range(14) for _ in range(2)))
_REPEAT_BITS: Final = (0,) * 16 + (2, 3, 7)
"""Extra bits of the codes for lengths, for distances, and for runs of code lengths."""

_ORDER: Final = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
"""In which the lengths of the codes of code lengths are written."""

_FIXED: Final = (8,) * 144 + (9,) * 112 + (7,) * 24 + (8,) * 8

_HEADER: Final = 3
_LONGEST: Final = 15
_LONGEST_REPEAT: Final = 7


def _codes(bits: Sequence[int]) -> list[int]:
    """Return which code stands for each value, from the first code's first on."""
    return [code for code, extra in enumerate(bits) for _ in range(1 << extra)]


_LENGTH_CODES: Final = [*_codes(_LENGTH_BITS[:-1])[:255], 28]
"""Of lengths 3 to 258."""

_DISTANCE_CODES: Final = _codes(_DISTANCE_BITS)
"""Of distances 1 to 32,768."""


def block_bits(symbols: Sequence[Symbol], raw: bytes, *, after: int) -> int:
    """Return how many bits there are once a block is written, in the shortest of its forms.

    Args:
        symbols: Of the block.
        raw: Its text.
        after: Bits before it.
    """
    literals, distances = [0] * _LITERALS, [0] * _DISTANCES
    literals[_END] = 1
    for length, distance, literal in symbols:
        if distance:
            literals[_END + 1 + _LENGTH_CODES[length - 3]] += 1
            distances[_DISTANCE_CODES[distance - 1]] += 1
        else:
            literals[literal] += 1
    first = _Tree(literals, (0,) * (_END + 1) + _LENGTH_BITS, _LONGEST)
    second = _Tree(distances, _DISTANCE_BITS, _LONGEST)
    own = first.bits + second.bits + _tree_bits(first, second)
    fixed = first.bits_with(_FIXED) + second.bits_with((5,) * _DISTANCES)
    shortest = min((own + _HEADER + 7) // 8, (fixed + _HEADER + 7) // 8)
    if len(raw) + 4 <= shortest:
        return (after + _HEADER + 7) // 8 * 8 + 8 * (4 + len(raw))
    # The fixed code is taken where it is no longer in whole bytes.
    is_fixed = (fixed + _HEADER + 7) // 8 == shortest
    return after + _HEADER + (fixed if is_fixed else own)


def _tree_bits(first: _Tree, second: _Tree) -> int:
    """Return the bits that both trees are written in."""
    counts = [0] * len(_REPEAT_BITS)
    for tree in (first, second):
        for code in _runs(tree.lengths[: tree.last + 1]):
            counts[code] += 1
    repeats = _Tree(counts, _REPEAT_BITS, _LONGEST_REPEAT)
    written = max((at for at, code in enumerate(_ORDER) if repeats.lengths[code]), default=0)
    return repeats.bits + 3 * (max(written, 3) + 1) + 5 + 5 + 4


def _runs(lengths: Sequence[int]) -> list[int]:
    """Return the codes that code lengths are written as: themselves, or runs."""
    found: list[int] = []
    before, count = -1, 0
    most, least = (138, 3) if lengths[0] == 0 else (7, 4)
    for at, length in enumerate(lengths):
        following = lengths[at + 1] if at + 1 < len(lengths) else None
        count += 1
        if count < most and length == following:
            continue
        if count < least:
            found += [length] * count
        elif length:
            found += [length, 16] if length != before else [16]
        else:
            found.append(17 if count <= 10 else 18)
        before, count = length, 0
        if following == 0:
            most, least = 138, 3
        else:
            most, least = (6, 3) if length == following else (7, 4)
    return found


@dataclass
class _Tree:
    """A Huffman tree as zlib builds it: of equal weights the shallower goes first.

    Attributes:
        weights: How often each symbol is written.
        extra: Bits written after each.
        longest: Length of the longest code allowed.
        lengths: Of each symbol's code.
        last: The last symbol that has a code.
    """

    weights: list[int]
    extra: Sequence[int]
    longest: int
    lengths: list[int] = field(init=False)
    last: int = field(init=False)

    def __post_init__(self) -> None:
        """Build it."""
        self.lengths = [0] * len(self.weights)
        used = [at for at, weight in enumerate(self.weights) if weight]
        weights = list(self.weights)
        self.last = used[-1] if used else -1
        while len(used) < 2:
            # There must be two codes, though one of them is never written.
            if self.last < 2:
                self.last += 1
                spare = self.last
            else:
                spare = 0
            used.append(spare)
            weights[spare] = 1
        self._assign(used, weights)

    @property
    def bits(self) -> int:
        """Bits of all symbols with these codes."""
        return self.bits_with(self.lengths)

    def bits_with(self, lengths: Sequence[int]) -> int:
        """Return the bits of all symbols with codes of these lengths."""
        return sum(
            weight * (lengths[at] + self.extra[at]) for at, weight in enumerate(self.weights)
        )

    def _assign(self, used: list[int], weights: list[int]) -> None:
        leaves = len(weights)
        heap = _Heap(used, weights)
        parent: dict[int, int] = {}
        merged: list[int] = []
        while True:
            one = heap.pop()
            other = heap.items[0]
            merged += [one, other]
            node = heap.merge(one, other)
            parent[one] = parent[other] = node
            if len(heap.items) < 2:
                break
        merged.append(heap.items[0])
        order = merged[::-1]
        depth = {order[0]: 0}
        counts = [0] * (self.longest + 1)
        overflow = 0
        for node in order[1:]:
            depth[node] = depth[parent[node]] + 1
            if depth[node] > self.longest:
                depth[node] = self.longest
                overflow += 1
            if node < leaves:
                counts[depth[node]] += 1
                self.lengths[node] = depth[node]
        if overflow:
            self._shorten(counts, overflow, [node for node in order if node < leaves])

    def _shorten(self, counts: list[int], overflow: int, leaves: list[int]) -> None:
        """Give codes that were too long the greatest length, and others longer ones for it."""
        while overflow > 0:
            bits = self.longest - 1
            while not counts[bits]:
                bits -= 1
            counts[bits] -= 1
            counts[bits + 1] += 2
            counts[self.longest] -= 1
            overflow -= 2
        # The deepest leaves, which weigh least, come last.
        for bits in range(self.longest, 0, -1):
            for _ in range(counts[bits]):
                self.lengths[leaves.pop()] = bits


class _Heap:
    """Nodes by weight, the least first; of equal ones the shallowest."""

    def __init__(self, items: list[int], weights: list[int]) -> None:
        self.items = list(items)
        self._weights = weights
        self._depths = [0] * len(weights)
        for at in range(len(items) // 2 - 1, -1, -1):
            self._sink(at)

    def pop(self) -> int:
        """Take the first node out."""
        first = self.items[0]
        last = self.items.pop()
        if self.items:
            self.items[0] = last
            self._sink(0)
        return first

    def merge(self, one: int, other: int) -> int:
        """Put a node of two children in the place of the first one, which is `other`."""
        node = len(self._weights)
        self._weights.append(self._weights[one] + self._weights[other])
        self._depths.append(max(self._depths[one], self._depths[other]) + 1)
        self.items[0] = node
        self._sink(0)
        return node

    def _sink(self, at: int) -> None:
        items, moved = self.items, self.items[at]
        while (child := 2 * at + 1) < len(items):
            if child + 1 < len(items) and self._before(items[child + 1], items[child]):
                child += 1
            if self._before(moved, items[child]):
                break
            items[at] = items[child]
            at = child
        items[at] = moved

    def _before(self, one: int, other: int) -> bool:
        weights, depths = self._weights, self._depths
        if weights[one] != weights[other]:
            return weights[one] < weights[other]
        return depths[one] <= depths[other]
