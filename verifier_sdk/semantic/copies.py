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

from verifier_sdk.semantic import exact
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


def _shifts(width: int) -> Floats:
    """Return which of a page's windows meets which of `width` mixtures, (4 * width, offsets)."""
    met = [np.eye(PAGE, width, offset, dtype=np.float32).ravel() for offset in _OFFSETS]
    return np.stack(met, axis=1)


_SHIFTS: Final = {width: _shifts(width) for width in (PAGE, PAGE - 1)}


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
    extremes: list[Floats] = []
    means: list[Floats] = []
    taking_part: list[Floats] = []
    for share in _QUARTERS:
        mixed, known = pages, there
        if share:
            between = (1.0 - share) * pages[:, :-1] + share * pages[:, 1:]
            mixed = exact.unit(between).astype(np.float32)
            known = there[:, :-1] & there[:, 1:]
        width = mixed.shape[1]
        flat = exact.product(pages.reshape(count * PAGE, -1), mixed.reshape(count * width, -1).T)
        # (p, p, 4 * width): of each two pages, every window with every mixture.
        each = flat.reshape(count, PAGE, count, width).transpose(0, 2, 1, 3)
        cosines: Floats = each.reshape(count, count, PAGE * width).astype(np.float32)
        both = (there[:, None, :, None] & known[None, :, None, :]).reshape(cosines.shape)
        if not share:
            extremes = _extremes(cosines, both)
        part = both.astype(np.float32) @ _SHIFTS[width]
        taking_part.append(part)
        shown = exact.addends(np.where(both, cosines, 0.0), PAGE * width)
        summed = shown @ _SHIFTS[width]
        means.append((summed / np.maximum(part, 1.0)).astype(np.float32))
    shifted = np.concatenate(means, axis=2)
    part = np.concatenate(taking_part, axis=2)
    best = [
        np.where(part >= least, shifted, _NOTHING).max(axis=2, keepdims=True) for least in _AT_LEAST
    ]
    stacked: Floats = np.concatenate([*extremes, shifted, *best], axis=2).astype(np.float32)
    return stacked


def _extremes(cosines: Floats, both: npt.NDArray[np.bool_]) -> list[Floats]:
    """Return the greatest cosines of each two pages, their mean and their median, (p, p, n)."""
    ordered = np.sort(np.where(both, cosines, _NOTHING), axis=2)[:, :, ::-1]
    known = np.maximum(both.sum(axis=2, keepdims=True), 1)
    middle = np.take_along_axis(ordered, (known - 1) // 2, axis=2)
    mean = exact.total(np.where(both, cosines, 0.0), axis=2)[:, :, None] / known
    return [ordered[:, :, :_TOP], mean.astype(np.float32), middle]
