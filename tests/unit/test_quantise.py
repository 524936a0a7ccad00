"""int8-symmetric rows: their bytes, their rounding, and what is refused."""

from __future__ import annotations

import struct
from typing import Literal

import numpy as np
import pytest

from coin_protocol.errors import QuantisationError
from coin_protocol.quantise import dequantise, quantise, row_bytes

TINY = float(np.finfo(np.float32).tiny)
SIGNALLING_NAN = struct.unpack("<d", bytes.fromhex("010000000000f07f"))[0]


def encoded(*numbers: float) -> bytes:
    raw: bytes = quantise(np.array([numbers]))[0].tobytes()
    return raw


def row(scale: float, *steps: int) -> bytes:
    return struct.pack("<f", scale) + struct.pack(f"{len(steps)}b", *steps)


def test_a_row_is_a_little_endian_float32_scale_then_signed_bytes() -> None:
    assert encoded(127.0, -127.0, 3.0, 0.0) == b"\x00\x00\x80\x3f" + b"\x7f\x81\x03\x00"
    assert encoded(254.0, -2.0) == b"\x00\x00\x00\x40" + b"\x7f\xff"
    assert row_bytes(4) == 8


def test_halves_go_to_the_even_step() -> None:
    halves = [0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, 125.5, 126.5]
    assert encoded(127.0, *halves) == row(1.0, 127, 0, 2, 2, 4, 0, -2, -2, 126, 126)


def test_the_largest_entry_is_always_step_127() -> None:
    # float32 rounds these scales down, so that the entry divided by its scale passes 127.
    tops = np.random.default_rng(1).uniform(0.01, 100.0, (1000, 1))
    scales = (tops / 127).astype(np.float32)
    assert (tops / scales.astype(np.float64) > 127.0).any()
    assert (quantise(np.hstack([tops, -tops]))[:, 4:].view(np.int8) == [127, -127]).all()


def test_every_step_from_minus_127_to_127_is_encoded_and_decoded() -> None:
    every = list(range(-127, 128))
    assert encoded(*map(float, every)) == row(1.0, *every)
    assert dequantise([row(1.0, *every)], 255).tolist() == [every]
    assert dequantise([row(1.0, 127, -1)], 2).dtype == np.float64


def test_decoded_numbers_are_products_in_float64() -> None:
    scale = float(np.float32(0.1))
    assert dequantise([row(scale, 127, 3)], 2).tolist() == [[127 * scale, 3 * scale]]


def test_each_vector_has_its_own_scale() -> None:
    vectors = np.array([[127.0, 1.0], [254.0, 2.0]])
    assert [entry.tobytes() for entry in quantise(vectors)] == [row(1.0, 127, 1), row(2.0, 127, 1)]
    assert dequantise([row(1.0, 127, 1), row(2.0, 127, 1)], 2).tolist() == vectors.tolist()


def test_no_vectors_make_no_rows() -> None:
    assert quantise(np.empty((0, 3))).shape == (0, 7)
    assert dequantise([], 3).shape == (0, 3)


def test_the_vectors_that_are_quantised_stay_as_they_were() -> None:
    vectors = np.array([[0.3, -0.7]])
    quantise(vectors)
    assert vectors.tolist() == [[0.3, -0.7]]


@pytest.mark.parametrize("told", ["warn", "raise"])
@pytest.mark.parametrize(
    "bad",
    [
        [0.0, 0.0],
        [-0.0, 0.0],
        [np.nan, 1.0],
        [1.0, np.nan],
        [SIGNALLING_NAN, 1.0],
        [np.inf, 1.0],
        [1.0, -np.inf],
        [1e308, 0.0],
        [5e-324, 0.0],
        [TINY, 0.0],
        [126.9 * TINY, 0.0],
    ],
    ids=str,
)
def test_a_vector_without_a_float32_scale_is_refused_by_its_number_whatever_numpy_is_told(
    bad: list[float], told: Literal["warn", "raise"]
) -> None:
    with np.errstate(all=told), pytest.raises(QuantisationError, match="vector 1 "):
        quantise(np.array([[1.0, 2.0], bad, [3.0, 4.0]]))


def test_the_smallest_and_the_greatest_scale_are_taken() -> None:
    greatest = float(np.finfo(np.float32).max)
    for scale in (TINY, greatest):
        rows = quantise(np.array([[127 * scale, -scale]]))
        assert rows[0].tobytes() == row(scale, 127, -1)
        assert dequantise([rows[0].tobytes()], 2).tolist() == [[127 * scale, -scale]]


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((1, 2), np.float32),
        np.ones((1, 2), np.int64),
        np.ones((1, 2), np.complex128),
        np.ones(2),
        np.ones((1, 2, 2)),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_only_float64_matrices_are_quantised(bad: np.ndarray[tuple[int, ...], np.dtype]) -> None:
    with pytest.raises(QuantisationError, match="wanted a float64 array"):
        quantise(bad)


def test_vectors_of_no_numbers_are_refused() -> None:
    with pytest.raises(QuantisationError):
        quantise(np.empty((1, 0)))
    with pytest.raises(QuantisationError):
        dequantise([row(1.0)], 0)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        row(1.0, 127),
        row(1.0, 127, 0, 0),
        struct.pack("<f", 1.0),
    ],
    ids=lambda raw: f"{len(raw)} bytes",
)
def test_a_row_of_another_length_is_refused_by_its_number(bad: bytes) -> None:
    with pytest.raises(QuantisationError, match=f"row 1 has {len(bad)} bytes, wanted 6"):
        dequantise([row(1.0, 127, 0), bad], 2)


@pytest.mark.parametrize(
    "bad",
    [
        row(0.0, 127, 0),
        row(-0.0, 127, 0),
        row(-1.0, 127, 0),
        row(float("nan"), 127, 0),
        row(float("inf"), 127, 0),
        row(TINY / 2, 127, 0),
        row(1.0, -128, 127),
        row(1.0, 126, -126),
        row(1.0, 0, 0),
    ],
    ids=["zero", "minus-zero", "negative", "nan", "inf", "denormal", "-128", "unscaled", "blank"],
)
def test_bytes_that_quantise_never_gives_are_refused_by_their_number(bad: bytes) -> None:
    with pytest.raises(QuantisationError, match="row 2 is not an int8-symmetric encoding"):
        dequantise([row(1.0, 127, 0), row(1.0, 0, -127), bad], 2)
