"""How many prompts one request has: legacy completions take several, and answer each."""

from __future__ import annotations

from collections.abc import Mapping


def count_prompts(request: Mapping[str, object]) -> int:
    """Return how many prompts a request has; 1 where it has none of its own.

    Args:
        request: Body as sent. Its `prompt` is a text, tokens, or a list of either.
    """
    prompt = request.get("prompt")
    if not isinstance(prompt, list):
        return 1
    return max(sum(isinstance(each, (str, list)) for each in prompt), 1)
