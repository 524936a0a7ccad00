"""Mutations of flips: whose randomness a draw has, and what was given the links before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from coin_protocol import draw, envelope
from coin_protocol.keyset import stamp
from coin_protocol.limits import FLIP_CHAIN_LENGTH
from coin_protocol.testing.forgeries import both, put
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import Mutation, Site, Spot, answers
from coin_protocol.testing.mutations.plans import Plan, signed
from coin_protocol.testing.world import PROVIDER, START
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2

_MOST_PASSED: Final = 8

Given = opening_pb2.AnsweredChallenge
Opening = opening_pb2.Opening | opening_pb2.WholeBlockOpening
Showing = Opening | opening_pb2.Refusal
"""What shows the challenges that were answered before."""


def link(at: Spot, index: int) -> bytes:
    """Return a link of the provider's chain."""
    return draw.flip_for(at.plan.world.random("flip", 32), index)


def pairs(plan: Plan) -> list[Site]:
    """Return the answered challenges with the step of another one as index."""
    found = [site.step for site in answers(plan)]
    return [Site(step, index=other) for step in found for other in found if step != other]


def challenge_by(at: Spot, name: str, fingerprints: bytes | None = None) -> envelope_pb2.Envelope:
    """Return a challenge that somebody signed, of this commitment or of another."""
    challenge = opening_pb2.Challenge(
        fingerprints_sha256=fingerprints or at.plan.honest.fingerprints_sha256,
        verifier=name,
        nonce=at.made_up(32),
        round=1,
        blocks=at.plan.blocks,
        tokens_per_block=at.plan.block_size,
        deadline=stamp(START + timedelta(hours=2)),
    )
    payload = challenge.SerializeToString(deterministic=True)
    return signed(at.plan, payload, envelope.CHALLENGE, name)


# The flip of an opening.


def _another(at: Spot, index: int) -> int:
    """Return another place of the chain than this one."""
    return at.random.choice([one for one in range(1, FLIP_CHAIN_LENGTH + 1) if one != index])


def _named_otherwise(at: Spot) -> Lie:
    return at.shown("flip_index", lambda index: _another(at, index))


def _of_another_place(at: Spot) -> Lie:
    other = link(at, _another(at, at.plan.link(at.site.step)))
    return at.shown("flip", lambda _: other)


def _of_a_siblings_chain(at: Spot) -> Lie:
    secret = at.plan.sibling.world.random("flip", 32)
    return at.shown("flip", lambda _: draw.flip_for(secret, at.plan.link(at.site.step)))


def _the_anchor_itself(at: Spot) -> Lie:
    """Show the end of the chain, which everybody knows."""
    return at.shown("flip", lambda _: at.plan.honest.commitment.flip_anchor)


def _used_before(at: Spot) -> Lie:
    """Answer with the link that another challenge was given."""
    other = at.plan.link(at.site.index)
    return at.opening(both(put("flip_index", other), put("flip", link(at, other))))


# Links passed over: the provider answers with a later one, whose draw may suit it better.


def _passes_over(
    excuse: Callable[[Spot, int], list[Given]],
) -> Callable[[Spot], Lie]:
    """Return what answers with a later link, all of it as that link draws.

    Args:
        excuse: Takes the spot and how many links are passed over, and returns what the provider
            says that they were given.
    """

    def lie(at: Spot) -> Lie:
        own = at.plan.link(at.site.step)
        passed = at.random.randint(1, _MOST_PASSED)
        drawn = by_link(at.plan, at.site.step, own + passed)

        def edit(opening: Opening) -> None:
            opening.flip_index, opening.flip = own + passed, link(at, own + passed)
            open_as(at.plan, opening, drawn)
            opening.answered.extend(excuse(at, passed))

        # Later answers would have to keep to it.
        return replace(at.opening(edit), ends=at.site.step + 1)

    return lie


def by_link(plan: Plan, step: int, index: int) -> draw.Drawn:
    """Return what a challenge draws with a link of the provider's chain."""
    raw = plan.rounds[step].challenge.payload
    kind = opening_pb2.WholeBlockChallenge if plan.steps[step].whole else opening_pb2.Challenge
    return plan.drawn(plan.reply, kind.FromString(raw), index)


def open_as(plan: Plan, opening: Opening, drawn: draw.Drawn) -> None:
    """Open honestly what a draw has, and nothing else."""
    opener = plan.opener
    if isinstance(opening, opening_pb2.WholeBlockOpening):
        tokenizer = plan.world.models.tokenizer
        put("blocks", [opener.whole(block.index, tokenizer) for block in drawn.blocks])(opening)
        return
    put("blocks", [opener.block(block) for block in drawn.blocks])(opening)
    put("token_blocks", [opener.token_block(block) for block in drawn.token_blocks])(opening)


def _unexcused(at: Spot, passed: int) -> list[Given]:
    del at, passed
    return []


def _excused_by(challenge: Callable[[Spot], envelope_pb2.Envelope]) -> Callable[..., list[Given]]:
    """Return what says that the links passed over were given such challenges."""

    def excuse(at: Spot, passed: int) -> list[Given]:
        own = at.plan.link(at.site.step)
        return [
            Given(challenge=challenge(at), flip_index=index, flip=link(at, index))
            for index in range(own, own + passed)
        ]

    return excuse


def _by_nobody(at: Spot) -> envelope_pb2.Envelope:
    found = challenge_by(at, "another")
    found.ClearField("signatures")
    return found


def _this_very(at: Spot) -> envelope_pb2.Envelope:
    """Return the challenge itself, as if it had been asked and answered before."""
    return at.plan.rounds[at.site.step].challenge


