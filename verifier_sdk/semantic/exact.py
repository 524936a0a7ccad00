"""Arithmetic that gives the same bits on every machine (protocol, section 9). Pure numpy.

Sums in floating point depend on their order, and every processor, library and number of threads
has an order of its own. Here whatever is added up is first rounded to multiples of a power of two
that are coarse enough for the sum to be exact, in any order. All else is left to what IEEE 754
rounds in one way only: `+ - * /` and square roots; exponentials and logarithms, which it leaves
open, are built of those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import ConfigurationError

Numbers = npt.NDArray[np.float64]
AnyFloats = npt.NDArray[np.floating[Any]]

N = TypeVar("N", float, Numbers)

VECTOR_BITS: Final = 25
"""Entries of vectors are rounded to multiples of 2^-25 before they are multiplied: products of
vectors of norm 2 or less are then exact. No window that passes the checks is longer."""

SUM_BITS: Final = 36
"""What is summed is rounded to multiples of 2^-36, coarser where the sum could pass 2^16."""

_SQUARE_BITS: Final = 42
"""The same of squares, which are smaller: those of unit vectors of up to 1,024 numbers."""

_MANTISSA: Final = 53

SETTLED_BITS: Final = 12
"""Vectors that a machine computes in float64 are rounded to multiples of 2^-12. Machines differ by
1e-15, so a number in 10^11 lies where two of them would round it differently."""

_LEAST_BITS: Final = 12

_ALONE: Final = 1 << 18
"""Multiplications that OpenBLAS does without further threads."""

_LN2_HIGH: Final = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
"""Of 0.693…: the high part has 33 bits, so its products with exponents are exact."""

_EXP: Final = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))
_ATANH: Final = tuple(1.0 / n for n in range(23, 0, -2))


def rounded(values: AnyFloats, bits: int) -> Numbers:
    """Return values rounded to multiples of 2^-bits, ties to even."""
    found: Numbers = np.multiply(values, 2.0**bits, dtype=np.float64)
    np.rint(found, out=found)
    found *= 2.0**-bits
    return found


def settled(vectors: Numbers) -> Numbers:
    """Return unit vectors as every machine has them.

    Args:
        vectors: Unit vectors that were computed here, float64 (n, d).
    """
    return unit(rounded(vectors, SETTLED_BITS))


def product(left: AnyFloats, right: AnyFloats) -> Numbers:
    """Return the matrix products of rows (…, n, d) and columns (…, d, m) of norm 2 or less."""
    return times(rounded(left, VECTOR_BITS), rounded(right, VECTOR_BITS))


def times(left: Numbers, right: Numbers) -> Numbers:
    """Return the matrix product of what was rounded so that it is exact.

    A few rows at a time: for more, libraries start threads, which at these sizes wait for each
    other longer than they work.
    """
    step = max(1, _ALONE // max(right.size, 1))
    if left.ndim > 2 or len(left) <= step:
        found: Numbers = left @ right
        return found
    found = np.empty((len(left), right.shape[1]))
    for start in range(0, len(left), step):
        np.matmul(left[start : start + step], right, out=found[start : start + step])
    return found


def bits_for(most: float, count: int) -> int:
    """Return the bits on which sums are exact, of `count` numbers of magnitude up to `most`.

    Raises:
        ConfigurationError: They would be too coarse to judge by.
    """
    bits = min(SUM_BITS, _MANTISSA - 1 - math.frexp(most)[1] - count.bit_length())
    if not math.isfinite(most) or bits < _LEAST_BITS:
        raise _too_coarse(most * count, bits)
    return bits


def row_totals(values: Numbers, bits: int) -> Numbers:
    """Return the sums of rows (n, d) of numbers that `bits` were found for, (n,)."""
    whole = values * 2.0**bits
    np.rint(whole, out=whole)
    sums: Numbers = whole.sum(axis=1) * 2.0**-bits
    return sums


def addends(values: AnyFloats, count: int, *, bits: int = SUM_BITS) -> Numbers:
    """Return values rounded so that sums of `count` of them are exact.

    Args:
        values: Finite numbers.
        count: How many are summed at most.
        bits: They are rounded to multiples of 2^-bits, or coarser where they have to be.
    """
    most = float(np.abs(values).max(initial=0.0))
    exact = _MANTISSA - 1 - math.frexp(most)[1] - count.bit_length()
    return rounded(values, min(bits, exact))


def total(values: AnyFloats, axis: int | None = None) -> Numbers:
    """Return sums along an axis, or of everything."""
    count = values.size if axis is None else values.shape[axis]
    return np.asarray(addends(values, count).sum(axis=axis))


def mean(values: AnyFloats, axis: int | None = None) -> Numbers:
    """Return means along an axis, or of everything; there must be something."""
    count = values.size if axis is None else values.shape[axis]
    return total(values, axis) / count


def group_totals(values: AnyFloats, owner: npt.NDArray[np.int64], groups: int) -> Numbers:
    """Return the sums of the rows of each group, (groups, ...).

    Args:
        values: (n, ...).
        owner: Whose each row is, int64 (n,), from 0.
        groups: How many there are.
    """
    sums = np.zeros((groups, *values.shape[1:]))
    np.add.at(sums, owner, addends(values, len(values)))
    return sums


def norms(rows: AnyFloats) -> Numbers:
    """Return Euclidean norms of rows (n, d), (n,)."""
    wide = rows.astype(np.float64)
    squares = addends(wide * wide, rows.shape[-1], bits=_SQUARE_BITS)
    lengths: Numbers = np.sqrt(squares.sum(axis=-1))
    return lengths


def unit(rows: AnyFloats) -> Numbers:
    """Scale rows (n, d) to norm 1; zero rows stay zero."""
    lengths = norms(rows)[..., None]
    return np.divide(rows, lengths, out=np.zeros(rows.shape), where=lengths > 0)


def exp(value: float) -> float:
    """Return e^value, of a number between -700 and 700."""
    power = round(value / (_LN2_HIGH + _LN2_LOW))
    return math.ldexp(_series(_EXP, value - power * _LN2_HIGH - power * _LN2_LOW), power)


def log(value: float) -> float:
    """Return the natural logarithm of a positive number."""
    mantissa, power = math.frexp(value)
    if mantissa < _ROOT_HALF:
        mantissa, power = 2.0 * mantissa, power - 1
    return _log(mantissa, float(power))


def exps(values: AnyFloats) -> Numbers:
    """Return e^value of each number, as `exp` does."""
    wide = values.astype(np.float64)
    powers = np.rint(wide / (_LN2_HIGH + _LN2_LOW))
    rest = wide - powers * _LN2_HIGH - powers * _LN2_LOW
    return np.ldexp(_series(_EXP, rest), powers.astype(np.int64))


def logs(values: AnyFloats) -> Numbers:
    """Return the natural logarithm of each number, as `log` does."""
    mantissa, power = np.frexp(values.astype(np.float64))
    low = mantissa < _ROOT_HALF
    return _log(np.where(low, 2.0 * mantissa, mantissa), (power - low).astype(np.float64))


def log2(value: float) -> float:
    """Return the logarithm to base 2 of a positive number; of a power of two it is whole."""
    mantissa, power = math.frexp(value)
    if mantissa < _ROOT_HALF:
        mantissa, power = 2.0 * mantissa, power - 1
    return power + _log(mantissa, 0.0) / (_LN2_HIGH + _LN2_LOW)


_ROOT_HALF: Final = 0.7071067811865476


def _log(mantissa: N, power: N) -> N:
    """Return log(mantissa * 2^power), of a mantissa between the roots of 1/2 and of 2."""
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    small = 2.0 * ratio * _series(_ATANH, ratio * ratio)
    return power * _LN2_HIGH + (power * _LN2_LOW + small)


def _series(coefficients: tuple[float, ...], at: N) -> N:
    """Return a polynomial, highest power first, by Horner's rule."""
    return reduce(lambda sum_, one: sum_ * at + one, coefficients[1:], at * 0.0 + coefficients[0])


