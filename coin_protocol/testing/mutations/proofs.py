"""Mutations of proofs: what is opened is not where the signed roots put it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from coin_protocol import draw, merkle
from coin_protocol.limits import HASH_BYTES, TOKEN_SALT_BYTES
from coin_protocol.testing.forgeries import block_leaves, both, put
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Site,
    Sites,
    Spot,
    blocks,
    every,
    first_sampled,
    first_whole,
    sampled,
    token_lists,
    tokens,
    where,
    whole_blocks,
)
from coin_protocol.testing.mutations.plans import Plan
from coin_protocol.testing.small import VOCABULARY
from coin_protocol.v1 import opening_pb2

Token = opening_pb2.TokenOpening


def _token(edit: Callable[[Spot, Token], object]) -> Callable[[Spot], Lie]:
    """Return a lie about one opened token."""
    return lambda at: at.edited(lambda token: edit(at, token))


# One token.


def _plausible(at: Spot, token: Token) -> None:
    """Show another id, with its true row of the table."""
    table = at.plan.opener.table
    token.token_id = (token.token_id + at.random.randrange(1, VOCABULARY)) % VOCABULARY
    token.row = table.row(token.token_id)
    put("table_proof", table.proof(token.token_id))(token)


def _id_altered(at: Spot, token: Token) -> None:
    token.token_id ^= 1 << at.random.randrange(9)


def _salt_altered(at: Spot, token: Token) -> None:
    token.salt = at.flip(token.salt)


def _salt_cut(at: Spot, token: Token) -> None:
    token.salt = token.salt[: at.random.randrange(TOKEN_SALT_BYTES)]


def _row_altered(at: Spot, token: Token) -> None:
    token.row = at.flip(token.row)


def _proof_altered(at: Spot, token: Token) -> None:
    level = at.random.randrange(len(token.proof))
    token.proof[level] = at.flip(token.proof[level])


def _proof_cut(at: Spot, token: Token) -> None:
    """Leave out the last hashes of a proof, so that it ends at an inner node."""
    put("proof", list(token.proof)[: at.random.randrange(len(token.proof))])(token)


def _leaf_as_node(at: Spot, token: Token) -> None:
    """Leave out the first hash of a proof, as if the leaf were the node above it."""
    del at, token.proof[0]


def _proof_extended(at: Spot, token: Token) -> None:
    token.proof.append(at.made_up(HASH_BYTES))


def _proof_torn(at: Spot, token: Token) -> None:
    level = at.random.randrange(len(token.proof))
    token.proof[level] = token.proof[level][:-1]


def _proof_reversed(at: Spot, token: Token) -> None:
    del at
    put("proof", list(token.proof)[::-1])(token)


def _of_shorter_tree(at: Spot, token: Token) -> None:
    """Prove a token in the tree of fewer leaves of its block."""
    leaves = block_leaves(at.plan.opener, at.site.index)
    fewer = at.random.choice(_shorter(leaves, token.position))
    put("proof", merkle.inclusion_proof(leaves[:fewer], token.position))(token)


def _shorter(leaves: Sequence[bytes], position: int) -> list[int]:
    """Return sizes of shorter trees in which a leaf has another proof than in the whole one."""
    own = merkle.inclusion_proof(leaves, position)
    return [
        size
        for size in range(position + 1, len(leaves))
        if merkle.inclusion_proof(leaves[:size], position) != own
    ]


def _siblings(at: Spot, token: Token) -> None:
    """Show the token that another session has in this place, with all its proofs."""
    drawn = draw.DrawnBlock(at.site.index, (token.position,))
    token.CopyFrom(at.plan.sibling.opener.token_block(drawn).tokens[0])


def _proved(least: int) -> Sites:
    """Return the tokens whose proofs have so many hashes at least."""
    return tokens(lambda _, __, token: len(token.proof) >= least)


# Several tokens of a block.


def _exchanged(field: str) -> Callable[[Spot], Lie]:
    """Return what has two opened tokens of a block exchange what stands in a field."""

    def lie(at: Spot) -> Lie:
        def exchange(found: Sequence[Token]) -> list[Token]:
            copies = [Token.FromString(token.SerializeToString()) for token in found]
            first, second = at.random.sample(range(len(copies)), 2)
            mine, other = (_read(copies[one], field) for one in (first, second))
            put(field, other)(copies[first])
            put(field, mine)(copies[second])
            return copies

        return at.shown("tokens", exchange)

    return lie


def _read(token: Token, field: str) -> object:
    value = getattr(token, field)
    return list(value) if field == "proof" else value


def _relabelled(at: Spot) -> Lie:
    """Show an undrawn token in the place of a drawn one, and say that it stands there."""

    def relabel(found: Sequence[Token]) -> list[Token]:
        copies = [Token.FromString(token.SerializeToString()) for token in found]
        drawn = {token.position for token in found}
        places = [place for place in range(at.plan.count(at.site.index)) if place not in drawn]
        block = draw.DrawnBlock(at.site.index, (at.random.choice(places),))
        token = at.random.choice(copies)
        position = token.position
        token.CopyFrom(at.plan.opener.token_block(block).tokens[0])
        token.position = position
        return copies

    return at.shown("tokens", relabel)


def _of_another_block(at: Spot) -> Lie:
    """Show the tokens that stand in the same places of another block, with their proofs."""
    others = [index for index in range(at.plan.blocks) if index != at.site.index]
    other = at.random.choice([one for one in others if _reaches(at.plan, one, at.site)])

    def move(found: Sequence[Token]) -> list[Token]:
        positions = tuple(token.position for token in found)
        shown = at.plan.opener.token_block(draw.DrawnBlock(other, positions))
        return list(shown.tokens)

    return at.shown("tokens", move)


def _reaches(plan: Plan, block: int, site: Site) -> bool:
    """Whether a block has a token wherever the site's block had one opened."""
    kind, _, place = site.path.partition(".")
    shown = getattr(plan.openings[site.step], kind)[int(place)].tokens
    return max((token.position for token in shown), default=0) < plan.count(block)