# What an answer shows of those before.


def _shows(edit: Callable[[Spot, Any], object]) -> Callable[[Spot], Lie]:
    """Return what has the provider sign another answer, be it an opening or a refusal."""

    def lie(at: Spot) -> Lie:
        def how(message: Showing) -> None:
            edit(at, message)

        return Lie(step=at.site.step, opening=how, refusal=how)

    return lie


def _showing(plan: Plan) -> list[Site]:
    """Return the challenges whose answers show others that were answered before."""
    return [*_openings(plan), *(Site(step) for step, one in plan.refusals.items() if one.answered)]


def _openings(plan: Plan) -> list[Site]:
    return [site for site in answers(plan) if plan.link(site.step) > 1]


def _one_shown(at: Spot, message: Showing) -> Given:
    return at.random.choice(message.answered)


def _flip_made_up(at: Spot, message: Showing) -> None:
    _one_shown(at, message).flip = at.made_up(32)


def _renumbered(at: Spot, message: Showing) -> None:
    one = _one_shown(at, message)
    one.flip_index = _another(at, one.flip_index)


def _for_a_strangers(at: Spot, message: Showing) -> None:
    """Say that a link went to a challenge of another verifier, which opened more."""
    _one_shown(at, message).challenge.CopyFrom(challenge_by(at, "another"))


def _one_left_out(at: Spot, message: Showing) -> None:
    del message.answered[at.random.randrange(len(message.answered))]


def shown_twice(at: Spot, message: Showing) -> None:
    """Show one of the challenges answered before a second time."""
    one = _one_shown(at, message)
    message.answered.add().CopyFrom(one)


def shown_unsigned(at: Spot, message: Showing) -> None:
    """Show one of the challenges answered before without its signature."""
    _one_shown(at, message).challenge.ClearField("signatures")


def shown_signed_by_itself(at: Spot, message: Showing) -> None:
    """Show one of the challenges answered before with the provider's own signature."""
    one = _one_shown(at, message).challenge
    one.CopyFrom(signed(at.plan, one.payload, one.payload_type, PROVIDER))


def shown_with_a_forged_signature(at: Spot, message: Showing) -> None:
    """Show one of the challenges answered before with another signature by one bit."""
    signature = _one_shown(at, message).challenge.signatures[0]
    signature.sig = at.flip(signature.sig)


# fmt: off
FLIPS: Final = (
    Mutation("flip-made-up", "The provider picks the flip after it saw the challenge.",
             answers, lambda at: at.shown("flip", lambda _: at.made_up(32)), "FLIP"),
    Mutation("flip-numbered-otherwise", "The flip is said to stand elsewhere in the chain.",
             answers, _named_otherwise, "FLIP"),
    Mutation("flip-of-another-place", "The flip is another link of the provider's own chain.",
             answers, _of_another_place, "FLIP"),
    Mutation("flip-of-another-session", "The flip is of another session's chain.",
             answers, _of_a_siblings_chain, "FLIP"),
    Mutation("flip-is-the-anchor", "The flip is the anchor, which stood in the commitment.",
             answers, _the_anchor_itself, "FLIP"),
    Mutation("flip-used-twice", "Two challenges are answered with one link.",
             pairs, _used_before, "FLIP"),
    Mutation("link-passed-over", "A later link than the next one is given, and draws.",
             answers, _passes_over(_unexcused), "FLIP"),
    Mutation("link-passed-over-for-strangers",
             "Links are passed over for challenges of a verifier that nobody knows.",
             answers, _passes_over(_excused_by(lambda at: challenge_by(at, "another"))), "FLIP",
             fault=receipt_pb2.FAULT_UNSPECIFIED, outcome=receipt_pb2.OUTCOME_INCONCLUSIVE),
    Mutation("link-passed-over-for-its-own",
             "Links are passed over for challenges that the provider signed itself.",
             answers, _passes_over(_excused_by(lambda at: challenge_by(at, PROVIDER))), "FLIP"),
    Mutation("link-passed-over-for-nobody", "Links are passed over for unsigned challenges.",
             answers, _passes_over(_excused_by(_by_nobody)), "FLIP"),
    Mutation("link-passed-over-for-this-challenge",
             "Links are passed over as if the challenge had been answered with them before.",
             answers, _passes_over(_excused_by(_this_very)), "FLIP"),
    Mutation("earlier-answer-left-out", "An opening does not show what a link before was given.",
             _openings, _shows(_one_left_out), "FLIP"),
    Mutation("earlier-answer-twice", "An opening shows what a link before was given twice.",
             _openings, _shows(shown_twice), "FLIP"),
    Mutation("earlier-answer-unsigned", "An opening shows an earlier challenge of nobody's.",
             _openings, _shows(shown_unsigned), "FLIP"),
    Mutation("earlier-answer-forged", "An opening shows this verifier's challenge, forged.",
             _openings, _shows(shown_with_a_forged_signature), "FLIP"),
    Mutation("earlier-answer-its-own", "An opening shows a challenge the provider signed.",
             _openings, _shows(shown_signed_by_itself), "FLIP"),
    Mutation("earlier-flip-made-up", "An earlier flip is shown that is not of the chain.",
             _showing, _shows(_flip_made_up), "FLIP"),
    Mutation("earlier-flip-renumbered", "An earlier flip is shown in another's place.",
             _showing, _shows(_renumbered), "FLIP"),
    Mutation("earlier-flip-for-a-strangers",
             "A link that answered one challenge is said to have answered a larger one.",
             _showing, _shows(_for_a_strangers), "FLIP"),
)
# fmt: on
