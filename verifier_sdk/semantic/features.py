"""What is measured on each opened block, for the detectors (protocol, section 9). Pure numpy.

A block is measured alone (do its windows cohere?), against what the client saw (answer, prompt,
summary), and against the session's other opened blocks: filler stands out from reasoning, and
repeats itself or what is already there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic import exact
from verifier_sdk.semantic.copies import copy_inputs, pages_of
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.judge import OpenedBlock, OpenedEvidence, VisibleText
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
    groups = _Groups.of(np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
    means = _unit(groups.mean(flat))
    columns: dict[str, Floats] = {}
    columns.update(zip(_WITHIN, _within(parts).T, strict=True))
    visible = evidence.visible
    _visible(columns, "answer", visible.summary or visible.answer, flat, groups, means, heads)
    if visible.summary is not None and visible.answer is not None:
        # A summary of the reasoning says more about it than the answer: the better one counts.
        second: dict[str, Floats] = {}
        _visible(second, "answer", visible.answer, flat, groups, means, heads)
        for name, values in second.items():
            columns[name] = np.maximum(columns[name], values)
    _visible(columns, "prompt", visible.prompt, flat, groups, means, heads)
    _others(columns, flat, groups, means, indices, heads)
    _copies(columns, parts, heads)
    _tokens(columns, opened, flat, groups, means, indices, heads)
    count = len(parts)
    columns["place"] = (indices / max(evidence.total_blocks - 1, 1)).astype(np.float32)
    columns["blocks"] = np.full(count, exact.log2(evidence.total_blocks), np.float32)
    columns["opened"] = np.full(count, exact.log2(count), np.float32)
    columns["has_answer"] = np.full(count, float(visible.answer is not None), np.float32)
    columns["has_prompt"] = np.full(count, float(visible.prompt is not None), np.float32)
    columns["length"] = np.array([len(part) for part in parts], np.float32)
    return np.stack([columns[name] for name in BLOCK_FEATURES], axis=1)


def measured_blocks(evidence: OpenedEvidence) -> dict[int, npt.NDArray[np.float64]]:
    """Return the windows of every block whose embedding is known, by index, ascending."""
    found = {block.index: block.windows for block in evidence.blocks}
    found.update((block.index, block.windows) for block in evidence.whole_blocks)
    return dict(sorted(found.items()))


def _within(blocks: list[Floats]) -> Floats:
    """Compare the windows of each block, float32 (blocks, len(_WITHIN))."""
    rows = np.full((len(blocks), len(_WITHIN)), ABSENT, np.float32)
    lengths = np.array([len(block) for block in blocks])
    for length in np.unique(lengths).tolist():
        which = np.flatnonzero(lengths == length)
        windows = np.stack([blocks[at] for at in which.tolist()])
        rows[which, -1] = exact.norms(exact.mean(windows, axis=1))
        if length > 1:
            gram = exact.product(windows, windows.transpose(0, 2, 1))
            pairs = gram[:, *np.triu_indices(length, 1)]
            adjacent = np.diagonal(gram, 1, axis1=1, axis2=2)
            found = (
                exact.mean(pairs, 1), pairs.min(1), exact.mean(adjacent, 1), adjacent.min(1),
            )  # fmt: skip
            rows[which, :-1] = np.stack(found, axis=1)
    return rows


def _visible(
    columns: dict[str, Floats], what: str, text: VisibleText | None, flat: Floats,
    groups: _Groups, means: Floats, heads: Heads,
) -> None:  # fmt: skip
    if text is None or not len(text.windows):
        for name in _VISIBLE:
            columns[f"{what}_{name}"] = np.full(len(means), ABSENT, np.float32)
        return
    near = _cosines(flat, text.windows).max(axis=1)
    whole = text.embedding.astype(np.float32)
    found = {
        "max": groups.max(near),
        "mean": groups.mean(near),
        "min": groups.min(near),
        "whole": _cosines(means, whole[None])[:, 0],
        "head": heads.pair(f"block_to_{what}", means, np.broadcast_to(whole, means.shape)),
    }
    found["relative"] = found["whole"] - np.median(found["whole"])
    found["top"] = found["whole"] - found["whole"].max()
    columns.update({f"{what}_{name}": values for name, values in found.items()})


def _others(
    columns: dict[str, Floats], flat: Floats, groups: _Groups, means: Floats,
    indices: Places, heads: Heads,
) -> None:  # fmt: skip
    count = len(means)
    if count < 2:
        for name in _OTHERS:
            columns[f"others_{name}"] = np.full(count, ABSENT, np.float32)
        return
    off = ~np.eye(count, dtype=bool)
    cosines = _cosines(means, means)
    apart = cosines[off].reshape(count, count - 1)
    ordered = np.sort(apart, axis=1)
    rest = _unit(exact.total(means, 0)[None] - means)
    gram = _cosines(flat, flat)
    own = groups.owner[:, None] == groups.owner[None, :]
    best = np.where(own, -1.0, gram).max(axis=1)
    mean = exact.total(np.where(own, 0.0, gram), 1) / (~own).sum(axis=1)
    nearest = np.where(off, cosines, -2.0).argmax(axis=1)
    left, right = np.triu_indices(count, 1)
    head = np.zeros((count, count), np.float32)
    head[left, right] = heads.pair("block_to_block", means[left], means[right])
    head = (head + head.T)[off].reshape(count, count - 1)
    found = {
        "block_mean": exact.mean(apart, 1), "block_max": ordered[:, -1],
        "block_second": ordered[:, -2] if count > 2 else ordered[:, -1],
        "block_min": ordered[:, 0], "rest": exact.total(means * rest, 1),
        "window_max": groups.max(best), "window_mean": groups.mean(best),
        "window_min": groups.min(best), "window_top": groups.mean(mean),
        "nearest": cosines[np.arange(count), nearest],
        "nearest_distance": _log2s(np.abs(indices - indices[nearest])),
        "head_mean": exact.mean(head, 1), "head_max": head.max(1), "head_min": head.min(1),
    }  # fmt: skip
    columns.update({f"others_{name}": values.astype(np.float32) for name, values in found.items()})


def _tokens(
    columns: dict[str, Floats], opened: dict[int, OpenedBlock], flat: Floats, groups: _Groups,
    means: Floats, indices: Places, heads: Heads,
) -> None:  # fmt: skip
    """Compare the tokens that were opened in a block with its windows."""
    found = np.full((len(_TOKENS), len(means)), ABSENT, np.float32)
    vectors = [
        opened[index].tokens if index in opened else np.empty((0, flat.shape[1]))
        for index in indices.tolist()
    ]
    counts = np.array([len(rows) for rows in vectors])
    known = np.flatnonzero(counts)
    if len(known):
        rows = np.concatenate(vectors).astype(np.float32)
        whose = np.repeat(np.arange(len(means)), counts)
        opened_groups = _Groups.of(whose)
        centres = _unit(opened_groups.mean(rows))
        own = whose[:, None] == groups.owner[None, :]
        near = np.where(own, _cosines(rows, flat), -1.0).max(axis=1)
        found[:, known] = (
            opened_groups.mean(exact.total(rows * means[whose], 1)),
            exact.total(centres * means[known], 1),
            heads.pair("tokens_to_block", centres, means[known]),
            opened_groups.mean(near),
        )
    columns.update({f"tokens_{name}": values for name, values in zip(_TOKENS, found, strict=True)})


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
        found[:] = (
            ordered[:, -1],
            ordered[:, -2],
            exact.total(exact.logs(1.0 + exact.exps(logits)), 1),
        )
    of_block = _Groups.of(owner)
    for name, values in zip(_COPIES, found, strict=True):
        columns[f"copies_{name}"] = of_block.max(values)


@dataclass(frozen=True)
class _Groups:
    """Consecutive rows that belong together.

    Attributes:
        owner: Of each row, ascending, int64 (n,).
        starts: First row of each group, int64 (groups,).
        sizes: Rows of each group, int64 (groups,).
    """

    owner: Places
    starts: Places
    sizes: Places

    @classmethod
    def of(cls, owner: Places) -> _Groups:
        starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        return cls(owner, starts, np.diff(np.append(starts, len(owner))))

    def mean(self, values: npt.NDArray[np.floating]) -> Floats:
        sums = np.add.reduceat(exact.addends(values, int(self.sizes.max())), self.starts)
        sizes = self.sizes if values.ndim == 1 else self.sizes[:, None]
        means: Floats = (sums / sizes).astype(np.float32)
        return means

    def max(self, values: Floats) -> Floats:
        return np.maximum.reduceat(values, self.starts)

    def min(self, values: Floats) -> Floats:
        return np.minimum.reduceat(values, self.starts)


def _unit(rows: npt.NDArray[np.floating]) -> Floats:
    return exact.unit(rows).astype(np.float32)


def _cosines(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> Floats:
    return exact.product(left.astype(np.float32), right.astype(np.float32).T).astype(np.float32)


def _log2s(counts: Places) -> Floats:
    return np.array([exact.log2(count) for count in counts.tolist()], np.float32)
