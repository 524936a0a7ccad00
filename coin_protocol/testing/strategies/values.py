"""Plain values: sizes, times, digests, nonces, names.

Strategies are kept where they do not depend on a draw: Hypothesis takes longer to look one over
than to draw from it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol.errors import InvalidInputError
from coin_protocol.keyset import stamp
from coin_protocol.limits import (
    HASH_BYTES,
    MAX_NAME_BYTES,
    NONCE_MAX_BYTES,
    NONCE_MIN_BYTES,
    SESSION_ID_BYTES,
)

Ints = SearchStrategy[int] | None
"""An option that narrows a number; None for whatever is usual."""

EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
LATEST: Final = datetime.max.replace(tzinfo=UTC)
_SIMPLEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)

COUNTS: Final = st.integers(0, 1 << 24)
"""Numbers of tokens that are billed."""

CHARACTERS: Final = st.characters(codec="utf-8")


def awkward_sizes(block_size: int, most: int, *, least: int = 0) -> list[int]:
    """Return the sizes at which implementations go wrong, ascending, `least` to `most`.

    They are 0 and 1, powers of two, one or two blocks and blocks by powers of two, `2^k + 1`
    blocks, and the ends of the range: each also one less and one more.
    """
    powers = [1 << bit for bit in range(most.bit_length() + 1)]
    counts = [1, *(power + more for power in powers for more in (0, 1))]
    marks = {0, least, most, *powers, *(count * block_size for count in counts)}
    near = {mark + off for mark in marks for off in (-1, 0, 1)}
    return sorted(size for size in near if least <= size <= most)


@lru_cache(maxsize=256)
def sizes(block_size: int = 8, most: int = 40, *, least: int = 0) -> SearchStrategy[int]:
    """Return a strategy of token counts, half of them awkward; shrinks to the smallest.

    Args:
        block_size: Of the profile.
        most: Greatest count.
        least: Smallest count.

    Raises:
        InvalidInputError: There is no such count.
    """
    if not 0 <= least <= most or block_size < 1:
        msg = f"wanted 0 <= least <= most and a block; found {least}, {most} and {block_size}"
        raise InvalidInputError(msg)
    return _sizes(awkward_sizes(block_size, most, least=least), least, most)


@st.composite
def _sizes(draw: st.DrawFn, marks: Sequence[int], least: int, most: int) -> int:
    # The number comes first and bounds what it may be taken for: so the smallest number that
    # will do is also the smallest choice.
    number = draw(st.integers(least, most))
    reached = bisect_right(marks, number)
    which = draw(st.integers(0, 2 * reached))
    return marks[which - 1] if 1 <= which <= reached else number


@lru_cache(maxsize=256)
def times(least: datetime = EARLIEST, most: datetime = LATEST) -> SearchStrategy[datetime]:
    """Return a strategy of aware UTC datetimes; shrinks towards the year 2000."""
    # One choice: shrinking seven for each time would take most of what shrinking takes.
    return st.integers((least - _SIMPLEST) // _TICK, (most - _SIMPLEST) // _TICK).map(
        lambda ticks: _SIMPLEST + ticks * _TICK
    )


@lru_cache(maxsize=256)
def timestamps(least: datetime = EARLIEST, most: datetime = LATEST) -> SearchStrategy[Timestamp]:
    """Return a strategy of protobuf times that readers take, to the nanosecond."""
    return st.builds(_timestamp, times(least, most), st.integers(0, 999))


def _timestamp(time: datetime, nanoseconds: int) -> Timestamp:
    found = stamp(time)
    found.nanos += nanoseconds
    return found


@cache
def digests() -> SearchStrategy[bytes]:
    """Return a strategy of SHA-256 digests, 32 bytes."""
    return st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)


@cache
def session_ids() -> SearchStrategy[bytes]:
    """Return a strategy of session ids, 16 bytes."""
    return st.binary(min_size=SESSION_ID_BYTES, max_size=SESSION_ID_BYTES)


@cache
def client_nonces() -> SearchStrategy[bytes]:
    """Return a strategy of client nonces, 16 to 64 bytes."""
    return st.binary(min_size=NONCE_MIN_BYTES, max_size=NONCE_MAX_BYTES)


@cache
def names() -> SearchStrategy[str]:
    """Return a strategy of names, 1 to 256 bytes of UTF-8."""
    # No character has more than four bytes.
    short = st.text(CHARACTERS, min_size=1, max_size=MAX_NAME_BYTES // 4)
    return short | st.sampled_from(("x" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2)))
