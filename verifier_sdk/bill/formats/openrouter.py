"""OpenRouter: generation records, the log and the summary of the activity page."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final

from verifier_sdk.bill.fields import Fields, UnreadableError
from verifier_sdk.bill.formats.shape import Shape, stated
from verifier_sdk.bill.line import Kind, Line, Period

_CURRENCY: Final = "USD"
"""Credits are US dollars."""


def _generation(fields: Fields) -> Line:
    """Read a record of `GET /api/v1/generation`; the native counts are those that are billed."""
    cost = fields.money("usage")
    if cost is None:
        cost = fields.money("total_cost")
    return _request(
        fields,
        ids=("id", "upstream_id"),
        model=fields.text("model"),
        counts=(
            fields.count("native_tokens_prompt"),
            fields.count("native_tokens_completion"),
            fields.count("native_tokens_reasoning"),
            fields.count("native_tokens_cached"),
        ),
        money=(cost, fields.flag("is_byok")),
        finish=fields.text("finish_reason"),
        milliseconds=("latency", "generation_time"),
    )


def _log(fields: Fields) -> Line:
    """Read a row of the activity page's log, one a generation."""
    byok = fields.money("byok_usage_inference")
    return _request(
        fields,
        ids=("generation_id",),
        model=fields.text("model_permaslug"),
        counts=(
            fields.count("tokens_prompt"),
            fields.count("tokens_completion"),
            fields.count("tokens_reasoning"),
            fields.count("tokens_cached"),
        ),
        money=(fields.money("cost_total"), bool(byok)),
        finish=fields.text("finish_reason_normalized"),
        milliseconds=("time_to_first_token_ms", "generation_time_ms"),
    )


def _request(
    fields: Fields,
    *,
    ids: tuple[str, ...],
    model: str,
    counts: tuple[int | None, int | None, int | None, int | None],
    money: tuple[Decimal | None, bool],
    finish: str,
    milliseconds: tuple[str, str],
) -> Line:
    prompt, completion, reasoning, cached = counts
    moment = fields.moment("created_at")
    cost, own_key = money
    return Line(
        number=fields.number,
        kind=Kind.REQUEST,
        model=model,
        ids=tuple(filter(None, map(fields.text, ids))),
        vendor="openrouter",
        usage=_block(prompt, completion, reasoning, cached),
        period=None if moment is None else moment.period,
        cost=cost,
        currency="" if cost is None else _CURRENCY,
        failed="cancelled" if fields.flag("cancelled") else "",
        finish=finish,
        seconds=_seconds(fields, *milliseconds),
        own_key=own_key,
    )


def _activity(fields: Fields) -> Line:
    """Read an item of `GET /api/v1/activity`: a day, a model and an endpoint."""
    return _summary(
        fields,
        date="date",
        model="model_permaslug",
        money=("usage", "byok_usage_inference"),
        counts=("requests", "prompt_tokens", "completion_tokens", "reasoning_tokens"),
    )


def _summary_csv(fields: Fields) -> Line:
    """Read a row of the activity page's summary by model."""
    return _summary(
        fields,
        date="Date",
        model="Slug",
        money=("Usage", "BYOK Usage"),
        counts=("Requests", "Prompt Tokens", "Completion Tokens", "Reasoning Tokens"),
    )


def _summary(
    fields: Fields, *, date: str, model: str, money: tuple[str, str], counts: tuple[str, ...]
) -> Line:
    requests, prompt, completion, reasoning = map(fields.count, counts)
    moment = fields.moment(date)
    if moment is None:
        msg = f"`{date}` is not stated"
        raise UnreadableError(msg)
    # The page groups by day, or by hour where it shows a day; a row says only when it begins.
    long = timedelta(hours=1 if moment.at.hour else 24)
    cost, own = fields.money(money[0]), fields.money(money[1])
    return Line(
        number=fields.number,
        kind=Kind.BUCKET,
        model=fields.text(model),
        vendor="openrouter",
        usage=_block(prompt, completion, reasoning, None),
        period=Period(moment.at, moment.at + long),
        requests=requests,
        cost=cost,
        currency="" if cost is None else _CURRENCY,
        own_key=bool(own),
    )


def _block(
    prompt: int | None, completion: int | None, reasoning: int | None, cached: int | None
) -> dict[str, object]:
    """Return the counts as a reply's block names them; no export has a total."""
    usage = stated(prompt_tokens=prompt, completion_tokens=completion)
    usage["completion_tokens_details"] = stated(reasoning_tokens=reasoning)
    usage["prompt_tokens_details"] = stated(cached_tokens=cached)
    return usage


def _seconds(fields: Fields, first: str, generation: str) -> float | None:
    """Return how long the reply took at most: both parts, even where one contains the other.

    None where the time of generation is not stated, or 0: then nobody measured it.
    """
    generated, before = fields.money(generation), fields.money(first) or Decimal()
    if generated is None or generated <= 0 or before < 0:
        return None
    return float(generated + before) / 1000


_SDK: Final = "https://openrouter.ai/docs/client-sdks/python/components/"
_EXPORT: Final = "https://openrouter.ai/docs/cookbook/administration/activity-export"

SHAPES: Final = (
    Shape(
        format="openrouter",
        name="openrouter-generations",
        needs=frozenset({"id", "native_tokens_prompt", "native_tokens_completion"}),
        read=_generation,
        source=f"{_SDK}generationresponsedata",
    ),
    Shape(
        format="openrouter",
        name="openrouter-log",
        needs=frozenset({"generation_id", "tokens_prompt", "tokens_completion", "cost_total"}),
        read=_log,
        source=_EXPORT,
    ),
    Shape(
        format="openrouter",
        name="openrouter-activity",
        needs=frozenset({"date", "model_permaslug", "prompt_tokens", "completion_tokens"}),
        read=_activity,
        source=f"{_SDK}activityitem",
    ),
    Shape(
        format="openrouter",
        name="openrouter-activity-csv",
        needs=frozenset({"Date", "Slug", "Prompt Tokens", "Completion Tokens"}),
        read=_summary_csv,
        source=_EXPORT,
    ),
)
