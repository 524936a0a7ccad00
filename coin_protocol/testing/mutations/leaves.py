"""Mutations of leaves: their number, and leaves that stand twice.

Some lies are in the tree that the provider commits to. Where a draw that hits one would show it by
another check, the verifier's nonce is one whose draw does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from coin_protocol import draw, merkle
from coin_protocol.checks.opened import shown_blocks
from coin_protocol.commitment import block_leaf_hashes
from coin_protocol.draw import most_tokens
from coin_protocol.encoding import token_fingerprint, token_leaf
from coin_protocol.limits import HASH_BYTES
from coin_protocol.testing.forgeries import (
    block_leaves,
    put,
    recommitted,
)
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Site,
    Sites,
    Spot,
    first_sampled,
    has_manifest,
    leaf_lists,
    where,
)
from coin_protocol.testing.mutations.plans import Plan, sized
from coin_protocol.testing.world import Edit
from coin_protocol.v1 import opening_pb2, statements_pb2

Entry = statements_pb2.BlockEntry
Opening = opening_pb2.Opening
Prove = Callable[[int], Sequence[bytes]]


def committing(plan: Plan, entries: Sequence[Entry]) -> Lie:
    """Return what a provider does whose tree, and checkpoints, are over other blocks."""
    leaves = block_leaf_hashes(plan.opener.session.session_id, entries)

    def refit(checkpoint: statements_pb2.Checkpoint) -> None:
        checkpoint.token_root = merkle.root(leaves[: checkpoint.block_count])

    return Lie(opener=lambda honest: recommitted(honest, entries), checkpoint=refit)


def _reshown(index: int, leaves: Sequence[bytes], prove: Prove) -> Edit[Opening]:
    """Return an edit that shows other leaves of a block wherever it is shown, with proofs."""

    def edit(opening: Opening) -> None:
        found: list[opening_pb2.TokenOpening] = []
        for block in shown_blocks(opening):
            if block.block_index == index:
                found += block.tokens
                if isinstance(block, opening_pb2.BlockOpening):
                    block.token_leaf_hashes = b"".join(leaves)
        if opening.edge.block_index == index:
            found.append(opening.edge.last_token)
            opening.edge.token_leaf_hashes = b"".join(leaves)
        for token in found:
            put("proof", list(prove(token.position)))(token)

    return edit


def _misses(index: int, positions: Sequence[int] = ()) -> Callable[[draw.Drawn], bool]:
    """Return whether a draw opens none of these positions of a block, or nothing of it at all."""

    def missed(drawn: draw.Drawn) -> bool:
        hit = [block for block in (*drawn.blocks, *drawn.token_blocks) if block.index == index]
        if not positions:
            return not hit
        return not any(set(block.positions) & {*positions} for block in hit)

    return missed


def _drawn_blocks(plan: Plan, site: Site) -> int:
    step = plan.steps[site.step]
    return min(plan.blocks, step.blocks + step.token_blocks)


def _may_miss_a_block(plan: Plan) -> list[Site]:
    """Return the first challenge, if it leaves out some block."""
    return [site for site in first_sampled(plan) if _drawn_blocks(plan, site) < plan.blocks]


def _may_miss_two(plan: Plan) -> list[Site]:
    """Return the first challenge, if it may leave out two neighbours before the last token."""
    return [
        site
        for site in first_sampled(plan)
        if plan.last > 2
        and (_drawn_blocks(plan, site) < plan.blocks or _cells_left(plan, site) > 1)
    ]


def _cells_left(plan: Plan, site: Site) -> int:
    """Return how many runs of the last block a challenge leaves out, if it draws that block."""
    wanted = plan.steps[site.step].tokens_per_block
    run = min(plan.profile.run_tokens, wanted)
    if not run:
        return plan.last
    return -(-plan.last // run) - most_tokens(wanted, run) // run


# The number of leaves.


def _leaves(how: Callable[[Spot, list[bytes]], Sequence[bytes]]) -> Callable[[Spot], Lie]:
    """Return what shows other leaf hashes of a block than it has."""

    def lie(at: Spot) -> Lie:
        leaves = block_leaves(at.plan.opener, at.site.index)
        joined = b"".join(how(at, leaves))
        return at.shown("token_leaf_hashes", lambda _: joined)

    return lie


def _some_left_out(at: Spot, leaves: list[bytes]) -> Sequence[bytes]:
    return leaves[: at.random.randrange(len(leaves))]


def _some_added(at: Spot, leaves: list[bytes]) -> Sequence[bytes]:
    return [*leaves, *(at.made_up(HASH_BYTES) for _ in range(at.random.randint(1, 9)))]


def _one_altered(at: Spot, leaves: list[bytes]) -> Sequence[bytes]:
    chosen = at.random.randrange(len(leaves))
    return [*leaves[:chosen], at.flip(leaves[chosen]), *leaves[chosen + 1 :]]


def _one_torn(at: Spot, leaves: list[bytes]) -> Sequence[bytes]:
    return [*leaves[:-1], leaves[-1][: at.random.randrange(1, HASH_BYTES)]]


def _two_exchanged(at: Spot, leaves: list[bytes]) -> Sequence[bytes]:
    return at.exchange(leaves)


def _level_above(at: Spot, leaves: list[bytes]) -> Sequence[bytes]:
    """Show the nodes above the leaves: the root is the same, and half as many are counted."""
    del at
    pairs = [leaves[place : place + 2] for place in range(0, len(leaves), 2)]
    return [merkle.root(pair) for pair in pairs]


def _inflated(at: Spot) -> Lie:
    """Count more tokens in the last block than it has leaves; the last one's path fits both.

    A path to the last of n leaves has as many hashes as n - 1 has bits that are set.
    """
    plan, index = at.plan, at.plan.blocks - 1
    count = at.random.choice(_fitting(plan))
    honest = plan.opener
    last = honest.edge().last_token
    leaf = token_leaf(
        honest.session.session_id,
        index,
        count - 1,
        last.salt,
        token_fingerprint(last.token_id, last.row),
    )
    leaves = [*block_leaves(honest, index)[:-1], merkle.leaf_hash(leaf)]
    entries = [*honest.tree.entries[:-1], Entry(token_count=count, token_root=merkle.root(leaves))]

    def show(opening: Opening) -> None:
        opening.edge.last_token.position = count - 1
        own = merkle.inclusion_proof(leaves, len(leaves) - 1)
        _reshown(index, leaves, lambda _: own)(opening)

    return replace(
        committing(plan, entries),
        commitment=sized(plan, plan.tokens + count - plan.last, plan.blocks),
        openings=show,
        suits=_misses(index),
        step=at.site.step,
        ends=at.site.step + 1,
    )


def _fitting(plan: Plan) -> list[int]:
    """Return greater counts of the last block that its last leaf's path is as good for."""
    bits = (plan.last - 1).bit_count()
    return [
        count
        for count in range(plan.last + 1, plan.block_size + 1)
        if (count - 1).bit_count() == bits
    ]


