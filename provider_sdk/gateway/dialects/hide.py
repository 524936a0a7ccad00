"""Fields that carry reasoning or ids, and how they are taken out of what is passed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from provider_sdk.gateway.dialects.request import Json
from provider_sdk.gateway.splitter import Run, Side

REASONING_FIELDS: Final = (
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking",
    "thinking_blocks",
)
"""Of a message or delta: vLLM and OpenRouter, DeepSeek and SGLang, OpenRouter, Ollama, LiteLLM."""

_PARALLEL: Final = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def pop_reasoning(message: Json) -> bool:
    """Take reasoning out of a message or delta; say whether there was any. Nulls stay."""
    extra = message.get("provider_specific_fields")
    found = type(extra) is dict and pop_reasoning(extra)
    for name in REASONING_FIELDS:
        if message.get(name) is not None:
            del message[name]
            found = True
    return found


def reasoning_of(message: Json) -> str:
    """Return the reasoning's text of a message or delta; fields that repeat it count once."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        text = message.get(name)
        if type(text) is str and text:
            return text
    details = message.get("reasoning_details")
    if isinstance(details, list):
        # OpenRouter's; what is encrypted has no text, and a summary is none.
        return "".join(
            each["text"]
            for each in details
            if isinstance(each, dict) and isinstance(each.get("text"), str)
        )
    return ""


def parts_of(content: Sequence[object]) -> tuple[list[object], str, str]:
    """Split content that comes in parts, as Mistral's does.

    Returns:
        The parts that are no thinking, their text, and the text of the thinking.
    """
    kept: list[object] = []
    text = thinking = ""
    for part in content:
        if isinstance(part, dict) and part.get("type") == "thinking":
            inner = part.get("thinking")
            if isinstance(inner, str):
                thinking += inner
            elif isinstance(inner, list):
                thinking += "".join(_text(each) for each in inner)
            continue
        kept.append(part)
        text += _text(part)
    return kept, text, thinking


def _text(part: object) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


def visible_logprobs(logprobs: object, ids: Sequence[int], runs: Sequence[Run]) -> object:
    """Return log probabilities of the answer's tokens alone.

    Args:
        logprobs: A chat's (`content`, one entry a token) or a completion's (parallel lists).
        ids: That came with them; none where the upstream gives none.
        runs: What they are. Where they are other ids than came (some are held back), nothing
            can be told apart and all are taken out.
    """
    if not isinstance(logprobs, dict):
        return None
    if sum(len(run.ids) for run in runs) != len(ids) or not ids:
        return None
    keep = [run.side is Side.ANSWER for run in runs for _ in run.ids]
    shown = dict(logprobs)
    for name in ("content", *_PARALLEL):
        entries = logprobs.get(name)
        if entries is None:
            continue
        if not isinstance(entries, list) or len(entries) != len(keep):
            return None
        shown[name] = [entry for entry, kept in zip(entries, keep, strict=True) if kept]
    return shown
