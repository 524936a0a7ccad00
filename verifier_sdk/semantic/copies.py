"""How alike two blocks are if one is a copy that begins somewhere in the other.

A copy hardly ever begins where a window of its original does. Windows of the copy then lie
across two windows of the original, and look like a mixture of them: by how much, is the same
all along. Compared are four windows of one block with four of the other, at every distance of
whole windows and at quarters between them. A small network (`Heads.copies`) weighs these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic.mlp import Floats

Places = npt.NDArray[np.int64]

PAGE: Final = 4
"""Windows that are compared at once: those of one block of the profile that ships."""

_QUARTERS: Final = (0.0, 0.25, 0.5, 0.75)
_OFFSETS: Final = range(1 - PAGE, PAGE)
_AT_LEAST: Final = (1, 2, 3)
"""Of the alignments that so many windows take part in, the best is noted."""

_TOP: Final = 4
_ONE_WAY: Final = len(_OFFSETS) * len(_QUARTERS) + len(_AT_LEAST) + _TOP + 2

COPY_INPUTS: Final = 2 * _ONE_WAY
"""Numbers that a pair of pages is judged by."""

_NOTHING: Final = -1.0


def pages_of(
    blocks: Sequence[npt.NDArray[np.floating]],
) -> tuple[Floats, Places]:
    """Cut blocks into pages of four windows; the last one of a block may be short.

    Args:
        blocks: Unit vectors of each block's windows, (windows, d), one window at least.

    Returns:
        Pages, float32 (p, 4, d), zeros where there is no window, and whose they are, (p,).
    """
    owner = np.repeat(np.arange(len(blocks)), [-(-len(block) // PAGE) for block in blocks])
    pages = np.zeros((len(owner), PAGE, blocks[0].shape[1]), np.float32)
    at = 0
    for block in blocks:
        for start in range(0, len(block), PAGE):
            part = block[start : start + PAGE]
            pages[at, : len(part)] = part
            at += 1
    return pages, owner


def copy_inputs(pages: Floats, first: Places, second: Places) -> Floats:
    """Return what pairs of pages are judged by, float32 (n, COPY_INPUTS).

    Args:
        pages: Of `pages_of`, float32 (p, 4, d).
        first: Numbers of pages, int64 (n,).
        second: Numbers of the pages that they are compared with, int64 (n,).
    """
    one_way = _one_way(pages)
    return np.concatenate([one_way[first, second], one_way[second, first]], axis=1)


def _one_way(pages: Floats) -> Floats:
    """Return how the windows of each page lie in each other page, (p, p, _ONE_WAY)."""
    count = len(pages)
    there = (pages != 0.0).any(axis=2)
    columns: list[Floats] = []
    best = {least: np.full((count, count), _NOTHING, np.float32) for least in _AT_LEAST}
    for share in _QUARTERS:
        mixed, known = pages, there
        if share:
            mixed = _unit((1.0 - share) * pages[:, :-1] + share * pages[:, 1:])
            known = there[:, :-1] & there[:, 1:]
        width = mixed.shape[1]
        flat = pages.reshape(count * PAGE, -1) @ mixed.reshape(count * width, -1).T
        cosines = flat.reshape(count, PAGE, count, width)
        if not share:
            columns += _extremes(cosines, there)
        for offset in _OFFSETS:
            total = np.zeros((count, count), np.float32)
            taking_part = np.zeros((count, count), np.float32)
            for place in range(max(0, -offset), min(PAGE, width - offset)):
                both = there[:, place, None] & known[None, :, place + offset]
                total += np.where(both, cosines[:, place, :, place + offset], 0.0)
                taking_part += both
            mean = total / np.maximum(taking_part, 1.0)
            columns.append(mean)
            for least, found in best.items():
                np.maximum(found, mean, out=found, where=taking_part >= least)
    stacked: Floats = np.stack([*columns, *best.values()], axis=2)
    return stacked


def _extremes(cosines: Floats, there: npt.NDArray[np.bool_]) -> list[Floats]:
    """Return the greatest cosines of each two pages, their mean and their median."""
    count = len(there)
    both = there[:, :, None, None] & there[None, None]
    flat = np.where(both, cosines, np.nan).transpose(0, 2, 1, 3).reshape(count, count, -1)
    ordered = np.sort(np.nan_to_num(flat, nan=_NOTHING), axis=2)[:, :, ::-1]
    tops = [np.ascontiguousarray(ordered[:, :, at]) for at in range(_TOP)]
    share = np.maximum(both.transpose(0, 2, 1, 3).reshape(count, count, -1).sum(axis=2), 1)
    middle = np.take_along_axis(ordered, ((share - 1) // 2)[:, :, None], axis=2)[:, :, 0]
    mean = np.nansum(flat, axis=2) / share
    return [*tops, mean.astype(np.float32), middle]


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: Floats = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return scaled
