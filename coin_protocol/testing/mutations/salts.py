"""Mutations of salts: leaves are committed, and opened, with salts of another length.

Roots and proofs are those of such leaves, and the verifier's nonce is one that draws them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from coin_protocol import draw
from coin_protocol.limits import BLOCK_SALT_BYTES, TOKEN_SALT_BYTES
from coin_protocol.testing.mutations.leaves import committing
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Site,
    Spot,
    first_sampled,
    first_whole,
)
from coin_protocol.testing.mutations.plans import Plan
from coin_protocol.testing.salts import salted_block, salted_tokens


def _token_salts(size: int) -> Callable[[Spot], Lie]:
    """Return what gives tokens of a block salts of another length, and is asked for some."""

    def lie(at: Spot) -> Lie:
        plan, kind = at.plan, at.site.path
        if kind == "edge":
            return _committed(at, plan.blocks - 1, range(plan.last - 1, plan.last), size)
        index = at.random.choice(_drawable(plan))
        positions = range(_but_the_edge(plan, index))

        def hit(drawn: draw.Drawn) -> bool:
            found = drawn.blocks if kind == "blocks" else drawn.token_blocks
            return any(
                block.index == index and set(block.positions) & {*positions} for block in found
            )

        return replace(_committed(at, index, positions, size), suits=hit)

    return lie


def _committed(at: Spot, index: int, positions: range, size: int) -> Lie:
    """Return what gives tokens of a block salts of another length; nobody asks any more later."""
    forge = salted_tokens(index, size, positions)
    entries = forge(at.plan.opener).tree.entries
    step = at.site.step
    return replace(committing(at.plan, entries), opener=forge, step=step, ends=step + 1)


def _but_the_edge(plan: Plan, index: int) -> int:
    """Return how many tokens of a block, its first ones, are not the last of all."""
    return plan.count(index) - (index == plan.blocks - 1)


def _drawable(plan: Plan) -> list[int]:
    """Return the blocks that have tokens besides the last of all."""
    return [index for index in range(plan.blocks) if _but_the_edge(plan, index)]


def _places(plan: Plan) -> list[Site]:
    """Return where the first challenge shows tokens: `path` is the kind of place.

    No block was opened whole before: its leaves would be salted badly, too.
    """
    return [
        Site(site.step, kind)
        for site in first_sampled(plan)
        if not any(step.whole for step in plan.steps[: site.step])
        for kind in _kinds(plan, site)
    ]


def _kinds(plan: Plan, site: Site) -> list[str]:
    step, found = plan.steps[site.step], ["edge"]
    if step.tokens_per_block and _drawable(plan):
        found += ["blocks"] * bool(step.blocks)
        found += ["token_blocks"] * bool(step.token_blocks and step.blocks < plan.blocks)
    return found


def _block_salt(size: int) -> Callable[[Spot], Lie]:
    """Return what gives a block, which is then drawn, a salt of another length."""
    return lambda at: _drawn(at, lambda index: Lie(opener=salted_block(index, size)))


def _drawn(at: Spot, lie: Callable[[int], Lie]) -> Lie:
    """Return a lie of some block; the challenge opens its embedding, and is the last one."""
    index, step = at.random.randrange(at.plan.blocks), at.site.step
    return replace(
        lie(index),
        step=step,
        suits=lambda drawn: index in {block.index for block in drawn.blocks},
        ends=step + 1,
    )


def _embedded(plan: Plan) -> list[Site]:
    """Return the first challenges of each kind, where they open embeddings."""
    found = [site for site in first_sampled(plan) if plan.steps[site.step].blocks]
    return [*found, *first_whole(plan)]


def _last_salt_short(at: Spot) -> Lie:
    """Give the last token of a block a part of a salt: those before it are cut where they end."""
    size = at.random.randrange(TOKEN_SALT_BYTES)

    def lie(index: int) -> Lie:
        last = at.plan.count(index) - 1
        return _committed(at, index, range(last, last + 1), size)

    return _drawn(at, lie)


def _nothing_before(plan: Plan) -> list[Site]:
    """Return the first challenge, if it is for whole blocks: no token was opened before."""
    return [site for site in first_whole(plan) if site.step == 0]


# fmt: off
SALTS: Final = (
    Mutation("token-salts-left-out", "Tokens are committed and opened without a salt.",
             _places, _token_salts(0), "INCLUSION_PROOF"),
    Mutation("token-salts-too-short", "Tokens are committed and opened with a byte less of salt.",
             _places, _token_salts(TOKEN_SALT_BYTES - 1), "INCLUSION_PROOF"),
    Mutation("token-salts-too-long", "Tokens are committed and opened with a byte more of salt.",
             _places, _token_salts(TOKEN_SALT_BYTES + 1), "INCLUSION_PROOF"),
    Mutation("block-salt-left-out", "A block is committed and opened without a salt.",
             _embedded, _block_salt(0), "INCLUSION_PROOF"),
    Mutation("block-salt-too-short", "A block is committed and opened with a byte less of salt.",
             _embedded, _block_salt(BLOCK_SALT_BYTES - 1), "INCLUSION_PROOF"),
    Mutation("block-salt-too-long", "A block is committed and opened with a byte more of salt.",
             _embedded, _block_salt(BLOCK_SALT_BYTES + 1), "INCLUSION_PROOF"),
)

WHOLE_SALTS: Final = (
    Mutation("whole-last-salt-too-short",
             "The last token of a block is committed, and opened whole, with a part of a salt.",
             _nothing_before, _last_salt_short, "WHOLE_LEAVES"),
)
# fmt: on
