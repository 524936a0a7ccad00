"""Sums that do not depend on their order, and functions that do not depend on a library."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coin_protocol.errors import ConfigurationError
from tests.support.judges import numbers, units
from verifier_sdk.semantic import exact
from verifier_sdk.semantic.exact import Linear

Numbers = npt.NDArray[np.float64]

values = arrays(
    np.float64,
    st.integers(1, 300),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    fill=st.nothing(),
)
seeds = st.integers(0, 2**32 - 1)


def shuffled(found: npt.NDArray[Any], seed: int, axis: int = 0) -> Any:
    order = np.random.default_rng(seed).permutation(found.shape[axis])
    return found.take(order, axis)


def fraction_of(row: Numbers, column: Numbers) -> Fraction:
    return sum(
        (Fraction(a) * Fraction(b) for a, b in zip(row.tolist(), column.tolist(), strict=True)),
        Fraction(0),
    )


# Sums


@given(values, seeds)
def test_a_sum_has_the_same_bits_in_any_order(found: Numbers, seed: int) -> None:
    assert exact.total(shuffled(found, seed)) == exact.total(found)
    assert exact.mean(shuffled(found, seed)) == exact.mean(found)


@given(values)
def test_a_sum_is_that_of_the_rounded_numbers_exactly(found: Numbers) -> None:
    rounded = exact.addends(found, len(found))
    assert Fraction(float(rounded.sum())) == sum(map(Fraction, rounded.tolist()))
    step = 2.0 ** math.frexp(float(np.abs(found).max()))[1] * len(found) * 2.0**-51
    assert float(np.abs(rounded - found).max()) <= max(step, 2.0**-37)


def test_the_plain_sum_depends_on_the_order() -> None:
    # Or all this would be in vain.
    found = numbers(1000).astype(np.float64) ** 3
    assert len({float(shuffled(found, seed).sum()) for seed in range(30)}) > 1


@given(seeds)
def test_groups_are_summed_alike_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 5, 60)
    rows = rng.normal(size=(60, 3))
    order = rng.permutation(60)
    found = exact.group_totals(rows, owner, 5)
    assert np.array_equal(exact.group_totals(rows[order], owner[order], 5), found)
    expected = [rows[owner == group].sum(axis=0) for group in range(5)]
    assert np.allclose(found, expected, atol=1e-8)
    assert exact.group_totals(rows[:0], owner[:0], 2).tolist() == [[0.0] * 3] * 2


@given(seeds, st.sampled_from([1.0, 37.0, 5e4]), st.sampled_from([1, 64, 300]))
def test_rows_on_bits_found_once_are_summed_alike_in_any_order(
    seed: int, most: float, width: int
) -> None:
    rows = np.random.default_rng(seed).uniform(-most, most, (4, width))
    rows[0] = most
    bits = exact.bits_for(most, width)
    found = exact.row_totals(rows, bits)
    assert np.array_equal(exact.row_totals(shuffled(rows, seed, 1), bits), found)
    assert np.allclose(found, rows.sum(axis=1), atol=width * 2.0 ** -(bits + 1))
    assert float(found[0]) == pytest.approx(most * width, rel=1e-9)


@pytest.mark.parametrize("most", [1e12, float("inf"), float("nan")])
def test_numbers_too_large_to_sum_on_fine_bits_are_refused(most: float) -> None:
    with pytest.raises(ConfigurationError, match="smaller weights"):
        exact.bits_for(most, 64)


# Products


@given(seeds, st.sampled_from([12, 96, 384, 1024]))
def test_products_of_vectors_have_the_same_bits_in_any_order(seed: int, dimension: int) -> None:
    left, right = units(3, dimension, seed=seed), 1.4 * units(5, dimension, seed=seed + 1)
    order = np.random.default_rng(seed).permutation(dimension)
    found = exact.product(left, right.T)
    assert np.array_equal(exact.product(left[:, order], right.T[order]), found)
    # A library takes other ways for other shapes.
    for row in range(3):
        for column in range(5):
            alone = exact.product(left[row : row + 1], right[column : column + 1].T)
            assert alone[0, 0] == found[row, column]
    assert np.allclose(found, left @ right.T, atol=1e-6)


def test_a_product_is_exact_to_the_last_bit() -> None:
    left, right = units(4, 384), 2.0 * units(4, 384, seed=1)
    found = exact.product(left, right.T)
    rows, columns = (exact.rounded(one, exact.VECTOR_BITS) for one in (left, right))
    for at in range(4):
        assert Fraction(float(found[at, at])) == fraction_of(rows[at], columns[at])


@pytest.mark.parametrize("count", [1, 2, 27, 28, 500])
def test_rows_taken_a_few_at_a_time_are_all_there(count: int) -> None:
    left, right = units(count, 96), units(100, 96, seed=1)
    found = exact.product(left, right.T)
    assert found.shape == (count, 100)
    assert np.allclose(found, left @ right.T, atol=1e-6)
    many = units(count, 4, 96).reshape(count, 4, 96)
    assert np.allclose(
        exact.product(many, many.transpose(0, 2, 1)), many @ many.transpose(0, 2, 1), atol=1e-6
    )


# Vectors


@given(seeds, st.sampled_from([2, 12, 96, 1024]), st.sampled_from([0.1, 1.0, 300.0]))
def test_norms_do_not_depend_on_the_order_of_numbers(
    seed: int, dimension: int, scale: float
) -> None:
    rows = scale * numbers(4, dimension, seed=seed).astype(np.float64)
    order = np.random.default_rng(seed).permutation(dimension)
    assert np.array_equal(exact.norms(rows[:, order]), exact.norms(rows))
    assert np.allclose(exact.norms(rows), np.linalg.norm(rows, axis=1), rtol=1e-4)
    assert np.allclose(exact.norms(exact.unit(rows)), 1.0, atol=1e-8)


def test_a_zero_vector_stays_zero() -> None:
    assert exact.unit(np.zeros((2, 3))).tolist() == [[0.0] * 3] * 2


@given(seeds)
def test_vectors_that_differ_in_their_last_bits_settle_alike(seed: int) -> None:
    rows = units(5, 96, seed=seed)
    other = rows * (1.0 + 4e-16 * np.random.default_rng(seed).normal(size=rows.shape))
    assert np.array_equal(exact.settled(other), exact.settled(rows))
    assert np.allclose(exact.settled(rows), rows, atol=2.0**-12)
    assert np.allclose(np.linalg.norm(exact.settled(rows), axis=1), 1.0, atol=1e-9)


# Functions


def correct(name: str, value: float) -> float:
    """Return a logarithm or exponential, correctly rounded."""
    with localcontext() as context:
        context.prec = 60
        exactly = Decimal(value)
        if name == "log2":
            return float(exactly.ln() / Decimal(2).ln())
        return float(exactly.exp() if name == "exp" else exactly.ln())


@given(st.floats(-600, 600))
def test_exponentials_are_right_to_a_few_last_bits(value: float) -> None:
    assert exact.exp(value) == pytest.approx(correct("exp", value), rel=5e-16)


@given(st.floats(1e-300, 1e300))
def test_logarithms_are_right_to_a_few_last_bits(value: float) -> None:
    for name, found in (("log", exact.log(value)), ("log2", exact.log2(value))):
        assert found == pytest.approx(correct(name, value), rel=5e-16, abs=1e-16)


@given(values)
def test_arrays_are_computed_as_single_numbers_are(found: Numbers) -> None:
    small = found / 2e3
    assert exact.exps(small).tolist() == [exact.exp(one) for one in small.tolist()]
    positive = np.abs(found) + 1e-9
    assert exact.logs(positive).tolist() == [exact.log(one) for one in positive.tolist()]


def test_logarithms_of_powers_of_two_are_whole() -> None:
    assert [exact.log2(2.0**power) for power in range(-40, 41)] == list(range(-40, 41))
    assert (exact.log(1.0), exact.exp(0.0)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("found", "bits"),
    [
        (exact.exp(1.0), "0x1.5bf0a8b14576ap+1"),
        (exact.exp(-30.0), "0x1.a56e0c2ac7f75p-44"),
        (exact.log(10.0), "0x1.26bb1bbb55516p+1"),
        (exact.log(0.04), "-0x1.9c041f7ed8d33p+1"),
        (exact.log2(10.0), "0x1.a934f0979a371p+1"),
    ],
)
def test_these_have_the_same_bits_on_every_machine(found: float, bits: str) -> None:
    assert found.hex() == bits


# Layers


@given(seeds)
def test_a_layer_gives_a_row_the_same_bits_in_any_company(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = Linear.of(rng.normal(size=(193, 48)), rng.normal(size=48), most=8.0)
    rows = rng.uniform(-8, 8, size=(40, 193))
    found = layer(rows)
    assert np.array_equal(layer(rows[7:8])[0], found[7])
    order = rng.permutation(193)
    turned = Linear(layer.weights[order], layer.bias, layer.bits, layer.most)
    assert np.array_equal(turned(rows[:, order]), found)
    assert float(np.abs(found).max()) <= layer.most


def test_a_layer_is_exact_even_where_every_product_is_as_large_as_can_be() -> None:
    weights = np.full((200, 1), 3.7)
    layer = Linear.of(weights, np.zeros(1), most=8.0)
    row = np.full((1, 200), 8.0)
    wanted = fraction_of(exact.rounded(row, layer.bits)[0], layer.weights[:, 0])
    assert Fraction(float(layer(row)[0, 0])) == wanted


@pytest.mark.parametrize("weights", [np.full((4, 2), 1e9), np.full((4, 2), np.inf)])
def test_weights_too_large_for_exact_sums_are_refused(weights: Numbers) -> None:
    with pytest.raises(ConfigurationError, match="smaller weights"):
        Linear.of(weights, np.zeros(2), most=8.0)
