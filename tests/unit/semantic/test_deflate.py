"""The size that zlib makes of a text, worked out without it, is zlib's own to the byte."""

from __future__ import annotations

import zlib
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.laboratory import traces
from verifier_sdk.semantic.reader import deflate
from verifier_sdk.semantic.reader.deflate import LEVEL, compressed_size, deflated_size

pytestmark = pytest.mark.skipif(
    "ng" in zlib.ZLIB_RUNTIME_VERSION, reason="this Python has another library in place of zlib"
)


def same(raw: bytes) -> bool:
    return deflated_size(raw) == len(zlib.compress(raw, LEVEL))


@pytest.mark.parametrize("length", [1, 40, 300, 1000, 5000])
def test_of_real_text(length: int) -> None:
    for trace in traces()[:6]:
        raw = trace.reasoning.encode()
        for start in range(0, min(len(raw), 4 * length), length):
            assert same(raw[start : start + length])


@given(st.binary(max_size=400))
def test_of_any_bytes(raw: bytes) -> None:
    assert same(raw)


@given(st.text(alphabet="ab ", max_size=600))
def test_of_few_letters(text: str) -> None:
    assert same(text.encode())


@given(
    st.lists(st.sampled_from([b"the", b"air", b"wave", b" ", b"\n", b"so", b"."]), max_size=200),
    st.integers(0, 3),
)
def test_of_words_again_and_again(words: list[bytes], more: int) -> None:
    raw = b"".join(words)
    assert same(raw + raw[: len(raw) // 2] * more)


@pytest.mark.parametrize("distance", [4094, 4095, 4096, 4097, 32_504, 32_505, 32_506, 32_507])
@pytest.mark.parametrize("length", [3, 4, 20])
def test_of_copies_from_far_away(distance: int, length: int) -> None:
    rng = np.random.default_rng(distance)
    copied = rng.integers(200, 256, length, np.uint8).tobytes()
    between = rng.integers(0, 100, distance - length, np.uint8).tobytes()
    assert same(b"x" + copied + between + copied)


@pytest.mark.parametrize("length", [2, 257, 258, 259, 260, 1000, 40_000])
def test_of_one_byte_many_times(length: int) -> None:
    assert same(b"a" * length)


@pytest.mark.parametrize("length", [16_382, 16_383, 16_384, 16_385, 33_000])
def test_of_more_than_one_block(length: int) -> None:
    assert same(np.random.default_rng(length).integers(0, 60, length, np.uint8).tobytes())
    assert same(bytes((at * at * 7 + at // 3) % 251 for at in range(length)))


def test_of_codes_that_would_be_too_long() -> None:
    # Weights that grow like Fibonacci numbers make the deepest trees.
    weights = [1, 1]
    while len(weights) < 20:
        weights.append(weights[-1] + weights[-2])
    letters = np.repeat(np.arange(len(weights), dtype=np.uint8), weights)
    assert same(np.random.default_rng(4).permutation(letters)[:16_000].tobytes())


def test_where_zlib_is_not_itself_the_size_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = traces()[0].reasoning.encode()[:2000]
    wanted = len(zlib.compress(raw, LEVEL))
    fast = partial(zlib.compress, level=1)
    for version, compress in (
        ("1.3.1.zlib-ng", zlib.compress),
        (zlib.ZLIB_RUNTIME_VERSION, lambda found, _: fast(found)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(zlib, "ZLIB_RUNTIME_VERSION", version)
            patch.setattr(zlib, "compress", compress)
            deflate._is_zlib.cache_clear()
            assert compressed_size(raw) == wanted
            assert not deflate._is_zlib()
        deflate._is_zlib.cache_clear()
    assert deflate._is_zlib()
