"""Mutations of what is opened: what the provider chose, and not what was drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from coin_protocol import draw
from coin_protocol.checks.opened import Shown
from coin_protocol.testing.forgeries import put
from coin_protocol.testing.mutations.flips import by_link, open_as
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Site,
    Spot,
    blocks,
    every,
    standing,
    token_blocks,
    token_lists,
    tokens,
    where,
    whole_blocks,
)
from coin_protocol.testing.mutations.plans import Plan
from coin_protocol.v1 import opening_pb2

_LINKS_TRIED: Final = 9

Opening = opening_pb2.Opening
Token = opening_pb2.TokenOpening


def _edits(edit: Callable[[Spot, Any], object]) -> Callable[[Spot], Lie]:
    """Return a lie that edits what an answer shows at the site."""
    return lambda at: at.edited(lambda found: edit(at, found))


def _opened(plan: Plan, block: int, positions: Sequence[int]) -> Sequence[Token]:
    """Return tokens of a block as the honest provider opens them."""
    return plan.opener.token_block(draw.DrawnBlock(block, tuple(positions))).tokens


def _undrawn(at: Spot, shown: Sequence[Token]) -> int:
    """Return a position of the site's block that was not drawn."""
    drawn = {token.position for token in shown}
    return at.random.choice(
        [place for place in range(at.plan.count(at.site.index)) if place not in drawn]
    )


def _other_block(at: Spot, shown: Sequence[Any]) -> int:
    """Return a block of the reply that is not among those shown."""
    drawn = {block.block_index for block in shown}
    return at.random.choice([index for index in range(at.plan.blocks) if index not in drawn])


def _first(block: int, plan: Plan, count: int) -> draw.DrawnBlock:
    """Return the first positions of a block as if they had been drawn."""
    return draw.DrawnBlock(block, tuple(range(min(count, plan.count(block)))))


# Blocks.


def _kinder_block(at: Spot) -> Lie:
    """Open another block with its embedding, and the first of its tokens."""

    def edit(opening: Opening) -> None:
        block: Any = standing(at.site.path, opening)
        other = _other_block(at, opening.blocks)
        block.CopyFrom(at.plan.opener.block(_first(other, at.plan, len(block.tokens))))

    return at.opening(edit)


def _kinder_token_block(at: Spot) -> Lie:
    def edit(opening: Opening) -> None:
        block: Any = standing(at.site.path, opening)
        other = _other_block(at, opening.token_blocks)
        block.CopyFrom(at.plan.opener.token_block(_first(other, at.plan, len(block.tokens))))

    return at.opening(edit)


def _kinder_whole_block(at: Spot) -> Lie:
    def edit(opening: opening_pb2.WholeBlockOpening) -> None:
        other = _other_block(at, opening.blocks)
        block: Any = standing(at.site.path, opening)
        block.CopyFrom(_whole(at.plan, other))

    return at.opening(edit)


def _block_added(at: Spot) -> Lie:
    """Open a block more than was drawn."""

    def edit(opening: Opening) -> None:
        other = _other_block(at, opening.blocks)
        opening.blocks.add().CopyFrom(at.plan.opener.block(_first(other, at.plan, 1)))

    return at.opening(edit)


def _whole_block_added(at: Spot) -> Lie:
    def edit(opening: opening_pb2.WholeBlockOpening) -> None:
        other = _other_block(at, opening.blocks)
        opening.blocks.add().CopyFrom(_whole(at.plan, other))

    return at.opening(edit)


def _whole(plan: Plan, block: int) -> opening_pb2.WholeBlock:
    return plan.opener.whole(block, plan.world.models.tokenizer)


def _twice(at: Spot) -> Lie:
    """Open a block, or a token of one, a second time."""
    field, _, place = at.site.path.rpartition(".")

    def edit(opening: Message) -> None:
        shown: Any = standing(field, opening)
        shown.add().CopyFrom(shown[int(place)])

    return at.opening(edit)


def _past_the_tree(at: Spot, block: Shown | opening_pb2.WholeBlock) -> None:
    block.block_index = at.plan.blocks + at.random.randrange(9)


