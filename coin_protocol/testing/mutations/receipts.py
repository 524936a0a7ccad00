"""Mutations of what the client keeps of a reply: nonce, request, answer, bill and times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from coin_protocol.checks.kept import answer_known
from coin_protocol.keyset import stamp
from coin_protocol.testing.forgeries import POLICY, change, put
from coin_protocol.testing.mutations.lie import Lie
from coin_protocol.testing.mutations.mutation import (
    Mutation,
    Party,
    Site,
    Spot,
    anywhere,
    checkpoints,
    where,
)
from coin_protocol.testing.mutations.plans import SUMMARY, Plan, sibling
from coin_protocol.testing.world import START, Edit
from coin_protocol.usage import BESIDE, INSIDE
from coin_protocol.v1 import receipt_pb2, statements_pb2

_UNATTRIBUTED: Final = receipt_pb2.FAULT_UNATTRIBUTED
_MICROSECOND: Final = timedelta(microseconds=1)

Usage = statements_pb2.Usage


# Nonce, request and answer.


def _another_nonce(at: Spot) -> Lie:
    """Have the provider sign for another client's nonce, in checkpoints too."""
    edit = put("client_nonce", at.made_up(32))
    return Lie(commitment=edit, checkpoint=edit)


def _replayed(at: Spot) -> Lie:
    """Sell this client a session that was sold before: all of it is signed and consistent."""
    nonce = at.plan.honest.receipt.client_nonce
    return Lie(world=sibling, receipt=put("client_nonce", nonce))


def _spaced(raw: bytes) -> bytes:
    return raw.replace(b": ", b":")


def _answered(plan: Plan) -> bool:
    return answer_known(plan.honest)


def _summarised(plan: Plan) -> bool:
    return plan.summary and _answered(plan)


def _unsummarised(plan: Plan) -> bool:
    return not plan.summary and _answered(plan)


def _cut_short(at: Spot) -> Lie:
    return Lie(receipt=change("answer", lambda raw: raw[: at.random.randrange(len(raw))]))


# The bill. Each takes it as it is signed, and breaks one rule of it.


def _signs(edit: Callable[[Spot, Usage], object]) -> Callable[[Spot], Lie]:
    """Return what has the provider sign another bill, which the client is told too."""
    return lambda at: Lie(commitment=lambda commitment: edit(at, commitment.usage))


def _told(edit: Callable[[Spot, Usage], object]) -> Callable[[Spot], Lie]:
    """Return what has the client say that it was told another bill than the one signed."""
    return lambda at: Lie(receipt=lambda receipt: edit(at, receipt.billed))


def _more(at: Spot) -> int:
    return at.random.randint(1, 1_000)


def _over_reported(at: Spot, usage: Usage) -> None:
    extra = _more(at)
    usage.reasoning_tokens += extra
    if usage.reasoning_counting == INSIDE:
        usage.completion_tokens += extra


def _under_reported(at: Spot, usage: Usage) -> None:
    less = at.random.randint(1, usage.reasoning_tokens)
    usage.reasoning_tokens -= less
    if usage.reasoning_counting == INSIDE:
        usage.completion_tokens -= less


def _answer_as_reasoning(at: Spot, usage: Usage) -> None:
    """Count tokens of the answer as reasoning, the sum unchanged."""
    moved = at.random.randint(1, 5)
    usage.reasoning_tokens += moved
    if usage.reasoning_counting == BESIDE:
        usage.completion_tokens -= moved


def _counted_otherwise(at: Spot, usage: Usage) -> None:
    del at
    usage.reasoning_counting = BESIDE if usage.reasoning_counting == INSIDE else INSIDE


def _counting_unsaid(at: Spot, usage: Usage) -> None:
    del at
    usage.ClearField("reasoning_counting")


def _cached_beyond(at: Spot, usage: Usage) -> None:
    usage.cached_prompt_tokens = usage.prompt_tokens + _more(at)


def _completion_beyond(at: Spot, usage: Usage) -> None:
    usage.completion_tokens += _more(at)


def _prompt_beyond(at: Spot, usage: Usage) -> None:
    usage.prompt_tokens += _more(at)


def _cached_otherwise(at: Spot, usage: Usage) -> None:
    usage.cached_prompt_tokens = at.random.randint(1, usage.prompt_tokens)


def _answer_understated(at: Spot) -> Lie:
    """Commit to fewer tokens of the answer than are billed."""
    less = at.random.randint(1, 5)
    return Lie(commitment=change("answer_tokens", lambda count: count - less))


def _told_a_bill(plan: Plan) -> bool:
    return plan.told


def _told_of_tokens(plan: Plan) -> bool:
    return plan.told and plan.tokens > 0


def _has_tokens(plan: Plan) -> bool:
    return plan.tokens > 0


# Times. Sites are checkpoints; those are dated, and seen, a tenth of a second apart.


def _least_time(site: Site, plan: Plan) -> timedelta:
    """Return how long the tokens of a checkpoint take at the policy's greatest rate."""
    tokens = site.index * plan.block_size
    return timedelta(seconds=tokens / POLICY.message.max_tokens_per_second)


