"""From the blocks of a session to the session: honest text that is odd is odd throughout."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.mlp import Floats

STATISTICS: Final = (
    "evidence", "mean", "max", "second", "upper", "lower", "min", "spread", "positive", "strong",
    "blocks", "whole",
)  # fmt: skip
"""Of one family's log likelihood ratios over a session's blocks."""

SESSION_COLUMNS: Final = (*STATISTICS, *(f"evidence_{family}" for family in FAMILIES))


def session_inputs(ratios: Floats, evidence: npt.NDArray[np.floating], *, whole: int) -> Floats:
    """Return what a session's detectors read, float32 (families, len(SESSION_COLUMNS)).

    Args:
        ratios: Log likelihood ratios, float32 (blocks, families), one block at least.
        evidence: Of `evidence_for`, (families,).
        whole: Blocks among them that were opened whole.
    """
    ordered = np.sort(ratios, axis=0)
    count, families = ratios.shape
    found = np.stack(
        [
            evidence,
            ratios.mean(axis=0),
            ordered[-1],
            ordered[-2] if count > 1 else ordered[-1],
            np.quantile(ordered, 0.75, axis=0),
            np.quantile(ordered, 0.25, axis=0),
            ordered[0],
            ratios.std(axis=0),
            (ratios > 0).mean(axis=0),
            (ratios > 2.0).mean(axis=0),
            np.full(families, np.log2(count)),
            np.full(families, float(np.log2(1 + whole))),
        ],
        axis=1,
    )
    others = np.broadcast_to(np.minimum(evidence, 30.0), (families, families))
    rows: Floats = np.concatenate([np.minimum(found, 30.0), others], axis=1).astype(np.float32)
    return rows
