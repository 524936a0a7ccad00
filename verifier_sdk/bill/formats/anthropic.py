"""Anthropic: usage and cost reports, the Console's CSV files, and logs of single replies."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from verifier_sdk.bill.fields import Fields, UnreadableError
from verifier_sdk.bill.formats.openai import tier
from verifier_sdk.bill.formats.shape import Shape, cache_write, stated
from verifier_sdk.bill.line import Kind, Line, Period
from verifier_sdk.bill.replies import answer_empty, finish_of

_CENT: Final = Decimal("0.01")


def _report(fields: Fields) -> Line:
    return _bucket(
        fields,
        model=fields.text("model"),
        period=_between(fields),
        counts=(
            fields.count("uncached_input_tokens"),
            fields.count("cache_read_input_tokens"),
            fields.count("output_tokens"),
        ),
        written=cache_write(fields.values),
        service_tier=tier(fields),
    )


def _csv(fields: Fields) -> Line:
    minutes = fields.count("usage_input_tokens_cache_write_5m")
    if minutes is None:
        minutes = fields.count("usage_input_tokens_cache_write")
    kind = fields.text("usage_type").lower()
    return _bucket(
        fields,
        model=fields.text("model_version"),
        period=_day(fields),
        counts=(
            fields.count("usage_input_tokens_no_cache"),
            fields.count("usage_input_tokens_cache_read"),
            fields.count("usage_output_tokens"),
        ),
        written=(minutes or 0, fields.count("usage_input_tokens_cache_write_1h") or 0),
        service_tier="" if kind in {"standard", "message"} else kind,
    )


def _bucket(
    fields: Fields,
    *,
    model: str,
    period: Period,
    counts: tuple[int | None, int | None, int | None],
    written: tuple[int, int],
    service_tier: str,
) -> Line:
    """Return a line whose block has the names of the Messages API."""
    uncached, cached, output = counts
    usage = stated(input_tokens=uncached, cache_read_input_tokens=cached, output_tokens=output)
    usage["cache_creation_input_tokens"] = sum(written)
    return Line(
        number=fields.number,
        kind=Kind.BUCKET,
        model=model,
        vendor="anthropic",
        usage=usage,
        period=period,
        service_tier=service_tier,
        cache_write=written,
    )


def _cost_csv(fields: Fields) -> Line | None:
    cost = fields.money("cost_usd")
    if cost is None:
        return None
    return Line(
        number=fields.number,
        kind=Kind.MONEY,
        model=fields.text("model"),
        period=_day(fields),
        cost=cost,
        currency="USD",
    )


def _cost_report(fields: Fields) -> Line | None:
    amount = fields.money("amount")
    if amount is None:
        return None
    return Line(
        number=fields.number,
        kind=Kind.MONEY,
        model=fields.text("model"),
        period=_between(fields),
        # In the currency's lowest unit.
        cost=amount * _CENT,
        currency=fields.text("currency").upper() or "USD",
    )


def _reply(fields: Fields) -> Line:
    usage = fields.group("usage")
    moment = fields.moment("created_at")
    return Line(
        number=fields.number,
        kind=Kind.REQUEST,
        model=fields.text("model"),
        ids=tuple(filter(None, [fields.text("id")])),
        vendor="anthropic",
        usage=usage or None,
        period=None if moment is None else moment.period,
        cache_write=cache_write(usage),
        answer_empty=answer_empty(fields.values),
        finish=finish_of(fields.values),
    )


def _day(fields: Fields) -> Period:
    moment = fields.moment("usage_date_utc")
    if moment is None:
        msg = "`usage_date_utc` is not stated"
        raise UnreadableError(msg)
    return moment.period


def _between(fields: Fields) -> Period:
    start, end = fields.moment("starting_at"), fields.moment("ending_at")
    if start is None or end is None or end.at < start.at:
        msg = "the bucket has no `starting_at`, or no `ending_at` after it"
        raise UnreadableError(msg)
    return Period(start.at, end.at)


_REPORTS: Final = "https://platform.claude.com/docs/en/api/admin/usage_report/retrieve_messages"
_CONSOLE: Final = "https://support.anthropic.com/en/articles/9534590"

SHAPES: Final = (
    Shape(
        format="anthropic",
        name="anthropic-usage",
        needs=frozenset({"starting_at", "ending_at", "uncached_input_tokens", "output_tokens"}),
        read=_report,
        source=_REPORTS,
        own_names=True,
    ),
    Shape(
        format="anthropic",
        name="anthropic-usage-csv",
        needs=frozenset({"usage_date_utc", "usage_input_tokens_no_cache", "usage_output_tokens"}),
        read=_csv,
        source=_CONSOLE,
        own_names=True,
    ),
    Shape(
        format="anthropic",
        name="anthropic-costs",
        needs=frozenset({"starting_at", "ending_at", "amount", "currency"}),
        read=_cost_report,
        source="https://platform.claude.com/docs/en/api/admin/cost_report/retrieve",
    ),
    Shape(
        format="anthropic",
        name="anthropic-costs-csv",
        needs=frozenset({"usage_date_utc", "token_type", "cost_usd"}),
        read=_cost_csv,
        source=_CONSOLE,
    ),
    Shape(
        format="anthropic",
        name="anthropic-replies",
        needs=frozenset({"type", "model", "content", "usage"}),
        read=_reply,
        source="https://platform.claude.com/docs/en/api/messages",
        own_names=True,
    ),
)
