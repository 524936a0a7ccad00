"""Compressed replies are undone within a limit, or refused."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.decoding import Decoder
from coin_protocol.errors import InvalidInputError, LimitError


@given(st.binary(max_size=5000), st.integers(min_value=1, max_value=40))
def test_what_was_compressed_comes_back_in_any_pieces(data: bytes, size: int) -> None:
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for coding, packed in (
        (b"gzip", gzip.compress(data)),
        (b"gzip", gzip.compress(data[:9]) + gzip.compress(data[9:]) + bytes(9)),
        (b"deflate", zlib.compress(data)),
        (b"deflate", bare.compress(data) + bare.flush()),
        (b"identity", data),
    ):
        decoder = Decoder(coding, limit=100_000)
        pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
        assert b"".join(map(decoder.feed, pieces)) == data


def test_a_few_bytes_cannot_stand_for_very_many() -> None:
    with pytest.raises(LimitError, match="more than 1000"):
        Decoder(b"gzip", limit=1000).feed(gzip.compress(b"x" * 1_000_000))
    several = gzip.compress(b"x" * 500)
    assert Decoder(b"gzip", limit=1000).feed(several * 2) == b"x" * 1000
    with pytest.raises(LimitError, match="more than 1000"):
        Decoder(b"gzip", limit=1000).feed(several * 3)


def test_other_codings_and_other_bytes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Decoder(b"br", limit=1000)
    with pytest.raises(InvalidInputError, match="not compressed"):
        Decoder(b"gzip", limit=1000).feed(b"plain text")
