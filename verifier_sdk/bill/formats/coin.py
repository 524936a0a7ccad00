"""The plain form: one JSON object a request, the usage block as the vendor's API gave it."""

from __future__ import annotations

from typing import Final

from coin_protocol.vendors import CONVENTIONS
from verifier_sdk.bill.fields import Fields, UnreadableError
from verifier_sdk.bill.formats.openai import tier
from verifier_sdk.bill.formats.shape import Shape, cache_write
from verifier_sdk.bill.line import Kind, Line
from verifier_sdk.bill.replies import terms_of
from verifier_sdk.bill.requests import SERVED, failed_state


def _request(fields: Fields) -> Line:
    usage = fields.group("usage")
    moment = fields.moment("time")
    if moment is None:
        msg = "`time` is not stated"
        raise UnreadableError(msg)
    cost, currency = fields.money("cost"), fields.text("currency").upper()
    if cost is not None and not currency:
        msg = "`cost` is stated without `currency`"
        raise UnreadableError(msg)
    vendor = fields.text("vendor")
    if vendor and vendor not in CONVENTIONS:
        msg = f"`vendor` is none of {', '.join(CONVENTIONS)}"
        raise UnreadableError(msg)
    return Line(
        number=fields.number,
        kind=Kind.REQUEST,
        model=fields.text("model"),
        ids=tuple(filter(None, [fields.text("id")])),
        vendor=vendor or None,
        usage=usage or None,
        period=moment.period,
        cost=cost,
        currency="" if cost is None else currency,
        service_tier=tier(fields),
        cache_write=cache_write(usage),
        terms=terms_of(fields.group("request") or fields.values),
        answer_empty=empty_answer(fields),
        failed=failed_state(fields.text("status")),
        finish=fields.text("finish_reason"),
        seconds=fields.seconds(*SERVED),
    )


def empty_answer(fields: Fields) -> bool | None:
    """Return whether `answer`, a text of any length, is there and empty."""
    answer = fields.values.get("answer")
    if answer is None:
        return None
    if not isinstance(answer, str):
        msg = "`answer` is no text"
        raise UnreadableError(msg)
    return not answer


SHAPES: Final = (
    Shape(
        format="coin",
        name="coin",
        needs=frozenset({"time", "model", "usage"}),
        read=_request,
        source="docs/bill.md",
    ),
)
