"""What requests limited and whether replies answered anything, in the vendors' own JSON. Pure.

Only numbers and emptiness are taken out: no text of a conversation is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Final

from coin_protocol.vendors import MAX_TOKENS
from verifier_sdk.bill.line import Terms
from verifier_sdk.prompts import count_prompts

_CAPS: Final = (
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "generationConfig.maxOutputTokens",
)
_BUDGETS: Final = (
    "thinking.budget_tokens",
    "reasoning.max_tokens",
    "generationConfig.thinkingConfig.thinkingBudget",
)
# Legacy completions generate `best_of` choices and show `n` of them, for each prompt.
_CHOICES: Final = ("n", "best_of", "generationConfig.candidateCount")
# As a collector's note has them, in place of the prompts themselves.
_PROMPTS: Final = ("prompts",)


def terms_of(request: Mapping[str, object]) -> Terms:
    """Return what a request limits. Of several caps the greatest counts: nobody is wronged.

    Args:
        request: Body as sent, by the API of OpenAI, Anthropic, OpenRouter or Gemini.
    """
    return Terms(
        max_tokens=max(_numbers(request, _CAPS), default=None),
        reasoning_budget=max(_numbers(request, _BUDGETS), default=None),
        choices=max(_numbers(request, _CHOICES), default=1)
        * max(_numbers(request, _PROMPTS), default=count_prompts(request)),
    )


def answer_empty(reply: Mapping[str, object]) -> bool | None:
    """Return whether a reply holds no answer at all: no text, no call, nothing else to see.

    Args:
        reply: Body as received, not streamed: chat or legacy completions, Responses, Messages.

    Returns:
        None where the body has no place for an answer.
    """
    for name, has_answer in (
        ("choices", _choice_answers),
        ("output", _item_answers),
        ("content", _block_answers),
    ):
        parts = reply.get(name)
        if isinstance(parts, list):
            return not any(has_answer(part) for part in parts if isinstance(part, Mapping))
    return None


def finish_of(reply: Mapping[str, object]) -> str:
    """Return why a reply ended, in the vendor's word; empty where it does not say."""
    details = reply.get("incomplete_details")
    inner = details.get("reason") if isinstance(details, Mapping) else None
    choices = reply.get("choices")
    firsts = choices[:1] if isinstance(choices, list) else []
    found = (each.get("finish_reason") for each in firsts if isinstance(each, Mapping))
    for value in chain(found, (inner, reply.get("stop_reason"))):
        if isinstance(value, str):
            return value[:80]
    return ""


def _numbers(request: Mapping[str, object], names: tuple[str, ...]) -> list[int]:
    found = (_inner(request, name) for name in names)
    # Gemini's budget of -1 is none, and one of 0 forbids: only what bounds is taken.
    return [each for each in found if type(each) is int and 0 < each <= MAX_TOKENS]


def _inner(value: object, name: str) -> object:
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _choice_answers(choice: Mapping[str, object]) -> bool:
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return bool(choice.get("text"))
    names = ("content", "tool_calls", "function_call", "refusal", "audio", "images")
    return any(message.get(name) for name in names)


def _item_answers(item: Mapping[str, object]) -> bool:
    """Whether an item of a response's output is more than reasoning."""
    if item.get("type") != "message":
        return item.get("type") != "reasoning"
    content = item.get("content")
    return isinstance(content, list) and any(
        _block_answers(part) for part in content if isinstance(part, Mapping)
    )


def _block_answers(block: Mapping[str, object]) -> bool:
    kind = block.get("type")
    if kind in {"thinking", "redacted_thinking"}:
        return False
    if kind in {"text", "output_text", "refusal"}:
        return bool(block.get("text") or block.get("refusal"))
    return True
