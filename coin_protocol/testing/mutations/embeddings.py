"""Mutations of block embeddings, of which the fingerprint root is signed before any challenge.

The provider forges the windows of one block; the verifier's nonce is one that draws it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, nan
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol import draw
from coin_protocol.embedding import quantised_windows, unit, window_dimension
from coin_protocol.opening import Opener
from coin_protocol.quantise import SCALE_BYTES, dequantise, quantise
from coin_protocol.testing.forgeries import rescaled
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Site,
    Spot,
    first_sampled,
    first_whole,
)
from coin_protocol.testing.mutations.plans import Plan

Rows = Sequence[bytes]
Forge = Callable[[Spot, int, Rows], Rows]
"""Takes the spot, a block's index and its honest windows, and returns others."""


def _forged(forge: Forge) -> Callable[[Spot], Lie]:
    """Return what commits to other windows of one block, which is then drawn."""

    def lie(at: Spot) -> Lie:
        whole = at.plan.steps[at.site.step].whole
        chosen = at.site.index if whole else at.random.randrange(at.plan.blocks)
        rows = list(forge(at, chosen, at.plan.opener.windows[chosen]))

        def keep(honest: Opener) -> Opener:
            windows = [*honest.windows]
            windows[chosen] = rows
            return replace(honest, windows=windows)

        return Lie(
            opener=keep,
            step=at.site.step,
            suits=lambda drawn: chosen in _embedded(drawn),
            ends=at.site.step + 1,
        )

    return lie


def _embedded(drawn: draw.Drawn) -> set[int]:
    return {block.index for block in drawn.blocks}


def _shown(plan: Plan) -> list[Site]:
    """Return the first challenges of each kind, where they open embeddings."""
    found = [site for site in first_sampled(plan) if plan.steps[site.step].blocks]
    blocks = range(plan.blocks)
    return [*found, *(Site(site.step, index=one) for site in first_whole(plan) for one in blocks)]


# Windows that no embedding model gives, whatever the text.


def _every_row(how: Callable[[Spot, bytes], bytes]) -> Forge:
    return lambda at, _, rows: [how(at, row) for row in rows]


def _one_row(how: Callable[[Spot, bytes], bytes]) -> Forge:
    """Return what forges one window of a block."""

    def forge(at: Spot, block: int, rows: Rows) -> Rows:
        del block
        chosen = at.random.randrange(len(rows))
        return [*rows[:chosen], how(at, rows[chosen]), *rows[chosen + 1 :]]

    return forge


def _stretched(at: Spot, row: bytes) -> bytes:
    return rescaled(row, _scale(row) * at.random.choice([1.1, 2.0, 50.0]))


def _shrunk(at: Spot, row: bytes) -> bytes:
    return rescaled(row, _scale(row) * at.random.choice([0.9, 0.5, 0.02]))


def _scale(row: bytes) -> float:
    (scale,) = struct.unpack("<f", row[:SCALE_BYTES])
    return float(scale)


def _unscaled(at: Spot, row: bytes) -> bytes:
    return rescaled(row, at.random.choice([nan, inf, -inf, 0.0, -_scale(row), 1e-45]))


def _steps(row: bytes) -> npt.NDArray[np.int8]:
    return np.frombuffer(row[SCALE_BYTES:], np.int8).copy()


def _with_steps(row: bytes, steps: npt.NDArray[np.int8]) -> bytes:
    return row[:SCALE_BYTES] + steps.tobytes()


def _below_the_range(at: Spot, row: bytes) -> bytes:
    steps = _steps(row)
    steps[at.random.randrange(len(steps))] = -128
    return _with_steps(row, steps)


