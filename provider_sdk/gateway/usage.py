"""Write the committed counts over an upstream's usage block, where it counts otherwise."""

from __future__ import annotations

from typing import Any

import orjson


def rewritten(data: bytes, reasoning: int, answer: int) -> bytes:
    """Return a reply or an event with the committed counts in its usage block.

    The prompt's counts stay the upstream's: nothing here counts them. Reasoning is counted
    inside the completion, as in OpenAI's API. A block that says the same already, or the same
    and nothing of reasoning, is left as it is, byte for byte.

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
    details = usage.get(f"{generated}_details")
    details = details if isinstance(details, dict) else {}
    wanted = {generated: reasoning + answer}
    if "reasoning_tokens" in usage:
        wanted["reasoning_tokens"] = reasoning
    if isinstance(usage.get(prompt), int):
        wanted["total_tokens"] = usage[prompt] + reasoning + answer
    told = details.get("reasoning_tokens")
    same = all(usage.get(name, count) == count for name, count in wanted.items())
    if same and (told is None or told == reasoning):
        return data
    usage |= wanted
    usage[f"{generated}_details"] = {**details, "reasoning_tokens": reasoning}
    return orjson.dumps(document)
