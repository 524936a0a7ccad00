"""Train the DeepSets baseline: focal loss, padded batches, the same result for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import InvalidInputError
from verifier_sdk.semantic.deepsets import DeepSets
from verifier_sdk.semantic.mlp import Floats, Mlp

if TYPE_CHECKING:
    import torch

_CLIP = 8.0
"""Of `Mlp`: what it reads lies between -8 and 8."""


@dataclass(frozen=True, slots=True)
class SetRecipe:
    """How the two networks are trained.

    Attributes:
        block_hidden: Widths of the hidden layers before pooling.
        pooled: Numbers of each block that are pooled.
        set_hidden: Widths of the hidden layers after pooling.
        gamma: Of the focal loss; 0 is cross-entropy, whose logits are log odds.
        steps: Batches.
        batch: Sets in a batch.
        rate: Adam's step size at the start; it falls to zero along a cosine.
        decay: Weight decay.
        noise: Standard deviation of noise on standardised scores.
    """

    block_hidden: tuple[int, ...] = (32,)
    pooled: int = 16
    set_hidden: tuple[int, ...] = (32,)
    gamma: float = 2.0
    steps: int = 2000
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-2
    noise: float = 0.1


RECIPE = SetRecipe()


def fit_deep_sets(
    sets: Sequence[Floats],
    labels: Sequence[bool] | npt.NDArray[np.bool_],
    *,
    seed: int,
    recipe: SetRecipe = RECIPE,
    progress: Callable[[int], None] | None = None,
) -> DeepSets:
    """Train on the block scores of many sessions.

    Args:
        sets: Scores of the blocks of one session each, float32 (blocks, scores), one block at
            least.
        labels: Whether the session was inflated; inflated and honest sessions are brought to
            the same total weight.
        seed: Of initial weights, order and noise.
        recipe: How.
        progress: Told how many steps were made.

    Raises:
        InvalidInputError: There are no sets, one is empty, or shapes or counts differ.
    """
    import torch

    _require(sets, len(labels))
    flat = np.concatenate(sets).astype(np.float32)
    mean, scale = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-4)
    rows = torch.from_numpy(np.clip((flat - mean) / scale, -_CLIP, _CLIP))
    lengths = torch.tensor([len(scores) for scores in sets])
    starts = torch.cumsum(lengths, 0) - lengths
    inflated = torch.tensor(np.asarray(labels, np.bool_))
    share = inflated.float().mean().clamp(1e-6, 1 - 1e-6)
    weights = torch.where(inflated, 0.5 / share, 0.5 / (1 - share))

    generator = torch.Generator().manual_seed(seed)
    block = _layers((rows.shape[1], *recipe.block_hidden, recipe.pooled), 1.0, generator)
    whole = _layers((2 * recipe.pooled, *recipe.set_hidden, 1), 0.1, generator)
    parameters = [tensor for layer in (*block, *whole) for tensor in layer]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    for _ in range(recipe.steps):
        at = torch.randint(len(sets), (recipe.batch,), generator=generator)
        places = torch.arange(int(lengths[at].max()))
        there = places < lengths[at, None]
        # Padding reads the set's own first block and is left out of the pools.
        padded = rows[starts[at, None] + torch.where(there, places, 0)]
        if recipe.noise:
            padded = padded + recipe.noise * torch.randn(padded.shape, generator=generator)
        read = _forward(block, padded)
        means = (read * there[..., None]).sum(1) / lengths[at, None]
        tops = read.masked_fill(~there[..., None], -torch.inf).amax(1)
        logits = _forward(whole, torch.cat([means, tops], 1).clamp(-_CLIP, _CLIP))[:, 0]
        signed = torch.where(inflated[at], logits, -logits)
        loss = torch.nn.functional.softplus(-signed)
        if recipe.gamma:
            loss = loss * torch.sigmoid(-signed) ** recipe.gamma
        optimiser.zero_grad()
        torch.autograd.backward((loss * weights[at]).mean())
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(1)
    return DeepSets(
        Mlp(mean, scale.astype(np.float32), _arrays(block)),
        Mlp(
            np.zeros(2 * recipe.pooled, np.float32),
            np.ones(2 * recipe.pooled, np.float32),
            _arrays(whole),
        ),
    )


def _require(sets: Sequence[Floats], labels: int) -> None:
    shapes = {scores.shape[1:] for scores in sets}
    good = len(sets) == labels and len(shapes) == 1 and all(map(len, sets))
    if not good or len(next(iter(shapes))) != 1:
        msg = (
            "wanted sets of one block or more, each with the same scores, and a label for each; "
            f"found {len(sets)} sets of shapes {sorted(shapes)} and {labels} labels"
        )
        raise InvalidInputError(msg)


def _layers(
    widths: tuple[int, ...], last: float, generator: torch.Generator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return weights and biases of linear layers, the last one's weights times `last`."""
    import torch

    found = []
    for at, (fan_in, fan_out) in enumerate(pairwise(widths)):
        start = torch.randn(fan_in, fan_out, generator=generator) * (2.0 / fan_in) ** 0.5
        if at == len(widths) - 2:
            start *= last
        found.append((start.requires_grad_(), torch.zeros(fan_out).requires_grad_()))
    return found


def _forward(
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]], hidden: torch.Tensor
) -> torch.Tensor:
    """Compute as `Mlp` does, in torch."""
    for number, (weights, bias) in enumerate(layers):
        hidden = (hidden.relu() if number else hidden) @ weights + bias
    return hidden


def _arrays(
    layers: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[tuple[Floats, Floats], ...]:
    return tuple(
        (weights.detach().numpy().copy(), bias.detach().numpy().copy()) for weights, bias in layers
    )