def _movable(plan: Plan) -> list[Site]:
    return [
        site
        for site in token_lists(lambda _, shown: bool(shown))(plan)
        if any(_reaches(plan, block, site) for block in range(plan.blocks) if block != site.index)
    ]


# Blocks and their embeddings.


def _flipped_in(field: str) -> Callable[[Spot], Lie]:
    """Return what flips a bit of one of the hashes or rows in a field."""

    def lie(at: Spot) -> Lie:
        def flip(found: Sequence[bytes]) -> list[bytes]:
            altered = list(found)
            chosen = at.random.randrange(len(altered))
            altered[chosen] = at.flip(altered[chosen])
            return altered

        return at.shown(field, flip)

    return lie


def _of_another(field: str) -> Callable[[Spot], Lie]:
    """Return what shows of one block a field that another one has."""
    return lambda at: at.shown(field, lambda _: at.random.choice(_others(at.plan, at.site, field)))


def _others(plan: Plan, site: Site, field: str) -> list[object]:
    """Return what other blocks than the site's have in a field, where it is something else."""

    def read(block: int) -> object:
        value = getattr(plan.opener.block(draw.DrawnBlock(block, ())), field)
        return value if isinstance(value, bytes) else list(value)

    own = read(site.index)
    return [value for value in map(read, range(plan.blocks)) if value != own]


def _trees_exchanged(at: Spot) -> Lie:
    """Show the two proofs of a block each in the other's place."""

    def exchange(block: opening_pb2.BlockOpening | opening_pb2.WholeBlock) -> None:
        proofs = list(block.block_proof), list(block.fingerprint_proof)
        both(put("fingerprint_proof", proofs[0]), put("block_proof", proofs[1]))(block)

    return at.edited(exchange)


def _windows_exchanged(at: Spot) -> Lie:
    return at.shown("windows", lambda found: at.exchange(list(found)))


def _root_of_another_tree(at: Spot) -> Lie:
    """Sign a root that no embedding is under: it is made up after the challenge, if at all."""
    return Lie(fingerprints=put("fingerprint_root", at.made_up(HASH_BYTES)), ends=at.site.step + 1)


def _has_several(plan: Plan) -> bool:
    return plan.blocks > 1


def _windows_differ(plan: Plan, block: opening_pb2.BlockOpening | opening_pb2.WholeBlock) -> bool:
    del plan
    return len(set(block.windows)) > 1


def _unlike_another(plan: Plan) -> list[Site]:
    """Return the blocks opened with embeddings that another block has not."""
    return [site for site in _EMBEDDED(plan) if _others(plan, site, "windows")]


def _opens_embedding(plan: Plan) -> list[Site]:
    """Return the first challenges of each kind, where they open an embedding."""
    found = [site for site in first_sampled(plan) if plan.steps[site.step].blocks]
    return [*found, *first_whole(plan)]


_EMBEDDED: Final = every(blocks(), whole_blocks())
_AMONG_SEVERAL: Final = where(_has_several, _EMBEDDED)
_TWO: Final = token_lists(lambda _, shown: len(shown) > 1)
_EDGE_AMONG_SEVERAL: Final[Sites] = where(
    _has_several,
    lambda plan: [Site(site.step, "edge", plan.blocks - 1) for site in sampled(plan)],
)