def _embedding_withheld(at: Spot) -> Lie:
    """Open the tokens alone of a block that was drawn with its embedding."""

    def edit(opening: Opening) -> None:
        place = int(at.site.path.rpartition(".")[2])
        block = opening.blocks[place]
        opening.token_blocks.add(block_index=block.block_index, tokens=block.tokens)
        del opening.blocks[place]

    return at.opening(edit)


def _embedding_unasked(at: Spot) -> Lie:
    """Open a token block with its embedding, too, which was not drawn."""

    def edit(opening: Opening) -> None:
        shown: Any = standing(at.site.path, opening)
        positions = tuple(token.position for token in shown.tokens)
        drawn = draw.DrawnBlock(shown.block_index, positions)
        opening.blocks.add().CopyFrom(at.plan.opener.block(drawn))

    return at.opening(edit)


# Positions.


def _kinder_token(at: Spot, block: Shown) -> None:
    """Open a token that was not drawn for one that was, with all its proofs."""
    place = _undrawn(at, block.tokens)
    chosen = at.random.randrange(len(block.tokens))
    block.tokens[chosen].CopyFrom(_opened(at.plan, at.site.index, [place])[0])


def _token_added(at: Spot, block: Shown) -> None:
    place = _undrawn(at, block.tokens)
    block.tokens.add().CopyFrom(_opened(at.plan, at.site.index, [place])[0])


def _past_the_block(at: Spot, token: Token) -> None:
    token.position = at.plan.count(at.site.index) + at.random.randrange(9)


def _run_shifted(at: Spot, block: Shown) -> None:
    """Open each run of a block one place further on."""
    positions = _shifted(at.plan.count(at.site.index), block.tokens)
    put("tokens", list(_opened(at.plan, at.site.index, positions)))(block)


def _shifted(count: int, shown: Sequence[Token]) -> list[int]:
    return [token.position + 1 for token in shown if token.position + 1 < count]


def _shifts(count: int, shown: Sequence[Token]) -> bool:
    """Whether a block's positions are others when each is one further on."""
    shifted = _shifted(count, shown)
    return bool(set(shifted) - {token.position for token in shown})


def _runs(plan: Plan) -> list[Site]:
    """Return the blocks of which runs of several tokens were drawn."""
    found = token_lists(_shifts)(plan) if plan.run_tokens > 1 else []
    return [site for site in found if plan.steps[site.step].tokens_per_block > 1]


# Draws of something else.


def _drawn_otherwise(at: Spot) -> Lie:
    """Open what another link of the chain would have drawn; the flip is the right one."""
    found = by_link(at.plan, at.site.step, at.site.index)
    return at.opening(lambda opening: open_as(at.plan, opening, found))


def _own(plan: Plan, step: int) -> draw.Drawn:
    return by_link(plan, step, plan.link(step))


def _kinder_links(plan: Plan) -> list[Site]:
    """Return, for each opening, links of the chain that draw what its own link did not."""
    return [
        Site(step, index=link)
        for step in (*plan.openings, *plan.whole_openings)
        for link in range(1, _LINKS_TRIED + 1)
        if link != plan.link(step) and _escapes(by_link(plan, step, link), _own(plan, step))
    ]


def _escapes(other: draw.Drawn, own: draw.Drawn) -> bool:
    """Whether a draw has a block or position that another one lacks."""
    return any(
        not set(found.positions) <= set(wanted.get(found.index, ())) or found.index not in wanted
        for theirs, ours in ((other.blocks, own.blocks), (other.token_blocks, own.token_blocks))
        for wanted in [{block.index: block.positions for block in ours}]
        for found in theirs
    )


def _as_another_round(at: Spot) -> Lie:
    """Open what another round drew, and opened."""
    other = at.plan.openings[at.site.index]

    def edit(opening: Opening) -> None:
        put("blocks", list(other.blocks))(opening)
        put("token_blocks", list(other.token_blocks))(opening)

    return at.opening(edit)


