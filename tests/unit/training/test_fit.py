"""Small networks learn what they are shown, the same way every time."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.judges import Floats, numbers
from verifier_sdk.semantic.mlp import Mlp
from verifier_sdk.training.fit import Recipe, _balanced, apply, area_under_curve, fit

SHORT = Recipe(hidden=(16,), gamma=0.0, steps=400, batch=128, noise=0.05)


def xor(count: int = 600, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return points of a plane, whether their signs differ and whether the first is positive."""
    rows = numbers(count, 2, seed=seed, scale=3.0) + np.float32(5.0)
    right, up = rows[:, 0] > 5, rows[:, 1] > 5
    labels = np.stack([right != up, right], axis=1).astype(np.float32)
    return rows, labels, np.ones_like(labels)


def train(seed: int = 1, recipe: Recipe = SHORT) -> Mlp:
    return fit(*xor(), recipe=recipe, seed=seed)


def digest(network: Mlp) -> str:
    tensors = network.tensors("a")
    return sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_it_learns_what_no_line_divides(gamma: float) -> None:
    network = train(recipe=Recipe(hidden=(16,), gamma=gamma, steps=500, batch=128, noise=0.05))
    rows, labels, _ = xor(seed=9)
    found = apply(network, rows) > 0
    assert (found == (labels > 0.5)).mean(axis=0).min() > 0.93


def test_one_seed_gives_the_same_bytes_and_another_others() -> None:
    assert digest(train()) == digest(train())
    assert digest(train(seed=2)) != digest(train())


def test_another_process_gives_the_same_bytes() -> None:
    program = "from tests.unit.training.test_fit import digest, train; print(digest(train()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True, capture_output=True, text=True,
        env={"PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.stdout.strip() == digest(train())


def test_training_takes_one_thread_and_gives_the_others_back() -> None:
    import torch

    before, seen = torch.get_num_threads(), set()
    torch.set_num_threads(2)
    try:
        fit(*xor(20), recipe=SHORT.scaled(0.01), seed=1,
            progress=lambda _: seen.add(torch.get_num_threads()))  # fmt: skip
        assert seen == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_training_leaves_no_trace_in_the_processes_random_numbers() -> None:
    import torch

    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    train(recipe=SHORT.scaled(0.01))
    assert torch.equal(torch.rand(1), first)


def test_rows_of_no_weight_do_not_matter() -> None:
    rows, labels, weights = xor()
    weights[300:, 0] = 0.0
    spoilt = labels.copy()
    spoilt[300:, 0] = 1.0 - spoilt[300:, 0]
    one = fit(rows, labels, weights, recipe=SHORT, seed=1)
    two = fit(rows, spoilt, weights, recipe=SHORT, seed=1)
    assert digest(one) == digest(two)


def test_an_output_that_no_row_concerns_stays_a_network() -> None:
    rows, labels, weights = xor()
    weights[:, 1] = 0.0
    network = fit(rows, labels, weights, recipe=SHORT, seed=1)
    assert np.isfinite(apply(network, rows)).all()


def test_a_constant_column_does_no_harm() -> None:
    rows, labels, weights = xor()
    rows = np.concatenate([rows, np.full((len(rows), 1), 7.0, np.float32)], axis=1)
    network = fit(rows, labels, weights, recipe=SHORT, seed=1)
    assert (network.scale > 0).all()
    odd = rows.copy()
    odd[:, 2] = -1e9
    assert np.isfinite(network(odd)).all()


def test_without_a_focus_logits_are_log_odds() -> None:
    rng = np.random.default_rng(4)
    side = rng.random(8000) < 0.5
    # Unit normals at -1 and 1: the log odds at x are 2 x.
    rows = rng.normal(np.where(side, 1.0, -1.0), 1.0)[:, None].astype(np.float32)
    labels = side[:, None].astype(np.float32)
    recipe = Recipe(hidden=(8,), gamma=0.0, steps=800, noise=0.0)
    network = fit(rows, labels, np.ones_like(labels), recipe=recipe, seed=1)
    at = np.array([[-1.5], [-0.5], [0.0], [0.5], [1.5]], np.float32)
    assert np.allclose(network(at), 2 * at, atol=0.5)


def test_both_sides_of_an_output_weigh_the_same() -> None:
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, 1]], np.float32)
    weights = np.array([[1, 1], [2, 3], [0, 5], [4, 1]], np.float32)
    found = _balanced(labels, weights)
    for column in range(2):
        for side in (0, 1):
            assert found[labels[:, column] == side, column].sum() == pytest.approx(2.0)
    assert found[2, 0] == 0.0
    assert found[3, 0] == pytest.approx(2 * found[1, 0])


def test_few_of_one_kind_are_learnt_all_the_same() -> None:
    rng = np.random.default_rng(4)
    labels = (np.arange(2000) < 20).astype(np.float32)[:, None]
    rows = rng.normal(3.0 * labels, 1.0).astype(np.float32)
    network = fit(rows, labels, np.ones_like(labels), recipe=SHORT, seed=1)
    assert float(network(np.array([[1.5]], np.float32))[0, 0]) == pytest.approx(0.0, abs=1.0)


def test_progress_is_told_every_step() -> None:
    steps: list[int] = []
    fit(*xor(20), recipe=SHORT.scaled(0.1), seed=1, progress=steps.append)
    assert sum(steps) == 40


@pytest.mark.parametrize(("share", "steps"), [(1.0, 400), (0.5, 200), (1e-9, 1), (2.0, 800)])
def test_a_recipe_can_be_shortened(share: float, steps: int) -> None:
    assert SHORT.scaled(share).steps == steps


def test_many_rows_are_read_in_pieces() -> None:
    network = train(recipe=SHORT.scaled(0.01))
    rows = numbers(70_000, 2)
    found = apply(network, rows)
    assert found.shape == (70_000, 2)
    assert np.allclose(found[66_000:66_010], network(rows[66_000:66_010]), atol=1e-5)
    assert apply(network, rows[:0]).shape == (0, 2)


# The area under the curve


def by_hand(honest: list[float], filler: list[float]) -> float:
    wins = [(one > other) + 0.5 * (one == other) for one in filler for other in honest]
    return sum(wins) / len(wins)


scores = st.lists(
    st.one_of(st.integers(-3, 3), st.floats(-5, 5, width=32)), min_size=1, max_size=40
)


@given(scores, scores)
def test_the_area_is_the_chance_that_filler_scores_higher(
    honest: list[float], filler: list[float]
) -> None:
    found = area_under_curve(np.array(honest, np.float64), np.array(filler, np.float64))
    assert found == pytest.approx(by_hand(honest, filler))


def test_without_scores_there_is_no_area() -> None:
    assert np.isnan(area_under_curve(np.empty(0), np.ones(2)))
    assert np.isnan(area_under_curve(np.ones(2), np.empty(0)))