# fmt: off
PROOFS: Final = (
    Mutation("token-exchanged-after-the-challenge",
             "An opened token has another id than the one committed, with that id's true row.",
             tokens(), _token(_plausible), "INCLUSION_PROOF"),
    Mutation("token-id-altered", "An opened token has another id by one bit.",
             tokens(), _token(_id_altered), "INCLUSION_PROOF"),
    Mutation("token-salt-altered", "An opened token has another salt by one bit.",
             tokens(), _token(_salt_altered), "INCLUSION_PROOF"),
    Mutation("token-salt-cut-short", "An opened token has a part of its salt.",
             tokens(), _token(_salt_cut), "INCLUSION_PROOF"),
    Mutation("token-row-altered", "An opened token has another row by one bit.",
             tokens(), _token(_row_altered), "INCLUSION_PROOF"),
    Mutation("token-proof-altered", "A hash on a token's path is another one by one bit.",
             _proved(1), _token(_proof_altered), "INCLUSION_PROOF"),
    Mutation("token-proof-cut-short", "A token's path ends at an inner node.",
             _proved(1), _token(_proof_cut), "INCLUSION_PROOF"),
    Mutation("token-leaf-as-inner-node", "A token's path begins a level above its leaf.",
             _proved(1), _token(_leaf_as_node), "INCLUSION_PROOF"),
    Mutation("token-proof-extended", "A token's path goes on above the root.",
             tokens(), _token(_proof_extended), "INCLUSION_PROOF"),
    Mutation("token-proof-torn", "A hash on a token's path lacks a byte.",
             _proved(1), _token(_proof_torn), "INCLUSION_PROOF"),
    Mutation("token-proof-reversed", "A token's path is shown from the root down.",
             _proved(2), _token(_proof_reversed), "INCLUSION_PROOF"),
    Mutation("token-proof-of-a-shorter-tree", "A token is proved in a block of fewer leaves.",
             tokens(lambda plan, block, token: bool(
                 _shorter(block_leaves(plan.opener, block), token.position))),
             _token(_of_shorter_tree), "INCLUSION_PROOF"),
    Mutation("token-of-another-session", "A token is what another session has in its place.",
             tokens(), _token(_siblings), "INCLUSION_PROOF"),
    Mutation("token-proofs-exchanged", "Two tokens of a block are shown with each other's paths.",
             _TWO, _exchanged("proof"), "INCLUSION_PROOF"),
    Mutation("token-salts-exchanged", "Two tokens of a block are shown with each other's salts.",
             _TWO, _exchanged("salt"), "INCLUSION_PROOF"),
    Mutation("token-positions-exchanged", "Two tokens of a block are shown in each other's places.",
             _TWO, _exchanged("position"), "INCLUSION_PROOF"),
    Mutation("token-relabelled", "A token that was not drawn is shown in the place of a drawn one.",
             token_lists(lambda count, shown: 0 < len(shown) < count), _relabelled,
             "INCLUSION_PROOF"),
    Mutation("tokens-of-another-block", "The tokens of a block are those of another one.",
             _movable, _of_another_block, "INCLUSION_PROOF"),
    Mutation("block-proof-altered", "A hash on a block's path is another one by one bit.",
             every(_AMONG_SEVERAL, _EDGE_AMONG_SEVERAL), _flipped_in("block_proof"),
             "INCLUSION_PROOF"),
    Mutation("block-proof-of-another", "A block is shown with another one's path.",
             every(_AMONG_SEVERAL, _EDGE_AMONG_SEVERAL), _of_another("block_proof"),
             "INCLUSION_PROOF"),
    Mutation("fingerprint-proof-altered", "A hash on an embedding's path is another by one bit.",
             _AMONG_SEVERAL, _flipped_in("fingerprint_proof"), "INCLUSION_PROOF"),
    Mutation("fingerprint-proof-of-another", "An embedding is shown with another block's path.",
             _AMONG_SEVERAL, _of_another("fingerprint_proof"), "INCLUSION_PROOF"),
    Mutation("proofs-of-two-trees-exchanged", "A block's two paths stand in each other's place.",
             _AMONG_SEVERAL, _trees_exchanged, "INCLUSION_PROOF"),
    Mutation("block-salt-altered", "A block is shown with another salt by one bit.",
             _EMBEDDED, lambda at: at.shown("block_salt", at.flip), "INCLUSION_PROOF"),
    Mutation("block-salt-of-another", "A block is shown with another one's salt.",
             _AMONG_SEVERAL, _of_another("block_salt"), "INCLUSION_PROOF"),
    Mutation("window-altered", "A window embedding is another than the committed one by one bit.",
             _EMBEDDED, _flipped_in("windows"), "INCLUSION_PROOF"),
    Mutation("windows-of-another-block", "A block is shown with another one's embeddings.",
             _unlike_another, _of_another("windows"), "INCLUSION_PROOF"),
    Mutation("windows-exchanged", "Two window embeddings of a block have changed places.",
             every(blocks(_windows_differ), whole_blocks(_windows_differ)), _windows_exchanged,
             "INCLUSION_PROOF"),
    Mutation("fingerprint-root-made-up", "The signed fingerprint root is that of no tree.",
             _opens_embedding, _root_of_another_tree, "INCLUSION_PROOF"),
)
# fmt: on
