"""The DeepSets baseline: a function of the set of block scores, whatever their order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import ConfigurationError, InvalidInputError
from verifier_sdk.semantic.deepsets import DeepSets
from verifier_sdk.semantic.mlp import Floats, Mlp

SCORES = 5


def network(rng: np.random.Generator, *widths: int) -> Mlp:
    layers = tuple(
        (
            rng.normal(size=(wide, narrow)).astype(np.float32),
            rng.normal(size=narrow).astype(np.float32),
        )
        for wide, narrow in pairwise(widths)
    )
    return Mlp(np.zeros(widths[0], np.float32), np.ones(widths[0], np.float32), layers)


def untrained(seed: int = 0) -> DeepSets:
    rng = np.random.default_rng(seed)
    return DeepSets(network(rng, SCORES, 8, 6), network(rng, 12, 8, 1))


def some_set(blocks: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(blocks, SCORES)).astype(np.float32)


@given(st.integers(1, 200), st.integers(0, 1_000))
def test_the_order_of_the_blocks_is_nothing(blocks: int, seed: int) -> None:
    scores = some_set(blocks, seed)
    mixed = scores[np.random.default_rng(seed).permutation(blocks)]
    one, other = untrained().logits([scores, mixed])
    assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


@given(st.lists(st.integers(1, 40), max_size=10))
def test_sets_of_any_size_are_judged_each_by_itself(sizes: list[int]) -> None:
    judge = untrained()
    sets = [some_set(size, seed) for seed, size in enumerate(sizes)]
    together = judge.logits(sets)
    assert together.shape == (len(sizes),)
    assert together.dtype == np.float32
    alone = [float(judge.logits([scores])[0]) for scores in sets]
    assert together.tolist() == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_a_block_seen_twice_weighs_in_the_mean_alone() -> None:
    judge = untrained()
    once = some_set(3)
    assert judge.logits([np.repeat(once, 2, axis=0)])[0] == pytest.approx(
        judge.logits([once])[0], rel=1e-5
    )
    assert judge.logits([np.concatenate([once, once[:1]])])[0] != judge.logits([once])[0]


@pytest.mark.parametrize("shape", [(0, SCORES), (3, SCORES + 1), (SCORES,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="wanted scores of shape"):
        untrained().logits([np.zeros(shape, np.float32)])


def test_tensors_survive_a_file() -> None:
    judge = untrained()
    again = DeepSets.read(judge.tensors(), SCORES)
    scores = some_set(7)
    assert again.inputs == SCORES
    assert again.logits([scores]) == judge.logits([scores])


def test_files_of_another_version_are_refused() -> None:
    tensors = untrained().tensors()
    for name in tensors:
        if not name.endswith(("1.weight", "1.bias")):
            with pytest.raises(ConfigurationError):
                DeepSets.read({key: tensors[key] for key in tensors if key != name}, SCORES)
    with pytest.raises(ConfigurationError):
        DeepSets.read(tensors, SCORES + 1)
    with pytest.raises(ConfigurationError):
        DeepSets.read({**tensors, "deepsets.set.mean": np.zeros(11, np.float32)}, SCORES)


# Training


def toy(count: int, seed: int) -> tuple[list[Floats], list[bool]]:
    """Make sets with one odd block in them, or with none."""
    rng = np.random.default_rng(seed)
    sets, labels = [], []
    for number in range(count):
        scores = rng.normal(size=(int(rng.integers(1, 12)), SCORES)).astype(np.float32)
        if number % 2:
            scores[rng.integers(len(scores)), 2] += 5.0
        sets.append(scores)
        labels.append(bool(number % 2))
    return sets, labels


def test_one_odd_block_among_many_is_learned() -> None:
    pytest.importorskip("torch")
    from verifier_sdk.training.deepsets import SetRecipe, fit_deep_sets

    steps: list[int] = []
    judge = fit_deep_sets(*toy(600, 1), seed=1, recipe=SetRecipe(steps=300), progress=steps.append)
    sets, labels = toy(400, 2)
    right = (judge.logits(sets) > 0) == np.array(labels)
    assert right.mean() > 0.95
    assert sum(steps) == 300


def test_a_seed_gives_one_network() -> None:
    pytest.importorskip("torch")
    from verifier_sdk.training.deepsets import SetRecipe, fit_deep_sets

    recipe = SetRecipe(steps=20)
    sets, labels = toy(60, 3)
    first, again, other = (
        fit_deep_sets(sets, labels, seed=seed, recipe=recipe).tensors() for seed in (1, 1, 2)
    )
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_rare_labels_weigh_as_much_as_common_ones() -> None:
    pytest.importorskip("torch")
    from verifier_sdk.training.deepsets import SetRecipe, fit_deep_sets

    sets, labels = toy(800, 4)
    kept = [at for at, label in enumerate(labels) if not label or at % 20 == 1]
    judge = fit_deep_sets(
        [sets[at] for at in kept],
        [labels[at] for at in kept],
        seed=1,
        recipe=SetRecipe(steps=300),
    )
    tested, truth = toy(400, 5)
    found = judge.logits(tested)[np.array(truth)] > 0
    assert found.mean() > 0.8


@pytest.mark.parametrize(
    ("sets", "labels"),
    [
        ([], []),
        ([some_set(2)], []),
        ([some_set(2), some_set(2)[:0]], [True, False]),
        ([some_set(2), some_set(2)[:, :3]], [True, False]),
        ([some_set(2)[0]], [True]),
    ],
)
def test_sets_that_do_not_fit_are_refused(sets: list[Floats], labels: list[bool]) -> None:
    pytest.importorskip("torch")
    from verifier_sdk.training.deepsets import fit_deep_sets

    with pytest.raises(InvalidInputError, match="a label for each"):
        fit_deep_sets(sets, labels, seed=1)