def _other_rounds(plan: Plan) -> list[Site]:
    return [
        Site(step, index=other)
        for step in plan.openings
        for other in plan.openings
        if step != other and _escapes(_own(plan, other), _own(plan, step))
    ]


def _spare_blocks(kind: str) -> Callable[[Plan], list[Site]]:
    """Return the blocks of a kind in openings that leave a block of the reply out of it."""

    def find(plan: Plan) -> list[Site]:
        sites = blocks()(plan) if kind == "blocks" else token_blocks(plan)
        shown = {step: getattr(opening, kind) for step, opening in plan.openings.items()}
        return [site for site in sites if len(shown[site.step]) < plan.blocks]

    return find


def _room(plan: Plan) -> list[Site]:
    """Return the openings that leave a block of the reply without its embedding."""
    return [
        Site(step) for step, opening in plan.openings.items() if len(opening.blocks) < plan.blocks
    ]


def _spare_whole_blocks(plan: Plan) -> list[Site]:
    return [
        site
        for site in whole_blocks()(plan)
        if len(plan.whole_openings[site.step].blocks) < plan.blocks
    ]


def _drawn_tokens(plan: Plan) -> list[Site]:
    """Return the opened tokens that were drawn: all but those of the edge."""
    return [site for site in tokens()(plan) if not site.path.startswith("edge")]


_UNDRAWN: Final = token_lists(lambda count, shown: len(shown) < count)
_KINDER: Final = token_lists(lambda count, shown: 0 < len(shown) < count)

# fmt: off
DRAWN: Final = (
    Mutation("block-undrawn", "A block is opened that was not drawn, in the place of one that was.",
             _spare_blocks("blocks"), _kinder_block, "DRAW"),
    Mutation("token-block-undrawn", "Tokens are opened of a block that was not drawn.",
             _spare_blocks("token_blocks"), _kinder_token_block, "DRAW"),
    Mutation("whole-block-undrawn", "A block is opened whole that was not drawn.",
             _spare_whole_blocks, _kinder_whole_block, "DRAW"),
    Mutation("block-added", "A block more is opened than was drawn.",
             _room, _block_added, "DRAW"),
    Mutation("whole-block-added", "A block more is opened whole than was drawn.",
             where(lambda plan: plan.blocks > 1, _spare_whole_blocks), _whole_block_added, "DRAW"),
    Mutation("block-opened-twice", "A drawn block is opened a second time.",
             every(blocks(), token_blocks), _twice, "DRAW"),
    Mutation("whole-block-opened-twice", "A drawn block is opened whole a second time.",
             whole_blocks(), _twice, "DRAW"),
    Mutation("block-past-the-tree", "A block is opened that the reply has not.",
             every(blocks(), token_blocks, whole_blocks()), _edits(_past_the_tree), "DRAW"),
    Mutation("embedding-withheld", "Of a block drawn with its embedding tokens alone are opened.",
             blocks(), _embedding_withheld, "DRAW"),
    Mutation("embedding-unasked", "A token block is opened with its embedding.",
             token_blocks, _embedding_unasked, "DRAW"),
    Mutation("token-undrawn", "A kinder token is opened in the place of a drawn one.",
             _KINDER, _edits(_kinder_token), "DRAW"),
    Mutation("token-added", "A token more is opened than was drawn.",
             _UNDRAWN, _edits(_token_added), "DRAW"),
    Mutation("token-opened-twice", "A drawn token is opened a second time.",
             _drawn_tokens, _twice, "DRAW"),
    Mutation("token-past-the-block", "A token is opened that the block has not.",
             _drawn_tokens, _edits(_past_the_block), "DRAW"),
    Mutation("runs-shifted", "Runs of tokens begin a place beside those drawn.",
             _runs, _edits(_run_shifted), "DRAW"),
    Mutation("drawn-with-another-link", "What is opened is what another flip would have drawn.",
             _kinder_links, _drawn_otherwise, "DRAW"),
    Mutation("drawn-in-another-round", "What is opened is what another round drew.",
             _other_rounds, _as_another_round, "DRAW"),
)
# fmt: on
