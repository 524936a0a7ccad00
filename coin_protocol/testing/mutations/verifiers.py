"""What a verifier can write wrongly itself: an error, and no finding about the provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from coin_protocol import envelope
from coin_protocol.checks import Case
from coin_protocol.errors import LimitError
from coin_protocol.keyset import stamp
from coin_protocol.limits import FLIP_CHAIN_LENGTH
from coin_protocol.testing.forgeries import both, change, put, without
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Site,
    Spot,
    VerifierFault,
    answers,
    steps,
    where,
)
from coin_protocol.testing.mutations.plans import Plan, signed
from coin_protocol.testing.world import PROVIDER, START, VERIFIER, Edit
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2

_KINDS: Final = (envelope.CHALLENGE, envelope.WHOLE_CHALLENGE)


def _challenge(edit: Callable[[Spot], Edit[Any]]) -> Callable[[Spot], Lie]:
    """Return what has the verifier sign another challenge, which is answered all the same."""
    return lambda at: Lie(step=at.site.step, challenge=edit(at))


def _entry(edit: Callable[[Spot], Edit[Any]]) -> Callable[[Spot], Lie]:
    """Return what has the verifier keep a round otherwise."""
    return lambda at: at.entry(edit(at))


def _signed_as(name: str) -> Callable[[Spot], Lie]:
    def again(at: Spot, found: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        return signed(at.plan, found.payload, found.payload_type, name)

    return _entry(lambda at: change("challenge", lambda found: again(at, found)))


def _as_the_other_kind(at: Spot) -> Edit[Any]:
    def again(found: envelope_pb2.Envelope) -> envelope_pb2.Envelope:
        (kind,) = (one for one in _KINDS if one != found.payload_type)
        return signed(at.plan, found.payload, kind, VERIFIER)

    return change("challenge", again)


def _time(at: Spot) -> str:
    return at.random.choice(["sent_at", "received_at"])


def _unanswered(at: Spot) -> Edit[Any]:
    del at
    return both(without("opening"), without("refusal"))


def _answered_twice(at: Spot) -> Edit[Any]:
    del at
    return put("no_answer", "DEADLINE_EXCEEDED")


def _too_many(at: Spot) -> Lie:
    def repeat(case: Case) -> Case:
        many = FLIP_CHAIN_LENGTH + 1
        if case.rounds:
            return replace(case, rounds=[*case.rounds] * many)
        return replace(case, whole_rounds=[*case.whole_rounds] * many)

    del at
    return Lie(case=repeat)


def _nothing_to_ask(at: Spot) -> Lie:
    """Challenge a commitment to no tokens, which has no block to open."""
    plan = at.plan
    challenge = opening_pb2.Challenge(
        fingerprints_sha256=plan.honest.fingerprints_sha256,
        verifier=VERIFIER,
        nonce=at.made_up(32),
        round=1,
        blocks=1,
        deadline=stamp(START + timedelta(hours=2)),
    )
    payload = challenge.SerializeToString(deterministic=True)
    entry = receipt_pb2.Round(
        challenge=signed(plan, payload, envelope.CHALLENGE, VERIFIER),
        no_answer="INVALID_ARGUMENT",
        sent_at=stamp(START + timedelta(hours=1)),
        received_at=stamp(START + timedelta(hours=1)),
    )
    return Lie(case=lambda case: replace(case, rounds=[entry]))


def _hurried(at: Spot) -> Edit[Any]:
    """Set a deadline that gives less than half of what the policy says."""
    sent = START + timedelta(hours=1)
    given = at.plan.world.policy.deadline_seconds / 2 - at.random.choice([0.001, 10, 3_600])
    return put("deadline", stamp(sent + timedelta(seconds=given)))


def _sampled_steps(plan: Plan) -> list[Site]:
    return [site for site in steps(plan) if not plan.steps[site.step].whole]


def _nothing_drawn(at: Spot) -> Edit[Any]:
    del at
    return both(put("blocks", 0), put("token_blocks", 0))


def _tokens_of_nothing(at: Spot) -> Edit[Any]:
    del at
    return both(put("token_blocks", 1), put("tokens_per_block", 0))


def _is_empty(plan: Plan) -> bool:
    return plan.tokens == 0 and plan.manifest and plan.ready


# fmt: off
VERIFIER_FAULTS: Final[tuple[VerifierFault, ...]] = (
    VerifierFault("challenge-of-a-stranger", "No verifier that is known signed the challenge.",
                  steps, _signed_as("stranger")),
    VerifierFault("challenge-of-the-provider", "The provider signed the challenge itself.",
                  steps, _signed_as(PROVIDER)),
    VerifierFault("challenge-unsigned", "The challenge carries no signature.",
                  steps, _entry(lambda _: put("challenge.signatures", []))),
    VerifierFault("challenge-altered", "One bit of the challenge is flipped.",
                  steps, _entry(lambda at: change("challenge.payload", at.flip))),
    VerifierFault("challenge-of-the-other-kind", "The challenge is signed as one of another kind.",
                  steps, _entry(_as_the_other_kind)),
    VerifierFault("challenge-of-other-fingerprints", "The challenge names other fingerprints.",
                  steps, _challenge(lambda at: put("fingerprints_sha256", at.made_up(32)))),
    VerifierFault("challenge-of-a-short-nonce", "The challenge's nonce has too few bytes.",
                  steps, _challenge(lambda at: change(
                      "nonce", lambda raw: raw[: at.random.randrange(len(raw))]))),
    VerifierFault("challenge-of-no-round", "The challenge is of a round that no audit has.",
                  steps, _challenge(lambda at: put(
                      "round", at.random.choice([0, FLIP_CHAIN_LENGTH + 1])))),
    VerifierFault("challenge-of-nobody", "The challenge does not name its verifier.",
                  steps, _challenge(lambda _: put("verifier", ""))),
    VerifierFault("challenge-of-nothing", "The challenge draws nothing.",
                  _sampled_steps, _challenge(_nothing_drawn)),
    VerifierFault("challenge-of-token-blocks-without-tokens",
                  "The challenge draws token blocks, and no tokens.",
                  _sampled_steps, _challenge(_tokens_of_nothing)),
    VerifierFault("challenge-in-a-hurry",
                  "The challenge gives far less time than the verifier's policy says.",
                  steps, _challenge(_hurried)),
    VerifierFault("challenge-without-a-deadline", "The challenge names no deadline.",
                  steps, _challenge(lambda _: without("deadline"))),
    VerifierFault("round-without-a-challenge", "A round holds no challenge.",
                  steps, _entry(lambda _: without("challenge"))),
    VerifierFault("round-without-an-answer", "A round says nothing of what came.",
                  steps, _entry(_unanswered)),
    VerifierFault("round-with-two-answers", "A round says that an answer came, and that none did.",
                  answers, _entry(_answered_twice)),
    VerifierFault("round-without-its-times", "A round does not say when it was sent or answered.",
                  steps, _entry(lambda at: without(_time(at)))),
    VerifierFault("round-out-of-time", "A round was sent or answered after the year 9999.",
                  steps, _entry(lambda at: put(f"{_time(at)}.seconds", 253_402_300_800))),
    VerifierFault("rounds-too-many", "There are more rounds than a chain has links.",
                  steps, _too_many, LimitError),
    VerifierFault("challenge-of-no-blocks", "A commitment without blocks is challenged.",
                  where(_is_empty), _nothing_to_ask),
)
# fmt: on
