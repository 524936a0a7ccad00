"""OpenAI: usage and costs of an organisation, and logs of single replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier_sdk.bill.fields import Fields, UnreadableError, read_money
from verifier_sdk.bill.formats.shape import Shape, cache_write, stated
from verifier_sdk.bill.line import Kind, Line, Period
from verifier_sdk.bill.replies import answer_empty, finish_of, terms_of

_FAILED: Final = frozenset({"failed", "cancelled"})
_STANDARD_TIERS: Final = frozenset({"default", "auto", "standard"})


def _usage(fields: Fields) -> Line | None:
    prompt, output = fields.count("input_tokens"), fields.count("output_tokens")
    if prompt is None and output is None:
        return None
    cached = fields.count("input_cached_tokens")
    # The block of the Responses API has the same counts under these names.
    usage = stated(input_tokens=prompt, output_tokens=output)
    usage["input_tokens_details"] = stated(cached_tokens=cached)
    batch = "batch" if fields.flag("batch") else ""
    return Line(
        number=fields.number,
        kind=Kind.BUCKET,
        model=fields.text("model"),
        vendor="openai",
        usage=usage,
        period=_period(fields),
        requests=fields.count("num_model_requests"),
        service_tier=batch or tier(fields),
        cache_write=(fields.count("input_cache_write_tokens") or 0, 0),
    )


def _costs(fields: Fields) -> Line | None:
    amount = fields.stated("amount")
    if isinstance(amount, Mapping):
        value, currency = amount.get("value"), amount.get("currency")
    else:
        value, currency = fields.stated("amount_value"), fields.stated("amount_currency")
    if value is None:
        return None
    if not isinstance(currency, str):
        msg = "the amount has no currency"
        raise UnreadableError(msg)
    return Line(
        number=fields.number,
        kind=Kind.MONEY,
        model=fields.text("line_item"),
        period=_period(fields),
        cost=read_money("amount", value),
        currency=currency.upper(),
    )


def _reply(fields: Fields) -> Line:
    usage = fields.group("usage")
    moment = fields.moment("created") or fields.moment("created_at")
    cost = fields.stated("cost") or usage.get("cost")
    status = fields.text("status")
    return Line(
        number=fields.number,
        kind=Kind.REQUEST,
        model=fields.text("model"),
        ids=tuple(filter(None, [fields.text("id")])),
        # Half the industry answers in this form; the block has to say whose convention it is.
        vendor=None,
        usage=usage or None,
        period=None if moment is None else moment.period,
        # OpenRouter's blocks alone state a cost, in its credits, which are US dollars.
        cost=None if cost is None else read_money("cost", cost),
        currency="" if cost is None else "USD",
        service_tier=tier(fields),
        cache_write=cache_write(usage),
        terms=terms_of(fields.values),
        answer_empty=answer_empty(fields.values),
        failed=status if status in _FAILED else "",
        finish=finish_of(fields.values),
    )


def tier(fields: Fields) -> str:
    """Return the service tier that prices depend on; empty for the standard one."""
    found = fields.text("service_tier").lower()
    return "" if found in _STANDARD_TIERS else found


def _period(fields: Fields) -> Period:
    start, end = fields.moment("start_time"), fields.moment("end_time")
    if start is None or end is None or end.at < start.at:
        msg = "the bucket has no `start_time`, or no `end_time` after it"
        raise UnreadableError(msg)
    return Period(start.at, end.at)


SHAPES: Final = (
    Shape(
        format="openai",
        name="openai-usage",
        needs=frozenset({"start_time", "end_time", "input_tokens", "output_tokens"}),
        read=_usage,
        source="https://platform.openai.com/docs/api-reference/usage/completions_object",
        own_names=True,
    ),
    Shape(
        format="openai",
        name="openai-costs",
        needs=frozenset({"start_time", "end_time", "amount"}),
        read=_costs,
        source="https://platform.openai.com/docs/api-reference/usage/costs_object",
    ),
    Shape(
        format="openai",
        name="openai-costs-csv",
        needs=frozenset({"start_time", "end_time", "amount_value", "amount_currency"}),
        read=_costs,
        source="https://help.openai.com/en/articles/8554956-understanding-your-api-usage",
    ),
    Shape(
        format="openai",
        name="openai-replies",
        needs=frozenset({"object", "model", "usage"}),
        read=_reply,
        source="https://platform.openai.com/docs/api-reference/chat/object",
    ),
)
