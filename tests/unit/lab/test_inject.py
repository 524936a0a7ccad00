"""Where filler goes: nothing is lost, nothing changes its order, blocks stay whole."""

from __future__ import annotations

from itertools import islice, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from tests.support.laboratory import material
from verifier_sdk.lab import PLACEMENTS, Attacked, NotApplicableError, inject
from verifier_sdk.lab.attack import Ids, fill, injected_tokens

OWN = st.integers(0, 99)
FILLER = st.integers(100, 199)


def ids_of(values: list[int]) -> Ids:
    return np.array(values, np.uint32)


own_ids = st.lists(OWN, max_size=60).map(ids_of)
some_pieces = st.lists(
    st.lists(FILLER, min_size=1, max_size=9).map(ids_of), min_size=1, max_size=30
)
placements = st.sampled_from(PLACEMENTS)
block_sizes = st.integers(1, 16)
seeds = st.integers(0, 1_000)


def injected(ids: Ids, pieces: list[Ids], placement: str, block_size: int, seed: int) -> Attacked:
    return inject(ids, pieces, placement, block_size, np.random.default_rng(seed))


# Everywhere


@given(own_ids, some_pieces, placements, block_sizes, seeds)
def test_reasoning_and_filler_keep_their_order_and_lose_nothing(
    ids: Ids, pieces: list[Ids], placement: str, block_size: int, seed: int
) -> None:
    attacked = injected(ids, pieces, placement, block_size, seed)
    assert attacked.ids.dtype == np.uint32
    assert attacked.ids[~attacked.injected].tolist() == ids.tolist()
    assert attacked.ids[attacked.injected].tolist() == np.concatenate(pieces).tolist()


@given(own_ids, some_pieces, placements, block_sizes, seeds)
def test_the_share_counts_the_marks(
    ids: Ids, pieces: list[Ids], placement: str, block_size: int, seed: int
) -> None:
    attacked = injected(ids, pieces, placement, block_size, seed)
    filler = sum(map(len, pieces))
    assert attacked.share == pytest.approx(filler / (filler + len(ids)))


@given(own_ids, some_pieces, placements, block_sizes, seeds)
def test_the_embeddings_are_of_what_is_committed(
    ids: Ids, pieces: list[Ids], placement: str, block_size: int, seed: int
) -> None:
    attacked = injected(ids, pieces, placement, block_size, seed)
    assert attacked.embedded is attacked.ids


@given(own_ids, some_pieces, placements, block_sizes, seeds)
def test_one_seed_gives_one_place(
    ids: Ids, pieces: list[Ids], placement: str, block_size: int, seed: int
) -> None:
    first = injected(ids, pieces, placement, block_size, seed)
    again = injected(ids, pieces, placement, block_size, seed)
    assert first.ids.tolist() == again.ids.tolist()


def test_another_placement_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no placement 'prepended'; there are appended"):
        injected(ids_of([1]), [ids_of([100])], "prepended", 4, 0)


# Appended


@given(own_ids, some_pieces, block_sizes, seeds)
def test_appended_filler_comes_last(
    ids: Ids, pieces: list[Ids], block_size: int, seed: int
) -> None:
    attacked = injected(ids, pieces, "appended", block_size, seed)
    assert attacked.injected.tolist() == sorted(attacked.injected.tolist())


# Interleaved


@given(own_ids, some_pieces, block_sizes, seeds)
def test_interleaved_only_the_block_where_the_reasoning_ends_is_mixed(
    ids: Ids, pieces: list[Ids], block_size: int, seed: int
) -> None:
    marks = injected(ids, pieces, "interleaved", block_size, seed).injected
    blocks = [marks[at : at + block_size] for at in range(0, len(marks), block_size)]
    mixed = [at for at, block in enumerate(blocks) if block.any() and not block.all()]
    own = [at for at, block in enumerate(blocks) if not block.all()]
    assert len(mixed) <= 1
    assert mixed in ([], own[-1:])


@given(own_ids, some_pieces, block_sizes, seeds)
def test_interleaved_blocks_of_filler_are_as_many_as_appended(
    ids: Ids, pieces: list[Ids], block_size: int, seed: int
) -> None:
    def marks(placement: str) -> list[list[bool]]:
        flat = injected(ids, pieces, placement, block_size, seed).injected.tolist()
        return sorted(flat[at : at + block_size] for at in range(0, len(flat), block_size))

    assert marks("interleaved") == marks("appended")


def test_interleaved_any_block_but_an_unfilled_last_one_may_be_filler() -> None:
    own, filler = ids_of(list(range(12))), ids_of(list(range(100, 110)))
    found = {
        tuple(injected(own, [filler], "interleaved", 4, seed).injected[::4].tolist())
        for seed in range(200)
    }
    # Five full blocks, two of them filler, and a last one of two ids.
    assert len(found) == 10
    assert all(marks[5] and sum(marks) == 3 for marks in found)


# Scattered


def slowly(ids: Ids, pieces: list[Ids], seed: int) -> list[int]:
    """Put each piece where it goes, one after another."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(ids) + 1, len(pieces)))
    flat: list[int] = []
    for place in range(len(ids) + 1):
        for cut, piece in zip(cuts.tolist(), pieces, strict=True):
            if cut == place:
                flat += piece.tolist()
        flat += ids[place : place + 1].tolist()
    return flat


@given(own_ids, some_pieces, seeds)
def test_scattered_pieces_stay_whole(ids: Ids, pieces: list[Ids], seed: int) -> None:
    attacked = injected(ids, pieces, "scattered", 8, seed)
    assert attacked.ids.tolist() == slowly(ids, pieces, seed)


# How much


@given(st.integers(1, 5_000), st.floats(0.001, 16))
def test_a_rate_injects_one_token_at_least(tokens: int, rate: float) -> None:
    wanted = injected_tokens(np.zeros(tokens, np.uint32), rate)
    assert wanted == max(1, round(tokens * rate))


@given(st.lists(st.lists(FILLER, max_size=9).map(ids_of), max_size=30), st.floats(0.001, 0.1))
def test_a_stream_is_cut_where_enough_was_taken(pieces: list[Ids], rate: float) -> None:
    target = material()
    wanted = injected_tokens(target.ids, rate)
    flat = np.concatenate([ids_of([]), *pieces])
    if len(flat) < wanted:
        with pytest.raises(NotApplicableError, match=f"after {len(flat)} of {wanted} tokens"):
            fill(target, iter(pieces), rate, "appended", 8)
    else:
        attacked = fill(target, iter(pieces), rate, "appended", 8)
        assert attacked.ids[attacked.injected].tolist() == flat[:wanted].tolist()


def test_a_stream_of_nothing_ends() -> None:
    with pytest.raises(NotApplicableError, match="after 0 of"):
        fill(material(), repeat(ids_of([])), 1.0, "appended", 8)


def test_a_few_empty_pieces_are_skipped() -> None:
    stream = islice(repeat(ids_of([])), 500)
    target = material()
    filler = ids_of([7] * len(target.ids))
    attacked = fill(target, iter([*stream, filler]), 1.0, "appended", 8)
    assert attacked.ids[attacked.injected].tolist() == filler.tolist()
