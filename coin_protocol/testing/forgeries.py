"""Edits and worlds to forge evidence with: what the evidence vectors and tests are made of."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from itertools import count
from typing import Any, Final

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from coin_protocol import draw, envelope, merkle
from coin_protocol.commitment import TokenTree, block_leaf_hashes
from coin_protocol.encoding import digest
from coin_protocol.keyset import stamp
from coin_protocol.limits import HASH_BYTES
from coin_protocol.opening import Opener
from coin_protocol.profile import Policy
from coin_protocol.quantise import SCALE_BYTES
from coin_protocol.table import TokenTable
from coin_protocol.testing.small import (
    VOCABULARY,
    SmallModels,
    SmallTokenizer,
    small_table,
)
from coin_protocol.testing.world import (
    ANSWER_TOKENS,
    START,
    Audit,
    Edit,
    Reply,
    World,
)
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import opening_pb2, profile_pb2, receipt_pb2, statements_pb2

POLICY: Final = Policy.from_bytes(
    profile_pb2.Policy(
        name="vectors",
        max_tokens_per_second=5_000.0,
        clock_skew=Duration(seconds=300),
        challenge_deadline=Duration(seconds=60),
        rounds=profile_pb2.RoundPlan(
            max_rounds=3, blocks_first_round=2, blocks_per_round=4, tokens_per_block=12
        ),
        min_recomputed_cosine=0.9999,
    ).SerializeToString(deterministic=True)
)
"""Of all vectors: the one that ships may be tuned without a vector changing."""


def put(path: str, value: Any) -> Edit[Any]:
    """Return an edit that puts `value` at `path`, such as `blocks.0.windows.1`."""
    return change(path, lambda _: value)


def change(path: str, how: Callable[[Any], Any]) -> Edit[Any]:
    """Return an edit that puts `how(what was there)` at `path`."""
    *inner, last = path.split(".")

    def edit(message: Any) -> None:
        holder = message
        for part in inner:
            holder = holder[int(part)] if part.isdigit() else getattr(holder, part)
        if last.isdigit():
            holder[int(last)] = how(holder[int(last)])
            return
        value = how(getattr(holder, last))
        if isinstance(value, Message):
            getattr(holder, last).CopyFrom(value)
        elif isinstance(value, list):
            holder.ClearField(last)
            getattr(holder, last).extend(value)
        else:
            setattr(holder, last, value)

    return edit


def flipped(path: str) -> Edit[Any]:
    """Return an edit that flips one bit of the bytes at `path`."""
    return change(path, lambda raw: bytes((raw[0] ^ 1, *raw[1:])))


def without(field: str) -> Edit[Any]:
    """Return an edit that clears a field."""
    return lambda message: message.ClearField(field)


def both(first: Edit[Any], second: Edit[Any]) -> Edit[Any]:
    """Return an edit that does two things."""
    return lambda message: (first(message), second(message))


def billed(tokens: int, *, blocks: int | None = None) -> Edit[statements_pb2.Commitment]:
    """Return an edit that signs and bills another size, all sums right."""

    def edit(commitment: statements_pb2.Commitment) -> None:
        commitment.reasoning_tokens = tokens
        commitment.block_count = commitment.block_count if blocks is None else blocks
        commitment.usage.CopyFrom(
            usage_for(
                prompt_tokens=7,
                reasoning_tokens=tokens,
                answer_tokens=ANSWER_TOKENS,
                counting=INSIDE,
            )
        )

    return edit


def shown(audit: Audit) -> list[opening_pb2.AnsweredChallenge]:
    """Return the challenges that an audit's rounds answered, as a refusal shows them."""
    answered = []
    for entry in audit.rounds:
        opening = opening_pb2.Opening.FromString(entry.opening.payload)
        answered.append(
            opening_pb2.AnsweredChallenge(
                challenge=entry.challenge, flip_index=opening.flip_index, flip=opening.flip
            )
        )
    return answered


def refused(
    world: World,
    answered: Sequence[opening_pb2.AnsweredChallenge] = (),
    *,
    reason: opening_pb2.RefusalReason.ValueType = opening_pb2.REFUSAL_REASON_EXPOSURE_CAP,
    edit: Edit[opening_pb2.Refusal] = lambda _: None,
) -> Edit[receipt_pb2.Round]:
    """Return an edit that makes a round's answer a refusal."""

    def edit_round(entry: receipt_pb2.Round) -> None:
        refusal = opening_pb2.Refusal(
            challenge_sha256=digest(entry.challenge.payload),
            reason=reason,
            answered=answered,
            provider_time=stamp(START + timedelta(hours=1)),
        )
        edit(refusal)
        entry.ClearField("opening")
        entry.refusal.CopyFrom(world.sign(refusal, envelope.REFUSAL))

    return edit_round


