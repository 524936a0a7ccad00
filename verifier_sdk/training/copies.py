"""Pairs of blocks to train the copies head on: copies that begin anywhere, and honest pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import InvalidInputError
from coin_protocol.tokenizer import text_of
from verifier_sdk.lab import Trace
from verifier_sdk.lab.attack import Ids
from verifier_sdk.lab.attacks.edits import edited
from verifier_sdk.lab.attacks.repeated import LEAST_EDITED, MOST_EDITED
from verifier_sdk.semantic.copies import PAGE, copy_inputs, pages_of
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.training.workshop import Progress, Workshop

MOST_PAGES: Final = 16
"""Of a trace that are compared."""

_COPIES: Final = 6
"""Made of each trace, half of them edited."""

_LEAST_SHARED: Final = 0.25
"""Share of a page that two have in common to be a copy's example; with less they are of nothing."""


def copy_examples(
    workshop: Workshop, traces: Sequence[Trace], *, seed: int, progress: Progress
) -> tuple[Floats, Floats, Floats]:
    """Return inputs of the copies head, labels (n, 1) and weights (n, 1).

    Honest pairs of one trace weigh as much as the square root of their number.

    Args:
        workshop: Models and cache.
        traces: Honest ones; those with less than two pages of windows are left out.
        seed: Of where copies begin and what is edited.
        progress: Told what is embedded.

    Raises:
        InvalidInputError: All traces are shorter.
    """
    rng = np.random.default_rng([seed, 7])
    size = PAGE * workshop.spec.window_tokens
    made = []
    for trace in traces:
        ids = workshop.library.ids(trace)[: MOST_PAGES * size]
        if len(ids) >= 2 * size:
            copies = [_copy(workshop, ids, size, rng, edit=at % 2 == 1) for at in range(_COPIES)]
            made.append((ids, copies))
    if not made:
        msg = f"no trace with {2 * size} reasoning tokens to train on copies: give longer traces"
        raise InvalidInputError(msg)
    blocks = [
        workshop.windows_of([*_cut(ids, size), *(copy for copy, _ in copies)])
        for ids, copies in made
    ]
    workshop.embed(
        [text for found in blocks for texts in found for text in texts],
        "embedding copies",
        progress,
    )
    rows, labels, weights = [], [], []
    for (_, copies), texts in zip(made, blocks, strict=True):
        pages, _ = pages_of([workshop.vectors(some) for some in texts])
        own = len(pages) - len(copies)
        first, second = np.triu_indices(own, 1)
        behind = [
            (own + number, page)
            for number, (_, shared) in enumerate(copies)
            for page in np.flatnonzero(shared[:own] >= _LEAST_SHARED * size).tolist()
        ]
        copied = np.array(behind, np.int64).reshape(-1, 2)
        pairs = np.concatenate([np.stack([second, first], 1), copied])
        # Copies stand behind what they repeat, or before it.
        turned = rng.random(len(pairs)) < 0.25
        pairs[turned] = pairs[turned][:, ::-1]
        rows.append(copy_inputs(pages, pairs[:, 0], pairs[:, 1]))
        labels.append(np.arange(len(pairs)) >= len(first))
        weights.append(np.where(labels[-1], 1.0, max(len(first), 1) ** -0.5))
    return (
        np.concatenate(rows),
        np.concatenate(labels).astype(np.float32)[:, None],
        np.concatenate(weights).astype(np.float32)[:, None],
    )


def _cut(ids: Ids, size: int) -> list[Ids]:
    return [ids[at : at + size] for at in range(0, len(ids) - size + 1, size)]


def _copy(
    workshop: Workshop, ids: Ids, size: int, rng: np.random.Generator, *, edit: bool
) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Return a page of one or two copied stretches, and the tokens each own page shares."""
    cut = int(rng.integers(size)) if rng.random() < 0.5 else size
    parts = []
    shared = np.zeros(len(ids) // size, np.int64)
    for length in (cut, size - cut):
        if not length:
            continue
        at = int(rng.integers(0, len(ids) - length + 1))
        part = ids[at : at + length]
        if edit:
            tokenizer = workshop.models.tokenizer
            text = text_of(tokenizer, part.tolist()).strip("\ufffd")
            changed = edited(text, rng.uniform(LEAST_EDITED, MOST_EDITED), rng)
            part = np.array(tokenizer.encode(changed), np.uint32)
        parts.append(part)
        starts = np.arange(len(shared)) * size
        both = np.minimum(starts + size, at + length) - np.maximum(starts, at)
        shared = np.maximum(shared, both)
    return np.concatenate(parts)[:size], shared