def _not_at_full_range(at: Spot, row: bytes) -> bytes:
    """Halve the numbers and double the scale: the norm is about the same."""
    del at
    return rescaled(_with_steps(row, _steps(row) // 2), 2 * _scale(row))


def _of_zeros(at: Spot, row: bytes) -> bytes:
    del at
    return _with_steps(row, _steps(row) * 0)


def _torn(at: Spot, row: bytes) -> bytes:
    return row[: at.random.randrange(len(row))]


def _longer(at: Spot, row: bytes) -> bytes:
    return row + at.made_up(at.random.randint(1, 4))


def _one_left_out(at: Spot, block: int, rows: Rows) -> Rows:
    del block
    chosen = at.random.randrange(len(rows))
    return [*rows[:chosen], *rows[chosen + 1 :]]


def _one_added(at: Spot, block: int, rows: Rows) -> Rows:
    del block
    return [*rows, at.random.choice(rows)]


def _all_left_out(at: Spot, block: int, rows: Rows) -> Rows:
    del at, block, rows
    return []


# Embeddings of something else than the block's text.


def _of_the_answer(at: Spot, block: int, rows: Rows) -> Rows:
    del block
    return _copies(at.plan, len(rows))


def _copies(plan: Plan, count: int) -> Rows:
    spec = plan.profile.message.embedding
    answer = plan.honest.receipt.answer.decode()
    return quantised_windows(plan.world.models.embedder, spec, [answer]) * count


def _of_another_block(at: Spot, block: int, rows: Rows) -> Rows:
    del rows
    others = _alike(at.plan, block)
    return at.plan.opener.windows[at.random.choice(others)]


def _alike(plan: Plan, block: int) -> list[int]:
    """Return other blocks of as many windows, the embeddings of which are others."""
    own = plan.opener.windows[block]
    return [
        other
        for other, rows in enumerate(plan.opener.windows)
        if other != block and len(rows) == len(own) and _differ(plan, own, rows)
    ]


def _reversed(at: Spot, block: int, rows: Rows) -> Rows:
    del at, block
    return rows[::-1]


def _negated(at: Spot, block: int, rows: Rows) -> Rows:
    del at, block
    return [_with_steps(row, -_steps(row)) for row in rows]


def _turned(at: Spot, block: int, rows: Rows) -> Rows:
    """Turn one window a little: about a fortieth of a right angle, and no more."""
    del block
    dimension = window_dimension(at.plan.profile.message.embedding)
    vectors = dequantise(rows, dimension)
    chosen = at.random.randrange(len(rows))
    vectors[chosen, int(np.argmin(np.abs(vectors[chosen])))] += 0.04
    return [row.tobytes() for row in quantise(unit(vectors))]


def _differ(plan: Plan, honest: Rows, forged: Rows) -> bool:
    """Whether embeddings are farther apart than those of one text ever are."""
    dimension = window_dimension(plan.profile.message.embedding)
    first, second = (unit(dequantise(rows, dimension)) for rows in (honest, forged))
    least = float(np.sum(first * second, axis=1).min())
    # Well apart, so that no rounding matters.
    return least < plan.world.policy.message.min_recomputed_cosine - 1e-4


def _embeddable(forged: Callable[[Plan, int, Rows], bool]) -> Callable[[Plan], list[Site]]:
    """Return the blocks that can be drawn whole and embedded again, where a forgery shows."""

    def find(plan: Plan) -> list[Site]:
        return [
            Site(site.step, index=block)
            for site in first_whole(plan)
            if plan.installed
            for block, rows in enumerate(plan.opener.windows)
            if forged(plan, block, rows)
        ]

    return find


def _always(plan: Plan, block: int, rows: Rows) -> bool:
    del plan, block, rows
    return True


def _unlike_the_answer(plan: Plan, block: int, rows: Rows) -> bool:
    del block
    return _differ(plan, rows, _copies(plan, len(rows)))


def _unlike_another(plan: Plan, block: int, rows: Rows) -> bool:
    del rows
    return bool(_alike(plan, block))


def _unlike_reversed(plan: Plan, block: int, rows: Rows) -> bool:
    del block
    return _differ(plan, rows, rows[::-1])


# fmt: off
WINDOWS: Final = (
    Mutation("windows-stretched", "Window embeddings of a block are longer than 1, to score more.",
             _shown, _forged(_every_row(_stretched)), "WINDOW_EMBEDDING"),
    Mutation("window-shrunk", "A window embedding of a block is shorter than 1.",
             _shown, _forged(_one_row(_shrunk)), "WINDOW_EMBEDDING"),
    Mutation("window-unscaled", "A window embedding's scale is no normal positive number.",
             _shown, _forged(_one_row(_unscaled)), "WINDOW_EMBEDDING"),
    Mutation("window-below-the-range", "A window embedding has the byte -128.",
             _shown, _forged(_one_row(_below_the_range)), "WINDOW_EMBEDDING"),
    Mutation("window-not-at-full-range", "A window embedding has no byte of magnitude 127.",
             _shown, _forged(_one_row(_not_at_full_range)), "WINDOW_EMBEDDING"),
    Mutation("window-of-zeros", "A window embedding is zero.",
             _shown, _forged(_one_row(_of_zeros)), "WINDOW_EMBEDDING"),
    Mutation("window-torn", "A window embedding has too few bytes.",
             _shown, _forged(_one_row(_torn)), "WINDOW_EMBEDDING"),
    Mutation("window-too-long", "A window embedding has too many bytes.",
             _shown, _forged(_one_row(_longer)), "WINDOW_EMBEDDING"),
    Mutation("window-left-out", "A block is committed without one of its windows.",
             _shown, _forged(_one_left_out), "WINDOW_EMBEDDING"),
    Mutation("window-added", "A block is committed with a window too many.",
             _shown, _forged(_one_added), "WINDOW_EMBEDDING"),
    Mutation("windows-left-out", "A block is committed without any window.",
             _shown, _forged(_all_left_out), "WINDOW_EMBEDDING"),
)

EMBEDDINGS: Final = (
    Mutation("embedding-of-the-answer", "A block's windows are embedded as the answer is.",
             _embeddable(_unlike_the_answer), _forged(_of_the_answer), "WHOLE_EMBEDDING"),
    Mutation("embedding-of-another-block", "A block's windows are embedded as another block's are.",
             _embeddable(_unlike_another), _forged(_of_another_block), "WHOLE_EMBEDDING"),
    Mutation("embedding-reversed", "A block's windows are committed in the reverse order.",
             _embeddable(_unlike_reversed), _forged(_reversed), "WHOLE_EMBEDDING"),
    Mutation("embedding-negated", "A block's window embeddings point the other way.",
             _embeddable(_always), _forged(_negated), "WHOLE_EMBEDDING"),
    Mutation("embedding-turned", "A window embedding is turned by two degrees.",
             _embeddable(_always), _forged(_turned), "WHOLE_EMBEDDING"),
)
# fmt: on
