"""Rows of an embedding table for token ids: frequent ids have their own, the rest share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic.reader.tensors import Tensors, taken

Ids = npt.NDArray[np.uint32]
Rows = npt.NDArray[np.int64]

PADDING: Final = 0
"""Row of a place that holds no token; its embedding is zero."""

MAX_ID: Final = (1 << 20) - 1
"""Greatest id that is read: as `coin_protocol.limits.MAX_VOCABULARY`."""

_MULTIPLIER: Final = 2654435761
"""Knuth's multiplicative hash: 2^32 over the golden ratio."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Which row of an embedding table stands for a token id.

    Row 0 is padding, rows 1 to n belong to the n ids in `frequent`, and every other id
    shares one of the rows after them, number `(id * 2654435761 mod 2^32) >> (32 - bits)`.

    Attributes:
        frequent: Distinct ids, ascending, uint32 (n,).
        rarity: Of each of them, how few traces it stands in: `-log2` of their share, in
            eighths, uint8 (n,). Ids outside count as `unseen`.
        unseen: The rarity of an id in no trace, in eighths.
        bits: There are `2**bits` shared rows, 1 to 16.
    """

    frequent: Ids
    rarity: npt.NDArray[np.uint8]
    unseen: int
    bits: int

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            ValueError: Ids are not distinct and ascending, or shapes or ranges do not fit.
        """
        if self.frequent.ndim != 1 or self.frequent.dtype != np.uint32:
            msg = (
                f"frequent ids must be uint32 (n,); found {self.frequent.dtype} "
                f"{self.frequent.shape}"
            )
            raise ValueError(msg)
        if not (np.diff(self.frequent.astype(np.int64)) > 0).all() or (
            len(self.frequent) and self.frequent[-1] > MAX_ID
        ):
            msg = f"frequent ids must be distinct, ascending and at most {MAX_ID}"
            raise ValueError(msg)
        if self.rarity.shape != self.frequent.shape or self.rarity.dtype != np.uint8:
            msg = (
                f"rarity must be uint8 {self.frequent.shape}; found {self.rarity.dtype} "
                f"{self.rarity.shape}"
            )
            raise ValueError(msg)
        if not (1 <= self.bits <= 16 and 0 <= self.unseen <= 255):
            msg = (
                f"bits must lie in [1, 16] and unseen in [0, 255]; found {self.bits}, {self.unseen}"
            )
            raise ValueError(msg)

    @property
    def rows(self) -> int:
        """How many rows the embedding table has, padding included."""
        return 1 + len(self.frequent) + (1 << self.bits)

    def rows_of(self, ids: npt.ArrayLike) -> Rows:
        """Return the row of each id, int64 of the same shape.

        Raises:
            ValueError: The ids are no integers from 0 to `MAX_ID`.
        """
        checked = checked_ids(ids)
        shared = (checked * _MULTIPLIER & 0xFFFFFFFF) >> (32 - self.bits)
        rows: Rows = np.where(
            self._known(checked), 1 + self._place(checked), 1 + len(self.frequent) + shared
        )
        return rows

    def idf(self, ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return `-log2` of the share of traces that each id stands in, float64.

        Raises:
            ValueError: The ids are no integers from 0 to `MAX_ID`.
        """
        checked = checked_ids(ids)
        if not len(self.frequent):
            return np.full(checked.shape, self.unseen / 8)
        return np.where(self._known(checked), self.rarity[self._place(checked)], self.unseen) / 8

    @cached_property
    def _wide(self) -> Rows:
        return self.frequent.astype(np.int64)

    def _place(self, ids: Rows) -> Rows:
        return np.minimum(np.searchsorted(self._wide, ids), max(len(self.frequent) - 1, 0))

    def _known(self, ids: Rows) -> npt.NDArray[np.bool_]:
        if not len(self.frequent):
            return np.zeros(ids.shape, np.bool_)
        known: npt.NDArray[np.bool_] = self._wide[self._place(ids)] == ids
        return known

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what `from_tensors` reads."""
        return {
            "vocabulary.frequent": self.frequent,
            "vocabulary.rarity": self.rarity,
            "vocabulary.shape": np.array([self.unseen, self.bits], np.uint32),
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Vocabulary:
        """Read a vocabulary back.

        Raises:
            ValueError: Tensors are missing or do not fit together.
        """
        shape = taken(tensors, "vocabulary.shape")
        if shape.shape != (2,):
            msg = f"vocabulary.shape must hold 2 numbers; found shape {shape.shape}"
            raise ValueError(msg)
        return cls(
            frequent=taken(tensors, "vocabulary.frequent").astype(np.uint32, casting="safe"),
            rarity=taken(tensors, "vocabulary.rarity").astype(np.uint8, casting="safe"),
            unseen=int(shape[0]),
            bits=int(shape[1]),
        )

    @classmethod
    def counted(cls, traces: Sequence[Ids], *, size: int, bits: int) -> Vocabulary:
        """Take the most frequent ids of traces, and in how many traces each one stands.

        Args:
            traces: Ids of each, uint32 (n,).
            size: How many ids get a row of their own at most; ties go to the smaller id.
            bits: `2**bits` rows are shared by the rest.

        Raises:
            ValueError: There are no traces.
        """
        if not traces:
            msg = "no traces to count tokens in"
            raise ValueError(msg)
        tokens = np.bincount(np.concatenate(traces), minlength=MAX_ID + 1)
        documents = np.zeros(MAX_ID + 1, np.int64)
        for ids in traces:
            documents[np.unique(ids)] += 1
        order = np.argsort(-tokens, kind="stable")[:size]
        frequent = np.sort(order[tokens[order] > 0]).astype(np.uint32)
        rarity = -8 * np.log2((documents[frequent] + 0.5) / (len(traces) + 1))
        unseen = -8 * np.log2(0.5 / (len(traces) + 1))
        return cls(
            frequent=frequent,
            rarity=np.clip(np.rint(rarity), 0, 255).astype(np.uint8),
            unseen=int(np.clip(np.rint(unseen), 0, 255)),
            bits=bits,
        )


def checked_ids(ids: npt.ArrayLike) -> Rows:
    """Return ids as int64.

    Raises:
        ValueError: They are no integers from 0 to `MAX_ID`.
    """
    found = np.asarray(ids)
    if not found.size:
        return found.astype(np.int64)
    if not np.issubdtype(found.dtype, np.integer):
        msg = f"token ids must be integers; found {found.dtype}"
        raise ValueError(msg)
    if found.min() < 0 or found.max() > MAX_ID:
        msg = f"token ids must lie in [0, {MAX_ID}]; found {found.min()} to {found.max()}"
        raise ValueError(msg)
    return found.astype(np.int64)
