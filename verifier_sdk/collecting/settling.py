"""What comes of an exchange at its end: receipts, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.delivery import read_checkpoint, read_delivery
from coin_protocol.errors import InvalidInputError, StatementError
from coin_protocol.statements import read_commitment
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import delivery_pb2, envelope_pb2, receipt_pb2, statements_pb2
from coin_protocol.vendors import UsageError, read_usage
from verifier_sdk.collecting.exchange import VENDOR, Exchange
from verifier_sdk.collecting.problems import Problem, ProblemKind
from verifier_sdk.collecting.reply import Json, Said
from verifier_sdk.prompts import count_prompts
from verifier_sdk.recorder import Recorder

_LATE: Final = delivery_pb2.MISSING_REASON_STORE_UNAVAILABLE
_CAPS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of")
"""What of a request bounds the tokens that its reply may bill."""
_MAX_USAGE_CHARS: Final = 64 * 1024
"""A usage block in a note: a hundred times the longest in use."""

_Seen = Mapping[int, Sequence[tuple[int, envelope_pb2.Envelope]]]


@dataclass(frozen=True)
class Kept:
    """One receipt, and the names that it goes by.

    Attributes:
        response_id: Of the reply; its delivery is had again under it.
        model: As the server names it.
        choice: Number in the reply.
        received_at: When the reply ended, RFC 3339.
        receipt: To be written.
    """

    response_id: str
    model: str
    choice: int
    received_at: str
    receipt: receipt_pb2.Receipt = field(repr=False)


@dataclass(frozen=True)
class Settled:
    """What came of an exchange.

    Attributes:
        receipts: One for each choice that has a commitment.
        problems: Why there are no more.
        served: The server spoke of receipts.
        late: There may be one later: none came, for the client hung up before; or the server's
            disk was slow.
        note: Usage and times of a reply without any receipt, ready for JSON.
    """

    receipts: Sequence[Kept]
    problems: Sequence[Problem]
    served: bool
    late: bool
    note: Json | None


def settle(exchange: Exchange, later: delivery_pb2.Delivery | None = None) -> Settled:
    """Return what came of an exchange that has ended.

    Args:
        exchange: What passed.
        later: A delivery that was asked for again, in place of the one that came with the reply.
    """
    exchange.read()
    problems = list(exchange.problems)
    delivery = later or _delivery(exchange, problems)
    unheard = delivery is None and not problems
    receipts: list[Kept] = []
    missing: list[delivery_pb2.DeliveredChoice] = []
    if delivery is not None:
        missing = [choice for choice in delivery.choices if choice.missing]
        receipts = _receipts(exchange, delivery, problems)
    name = exchange.reply.response_id if delivery is None else delivery.response_id
    problems += [_missing(choice, name) for choice in missing]
    return Settled(
        receipts=receipts,
        problems=problems,
        served=delivery is not None or bool(exchange.checkpoints),
        late=unheard or any(choice.missing == _LATE for choice in missing),
        note=None if receipts else _note(exchange),
    )


def _delivery(exchange: Exchange, problems: list[Problem]) -> delivery_pb2.Delivery | None:
    if exchange.delivery is None:
        return None
    try:
        return read_delivery(exchange.delivery)
    except InvalidInputError as error:
        problems.append(_lost(ProblemKind.DELIVERY, str(error), exchange.reply.response_id))
        return None


def _receipts(
    exchange: Exchange, delivery: delivery_pb2.Delivery, problems: list[Problem]
) -> list[Kept]:
    reply, name = exchange.reply, delivery.response_id or exchange.reply.response_id
    if reply.problem:
        problems.append(_lost(ProblemKind.REPLY, reply.problem, name))
        return []
    if delivery.client_nonce != exchange.asked.client_nonce:
        why = "a receipt carries another nonce than its request: something on the way drops it"
        problems.append(Problem(ProblemKind.NONCE, why, name))
    seen = _seen(exchange, problems)
    kept: list[Kept] = []
    for choice in delivery.choices:
        if not choice.HasField("commitment"):
            continue
        try:
            receipt = _receipt(exchange, delivery, choice, seen)
        except InvalidInputError as error:
            problems.append(_lost(ProblemKind.REPLY, str(error), name))
            continue
        if exchange.left and _is_of_more(receipt):
            why = "you left before the reply's end, and the provider commits to the whole of it"
            problems.append(_lost(ProblemKind.INCOMPLETE, why, name))
            continue
        kept.append(Kept(name, reply.model, choice.choice, _utc(exchange.last_at), receipt))
    return kept


def _is_of_more(receipt: receipt_pb2.Receipt) -> bool:
    """Whether a commitment binds an answer that the client left before it was whole.

    A provider that noticed says so, and binds none (protocol, section 5). One that had sent all
    of it by then did nothing wrong: kept, such a receipt would say that the two disagree.
    """
    try:
        commitment = read_commitment(receipt.commitment.payload)
    except StatementError:
        return False
    unbound = (
        statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED,
        statements_pb2.ABORT_REASON_CRASHED,
    )
    return (
        commitment.abort_reason not in unbound
        and commitment.answer_sha256 != sha256(receipt.answer).digest()
    )


def _seen(exchange: Exchange, problems: list[Problem]) -> _Seen:
    """Return the checkpoints of each choice, with when each was seen."""
    seen: dict[int, list[tuple[int, envelope_pb2.Envelope]]] = {}
    for at, document in exchange.checkpoints:
        try:
            found = read_checkpoint(document)
        except InvalidInputError as error:
            why = f"a checkpoint is not kept: {error}"
            problems.append(Problem(ProblemKind.DELIVERY, why, exchange.reply.response_id))
        else:
            seen.setdefault(found.choice, []).append((at, found.checkpoint))
    return seen


def _receipt(
    exchange: Exchange,
    delivery: delivery_pb2.Delivery,
    choice: delivery_pb2.DeliveredChoice,
    seen: _Seen,
) -> receipt_pb2.Receipt:
    asked, said = exchange.asked, exchange.reply.choices.get(choice.choice) or Said()
    clock = _Stopped(exchange.sent_at)
    recorder = Recorder(request=asked.request, client_nonce=asked.client_nonce, clock=clock)
    for at, checkpoint in seen.get(choice.choice, ()):
        clock.at = at
        recorder.checkpoint(checkpoint)
    if said.first_at is not None and said.last_at is not None:
        for at in (said.first_at, said.last_at):
            clock.at = at
            recorder.answer_seen()
    return recorder.finish(
        commitment=choice.commitment,
        key_set=delivery.key_set,
        root_chain=tuple(delivery.root_chain),
        billed=_billed(exchange) if len(delivery.choices) == 1 else None,
        summary=said.summary,
        answer=said.answer,
    )


def _billed(exchange: Exchange) -> statements_pb2.Usage | None:
    """Return the usage that the client was told; None where it was told none that adds up.

    A block counts all choices of a reply together, so that it is no single one's.
    """
    try:
        found = read_usage(exchange.asked.vendor, exchange.reply.usage)
    except UsageError:
        return None
    if found.reasoning_tokens is None or found.answer_tokens is None:
        return found.to_usage()
    # A gateway's commitments count reasoning inside, as OpenAI does, whatever its upstream does.
    return usage_for(
        prompt_tokens=found.prompt_tokens,
        cached_prompt_tokens=found.cached_prompt_tokens,
        reasoning_tokens=found.reasoning_tokens,
        answer_tokens=found.answer_tokens,
        counting=INSIDE,
    )


def _note(exchange: Exchange) -> Json | None:
    """Return usage and times as the server asserts them; None where nothing came.

    It is a line of the plain form that `coin bill check` reads, as a bill or as requests.
    """
    reply = exchange.reply
    if not reply.response_id and reply.usage is None and not reply.choices:
        return None
    said = reply.choices.values()
    first = min((each.first_at for each in said if each.first_at is not None), default=None)
    last = max((each.last_at for each in said if each.last_at is not None), default=None)
    ended, vendor = _utc(exchange.last_at), exchange.asked.vendor
    return {
        "response_id": reply.response_id,
        "id": reply.response_id,
        "model": reply.model,
        **({} if vendor == VENDOR else {"vendor": vendor}),
        "time": ended,
        "usage": reply.usage if len(json.dumps(reply.usage)) <= _MAX_USAGE_CHARS else None,
        "sent_at": _utc(exchange.sent_at),
        "first_at": None if first is None else _utc(first),
        "last_at": None if last is None else _utc(last),
        "ended_at": ended,
        "whole": exchange.over,
        **_caps(exchange.asked.request),
    }


def _caps(request: bytes) -> Json:
    try:
        document = json.loads(request)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    caps = {name: document[name] for name in _CAPS if type(document.get(name)) is int}
    prompts = count_prompts(document)
    return {**caps, "prompts": prompts} if prompts > 1 else caps


class _Stopped:
    """A clock that stands where it is set."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at


def _utc(nanoseconds: int) -> str:
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    text: str = stamp.ToJsonString()
    return text


def _lost(kind: ProblemKind, why: str, response_id: str) -> Problem:
    return Problem(kind, f"no receipt is kept: {why}", response_id)


def _missing(choice: delivery_pb2.DeliveredChoice, response_id: str) -> Problem:
    # A number that a later gateway has and this reader has no name for stays a number.
    known = choice.missing in delivery_pb2.MissingReason.values()
    reason = delivery_pb2.MissingReason.Name(choice.missing) if known else str(choice.missing)
    why = reason.removeprefix("MISSING_REASON_")
    message = f"the server has no receipt for choice {choice.choice} of a reply: {why}"
    return Problem(ProblemKind.MISSING, message, response_id)
