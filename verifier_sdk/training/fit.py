"""Train one small network: focal loss, Adam, the same result for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from verifier_sdk.semantic.mlp import Floats, Mlp

_EVAL_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        hidden: Widths of the hidden layers.
        gamma: Of the focal loss; 0 is cross-entropy, whose logits are log odds.
        steps: Batches.
        batch: Rows in a batch.
        rate: Adam's step size at the start; it falls to zero along a cosine.
        decay: Weight decay.
        noise: Standard deviation of noise on standardised inputs.
    """

    hidden: tuple[int, ...] = (64,)
    gamma: float = 2.0
    steps: int = 2000
    batch: int = 512
    rate: float = 2e-3
    decay: float = 1e-2
    noise: float = 0.1

    def scaled(self, steps: float) -> Recipe:
        """Return the recipe with a share of its steps, 1 at least."""
        return replace(self, steps=max(1, round(self.steps * steps)))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: one result wherever it runs.

    Matrices this small gain nothing from more, and lose much where others use the cores.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def numpy_on_one_thread() -> Iterator[None]:
    """Let numpy multiply on one thread: sums depend on how many they are cut among.

    Torch, which embeds, keeps all of its own.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@one_thread()
def fit(
    rows: Floats,
    labels: Floats,
    weights: Floats,
    *,
    recipe: Recipe,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Mlp:
    """Train a network of one logit for each column of `labels`.

    Args:
        rows: Inputs, float32 (n, inputs).
        labels: 0 or 1, float32 (n, outputs).
        weights: How much each row counts for each output, float32 (n, outputs); 0 leaves it
            out. Positives and negatives of an output are brought to the same total.
        recipe: How.
        seed: Of initial weights, order and noise.
        progress: Told how many steps were made.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    mean = rows.mean(axis=0)
    scale = np.maximum(rows.std(axis=0), 1e-4)
    inputs = torch.from_numpy(np.clip((rows - mean) / scale, -8.0, 8.0).astype(np.float32))
    balanced = torch.from_numpy(_balanced(labels, weights))
    targets = torch.from_numpy(labels.astype(np.float32))
    widths = [rows.shape[1], *recipe.hidden, labels.shape[1]]
    parameters: list[torch.Tensor] = []
    for fan_in, fan_out in pairwise(widths):
        start = torch.randn(fan_in, fan_out, generator=generator) * (2.0 / fan_in) ** 0.5
        if len(parameters) == 2 * len(recipe.hidden):
            start *= 0.1
        parameters += [start.requires_grad_(), torch.zeros(fan_out).requires_grad_()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    for _ in range(recipe.steps):
        at = torch.randint(len(rows), (recipe.batch,), generator=generator)
        hidden = inputs[at]
        if recipe.noise:
            hidden = hidden + recipe.noise * torch.randn(hidden.shape, generator=generator)
        for layer in range(0, len(parameters), 2):
            hidden = torch.relu(hidden) if layer else hidden
            hidden = hidden @ parameters[layer] + parameters[layer + 1]
        signed = torch.where(targets[at] > 0.5, hidden, -hidden)
        loss = torch.nn.functional.softplus(-signed)
        if recipe.gamma:
            loss = loss * torch.sigmoid(-signed) ** recipe.gamma
        weight = balanced[at]
        optimiser.zero_grad()
        mean_loss = (loss * weight).sum() / weight.sum().clamp_min(1e-6)
        mean_loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(1)
    arrays = [parameter.detach().numpy().copy() for parameter in parameters]
    layers = tuple(zip(arrays[::2], arrays[1::2], strict=True))
    return Mlp(mean.astype(np.float32), scale.astype(np.float32), layers)


def apply(network: Mlp, rows: Floats) -> Floats:
    """Return a network's logits on many rows, in pieces."""
    parts = [network(rows[start : start + _EVAL_ROWS]) for start in range(0, len(rows), _EVAL_ROWS)]
    return np.concatenate(parts) if parts else np.empty((0, network.outputs), np.float32)


def area_under_curve(honest: npt.NDArray[np.floating], filler: npt.NDArray[np.floating]) -> float:
    """Return the chance that a score of filler is above one of honest text, ties halved."""
    if not len(honest) or not len(filler):
        return float("nan")
    ordered = np.sort(honest)
    below = np.searchsorted(ordered, filler, "left") + np.searchsorted(ordered, filler, "right")
    return float(below.mean() / (2 * len(ordered)))


def _balanced(labels: Floats, weights: Floats) -> Floats:
    balanced = weights.astype(np.float32).copy()
    for column in range(labels.shape[1]):
        for side in (labels[:, column] > 0.5, labels[:, column] <= 0.5):
            total = balanced[side, column].sum()
            if total > 0:
                balanced[side, column] *= len(labels) / (2.0 * total)
    return balanced
