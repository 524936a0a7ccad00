"""How many bytes zlib makes of a text, on every machine alike.

One measure of a whole block is how far zlib compresses it at level 6. Libraries that stand in for
zlib (zlib-ng, hardware) find other matches and give other sizes. Where one of them is installed,
the size is worked out here, as zlib 1.2 and 1.3 give it: slowly, and to the byte.

Sources: RFC 1950, RFC 1951; for the choices that they leave open, what zlib does at level 6.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Final

from verifier_sdk.semantic.reader.huffman import Symbol, block_bits

LEVEL: Final = 6

_GOOD, _LAZY, _NICE, _CHAIN = 8, 16, 128, 128
"""Level 6: from these lengths on it searches less, stops being lazy, is satisfied; and how many
earlier places it looks at."""

_LEAST, _MOST = 3, 258
"""Lengths of a match."""

_FARTHEST: Final = (1 << 15) - _MOST - _LEAST - 1
_TOO_FAR: Final = 4096
"""A match of three bytes from further away costs more than the bytes."""

_SYMBOLS: Final = (1 << 14) - 1
"""In a block."""

_FRAME: Final = 6
"""Bytes of header and checksum."""

_SAMPLE: Final = b"".join(
    b"So the sky %d is blue; the sea is too, %d. " % (n, n * n) for n in range(64)
)
"""Has matches of all lengths, near and far, that other libraries choose otherwise among."""


def compressed_size(raw: bytes) -> int:
    """Return the number of bytes that zlib makes of `raw` at level 6."""
    return len(zlib.compress(raw, LEVEL)) if _is_zlib() else deflated_size(raw)


@cache
def _is_zlib() -> bool:
    """Return whether what is installed is zlib itself, by its name and by what it does."""
    named = re.fullmatch(r"1\.[23](\.\d+)*", zlib.ZLIB_RUNTIME_VERSION) is not None
    return named and len(zlib.compress(_SAMPLE, LEVEL)) == deflated_size(_SAMPLE)


def deflated_size(raw: bytes) -> int:
    """Return the same, worked out step by step."""
    bits, start, end = 0, 0, 0
    symbols: list[Symbol] = []
    for symbol in _symbols(raw):
        symbols.append(symbol)
        end += symbol[0]
        # A literal at the very end waits until all is read, and ends no block.
        if len(symbols) == _SYMBOLS and (end < len(raw) or symbol[1]):
            bits = block_bits(symbols, raw[start:end], after=bits)
            symbols, start = [], end
    bits = block_bits(symbols, raw[start:], after=bits)
    return _FRAME + (bits + 7) // 8


def _symbols(raw: bytes) -> Iterator[Symbol]:
    """Yield literals and matches as zlib chooses them: lazily, one byte late."""
    window = _Window(raw)
    at = 0
    length, distance = _LEAST - 1, 0
    waiting = False
    while at < len(raw):
        head = window.insert(at)
        before, before_distance = length, distance
        length, distance = _LEAST - 1, 0
        if head and before < _LAZY and at - head <= _FARTHEST:
            length, start = window.longest(at, head, before)
            distance = at - start
            if length == _LEAST and distance > _TOO_FAR:
                length = _LEAST - 1
        if before >= _LEAST and length <= before:
            yield before, before_distance, 0
            for inner in range(at + 1, at + before - 1):
                window.insert(inner)
            at += before - 1
            length, distance, waiting = _LEAST - 1, 0, False
            continue
        if waiting:
            yield 1, 0, raw[at - 1]
        waiting = True
        at += 1
    if waiting:
        yield 1, 0, raw[-1]


class _Window:
    """The text with, for each place, the last earlier one of the same hash; 0 is none."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        # What is compared past the end is zero there.
        self._padded = raw + bytes(_MOST)
        self._heads: dict[int, int] = {}
        self._earlier = [0] * len(raw)

    def insert(self, at: int) -> int:
        """Enter the three bytes at a place; return the last place with the same hash."""
        if at + _LEAST > len(self._raw):
            return 0
        one, two, three = self._raw[at : at + _LEAST]
        key = (one << 10 ^ two << 5 ^ three) & 0x7FFF
        head = self._heads.get(key, 0)
        self._earlier[at] = head
        self._heads[key] = at
        return head

    def longest(self, at: int, head: int, before: int) -> tuple[int, int]:
        """Return the length and the place of the longest match that beats `before`."""
        raw, left = self._padded, len(self._raw) - at
        nice, best, start = min(_NICE, left), before, 0
        chain = _CHAIN // 4 if before >= _GOOD else _CHAIN
        least = max(0, at - _FARTHEST)
        while True:
            if (
                raw[head + best] == raw[at + best]
                and raw[head + best - 1] == raw[at + best - 1]
                and raw[head : head + 2] == raw[at : at + 2]
            ):
                length = self._common(at, head)
                if length > best:
                    best, start = length, head
                    if length >= nice:
                        break
            head = self._earlier[head]
            chain -= 1
            if head <= least or not chain:
                break
        return min(best, left), start

    def _common(self, at: int, head: int) -> int:
        raw = self._padded
        length = 2
        while length < _MOST and at + length < len(raw) and raw[head + length] == raw[at + length]:
            length += 1
        return length
