"""Mutations of rows: the embeddings of tokens, which a published table has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from coin_protocol.limits import HASH_BYTES
from coin_protocol.table import TokenTable
from coin_protocol.testing.forgeries import ShiftedWorld, WideWorld, put, rescaled
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import Mutation, Spot, first_sampled, tokens
from coin_protocol.testing.small import VOCABULARY, SmallModels, small_table
from coin_protocol.testing.world import World
from coin_protocol.v1 import opening_pb2


@dataclass(frozen=True)
class _MadeUpRow(SmallModels):
    """A token table with one row that no model produced."""

    made_up: int = 0

    @cached_property
    def table(self) -> TokenTable:
        """The table that the provider commits with."""
        rows = small_table().rows.copy()
        row = rescaled(rows[self.made_up].tobytes(), 0.002)
        rows[self.made_up] = np.frombuffer(row, np.uint8)
        return TokenTable(rows)


@dataclass(frozen=True)
class _MadeUpRowWorld(World):
    """A world whose provider commits to a made-up row of one id."""

    made_up: int = 0

    @property
    def models(self) -> SmallModels:
        """The provider's models."""
        return _MadeUpRow(self.profile, made_up=self.made_up)


def _shifted_rows(world: World) -> World:
    return ShiftedWorld(world.seed, world.profile, world.policy)


def _ids_outside(world: World) -> World:
    return WideWorld(world.seed, world.profile, world.policy)


def _row_made_up(at: Spot) -> Lie:
    """Make up the row of the last token's id, which every opening shows."""
    token_id = at.plan.opener.edge().last_token.token_id
    return Lie(
        world=lambda world: _MadeUpRowWorld(world.seed, world.profile, world.policy, token_id),
        ends=at.site.step + 1,
    )


def _table_proof(how: Callable[[Spot, list[bytes]], Sequence[bytes]]) -> Callable[[Spot], Lie]:
    """Return what shows another path of an opened token's row."""
    return lambda at: at.shown("table_proof", lambda found: [*how(at, [*found])])


def _hash_altered(at: Spot, proof: list[bytes]) -> Sequence[bytes]:
    level = at.random.randrange(len(proof))
    return [*proof[:level], at.flip(proof[level]), *proof[level + 1 :]]


def _proof_cut(at: Spot, proof: list[bytes]) -> Sequence[bytes]:
    return proof[: at.random.randrange(len(proof))]


def _proof_extended(at: Spot, proof: list[bytes]) -> Sequence[bytes]:
    return [*proof, at.made_up(HASH_BYTES)]


def _of_another_id(at: Spot) -> Lie:
    """Show the path that the row of another id has."""
    table = at.plan.opener.table

    def edit(token: opening_pb2.TokenOpening) -> None:
        other = (token.token_id + at.random.randrange(1, VOCABULARY)) % VOCABULARY
        put("table_proof", table.proof(other))(token)

    return at.edited(edit)


# fmt: off
ROWS: Final = (
    Mutation("rows-of-other-tokens", "Committed rows are those of other tokens.",
             first_sampled, lambda _: Lie(world=_shifted_rows), "TOKEN_ROW"),
    Mutation("row-made-up", "The committed row of one id is longer or shorter than the table's.",
             first_sampled, _row_made_up, "TOKEN_ROW"),
    Mutation("ids-outside-the-vocabulary", "Committed ids are none of the tokenizer's.",
             first_sampled, lambda _: Lie(world=_ids_outside), "TOKEN_ROW"),
    Mutation("table-proof-altered", "A hash on a row's path is another one by one bit.",
             tokens(), _table_proof(_hash_altered), "TOKEN_ROW"),
    Mutation("table-proof-cut-short", "A row's path ends at an inner node.",
             tokens(), _table_proof(_proof_cut), "TOKEN_ROW"),
    Mutation("table-proof-extended", "A row's path goes on above the root.",
             tokens(), _table_proof(_proof_extended), "TOKEN_ROW"),
    Mutation("table-proof-of-another-id", "A row is shown with the path of another id's.",
             tokens(), _of_another_id, "TOKEN_ROW"),
)
# fmt: on
