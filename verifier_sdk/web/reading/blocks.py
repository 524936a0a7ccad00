"""Which blocks were drawn, of all there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MOST_CELLS: Final = 512
"""Cells of the strip; where there are more blocks, a cell stands for several."""

WHOLE: Final = "whole"
EMBEDDING: Final = "embedding"
TOKENS: Final = "tokens"
CLOSED: Final = "closed"
RANKS: Final = (WHOLE, EMBEDDING, TOKENS, CLOSED)
"""How much of a block was opened, most first."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of the strip.

    Attributes:
        kind: Of `RANKS`: the most that was opened of any block in it.
        first: Index of its first block.
        last: Of its last.
    """

    kind: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class BlockMap:
    """All blocks of a commitment, and what was opened of each.

    Attributes:
        total: Blocks there are.
        kinds: Of those opened, by index.
        tokens: How many tokens were opened of each, where single ones were.
    """

    total: int
    kinds: Mapping[int, str]
    tokens: Mapping[int, int]

    def counted(self) -> dict[str, int]:
        """Return how many blocks there are of each kind."""
        found = dict.fromkeys(RANKS, 0)
        for kind in self.kinds.values():
            found[kind] += 1
        found[CLOSED] = max(0, self.total - len(self.kinds))
        return found

    def cells(self) -> list[Cell]:
        """Return the strip."""
        if not self.total:
            return []
        width = -(-self.total // MOST_CELLS)
        most: dict[int, str] = {}
        for index, kind in self.kinds.items():
            at = index // width
            most[at] = min(most.get(at, CLOSED), kind, key=RANKS.index)
        return [
            Cell(most.get(at, CLOSED), at * width, min(self.total, (at + 1) * width) - 1)
            for at in range(-(-self.total // width))
        ]

    def opened(self) -> Sequence[tuple[int, str, int]]:
        """Return index, kind and opened tokens of the blocks opened, in order."""
        return [
            (index, self.kinds[index], self.tokens.get(index, 0)) for index in sorted(self.kinds)
        ]
