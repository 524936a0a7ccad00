"""Quantised vectors: how far they are from the original, and that nothing else passes."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coin_protocol.errors import QuantisationError
from coin_protocol.quantise import dequantise, quantise, row_bytes
from tests.support.examples import examples

Vectors = npt.NDArray[np.float64]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
# Far inside what a float32 scale can hold, so that no vector but zero is refused.
ENTRIES = st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30) | st.floats(-10, 10)
USABLE = hnp.arrays(np.float64, SHAPES, elements=ENTRIES).filter(
    lambda vectors: bool((np.abs(vectors).max(axis=1) > 1e-30).all())
)
ANY_VECTORS = hnp.arrays(np.float64, SHAPES, elements=st.floats())
ANY_ROWS = st.integers(1, 6).flatmap(
    lambda dimension: st.tuples(
        st.lists(
            st.builds(
                lambda scale, steps: struct.pack("<f", scale) + bytes(steps),
                st.floats(width=32),
                st.lists(
                    st.sampled_from([0, 1, 126, 127, 128, 129, 255]),
                    min_size=dimension,
                    max_size=dimension,
                ),
            )
            | st.binary(max_size=12),
            min_size=1,
            max_size=4,
        ),
        st.just(dimension),
    )
)


def rows_of(vectors: Vectors) -> list[bytes]:
    return [row.tobytes() for row in quantise(vectors)]


@given(vectors=USABLE)
@examples(200)
def test_no_entry_moves_by_more_than_half_a_step(vectors: Vectors) -> None:
    back = dequantise(rows_of(vectors), vectors.shape[1])
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
    # The scale is rounded to float32: 127 steps of it may be off by 2^-24 of the top.
    bound = steps * (0.5 + 127 * 2.0**-23)
    assert (np.abs(back - vectors) <= bound).all()


@given(vectors=USABLE)
@examples(200)
def test_what_was_quantised_once_is_quantised_the_same_again(vectors: Vectors) -> None:
    rows = rows_of(vectors)
    assert rows_of(dequantise(rows, vectors.shape[1])) == rows


@given(vectors=USABLE)
@examples(100)
def test_a_row_does_not_depend_on_the_rows_beside_it(vectors: Vectors) -> None:
    alone = [rows_of(vectors[number : number + 1])[0] for number in range(len(vectors))]
    assert rows_of(vectors) == alone


@given(vectors=USABLE)
@examples(100)
def test_the_opposite_vector_has_the_same_scale_and_opposite_steps(vectors: Vectors) -> None:
    for row, opposite in zip(rows_of(vectors), rows_of(-vectors), strict=True):
        assert opposite[:4] == row[:4]
        steps, others = np.frombuffer(row[4:], np.int8), np.frombuffer(opposite[4:], np.int8)
        assert (steps == -others).all()


@given(vectors=ANY_VECTORS)
@examples(300)
def test_any_vectors_are_refused_or_give_rows_that_decode(vectors: Vectors) -> None:
    try:
        rows = rows_of(vectors)
    except QuantisationError:
        return
    assert np.isfinite(vectors).all()
    assert {len(row) for row in rows} == {row_bytes(vectors.shape[1])}
    assert np.isfinite(dequantise(rows, vectors.shape[1])).all()


@given(rows_and_dimension=ANY_ROWS)
@examples(500)
def test_any_rows_are_refused_or_are_those_of_some_vectors(
    rows_and_dimension: tuple[list[bytes], int],
) -> None:
    rows, dimension = rows_and_dimension
    try:
        vectors = dequantise(rows, dimension)
    except QuantisationError:
        return
    assert rows_of(vectors) == rows
