"""The same text in more tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.laboratory import BLOCK_SIZE, material, spelled, tokenizer, trace, traces
from verifier_sdk.lab import PLACEMENTS, Attacked, Material, NotApplicableError, apply_attack
from verifier_sdk.lab.attack import injected_tokens
from verifier_sdk.lab.attacks.split import splits


def finer(target: Material, rate: float, placement: str) -> Attacked:
    return apply_attack(
        "finer_tokenization", target, rate=rate, placement=placement, block_size=BLOCK_SIZE
    )


def replaced(target: Material, attacked: Attacked) -> list[list[int]]:
    """Return the ids that stand for each original one."""
    starts = np.flatnonzero(~attacked.injected)
    assert len(starts) == len(target.ids)
    assert starts[0] == 0
    return [run.tolist() for run in np.split(attacked.ids, starts[1:])]


@given(
    st.integers(0, 9),
    st.floats(0.01, 0.6),
    st.sampled_from(PLACEMENTS),
    st.integers(0, 999),
)
def test_each_id_is_kept_or_spelled_by_shorter_ones(
    number: int, rate: float, placement: str, seed: int
) -> None:
    target = material(traces()[number], seed=seed)
    attacked = finer(target, rate, placement)
    assert spelled(attacked.ids) == target.trace.reasoning.encode()
    for own, run in zip(target.ids.tolist(), replaced(target, attacked), strict=True):
        assert b"".join(map(tokenizer().token_bytes, run)) == tokenizer().token_bytes(own)
    assert attacked.injected.sum() == injected_tokens(target.ids, rate)


def changed(target: Material, rate: float, placement: str) -> list[int]:
    runs = replaced(target, finer(target, rate, placement))
    return [place for place, run in enumerate(runs) if len(run) > 1]


@pytest.mark.parametrize("seed", range(6))
def test_appended_is_a_stretch_at_the_end(seed: int) -> None:
    target = material(seed=seed)
    places = changed(target, 0.1, "appended")
    able = [at for at, own in enumerate(target.ids.tolist()) if splits(tokenizer())[own]]
    assert places == able[-len(places) :]


@pytest.mark.parametrize("seed", range(6))
def test_interleaved_are_stretches_of_whole_blocks(seed: int) -> None:
    target = material(seed=seed)
    places = changed(target, 0.1, "interleaved")
    blocks = {place // BLOCK_SIZE for place in places}
    whole = 0
    for block in blocks:
        stretch = range(block * BLOCK_SIZE, min((block + 1) * BLOCK_SIZE, len(target.ids)))
        able = [at for at in stretch if splits(tokenizer())[int(target.ids[at])]]
        whole += set(able) <= set(places)
    # Where enough was split, the last stretch ends early.
    assert whole >= len(blocks) - 1
    assert len(blocks) < len(target.ids) / BLOCK_SIZE / 2


@pytest.mark.parametrize("seed", range(6))
def test_scattered_is_anywhere(seed: int) -> None:
    target = material(seed=seed)
    places = changed(target, 0.1, "scattered")
    assert len({place // BLOCK_SIZE for place in places}) > 0.6 * len(target.ids) / BLOCK_SIZE


def test_some_attackers_split_in_two_and_others_spell_out() -> None:
    most = set()
    for seed in range(20):
        target = material(seed=seed)
        runs = replaced(target, finer(target, 0.1, "scattered"))
        most.add(max(map(len, runs)))
    assert {2, 3} < most
    assert max(most) > 6


def test_a_split_is_any_that_the_vocabulary_has() -> None:
    (own,) = tokenizer().encode(" the")
    pairs = {
        (tokenizer().token_bytes(first), tokenizer().token_bytes(second))
        for first, second in splits(tokenizer())[own]
    }
    assert (b" t", b"he") in pairs
    assert all(first + second == b" the" for first, second in pairs)


def test_bytes_cannot_be_split() -> None:
    assert not any(splits(tokenizer())[at] for at in range(4, 260))


def test_most_of_the_wanted_tokens_must_be_had() -> None:
    target = material()
    with pytest.raises(
        NotApplicableError, match=r"splitting gives \d+ of \d+ tokens: take a lower"
    ):
        finer(target, 16.0, "scattered")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_little_less_than_wanted_will_do(placement: str) -> None:
    pieces = map(tokenizer().token_bytes, range(260, tokenizer().vocabulary_size))
    word = next(piece.decode() for piece in pieces if len(piece) == 2 and piece.isalpha())
    # Ten words that can be split in one way, and ten line ends that cannot be split.
    target = material(trace(f"{word}\n" * 10))
    assert len(target.ids) == 20
    assert finer(target, 0.55, placement).injected.sum() == 10
    with pytest.raises(NotApplicableError, match="splitting gives 10 of 12 tokens"):
        finer(target, 0.6, placement)