def _dated(when: Callable[[Spot], datetime]) -> Callable[[Spot], Lie]:
    """Return what has the provider date one checkpoint otherwise."""

    def lie(at: Spot) -> Lie:
        def edit(checkpoint: statements_pb2.Checkpoint) -> None:
            if checkpoint.block_count == at.site.index:
                checkpoint.provider_time.CopyFrom(stamp(when(at)))

        return Lie(checkpoint=edit)

    return lie


def _seen(when: Callable[[Spot], datetime]) -> Callable[[Spot], Lie]:
    """Return what has the client say that it saw one checkpoint at another time."""
    return lambda at: Lie(receipt=put(f"{at.site.path}.seen_at", stamp(when(at))))


def _at_once(at: Spot) -> datetime:
    del at
    return START


def _before(at: Spot) -> datetime:
    return START - timedelta(seconds=at.random.randint(1, 3_000))


def _just_too_early(at: Spot) -> datetime:
    return START + _least_time(at.site, at.plan) - _MICROSECOND


def _begun_later(at: Spot) -> Lie:
    """Say that the reply began when a checkpoint of it had been signed already."""
    seconds = at.site.index * 0.1 + at.random.randint(0, 60)
    return Lie(commitment=put("started_at", stamp(START + timedelta(seconds=seconds))))


def _sent_later(at: Spot) -> Lie:
    seconds = at.site.index * 0.1 + at.random.randint(0, 60)
    return Lie(receipt=put("sent_at", stamp(START + timedelta(seconds=seconds))))


def _delivered_early(at: Spot) -> Lie:
    """Have a network that delivers every checkpoint with the first, before any was due."""

    def edit(receipt: receipt_pb2.Receipt) -> None:
        for seen in receipt.checkpoints:
            seen.seen_at.CopyFrom(stamp(START + _MICROSECOND))

    del at
    return Lie(receipt=edit)


def _kept(edit: Edit[receipt_pb2.Receipt]) -> Callable[[Spot], Lie]:
    return lambda _: Lie(receipt=edit)


