"""What challenges open, with its parts; refusals; and rounds of either kind."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol import draw as drawing
from coin_protocol import envelope
from coin_protocol.checks.opened import BLAMELESS
from coin_protocol.limits import FLIP_CHAIN_LENGTH
from coin_protocol.testing.strategies.auditing import audits
from coin_protocol.testing.strategies.keys import signed
from coin_protocol.testing.strategies.statements import challenges, whole_challenges
from coin_protocol.testing.strategies.traces import MOST_TOKENS
from coin_protocol.testing.strategies.values import Ints, digests, sizes, timestamps
from coin_protocol.testing.strategies.world import Worlds, replies, worlds
from coin_protocol.testing.world import VERIFIER, Audit, World
from coin_protocol.v1 import opening_pb2 as pb
from coin_protocol.v1 import receipt_pb2

_ONCE: Final = st.just(1)
_NEVER: Final = st.just(0)
_STATUSES: Final = st.sampled_from(
    (*sorted(BLAMELESS), "DEADLINE_EXCEEDED", "NOT_FOUND", "INTERNAL")
)


@st.composite
def _asked(
    draw: st.DrawFn,
    *,
    whole: bool,
    world: Worlds,
    tokens: Ints,
    blocks: Ints,
    token_blocks: Ints = None,
    tokens_per_block: Ints = None,
    refusals: bool = False,
) -> Audit:
    """Draw audits with one round."""
    where: World = draw(worlds() if world is None else world)
    usual = sizes(where.profile.block_size, MOST_TOKENS, least=1)
    return draw(
        audits(
            reply=replies(world=st.just(where), tokens=usual if tokens is None else tokens),
            rounds=_NEVER if whole else _ONCE,
            blocks=blocks,
            token_blocks=token_blocks,
            tokens_per_block=tokens_per_block,
            whole_rounds=_ONCE if whole else _NEVER,
            whole=blocks,
            refusals=refusals,
        )
    )


def openings(
    *,
    world: Worlds = None,
    tokens: Ints = None,
    blocks: Ints = None,
    token_blocks: Ints = None,
    tokens_per_block: Ints = None,
) -> SearchStrategy[pb.Opening]:
    """Return a strategy of openings.

    Args:
        world: Of the reply.
        tokens: Of its reasoning, one at least.
        blocks: Asked for with their embedding; fewer are opened where there are no more.
        token_blocks: Asked for tokens alone; one at least where `blocks` is 0.
        tokens_per_block: Asked for; one at least where there are token blocks.
    """
    asked = _asked(
        whole=False,
        world=world,
        tokens=tokens,
        blocks=blocks,
        token_blocks=token_blocks,
        tokens_per_block=tokens_per_block,
    )
    return asked.map(lambda audit: pb.Opening.FromString(audit.rounds[0].opening.payload))


def whole_openings(
    *, world: Worlds = None, tokens: Ints = None, blocks: Ints = None
) -> SearchStrategy[pb.WholeBlockOpening]:
    """Return a strategy of whole-block openings.

    Args:
        world: Of the reply.
        tokens: Of its reasoning, one at least.
        blocks: Asked for, one at least; fewer are opened where there are no more.
    """
    asked = _asked(whole=True, world=world, tokens=tokens, blocks=blocks)
    return asked.map(
        lambda audit: pb.WholeBlockOpening.FromString(audit.whole_rounds[0].opening.payload)
    )


def block_openings(*, world: Worlds = None) -> SearchStrategy[pb.BlockOpening]:
    """Return a strategy of blocks opened with their embedding, in some reply of `world`."""
    return openings(world=world, blocks=st.integers(1, 2)).map(lambda found: found.blocks[0])


def token_block_openings(*, world: Worlds = None) -> SearchStrategy[pb.TokenBlockOpening]:
    """Return a strategy of blocks opened for tokens alone, in some reply of `world`."""
    return openings(world=world, blocks=_NEVER).map(lambda found: found.token_blocks[0])


def token_openings(*, world: Worlds = None) -> SearchStrategy[pb.TokenOpening]:
    """Return a strategy of opened tokens, in some reply of `world`."""
    return token_block_openings(world=world).map(lambda block: block.tokens[0])


def edge_openings(*, world: Worlds = None) -> SearchStrategy[pb.EdgeOpening]:
    """Return a strategy of right edges, in some reply of `world`."""
    return openings(world=world).map(lambda found: found.edge)


def whole_blocks(*, world: Worlds = None) -> SearchStrategy[pb.WholeBlock]:
    """Return a strategy of blocks opened whole, in some reply of `world`."""
    return whole_openings(world=world).map(lambda found: found.blocks[0])


def table_entries() -> SearchStrategy[pb.TableEntry]:
    """Return a strategy of entries of the small models' token table."""
    return whole_blocks().map(lambda block: block.vocabulary[0])


