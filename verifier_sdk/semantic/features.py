"""What is measured on each opened block, for the detectors (protocol, section 9). Pure numpy.

A block is measured alone (do its windows cohere?), against what the client saw (answer, prompt,
summary), and against the session's other opened blocks: filler stands out from reasoning, and
repeats itself or what is already there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic.copies import copy_inputs, pages_of
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.judge import OpenedEvidence, VisibleText
from verifier_sdk.semantic.mlp import Floats

Places = npt.NDArray[np.int64]

_WITHIN: Final = ("within_mean", "within_min", "adjacent_mean", "adjacent_min", "concentration")
_VISIBLE: Final = ("max", "mean", "min", "whole", "head", "relative", "top")
_OTHERS: Final = (
    "block_mean", "block_max", "block_second", "block_min", "rest",
    "window_max", "window_mean", "window_min", "window_top", "nearest", "nearest_distance",
    "head_mean", "head_max", "head_min",
)  # fmt: skip
_COPIES: Final = ("max", "second", "sum")
_TOKENS: Final = ("mean", "cosine", "head", "window_max")

BLOCK_FEATURES: Final = (
    *_WITHIN,
    *(f"answer_{name}" for name in _VISIBLE),
    *(f"prompt_{name}" for name in _VISIBLE),
    *(f"others_{name}" for name in _OTHERS),
    *(f"copies_{name}" for name in _COPIES),
    *(f"tokens_{name}" for name in _TOKENS),
    *(f"window_{family}_{how}" for how in ("mean", "max") for family in FAMILIES),
    "place", "blocks", "opened", "has_answer", "has_prompt", "length",
)  # fmt: skip
"""Names of the columns of `block_features`. `others_*` compare with the other opened blocks,
`copies_*` say whether one of them is a copy."""

_MOST_COPIED: Final = 10.0

ABSENT: Final = 0.0
"""What stands for a measure that has nothing to compare with."""


def block_features(evidence: OpenedEvidence, heads: Heads) -> Floats:
    """Measure every block that was opened with its embedding, whole blocks among them.

    Returns:
        float32 (blocks, len(BLOCK_FEATURES)), in the order of `measured_blocks`.
    """
    opened = {block.index: block for block in evidence.blocks}
    windows = measured_blocks(evidence)
    if not windows:
        return np.empty((0, len(BLOCK_FEATURES)), np.float32)
    indices = np.array(sorted(windows), np.int64)
    parts = [windows[index].astype(np.float32) for index in indices.tolist()]
    flat = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    means = _unit(np.stack([part.mean(0) for part in parts]))
    columns: dict[str, Floats] = {}
    inside = [_within(part) for part in parts]
    for at, name in enumerate(_WITHIN):
        columns[name] = np.array([row[at] for row in inside], np.float32)
    visible = evidence.visible
    _visible(columns, "answer", visible.summary or visible.answer, flat, owner, means, heads)
    if visible.summary is not None and visible.answer is not None:
        # A summary of the reasoning says more about it than the answer: the better one counts.
        second: dict[str, Floats] = {}
        _visible(second, "answer", visible.answer, flat, owner, means, heads)
        for name, values in second.items():
            columns[name] = np.maximum(columns[name], values)
    _visible(columns, "prompt", visible.prompt, flat, owner, means, heads)
    _others(columns, flat, owner, means, indices, heads)
    _copies(columns, parts, heads)
    tokens = np.zeros((len(_TOKENS), len(parts)), np.float32)
    for at, index in enumerate(indices.tolist()):
        block = opened.get(index)
        if block is not None and len(block.tokens):
            rows = block.tokens.astype(np.float32)
            mean = _unit(rows.mean(0, keepdims=True))
            tokens[:, at] = (
                float((rows @ means[at]).mean()),
                float(mean[0] @ means[at]),
                float(heads.pair("tokens_to_block", mean, means[at : at + 1])[0]),
                float((rows @ parts[at].T).max(axis=1).mean()),
            )
    columns.update({f"tokens_{name}": tokens[at] for at, name in enumerate(_TOKENS)})
    logits = heads.window(flat)
    for at, family in enumerate(FAMILIES):
        columns[f"window_{family}_mean"] = _by_owner(logits[:, at], owner, "mean")
        columns[f"window_{family}_max"] = _by_owner(logits[:, at], owner, "max")
    count = len(parts)
    columns["place"] = (indices / max(evidence.total_blocks - 1, 1)).astype(np.float32)
    columns["blocks"] = np.full(count, np.log2(evidence.total_blocks), np.float32)
    columns["opened"] = np.full(count, np.log2(count), np.float32)
    columns["has_answer"] = np.full(count, float(visible.answer is not None), np.float32)
    columns["has_prompt"] = np.full(count, float(visible.prompt is not None), np.float32)
    columns["length"] = np.array([len(part) for part in parts], np.float32)
    return np.stack([columns[name] for name in BLOCK_FEATURES], axis=1)


def measured_blocks(evidence: OpenedEvidence) -> dict[int, npt.NDArray[np.float64]]:
    """Return the windows of every block whose embedding is known, by index, ascending."""
    found = {block.index: block.windows for block in evidence.blocks}
    found.update((block.index, block.windows) for block in evidence.whole_blocks)
    return dict(sorted(found.items()))


def _within(windows: Floats) -> tuple[float, float, float, float, float]:
    norm = float(np.linalg.norm(windows.mean(0)))
    if len(windows) < 2:
        return ABSENT, ABSENT, ABSENT, ABSENT, norm
    gram = windows @ windows.T
    pairs = gram[np.triu_indices(len(windows), 1)]
    adjacent = np.diagonal(gram, 1)
    return (
        float(pairs.mean()), float(pairs.min()),
        float(adjacent.mean()), float(adjacent.min()), norm,
    )  # fmt: skip


def _visible(
    columns: dict[str, Floats], what: str, text: VisibleText | None, flat: Floats,
    owner: Places, means: Floats, heads: Heads,
) -> None:  # fmt: skip
    if text is None or not len(text.windows):
        for name in _VISIBLE:
            columns[f"{what}_{name}"] = np.full(len(means), ABSENT, np.float32)
        return
    near = (flat @ text.windows.astype(np.float32).T).max(axis=1)
    whole = text.embedding.astype(np.float32)
    found = {
        "max": _by_owner(near, owner, "max"),
        "mean": _by_owner(near, owner, "mean"),
        "min": _by_owner(near, owner, "min"),
        "whole": means @ whole,
        "head": heads.pair(f"block_to_{what}", means, np.broadcast_to(whole, means.shape)),
    }
    found["relative"] = found["whole"] - np.median(found["whole"])
    found["top"] = found["whole"] - found["whole"].max()
    columns.update({f"{what}_{name}": values for name, values in found.items()})


def _others(
    columns: dict[str, Floats], flat: Floats, owner: Places, means: Floats,
    indices: Places, heads: Heads,
) -> None:  # fmt: skip
    count = len(means)
    if count < 2:
        for name in _OTHERS:
            columns[f"others_{name}"] = np.full(count, ABSENT, np.float32)
        return
    off = ~np.eye(count, dtype=bool)
    cosines = means @ means.T
    apart = cosines[off].reshape(count, count - 1)
    ordered = np.sort(apart, axis=1)
    rest = _unit(means.sum(0, keepdims=True) - means)
    gram = flat @ flat.T
    gram[owner[:, None] == owner[None, :]] = np.nan
    best = np.nanmax(gram, axis=1)
    mean = np.nanmean(gram, axis=1)
    nearest = np.where(off, cosines, -2.0).argmax(axis=1)
    left, right = np.where(off)
    head = np.zeros((count, count), np.float32)
    head[left, right] = heads.pair("block_to_block", means[left], means[right])
    head = head[off].reshape(count, count - 1)
    found = {
        "block_mean": apart.mean(1), "block_max": ordered[:, -1],
        "block_second": ordered[:, -2] if count > 2 else ordered[:, -1],
        "block_min": ordered[:, 0], "rest": (means * rest).sum(1),
        "window_max": _by_owner(best, owner, "max"), "window_mean": _by_owner(best, owner, "mean"),
        "window_min": _by_owner(best, owner, "min"), "window_top": _by_owner(mean, owner, "mean"),
        "nearest": cosines[np.arange(count), nearest],
        "nearest_distance": np.log2(np.abs(indices - indices[nearest]).astype(np.float32)),
        "head_mean": head.mean(1), "head_max": head.max(1), "head_min": head.min(1),
    }  # fmt: skip
    columns.update({f"others_{name}": values.astype(np.float32) for name, values in found.items()})


def _copies(columns: dict[str, Floats], blocks: list[Floats], heads: Heads) -> None:
    """Say how much a block looks like a copy of other pages: of most, of the next, of all."""
    pages, owner = pages_of(blocks)
    found = np.zeros((3, len(pages)), np.float32)
    if len(pages) > 1:
        first, second = (side.astype(np.int64) for side in np.triu_indices(len(pages), 1))
        logits = np.full((len(pages), len(pages)), -_MOST_COPIED, np.float32)
        logits[first, second] = np.clip(
            heads.copies(copy_inputs(pages, second, first))[:, 0], -_MOST_COPIED, _MOST_COPIED
        )
        logits = np.maximum(logits, logits.T)
        ordered = np.sort(logits, axis=1)
        found[:] = ordered[:, -1], ordered[:, -2], np.logaddexp(0.0, logits).sum(axis=1)
    for name, values in zip(_COPIES, found, strict=True):
        columns[f"copies_{name}"] = _by_owner(values, owner, "max")


def _by_owner(values: Floats, owner: Places, how: str) -> Floats:
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    if how == "mean":
        sums = np.add.reduceat(values, starts)
        return (sums / np.diff(np.append(starts, len(values)))).astype(np.float32)
    reduce = np.maximum if how == "max" else np.minimum
    return reduce.reduceat(values, starts).astype(np.float32)


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return scaled
