"""LiteLLM's proxy: spend logs, one row a request, and daily spend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from verifier_sdk.bill.fields import Fields, UnreadableError
from verifier_sdk.bill.formats.shape import Shape, cache_write, stated
from verifier_sdk.bill.line import NO_TERMS, Kind, Line
from verifier_sdk.bill.replies import answer_empty, finish_of, terms_of

_CURRENCY: Final = "USD"
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_DETAILS: Final = (
    "completion_tokens_details",
    "output_tokens_details",
    "prompt_tokens_details",
    "input_tokens_details",
    "reasoning_tokens",
)
# It rewrites blocks to OpenAI's form. Those of these vendors it has passed on as they came, at
# times: where the total says so, they are read as theirs.
_AS_THEY_CAME: Final = frozenset({"xai", "openrouter"})


def _spend_log(fields: Fields) -> Line:
    metadata = fields.group("metadata")
    told = metadata.get("usage_object")
    told = told if isinstance(told, Mapping) else {}
    usage = _block(fields, told)
    cost = fields.money("spend")
    body = fields.loose_group("response")
    request = fields.loose_group("proxy_server_request")
    inner = request.get("body")
    moment = fields.moment("startTime")
    status = fields.text("status").lower()
    return Line(
        number=fields.number,
        kind=Kind.REQUEST,
        model=fields.text("model"),
        ids=tuple(filter(None, [fields.text("request_id")])),
        vendor=_vendor(fields.text("custom_llm_provider").lower(), usage),
        usage=usage,
        period=None if moment is None else moment.period,
        cost=cost,
        currency="" if cost is None else _CURRENCY,
        cache_write=cache_write(told),
        terms=terms_of(inner if isinstance(inner, Mapping) else request) if request else NO_TERMS,
        answer_empty=answer_empty(body),
        failed=status if status.startswith(("fail", "error")) else "",
        finish=finish_of(body),
        # Not from `completionStartTime`: hidden reasoning is over before the first token shows.
        seconds=fields.seconds("startTime", "endTime"),
        from_cache=str(fields.stated("cache_hit")).lower() == "true",
        disagreement=_disagreement(usage, told),
    )


def _block(fields: Fields, told: Mapping[str, object]) -> dict[str, object]:
    """Return the row's counts with the details that the reply's own block adds."""
    usage = stated(**{name: fields.count(name) for name in _COUNTS})
    return usage | {name: told[name] for name in _DETAILS if told.get(name) is not None}


def _disagreement(usage: Mapping[str, object], told: Mapping[str, object]) -> str:
    for name in _COUNTS:
        other = told.get(name)
        # A row of a failed request has zeros.
        if usage.get(name) and type(other) is int and other != usage[name]:
            return f"the row has `{name}` {usage[name]}, its `usage_object` {other}"
    return ""


def _vendor(provider: str, usage: Mapping[str, object]) -> str:
    if provider not in _AS_THEY_CAME:
        return "openai-compatible"
    prompt, completion, total = (usage.get(name) for name in _COUNTS)
    parts = (each for each in (prompt, completion) if isinstance(each, int))
    return "openai-compatible" if total == sum(parts) else provider


def _daily(fields: Fields) -> Line:
    moment = fields.moment("date")
    if moment is None:
        msg = "`date` is not stated"
        raise UnreadableError(msg)
    usage = stated(**{name: fields.count(name) for name in _COUNTS[:2]})
    usage["prompt_tokens_details"] = stated(cached_tokens=fields.count("cache_read_input_tokens"))
    cost = fields.money("spend")
    return Line(
        number=fields.number,
        kind=Kind.BUCKET,
        model=fields.text("model"),
        vendor="openai-compatible",
        usage=usage,
        period=moment.period,
        requests=fields.count("api_requests"),
        cost=cost,
        currency="" if cost is None else _CURRENCY,
        cache_write=(fields.count("cache_creation_input_tokens") or 0, 0),
    )


_SCHEMA: Final = "https://github.com/BerriAI/litellm/blob/main/schema.prisma"

SHAPES: Final = (
    Shape(
        format="litellm",
        name="litellm-spend-logs",
        needs=frozenset(
            {"request_id", "spend", "prompt_tokens", "completion_tokens", "startTime", "endTime"}
        ),
        read=_spend_log,
        source=f"{_SCHEMA} (LiteLLM_SpendLogs)",
    ),
    Shape(
        format="litellm",
        name="litellm-daily",
        needs=frozenset({"date", "spend", "prompt_tokens", "completion_tokens", "api_requests"}),
        read=_daily,
        source=f"{_SCHEMA} (LiteLLM_DailyUserSpend)",
    ),
)
