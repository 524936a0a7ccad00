"""Mutations of whether a challenge is answered: wholly, in time, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from coin_protocol import draw
from coin_protocol.checks.opened import BLAMELESS, RETENTION_ENDED, Shown
from coin_protocol.keyset import stamp
from coin_protocol.testing.forgeries import put, refused, unanswered
from coin_protocol.testing.mutations.flips import (
    challenge_by,
    link,
    pairs,
    shown_signed_by_itself,
    shown_twice,
    shown_unsigned,
    shown_with_a_forged_signature,
)
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Party,
    Site,
    Spot,
    answers,
    has_manifest,
    refusals,
    sampled,
    steps,
    token_lists,
    where,
)
from coin_protocol.testing.mutations.plans import Plan
from coin_protocol.testing.world import START
from coin_protocol.v1 import opening_pb2, receipt_pb2

_NOBODY: Final = receipt_pb2.FAULT_UNSPECIFIED
_INCONCLUSIVE: Final = receipt_pb2.OUTCOME_INCONCLUSIVE
_FLIPS_USED_UP: Final = opening_pb2.REFUSAL_REASON_FLIPS_USED_UP

_BLAMED: Final = ("DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "NOT_FOUND")
_UNREACHED: Final = tuple(sorted(BLAMELESS - {RETENTION_ENDED}))


# Answers that are missing, late, or of something else.


def _token_left_out(at: Spot) -> Lie:
    def edit(block: Shown) -> None:
        del block.tokens[at.random.randrange(len(block.tokens))]

    return at.edited(edit)


def _several(plan: Plan) -> list[Site]:
    """Return the sites of openings in which blocks of a kind can be left out; `path` names it."""
    found = [
        Site(step, field)
        for step, opening in plan.openings.items()
        for field in ("blocks", "token_blocks")
        if getattr(opening, field)
    ]
    return [*found, *(Site(step, "blocks") for step in plan.whole_openings)]


def _left_out(at: Spot) -> Lie:
    """Leave out one block of a kind."""

    def edit(blocks: MutableSequence[object]) -> None:
        del blocks[at.random.randrange(len(blocks))]

    return at.edited(edit)


def _all_left_out(at: Spot) -> Lie:
    return at.opening(lambda opening: opening.ClearField(at.site.path))


def _edge_left_out(at: Spot) -> Lie:
    return at.opening(lambda opening: opening.ClearField("edge"))


def _edge_elsewhere(at: Spot) -> Lie:
    """Show the last token of another block as the right edge, with all its proofs."""
    plan = at.plan
    other = at.random.randrange(plan.blocks - 1)
    shown = plan.opener.block(draw.DrawnBlock(other, (plan.count(other) - 1,)))
    edge = opening_pb2.EdgeOpening(
        block_index=other,
        token_leaf_hashes=shown.token_leaf_hashes,
        block_proof=shown.block_proof,
        last_token=shown.tokens[0],
    )
    return at.shown("edge", lambda _: edge)


def _edge_before_the_last(at: Spot) -> Lie:
    """Show a token before the last one as the right edge, with all its proofs."""
    plan, last = at.plan, at.plan.blocks - 1
    place = at.random.randrange(plan.last - 1)
    token = plan.opener.token_block(draw.DrawnBlock(last, (place,))).tokens[0]
    return at.shown("edge.last_token", lambda _: token)


def _status(*names: str) -> Callable[[Spot], Lie]:
    """Return what leaves a challenge without an answer, for one of these reasons."""

    def lie(at: Spot) -> Lie:
        name = at.random.choice(names)

        def edit(entry: receipt_pb2.Round) -> None:
            entry.ClearField("refusal")
            unanswered(name)(entry)

        return replace(at.entry(edit), silent=True)

    return lie


def _late(at: Spot) -> Lie:
    deadline = START + timedelta(hours=2)
    late = timedelta(microseconds=at.random.choice([1, 1_000_000, 3_600_000_000]))
    return at.entry(put("received_at", stamp(deadline + late)))


def _refuses(reason: opening_pb2.RefusalReason.ValueType) -> Callable[[Spot], Lie]:
    """Return what has the provider refuse, and show nothing that bears it out."""
    return lambda at: replace(at.entry(refused(at.plan.world, reason=reason)), silent=True)


def _names_another_challenge(at: Spot) -> Lie:
    other = put("challenge_sha256", at.made_up(32))
    return Lie(step=at.site.step, opening=other, refusal=other)


def _answers_another_round(at: Spot) -> Lie:
    """Give one challenge of a verifier the answer to another, as it was signed."""
    other = at.plan.rounds[at.site.index].opening
    return at.entry(put("opening", other))


def _pairs_of_a_kind(plan: Plan) -> list[Site]:
    kinds = [step.whole for step in plan.steps]
    return [site for site in pairs(plan) if kinds[site.step] == kinds[site.index]]


def _refusal(edit: Callable[[Spot, opening_pb2.Refusal], object]) -> Callable[[Spot], Lie]:
    """Return what has the provider sign another refusal."""
    return lambda at: Lie(step=at.site.step, refusal=lambda refusal: edit(at, refusal))


def _shows_some(refusal: opening_pb2.Refusal) -> bool:
    return bool(refusal.answered)


def _adds_anothers(at: Spot, refusal: opening_pb2.Refusal) -> None:
    """Show a challenge of another commitment, by a verifier that this one does not know."""
    index = len(at.plan.steps) + 1
    challenge = challenge_by(at, "another", at.made_up(32))
    refusal.answered.add(challenge=challenge, flip_index=index, flip=link(at, index))


def _used_up(at: Spot, refusal: opening_pb2.Refusal) -> None:
    del at
    refusal.reason = _FLIPS_USED_UP


def _no_manifest(*names: str) -> Callable[[Spot], Lie]:
    """Return what has a verifier ask for the manifest in vain: it can ask for nothing more."""

    def lie(at: Spot) -> Lie:
        name = at.random.choice(names)
        return Lie(ends=0, case=lambda case: replace(case, manifest=None, no_manifest=name))

    return lie


def _may_refuse(plan: Plan) -> list[Site]:
    """Return the challenges that no cap was in the way of."""
    return answers(plan)


def _any_refusal(refusal: opening_pb2.Refusal) -> bool:
    del refusal
    return True


_ANY: Final = refusals(_any_refusal)
_SHOWING: Final = refusals(_shows_some)
_TOKENS: Final = token_lists(lambda _, tokens: bool(tokens))

# fmt: off
PRESENCE: Final = (
    Mutation("token-left-out", "One of the drawn tokens is not opened.",
             _TOKENS, _token_left_out, "OPENING_PRESENT"),
    Mutation("tokens-left-out", "None of a block's drawn tokens is opened.",
             _TOKENS, lambda at: at.shown("tokens", lambda _: []), "OPENING_PRESENT"),
    Mutation("block-left-out", "One of the drawn blocks is not opened.",
             _several, _left_out, "OPENING_PRESENT"),
    Mutation("blocks-left-out", "None of the drawn blocks of a kind is opened.",
             _several, _all_left_out, "OPENING_PRESENT"),
    Mutation("edge-left-out", "The right edge, where an inflated size shows, is not opened.",
             sampled, _edge_left_out, "OPENING_PRESENT"),
    Mutation("edge-of-another-block", "The last token of another block is shown as the edge.",
             where(lambda plan: plan.blocks > 1, sampled), _edge_elsewhere, "OPENING_PRESENT"),
    Mutation("edge-before-the-last", "A token before the last one is shown as the edge.",
             where(lambda plan: plan.last > 1, sampled), _edge_before_the_last,
             "OPENING_PRESENT"),
    Mutation("no-answer", "The provider lets the deadline pass, or answers with an error.",
             steps, _status(*_BLAMED), "OPENING_PRESENT"),
    Mutation("not-reached", "The challenge did not reach the provider, or was not let in.",
             steps, _status(*_UNREACHED), "OPENING_PRESENT",
             Party.NETWORK, _NOBODY, _INCONCLUSIVE),
    Mutation("no-longer-kept", "The provider was asked after the time until which it answers.",
             steps, _status(RETENTION_ENDED), "OPENING_PRESENT",
             Party.VERIFIER, _NOBODY, _INCONCLUSIVE),
    Mutation("answer-late", "The answer came after the deadline.",
             steps, _late, "OPENING_PRESENT"),
    Mutation("refused-without-a-cap", "A challenge is refused that no cap is in the way of.",
             _may_refuse, _refuses(opening_pb2.REFUSAL_REASON_EXPOSURE_CAP), "OPENING_PRESENT"),
    Mutation("refused-with-flips-left", "A challenge is refused as if no link were left.",
             _may_refuse, _refuses(_FLIPS_USED_UP), "OPENING_PRESENT"),
    Mutation("refused-for-another-reason", "A refusal at a cap says that no link is left.",
             _ANY, _refusal(_used_up), "OPENING_PRESENT"),
    Mutation("answer-to-another-challenge", "The answer names another challenge.",
             steps, _names_another_challenge, "OPENING_PRESENT"),
    Mutation("answer-given-twice", "A challenge is answered with what answered another one.",
             _pairs_of_a_kind, _answers_another_round, "OPENING_PRESENT"),
    Mutation("refused-and-shown-twice", "A refusal shows one answered challenge twice.",
             _SHOWING, _refusal(shown_twice), "OPENING_PRESENT"),
    Mutation("refused-and-shown-unsigned", "A refusal shows a challenge that nobody signed.",
             _SHOWING, _refusal(shown_unsigned), "OPENING_PRESENT"),
    Mutation("refused-and-shown-forged", "A refusal shows this verifier's challenge, forged.",
             _SHOWING, _refusal(shown_with_a_forged_signature), "OPENING_PRESENT"),
    Mutation("refused-and-shown-its-own", "A refusal shows a challenge the provider signed.",
             _SHOWING, _refusal(shown_signed_by_itself), "OPENING_PRESENT"),
    Mutation("refused-for-another-commitment", "A refusal counts what another commitment opened.",
             _ANY, _refusal(_adds_anothers), "OPENING_PRESENT"),
    Mutation("manifest-withheld", "The provider does not show the tree of what it signed.",
             where(has_manifest), _no_manifest(*_BLAMED), "OPENING_PRESENT"),
    Mutation("manifest-not-reached", "The verifier could not ask for the manifest.",
             where(has_manifest), _no_manifest(*_UNREACHED, RETENTION_ENDED), "OPENING_PRESENT",
             Party.NETWORK, _NOBODY, _INCONCLUSIVE),
)
# fmt: on
