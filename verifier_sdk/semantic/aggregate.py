"""From the blocks of a session to the session: honest text that is odd is odd throughout.

What a family's detectors say of the blocks is told together with some of what they were told:
how much of a session is a copy, say, is lost where each block is judged by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic import exact
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import UNKNOWN_SUBJECT
from verifier_sdk.semantic.measure import (
    BLOCK_COLUMNS,
    TOKEN_COLUMNS,
    WHOLE_COLUMNS,
    Measured,
)
from verifier_sdk.semantic.mlp import Floats

KINDS: Final = ("block", "tokens", "whole")
"""Blocks opened with their embedding, tokens opened alone, blocks opened whole."""

_OF_ALL: Final = (
    "evidence", "mean", "max", "second", "upper", "lower", "min", "spread", "positive", "strong",
)  # fmt: skip
_OF_KIND: Final = ("mean", "max", "second", "min")
_OF_SESSION: Final = ("blocks", "whole", "block_size")

STATISTICS: Final = (
    *_OF_ALL,
    *(f"{kind}_{name}" for kind in ("block", "whole") for name in _OF_KIND),
    *_OF_SESSION,
)
"""Of one family's log likelihood ratios over a session's blocks, and over those of a kind."""

_TOLD: Final = {
    "block": tuple(
        name
        for name in BLOCK_COLUMNS
        if name.startswith("copies_")
        or (name.startswith("run_") and name.endswith("_sum"))
        or name
        in ("answer_max", "answer_min", "others_block_max", "others_window_max", "others_rest")
    ),
    "tokens": tuple(
        name for name in TOKEN_COLUMNS if name.startswith("run_") and name.endswith("_sum")
    ),
    "whole": tuple(
        name
        for name in WHOLE_COLUMNS
        if name.startswith(("copies_", "twin_", "read_"))
        or name
        in (
            "answer_max", "answer_min", "others_block_max", "others_window_max", "others_rest",
            "text_answer_8", "text_others_5", "text_others_8", "text_noncanonical", "text_shared",
        )
    ),
}  # fmt: skip
"""Of each kind of block, the measures whose extremes over the session are told as well."""

_EXTREMES: Final = ("most", "second", "least", "mean")

EXTREMES: Final = tuple(
    f"{kind}_{name}_{which}" for kind in KINDS for which in _EXTREMES for name in _TOLD[kind]
)

SESSION_COLUMNS: Final = (
    *STATISTICS,
    *(f"evidence_{family}" for family in FAMILIES),
    *EXTREMES,
)

_MOST: Final = 30.0

_PLACES: Final = {
    kind: np.array([columns.index(name) for name in _TOLD[kind]], np.int64)
    for kind, columns in zip(KINDS, (BLOCK_COLUMNS, TOKEN_COLUMNS, WHOLE_COLUMNS), strict=True)
}


@dataclass(frozen=True, slots=True)
class Ratios:
    """What detectors say of a session's blocks.

    Attributes:
        values: Log likelihood ratios, float32 (blocks, families).
        kinds: Of each block, its place in `KINDS`, int64 (blocks,).
        extremes: Of what was measured, float32 (len(EXTREMES),), as `extremes_of` returns.
        block_size: Tokens in a full block.
        code: Whether the client asked or was answered in code.
        subject: That the prompt is most like.
    """

    values: Floats
    kinds: npt.NDArray[np.int64]
    extremes: Floats
    block_size: int
    code: bool = False
    subject: int = UNKNOWN_SUBJECT

    def of(self, kind: str) -> Floats:
        """Return the ratios of one kind of block, (n, families)."""
        found: Floats = self.values[self.kinds == KINDS.index(kind)]
        return found

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.values)


def extremes_of(measured: Measured) -> Floats:
    """Return the extremes of some measures over each kind of block, float32 (len(EXTREMES),).

    Zeros for a kind of which there is no block.
    """
    parts: list[npt.NDArray[np.floating]] = []
    for kind in KINDS:
        rows: Floats = np.sort(getattr(measured, kind)[:, _PLACES[kind]], axis=0)
        if len(rows):
            parts += [rows[-1], rows[max(len(rows) - 2, 0)], rows[0], exact.mean(rows, 0)]
        else:
            parts.append(np.zeros(len(_EXTREMES) * rows.shape[1], np.float32))
    found: Floats = np.concatenate(parts).astype(np.float32)
    return found


def session_inputs(ratios: Ratios, evidence: npt.NDArray[np.floating]) -> Floats:
    """Return what a session's detectors read, float32 (families, len(SESSION_COLUMNS)).

    Args:
        ratios: Of one block at least.
        evidence: Of `evidence_for`, (families,).
    """
    ordered = np.sort(ratios.values, axis=0)
    count, families = ordered.shape
    whole = ratios.of("whole")
    middle = exact.mean(ordered, 0)
    columns = [
        evidence,
        middle,
        ordered[-1],
        ordered[-2] if count > 1 else ordered[-1],
        _quantile(ordered, 0.75),
        _quantile(ordered, 0.25),
        ordered[0],
        np.sqrt(exact.mean((ordered - middle) ** 2, 0)),
        (ordered > 0).mean(axis=0),
        (ordered > 2.0).mean(axis=0),
        *_of_kind(ratios.of("block")),
        *_of_kind(whole),
        np.full(families, exact.log2(count)),
        np.full(families, exact.log2(1 + len(whole))),
        np.full(families, exact.log2(ratios.block_size)),
    ]
    others = np.broadcast_to(evidence, (families, families))
    told = np.broadcast_to(ratios.extremes, (families, len(EXTREMES)))
    rows = np.minimum(np.concatenate([np.stack(columns, axis=1), others], axis=1), _MOST)
    found: Floats = np.concatenate([rows, told], axis=1).astype(np.float32)
    return found


def _of_kind(values: Floats) -> list[npt.NDArray[np.floating]]:
    if not len(values):
        return [np.zeros(values.shape[1], np.float32)] * len(_OF_KIND)
    ordered = np.sort(values, axis=0)
    return [exact.mean(ordered, 0), ordered[-1], ordered[max(len(ordered) - 2, 0)], ordered[0]]


def _quantile(ordered: Floats, share: float) -> npt.NDArray[np.float64]:
    """Return a quantile of ascending rows, on the line between the two next to it."""
    at = share * (len(ordered) - 1)
    low = int(at)
    below, above = ordered[[low, min(low + 1, len(ordered) - 1)]].astype(np.float64)
    found: npt.NDArray[np.float64] = below + (at - low) * (above - below)
    return found