@st.composite
def refusals(
    draw: st.DrawFn,
    *,
    reason: SearchStrategy[pb.RefusalReason.ValueType] | None = None,
) -> pb.Refusal:
    """Draw refusals that show challenges to one commitment, with flips of one chain.

    Those that a cap bears out come in `rounds`.

    Args:
        draw: Of Hypothesis.
        reason: A used up chain shows all of its challenges.
    """
    reasons = st.sampled_from(pb.RefusalReason.values()[1:])
    why = draw(reasons if reason is None else reason)
    used_up = why == pb.REFUSAL_REASON_FLIPS_USED_UP
    count = FLIP_CHAIN_LENGTH if used_up else draw(st.integers(0, 3))
    secret, nonce = draw(digests()), draw(digests())
    sampled = draw(challenges(verifier=st.just(VERIFIER)))
    whole = draw(whole_challenges(verifier=st.just(VERIFIER)))
    whole.fingerprints_sha256 = sampled.fingerprints_sha256
    first = draw(st.integers(0, count))
    answered = []
    for index in range(1, count + 1):
        challenge, kind = (
            (whole, envelope.WHOLE_CHALLENGE) if index > first else (sampled, envelope.CHALLENGE)
        )
        challenge.round = index
        challenge.nonce = bytes((index,)) + nonce[1:]
        answered.append(
            pb.AnsweredChallenge(
                challenge=signed(challenge, kind, VERIFIER),
                flip_index=index,
                flip=drawing.flip_for(secret, index),
            )
        )
    return pb.Refusal(
        challenge_sha256=draw(digests()),
        reason=why,
        answered=answered,
        provider_time=draw(timestamps()),
    )


def rounds(
    *,
    world: Worlds = None,
    tokens: Ints = None,
    blocks: Ints = None,
    token_blocks: Ints = None,
    tokens_per_block: Ints = None,
    answered: SearchStrategy[bool] | None = None,
) -> SearchStrategy[receipt_pb2.Round]:
    """Return a strategy of rounds: opened, refused where a cap is in the way, or not answered.

    Args:
        world: As of `openings`.
        tokens: As of `openings`.
        blocks: As of `openings`.
        token_blocks: As of `openings`.
        tokens_per_block: As of `openings`.
        answered: Whether an answer came.
    """
    asked = _asked(
        whole=False,
        world=world,
        tokens=tokens,
        blocks=blocks,
        token_blocks=token_blocks,
        tokens_per_block=tokens_per_block,
        refusals=True,
    )
    return _rounds(asked.map(lambda audit: audit.rounds[0]), answered)


def whole_rounds(
    *,
    world: Worlds = None,
    tokens: Ints = None,
    blocks: Ints = None,
    answered: SearchStrategy[bool] | None = None,
) -> SearchStrategy[receipt_pb2.Round]:
    """Return a strategy of whole-block rounds, as `rounds`."""
    asked = _asked(whole=True, world=world, tokens=tokens, blocks=blocks, refusals=True)
    return _rounds(asked.map(lambda audit: audit.whole_rounds[0]), answered)


@st.composite
def _rounds(
    draw: st.DrawFn,
    entries: SearchStrategy[receipt_pb2.Round],
    answered: SearchStrategy[bool] | None,
) -> receipt_pb2.Round:
    entry = draw(entries)
    # The simpler choice is an answer.
    silent = draw(st.booleans()) if answered is None else not draw(answered)
    if silent:
        entry.ClearField("opening")
        entry.ClearField("refusal")
        entry.no_answer = draw(_STATUSES)
    return entry