def unanswered(reason: str) -> Edit[receipt_pb2.Round]:
    """Return an edit that leaves a round without an answer."""
    return both(without("opening"), put("no_answer", reason))


# Providers that keep something else than they generated.


def recommitted(honest: Opener, entries: Sequence[statements_pb2.BlockEntry]) -> Opener:
    """Return an opener whose tree is over other block entries."""
    leaves = block_leaf_hashes(honest.session.session_id, entries)
    tree = TokenTree(merkle.root(leaves), honest.tree.token_ids, tuple(entries))
    return replace(honest, tree=tree)


def embedded(forge: Callable[[list[bytes]], list[bytes]]) -> Callable[[Opener], Opener]:
    """Return what a provider does that commits to forged window embeddings."""
    return lambda honest: replace(honest, windows=[forge(list(rows)) for rows in honest.windows])


def rescaled(row: bytes, scale: float) -> bytes:
    """Return a quantised vector under another scale."""
    return struct.pack("<f", scale) + row[SCALE_BYTES:]


def block_leaves(opener: Opener, index: int) -> list[bytes]:
    """Return the token leaf hashes of a block."""
    joined = opener.block(draw.DrawnBlock(index, ())).token_leaf_hashes
    return [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]


def with_leaves(index: int, leaves: Sequence[bytes]) -> Edit[opening_pb2.Opening]:
    """Return an edit that shows forged leaves of one block, with proofs that fit them."""

    def edit(opening: opening_pb2.Opening) -> None:
        parts: list[tuple[Any, Sequence[opening_pb2.TokenOpening]]] = [
            (block, block.tokens) for block in opening.blocks
        ]
        for part, tokens in [*parts, (opening.edge, (opening.edge.last_token,))]:
            if part.block_index == index:
                part.token_leaf_hashes = b"".join(leaves)
                for token in tokens:
                    place = min(token.position, len(leaves) - 1)
                    put("proof", merkle.inclusion_proof(leaves, place))(token)

    return edit


def aimed(reply: Reply, suits: Callable[[draw.Drawn], bool]) -> Edit[opening_pb2.Challenge]:
    """Return an edit of the first challenge: its nonce is one whose draw suits the attack."""

    def edit(challenge: opening_pb2.Challenge) -> None:
        flip = draw.flip_for(reply.world.random("flip", 32), 1)
        for number in count():
            challenge.nonce = reply.world.random(f"nonce {number}", 32)
            run, counts = reply.world.profile.run_tokens, reply.opener.token_counts
            if suits(draw.drawn_by(challenge, flip, counts, run_tokens=run)):
                return

    return edit


class ShiftedRows(SmallModels):
    """A token table in which each id has the row of the next one."""

    @cached_property
    def table(self) -> TokenTable:
        """The table that the provider commits with."""
        return TokenTable(np.roll(small_table().rows, 1, axis=0))


class WideTokenizer(SmallTokenizer):
    """The small tokenizer with ids past its vocabulary."""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of the id, or those of the last one."""
        return super().token_bytes(min(token_id, VOCABULARY - 1))


class WideVocabulary(SmallModels):
    """Models with more ids than the profile has."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the provider generates with."""
        return WideTokenizer()

    @cached_property
    def table(self) -> TokenTable:
        """The table that the provider commits with."""
        rows = small_table().rows
        return TokenTable(np.concatenate([rows, rows[:9]]))


@dataclass(frozen=True)
class ShiftedWorld(World):
    """A world whose provider commits to the rows of other tokens."""

    @property
    def models(self) -> SmallModels:
        """The provider's models."""
        return ShiftedRows(self.profile)


@dataclass(frozen=True)
class WideWorld(World):
    """A world whose provider commits to ids outside the vocabulary."""

    @property
    def models(self) -> SmallModels:
        """The provider's models."""
        return WideVocabulary(self.profile)

    def token_ids(self, count: int) -> list[int]:
        """Return ids past the vocabulary."""
        return [VOCABULARY + 1] * count


# Audits.


def audit(**reply: Any) -> Audit:
    """Return an audit of a reply of the default world, nothing asked yet."""
    world = World(policy=POLICY)
    return world.audit(world.reply(**reply))


def dated(**key_set: Any) -> Edit[receipt_pb2.Receipt]:
    """Return an edit that lists the provider's key under another window."""
    return put("key_set", World().key_set(**key_set))
