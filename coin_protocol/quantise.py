"""`int8-symmetric`: vectors as bytes that every machine computes alike (section 3).

`scale = max|x| / 127` as float32, `q = round_half_even(x / scale)` as int8; encoded as the
scale (4 bytes, little endian), then the d bytes. Quantise float64 only: float32 forward
passes differ in their last bits between machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import QuantisationError

SCALE_BYTES: Final = 4
_TOP: Final = 127


def row_bytes(dimension: int) -> int:
    """Return the length of an encoded vector of `dimension` numbers."""
    return SCALE_BYTES + dimension


def quantise(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Encode float64 vectors of shape (n, d) as uint8 rows of shape (n, 4 + d).

    Raises:
        QuantisationError: A vector is zero, not finite, or too small for a float32 scale.
    """
    if vectors.ndim != 2 or vectors.dtype != np.float64:
        msg = f"wanted a float64 array (n, d); found {vectors.dtype} with {vectors.ndim} axes"
        raise QuantisationError(msg)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        top = np.abs(vectors).max(axis=1, initial=0.0)
        scales = (top / _TOP).astype(np.float32)
    usable = np.isfinite(scales) & (scales >= np.finfo(np.float32).tiny)
    if not usable.all():
        at = int(np.argmin(usable))
        msg = f"vector {at} is zero, not finite or out of the range of a float32 scale"
        raise QuantisationError(msg)
    # float32 rounds the scale: the largest entry may land a hair past 127, and is rounded to it.
    steps = np.rint(vectors / scales[:, None])
    rows = np.empty((len(vectors), SCALE_BYTES + vectors.shape[1]), np.uint8)
    rows[:, :SCALE_BYTES] = scales.astype("<f4").view(np.uint8).reshape(len(rows), SCALE_BYTES)
    rows[:, SCALE_BYTES:] = steps.astype(np.int8).view(np.uint8)
    return rows


def dequantise(rows: Sequence[bytes], dimension: int) -> npt.NDArray[np.float64]:
    """Decode encoded vectors into a float64 array of shape (n, dimension).

    Raises:
        QuantisationError: A row has another length, a scale that is not positive and
            finite, the byte -128, or no entry of magnitude 127, as every vector that was
            quantised has.
    """
    wanted = row_bytes(dimension)
    for number, row in enumerate(rows):
        if len(row) != wanted:
            msg = f"row {number} has {len(row)} bytes, wanted {wanted}"
            raise QuantisationError(msg)
    raw = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), wanted)
    scales = np.ascontiguousarray(raw[:, :SCALE_BYTES]).view("<f4").ravel()
    steps = raw[:, SCALE_BYTES:].view(np.int8)
    good = np.isfinite(scales) & (scales >= np.finfo(np.float32).tiny)
    good &= (steps != -_TOP - 1).all(axis=1)
    good &= (np.abs(steps) == _TOP).any(axis=1)
    if not good.all():
        msg = f"row {int(np.argmin(good))} is not an int8-symmetric encoding"
        raise QuantisationError(msg)
    vectors: npt.NDArray[np.float64] = np.multiply(steps, scales[:, None], dtype=np.float64)
    return vectors
