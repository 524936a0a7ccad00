"""Block embeddings as the memory keeps them: `int8-symmetric` rows, compared by exact cosine."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.embedding import Vectors
from coin_protocol.errors import InvalidInputError
from coin_protocol.quantise import SCALE_BYTES, quantise

Rows = npt.NDArray[np.uint8]
Directions = npt.NDArray[np.float32]

_LEAST_NORM: Final = 1e-30
"""Far below any embedding, and far above where a float32 scale ends."""


def encode(vectors: Vectors, dimension: int) -> tuple[Vectors, Rows]:
    """Return vectors at norm 1, float64 (n, dimension), and their rows, uint8 (n, 4 + dimension).

    Raises:
        InvalidInputError: They are not float64 (n, dimension), or one is zero or not finite.
    """
    if vectors.dtype != np.float64 or vectors.ndim != 2 or vectors.shape[1] != dimension:
        msg = (
            f"wanted block embeddings as float64 (n, {dimension}), as the profile has them; "
            f"found {vectors.dtype} {vectors.shape}"
        )
        raise InvalidInputError(msg)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(norms) & (norms > _LEAST_NORM)
    if not usable.all():
        at = int(np.argmin(usable))
        msg = f"block embedding {at} is zero or not finite; wanted vectors of norm 1"
        raise InvalidInputError(msg)
    unit: Vectors = vectors / norms[:, None]
    return unit, quantise(unit)


def directions(rows: Rows) -> Directions:
    """Return what rows decode to, at norm 1: float32 (n, dimension)."""
    steps = _steps(rows).astype(np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", steps, steps))
    # Quantised rows hold a 127; whatever else lies in a database must not become not-a-number.
    steps /= np.maximum(norms, 1.0)[:, None]
    return steps


def cosines(unit: Vectors, rows: Rows) -> Vectors:
    """Return the cosines of vectors to rows of their own, in float64.

    Args:
        unit: Float64 (n, dimension), of norm 1.
        rows: Uint8 (n, k, 4 + dimension): k for each vector.

    Returns:
        Float64 (n, k).
    """
    steps = _steps(rows).astype(np.float64)
    # The scale cancels out.
    norms = np.sqrt(np.einsum("nkd,nkd->nk", steps, steps))
    found: Vectors = np.einsum("nd,nkd->nk", unit, steps) / np.maximum(norms, 1.0)
    return np.clip(found, -1.0, 1.0)


def _steps(rows: Rows) -> npt.NDArray[np.int8]:
    return rows[..., SCALE_BYTES:].view(np.int8)
