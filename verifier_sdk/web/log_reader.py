"""What the pages need of a node's log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WitnessMark:
    """One witness that the log asks, and what it did for the newest head.

    Attributes:
        name: Of its key.
        cosigned_at: Seconds since 1970, by its own clock; None where it has not cosigned.
    """

    name: str
    cosigned_at: float | None


@dataclass(frozen=True, slots=True)
class Head:
    """The newest head.

    Attributes:
        note: The signed note, exact bytes, with all cosignatures.
        origin: The log's name.
        size: Entries in the tree.
        root: 32 bytes.
        signed_at: Seconds since 1970, by the log's clock.
        witnesses: All that the log asks.
        quorum: How many of them a head wants; 0 where the log asks none.
    """

    note: bytes
    origin: str
    size: int
    root: bytes
    signed_at: float
    witnesses: Sequence[WitnessMark] = ()
    quorum: int = 0

    @property
    def cosigned(self) -> int:
        """How many witnesses have cosigned it."""
        return sum(mark.cosigned_at is not None for mark in self.witnesses)


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Where an entry stands, and the proof that it does.

    Attributes:
        index: From 0.
        size: Of the tree that the proof is for: that of the newest head.
        root: Of that tree.
        proof: Hashes of 32 bytes, from the leaf up.
    """

    index: int
    size: int
    root: bytes
    proof: Sequence[bytes]


class LogReader(Protocol):
    """Reads the log. Called from any thread."""

    def head(self) -> Head | None:
        """Return the newest signed head, None before the first."""

    def inclusion(self, leaf_hash: bytes) -> Inclusion | None:
        """Return the proof that the newest head's tree has a leaf, None where it has not."""

    def growth(self) -> Sequence[tuple[float, int]]:
        """Return when some heads of its whole life were signed, and their sizes, oldest first."""