@dataclass(frozen=True)
class Linear:
    """A linear layer whose sums are exact.

    Attributes:
        weights: Multiples of 2^-bits, float64 (inputs, outputs).
        bias: float64 (outputs,).
        bits: Inputs are rounded to multiples of 2^-bits, too.
        most: Greatest magnitude of an output.
    """

    weights: Numbers
    bias: Numbers
    bits: int
    most: float

    @classmethod
    def of(cls, weights: AnyFloats, bias: AnyFloats, *, most: float) -> Linear:
        """Take a layer.

        Args:
            weights: (inputs, outputs).
            bias: (outputs,).
            most: Greatest magnitude of an input.

        Raises:
            ConfigurationError: Weights are so large that sums could be exact only on numbers
                too coarse to judge by.
        """
        heaviest = float(np.abs(weights.astype(np.float64)).sum(axis=0).max(initial=0.0))
        # Rounding may raise each weight, by less than this.
        bound = most * (heaviest + len(weights) * 2.0**-_LEAST_BITS)
        bits = min(VECTOR_BITS, (_MANTISSA - 1 - math.frexp(bound)[1]) // 2)
        if not math.isfinite(bound) or bits < _LEAST_BITS:
            raise _too_coarse(bound, bits)
        offset = bias.astype(np.float64)
        return cls(
            rounded(weights, bits), offset, bits, bound + float(np.abs(offset).max(initial=0.0))
        )

    def __call__(self, rows: AnyFloats) -> Numbers:
        """Return float64 (n, outputs) of rows (n, inputs)."""
        return times(rounded(rows, self.bits), self.weights) + self.bias


def _too_coarse(reached: float, bits: int) -> ConfigurationError:
    return ConfigurationError(
        f"a network's sums reach {reached:.3g}: they would be exact on multiples of 2^{-bits}, "
        f"wanted 2^{-_LEAST_BITS} or finer; train it with smaller weights"
    )
