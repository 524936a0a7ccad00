"""Write the committed counts over an upstream's usage block, where that is configured."""

from __future__ import annotations

from typing import Any

import orjson


def rewritten(data: bytes, reasoning: int, answer: int) -> bytes:
    """Return a reply or an event with the committed counts in its usage block.

    The prompt's counts stay the upstream's: nothing here counts them. Reasoning is counted
    inside the completion, as in OpenAI's API.

    Args:
        data: A JSON object, with `usage` in it or in its `response`.
        reasoning: Committed reasoning tokens, over all choices.
        answer: Every other generated token.
    """
    document: dict[str, Any] = orjson.loads(data)
    inner = document.get("response")
    usage = (inner if isinstance(inner, dict) else document).get("usage")
    if not isinstance(usage, dict):
        return data
    generated, prompt = ("completion_tokens", "prompt_tokens")
    if "output_tokens" in usage:
        generated, prompt = ("output_tokens", "input_tokens")
    usage[generated] = reasoning + answer
    details = usage.get(f"{generated}_details")
    usage[f"{generated}_details"] = {
        **(details if isinstance(details, dict) else {}),
        "reasoning_tokens": reasoning,
    }
    if "reasoning_tokens" in usage:
        usage["reasoning_tokens"] = reasoning
    if isinstance(usage.get(prompt), int):
        usage["total_tokens"] = usage[prompt] + reasoning + answer
    return orjson.dumps(document)