# fmt: off
RECEIPTS: Final = (
    Mutation("nonce-altered", "The client's receipt has another nonce by one bit.",
             anywhere, lambda at: Lie(receipt=change("client_nonce", at.flip)),
             "CLIENT_NONCE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("nonce-cut-short", "The client's receipt holds a part of its nonce.",
             anywhere, lambda at: Lie(receipt=change(
                 "client_nonce", lambda raw: raw[: at.random.randrange(len(raw))])),
             "CLIENT_NONCE", Party.CLIENT, _UNATTRIBUTED),
    Mutation("nonce-of-another-client", "Commitment and checkpoints answer another client's nonce.",
             anywhere, _another_nonce, "CLIENT_NONCE", fault=_UNATTRIBUTED),
    Mutation("session-replayed", "Every statement is of a session that was sold before.",
             anywhere, _replayed, "CLIENT_NONCE", fault=_UNATTRIBUTED),

    Mutation("request-altered", "The client's receipt has another request by one bit.",
             anywhere, lambda at: Lie(receipt=change("request", at.flip)),
             "REQUEST_DIGEST", Party.CLIENT, _UNATTRIBUTED),
    Mutation("request-written-anew", "The client's receipt has its request with other spaces.",
             anywhere, _kept(change("request", _spaced)),
             "REQUEST_DIGEST", Party.CLIENT, _UNATTRIBUTED),
    Mutation("request-left-out", "The client's receipt has no request.",
             anywhere, _kept(put("request", b"")),
             "REQUEST_DIGEST", Party.CLIENT, _UNATTRIBUTED),
    Mutation("request-of-another-client", "The commitment is to another request.",
             anywhere, lambda at: Lie(commitment=put("request_sha256", at.made_up(32))),
             "REQUEST_DIGEST", fault=_UNATTRIBUTED),
    Mutation("request-digest-of-the-answer", "The commitment has the answer's digest twice.",
             anywhere,
             lambda at: Lie(commitment=put(
                 "request_sha256", sha256(at.plan.honest.receipt.answer).digest())),
             "REQUEST_DIGEST", fault=_UNATTRIBUTED),

    Mutation("answer-altered", "The client's receipt has another answer by one bit.",
             where(_answered), lambda at: Lie(receipt=change("answer", at.flip)),
             "ANSWER_DIGEST", Party.CLIENT, _UNATTRIBUTED),
    Mutation("answer-extended", "The client's receipt has an answer with a line more.",
             where(_answered), _kept(change("answer", lambda raw: raw + b"\n")),
             "ANSWER_DIGEST", Party.CLIENT, _UNATTRIBUTED),
    Mutation("answer-cut-short", "The answer's end was lost on the way.",
             where(_answered), _cut_short, "ANSWER_DIGEST", Party.NETWORK, _UNATTRIBUTED),
    Mutation("answer-of-another-request", "The commitment is to another answer.",
             where(_answered), lambda at: Lie(commitment=put("answer_sha256", at.made_up(32))),
             "ANSWER_DIGEST", fault=_UNATTRIBUTED),
    Mutation("summary-altered", "The client shows another summary by one bit.",
             where(_summarised), lambda at: Lie(receipt=change("summary", at.flip)),
             "ANSWER_DIGEST", Party.CLIENT, _UNATTRIBUTED),
    Mutation("summary-uncommitted", "The client shows a summary that nobody committed to.",
             where(_unsummarised), _kept(put("summary", SUMMARY)),
             "ANSWER_DIGEST", Party.CLIENT, _UNATTRIBUTED),
    Mutation("summary-of-another-answer", "The commitment is to another summary.",
             where(_summarised), lambda at: Lie(commitment=put("summary_sha256", at.made_up(32))),
             "ANSWER_DIGEST", fault=_UNATTRIBUTED),

    Mutation("bill-over-reported", "More reasoning is billed than committed, all sums right.",
             anywhere, _signs(_over_reported), "BILL"),
    Mutation("bill-under-reported", "Less reasoning is billed than committed, all sums right.",
             where(_has_tokens), _signs(_under_reported), "BILL"),
    Mutation("answer-billed-as-reasoning", "Tokens of the answer are billed as reasoning.",
             anywhere, _signs(_answer_as_reasoning), "BILL"),
    Mutation("reasoning-counted-otherwise",
             "The bill names the other way of counting, so that reasoning counts twice or never.",
             where(_has_tokens), _signs(_counted_otherwise), "BILL"),
    Mutation("counting-unsaid", "The bill does not say whether completion contains reasoning.",
             anywhere, _signs(_counting_unsaid), "BILL"),
    Mutation("cached-beyond-prompt", "More prompt tokens are billed as cached than there are.",
             anywhere, _signs(_cached_beyond), "BILL"),
    Mutation("completion-beyond-its-sum", "More completion tokens are billed than their sum.",
             anywhere, _signs(_completion_beyond), "BILL"),
    Mutation("answer-tokens-understated", "Fewer tokens of the answer are committed than billed.",
             anywhere, _answer_understated, "BILL"),
    Mutation("told-more-completion", "The client says it was told of more completion tokens.",
             where(_told_a_bill), _told(_completion_beyond),
             "BILL", Party.CLIENT, _UNATTRIBUTED),
    Mutation("told-more-prompt", "The client says it was told of more prompt tokens.",
             where(_told_a_bill), _told(_prompt_beyond), "BILL", Party.CLIENT, _UNATTRIBUTED),
    Mutation("told-cached-otherwise", "The client says it was told of cached prompt tokens.",
             where(_told_a_bill), _told(_cached_otherwise),
             "BILL", Party.CLIENT, _UNATTRIBUTED),
    Mutation("told-counted-otherwise",
             "The client says its reasoning was counted the other way, for another sum.",
             where(_told_of_tokens), _told(_counted_otherwise),
             "BILL", Party.CLIENT, _UNATTRIBUTED),
)

TIMES: Final = (
    Mutation("checkpoint-dated-at-once", "A checkpoint is dated as the reply begins.",
             checkpoints, _dated(_at_once), "ARRIVAL_TIME"),
    Mutation("checkpoint-dated-before", "A checkpoint is dated before the reply begins.",
             checkpoints, _dated(_before), "ARRIVAL_TIME"),
    Mutation("checkpoint-dated-just-too-early",
             "A checkpoint is dated a microsecond before its tokens can have been decoded.",
             checkpoints, _dated(_just_too_early), "ARRIVAL_TIME"),
    Mutation("begun-after-a-checkpoint", "The reply begins after a checkpoint of it.",
             checkpoints, _begun_later, "ARRIVAL_TIME"),
    Mutation("checkpoint-seen-at-once", "By the client's clock a checkpoint took no time.",
             checkpoints, _seen(_at_once), "ARRIVAL_TIME", Party.CLIENT, _UNATTRIBUTED),
    Mutation("checkpoint-seen-before", "The client saw a checkpoint before it asked.",
             checkpoints, _seen(_before), "ARRIVAL_TIME", Party.CLIENT, _UNATTRIBUTED),
    Mutation("checkpoint-seen-just-too-early",
             "The client saw a checkpoint a microsecond before its tokens can have been decoded.",
             checkpoints, _seen(_just_too_early), "ARRIVAL_TIME", Party.CLIENT, _UNATTRIBUTED),
    Mutation("sent-after-a-checkpoint", "The client sent its request after it saw a checkpoint.",
             checkpoints, _sent_later, "ARRIVAL_TIME", Party.CLIENT, _UNATTRIBUTED),
    Mutation("all-seen-together-too-early",
             "The client says that all checkpoints came together, before any was due.",
             checkpoints, _delivered_early, "ARRIVAL_TIME", Party.CLIENT, _UNATTRIBUTED),
)
# fmt: on