def _inflatable(plan: Plan) -> list[Site]:
    return _may_miss_a_block(plan) if _fitting(plan) else []


def _subtree_made_up(at: Spot) -> Lie:
    """Commit to a node that is over no two leaves, and count two tokens there."""
    plan, index = at.plan, at.plan.blocks - 1
    pair = at.random.randrange((plan.last - 1) // 2)
    leaves = block_leaves(plan.opener, index)
    root, prove = _with_node(leaves, pair, at.made_up(HASH_BYTES))
    entries = [*plan.opener.tree.entries[:-1], Entry(token_count=plan.last, token_root=root)]
    return replace(
        committing(plan, entries),
        openings=_reshown(index, leaves, prove),
        suits=_misses(index, (2 * pair, 2 * pair + 1)),
        step=at.site.step,
    )


def _with_node(leaves: Sequence[bytes], pair: int, node: bytes) -> tuple[bytes, Prove]:
    """Return root and proofs of a tree that has a made-up node over a pair of leaves."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        level = levels[-1]
        above = [merkle.root(level[place : place + 2]) for place in range(0, len(level), 2)]
        if len(levels) == 1:
            above[pair] = node
        levels.append(above)

    def prove(position: int) -> list[bytes]:
        path = []
        for level in levels[:-1]:
            if position ^ 1 < len(level):
                path.append(level[position ^ 1])
            position >>= 1
        return path

    return levels[-1][0], prove


# Leaves that stand twice.


def _block_for_another(at: Spot) -> list[Entry]:
    """Return the blocks with one standing in the place of another one, too, but the last."""
    entries = [*at.plan.opener.tree.entries]
    place = at.random.randrange(len(entries) - 1)
    source = at.random.choice([one for one in range(len(entries)) if one != place])
    entries[place] = Entry(
        token_count=entries[place].token_count, token_root=entries[source].token_root
    )
    return entries


def _changed(plan: Plan, entries: Sequence[Entry]) -> int:
    honest = plan.opener.tree.entries
    (place,) = [one for one, entry in enumerate(entries) if entry != honest[one]]
    return place


def _block_repeated(at: Spot) -> Lie:
    """Repeat a block for another one; nobody has challenged anything yet."""
    return replace(committing(at.plan, _block_for_another(at)), ends=0)


def _undrawn_block_repeated(at: Spot) -> Lie:
    """Repeat a block for one that is not drawn."""
    entries = _block_for_another(at)
    missed = _misses(_changed(at.plan, entries))
    return replace(committing(at.plan, entries), suits=missed, step=at.site.step)


def _blocks_billed_twice(at: Spot) -> Lie:
    """Put full blocks into the tree a second time, and bill them."""
    plan, honest = at.plan, at.plan.opener.tree.entries
    full = honest[: plan.full_blocks]
    repeated = full[: at.random.randint(1, len(full))]
    entries = [*full, *repeated, *honest[plan.full_blocks :]]
    more = len(repeated) * plan.block_size
    signed = sized(plan, plan.tokens + more, len(entries))
    return replace(committing(plan, entries), commitment=signed, ends=0)


def _last_block_of_anothers_leaves(at: Spot) -> Lie:
    """Give the last block the root of another one."""
    entries = [*at.plan.opener.tree.entries]
    source = at.random.choice(entries[:-1])
    entries[-1] = Entry(token_count=at.plan.last, token_root=source.token_root)
    return replace(committing(at.plan, entries), ends=0)


def _leaf_repeated(at: Spot) -> Lie:
    """Repeat a leaf of the last block in a place that is not drawn."""
    plan, index = at.plan, at.plan.blocks - 1
    leaves = block_leaves(plan.opener, index)
    place = at.random.randrange(len(leaves) - 1)
    source = at.random.choice([one for one in range(len(leaves)) if one != place])
    leaves[place] = leaves[source]
    return _of_leaves(at, leaves, [place])


def _neighbours_repeated(at: Spot) -> Lie:
    """Repeat one leaf of the last block in two places that are not drawn."""
    plan, index = at.plan, at.plan.blocks - 1
    leaves = block_leaves(plan.opener, index)
    first = 2 * at.random.randrange((len(leaves) - 1) // 2)
    leaves[first] = leaves[first + 1] = leaves[-1]
    return _of_leaves(at, leaves, [first, first + 1])


def _of_leaves(at: Spot, leaves: Sequence[bytes], places: Sequence[int]) -> Lie:
    """Commit to other leaves of the last block, and show them; some places must not be drawn."""
    plan, index = at.plan, at.plan.blocks - 1
    entry = Entry(token_count=len(leaves), token_root=merkle.root(leaves))
    tree = merkle.IncrementalTree(leaves)
    return replace(
        committing(plan, [*plan.opener.tree.entries[:-1], entry]),
        openings=_reshown(index, leaves, tree.inclusion_proof),
        suits=_misses(index, places),
        step=at.site.step,
    )


_EVERY_LIST: Final = leaf_lists()
_LONGER_LISTS: Final[Sites] = leaf_lists(lambda count: count > 1)


def _two_blocks(plan: Plan) -> bool:
    return plan.manifest and plan.blocks > 1


def _full_blocks(plan: Plan) -> bool:
    return has_manifest(plan) and plan.full_blocks > 0


# fmt: off
COUNTS: Final = (
    Mutation("leaf-hashes-left-out", "The last leaf hashes of a block are not shown.",
             _EVERY_LIST, _leaves(_some_left_out), "BLOCK_COUNT"),
    Mutation("leaf-hashes-added", "More leaf hashes are shown of a block than it counts tokens.",
             _EVERY_LIST, _leaves(_some_added), "BLOCK_COUNT"),
    Mutation("leaf-hash-altered", "A leaf hash of a block is another one by one bit.",
             _EVERY_LIST, _leaves(_one_altered), "BLOCK_COUNT"),
    Mutation("leaf-hash-torn", "The last leaf hash of a block lacks bytes.",
             _EVERY_LIST, _leaves(_one_torn), "BLOCK_COUNT"),
    Mutation("leaf-hashes-exchanged", "Two leaf hashes of a block have changed places.",
             _LONGER_LISTS, _leaves(_two_exchanged), "BLOCK_COUNT"),
    Mutation("leaf-hashes-of-a-level-above", "The nodes above a block's leaves are shown as them.",
             _LONGER_LISTS, _leaves(_level_above), "BLOCK_COUNT"),
    Mutation("last-block-inflated",
             "The last block counts more tokens than leaves; its last leaf's path fits both.",
             _inflatable, _inflated, "BLOCK_COUNT"),
    Mutation("subtree-made-up", "Two tokens of the last block are counted that have no leaves.",
             _may_miss_two, _subtree_made_up, "BLOCK_COUNT"),
)

REPEATED: Final = (
    Mutation("block-repeated", "A block stands in the tree for another one, too.",
             where(_two_blocks), _block_repeated, "LEAF_REPEATED"),
    Mutation("block-repeated-undrawn", "A block stands for another one, which was not drawn.",
             _may_miss_a_block, _undrawn_block_repeated, "LEAF_REPEATED"),
    Mutation("blocks-billed-twice", "Blocks stand in the tree a second time, and are billed.",
             where(_full_blocks), _blocks_billed_twice, "LEAF_REPEATED"),
    Mutation("last-block-of-anothers-leaves", "The last block has another one's root.",
             where(_two_blocks), _last_block_of_anothers_leaves, "LEAF_REPEATED"),
    Mutation("leaf-repeated", "A leaf of the last block stands in another place, too.",
             _may_miss_two, _leaf_repeated, "LEAF_REPEATED"),
    Mutation("leaf-repeated-in-two-places", "The last leaf stands in two more places.",
             _may_miss_two, _neighbours_repeated, "LEAF_REPEATED"),
)
# fmt: on
