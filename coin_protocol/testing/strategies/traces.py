"""Token traces, and what a provider makes of them while it generates."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol.commitment import CommitmentBuilder, Prefix, SessionSecret, TokenTree
from coin_protocol.draw import Drawn
from coin_protocol.draw import draw as draw_blocks
from coin_protocol.limits import HASH_BYTES, SESSION_ID_BYTES
from coin_protocol.testing.small import VOCABULARY, small_table
from coin_protocol.testing.strategies.values import Ints, digests, sizes

BLOCK_SIZES = st.integers(1, 16)
"""Of profiles of the small models."""

MOST_TOKENS = 40
"""Of a reply, unless told otherwise."""


@st.composite
def token_ids(draw: st.DrawFn, *, tokens: Ints = None, vocabulary: int = VOCABULARY) -> list[int]:
    """Draw the ids of a trace: whatever, repeating themselves, or all of them 0.

    Args:
        draw: Of Hypothesis.
        tokens: How many; awkward sizes up to 40 by default.
        vocabulary: Ids are below it.
    """
    count = draw(sizes() if tokens is None else tokens)
    width = max(1, (vocabulary.bit_length() + 7) // 8)
    period = draw(st.integers(0, count))
    # One choice for all: a choice for each id would take as long as signing does.
    raw = draw(st.binary(min_size=width * period, max_size=width * period))
    ids = [
        int.from_bytes(raw[at : at + width]) % vocabulary for at in range(0, len(raw), width)
    ] or [0]
    return (ids * -(-count // len(ids)))[:count]


@st.composite
def chunks(draw: st.DrawFn, ids: Sequence[int]) -> list[list[int]]:
    """Draw how a trace streams in: pieces of it in order, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    return [
        list(ids[start:stop]) for start, stop in zip([0, *cuts], [*cuts, len(ids)], strict=True)
    ]


def session_secrets() -> SearchStrategy[SessionSecret]:
    """Return a strategy of session ids with their secrets."""
    return st.builds(
        SessionSecret,
        st.binary(min_size=SESSION_ID_BYTES, max_size=SESSION_ID_BYTES),
        st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES),
    )


@st.composite
def _fed(
    draw: st.DrawFn, tokens: Ints, block_size: Ints, least_blocks: int = 0
) -> tuple[CommitmentBuilder, list[Prefix]]:
    size = draw(BLOCK_SIZES if block_size is None else block_size)
    if tokens is None:
        least = least_blocks * size
        tokens = sizes(size, least + MOST_TOKENS, least=least)
    builder = CommitmentBuilder(
        draw(session_secrets()), block_size=size, fingerprints=small_table().fingerprints
    )
    ids = draw(token_ids(tokens=tokens))
    found = [prefix for piece in draw(chunks(ids)) for prefix in builder.append(piece)]
    return builder, found


def builders(*, tokens: Ints = None, block_size: Ints = None) -> SearchStrategy[CommitmentBuilder]:
    """Return a strategy of builders that took some ids of the small vocabulary.

    Args:
        tokens: How many.
        block_size: Of the profile.
    """
    return _fed(tokens, block_size).map(lambda fed: fed[0])


def token_trees(*, tokens: Ints = None, block_size: Ints = None) -> SearchStrategy[TokenTree]:
    """Return a strategy of finished token trees; options as of `builders`."""
    return _fed(tokens, block_size).map(lambda fed: fed[0].finish())


def prefixes(*, block_size: Ints = None) -> SearchStrategy[Prefix]:
    """Return a strategy of prefixes of a tree, the last of all that ids filled."""
    return _fed(None, block_size, 1).map(lambda fed: fed[1][-1])


@st.composite
def draws(draw: st.DrawFn, *, tokens: Ints = None) -> Drawn:
    """Draw what some challenge drew of some commitment.

    Args:
        draw: Of Hypothesis.
        tokens: Of the commitment; one at least by default.
    """
    size = draw(BLOCK_SIZES)
    count = draw(sizes(size, MOST_TOKENS, least=1) if tokens is None else tokens)
    full, rest = divmod(count, size)
    return draw_blocks(
        draw(digests()),
        [size] * full + [rest] * (rest > 0),
        blocks=draw(st.integers(0, 4)),
        tokens_per_block=draw(st.integers(0, 2 * size)),
        token_blocks=draw(st.integers(0, 4)),
        run_tokens=draw(st.integers(1, size)),
    )
