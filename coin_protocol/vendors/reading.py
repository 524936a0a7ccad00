"""Read a vendor's usage block by its convention, and refuse what does not add up."""

from __future__ import annotations

from collections.abc import Mapping

from coin_protocol.errors import InvalidInputError
from coin_protocol.usage import BESIDE, INSIDE
from coin_protocol.v1 import statements_pb2 as pb
from coin_protocol.vendors.codes import UsageCode, UsageError
from coin_protocol.vendors.conventions import CONVENTIONS, CachedCounting, Convention
from coin_protocol.vendors.counts import agreed, count, needed
from coin_protocol.vendors.reported import Reported


def read_usage(vendor: str, block: object) -> Reported:
    """Read a usage block as it stands in a reply.

    Args:
        vendor: A key of `CONVENTIONS`.
        block: Parsed JSON: OpenAI's and Anthropic's `usage`, Gemini's `usageMetadata`.
            Fields that are not counts of this convention are left alone.

    Raises:
        InvalidInputError: No convention has that name.
        UsageError: The block does not add up; `code` says in which way.
    """
    convention = CONVENTIONS.get(vendor)
    if convention is None:
        msg = f"no usage convention is called {vendor!r}; use one of {', '.join(CONVENTIONS)}"
        raise InvalidInputError(msg)
    if not isinstance(block, Mapping):
        msg = f"the usage block is of type {type(block).__name__}; wanted the vendor's JSON object"
        raise UsageError(UsageCode.MALFORMED, msg)
    prompt, cached = _prompt(convention, block)
    completion = _completion(convention, block)
    reasoning = agreed(block, convention.names.reasoning)
    total = agreed(block, convention.names.total)
    counting = _counting(convention, prompt + completion, reasoning, total)
    reported = Reported(
        vendor=vendor,
        counting=counting,
        prompt_tokens=prompt,
        cached_prompt_tokens=cached,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
        total_tokens=total,
        unnamed_tokens=_unnamed(convention, prompt + completion, reasoning, total),
    )
    _check_reasoning(reported)
    _check_total(reported)
    return reported


def _prompt(convention: Convention, block: Mapping[str, object]) -> tuple[int, int]:
    names = convention.names
    prompt = needed(block, names.prompt)
    cached = agreed(block, names.cached)
    uncached = agreed(block, names.uncached)
    if convention.cached is CachedCounting.BESIDE_PROMPT:
        prompt += cached or 0
    elif (cached or 0) > prompt:
        msg = (
            f"{cached} cached prompt tokens of {prompt} prompt tokens; {convention.vendor} counts "
            f"cached tokens inside the prompt: ask whether this block counts them beside it"
        )
        raise UsageError(UsageCode.CACHED_ABOVE_PROMPT, msg)
    if uncached is not None and uncached + (cached or 0) != prompt:
        msg = (
            f"{cached or 0} cached and {uncached} uncached prompt tokens do not make "
            f"{prompt} prompt tokens; ask the vendor which of them is billed"
        )
        raise UsageError(UsageCode.FIELDS_DISAGREE, msg)
    return prompt + _beside(convention, block), cached or 0


def _beside(convention: Convention, block: Mapping[str, object]) -> int:
    """Return what was input beside the prompt's own count."""
    names = convention.names
    stated = [count(block, name) for name in names.prompt_beside]
    parts = [count(block, name) for name in names.parts_beside]
    whole, made = sum(each or 0 for each in stated), sum(each or 0 for each in parts)
    if all(each is None for each in stated):
        return made
    if whole != made and any(each is not None for each in parts):
        msg = (
            f"`{names.prompt_beside[0]}` is {whole}, but its parts make {made}; "
            f"ask {convention.vendor} which of them is billed"
        )
        raise UsageError(UsageCode.FIELDS_DISAGREE, msg)
    return whole


def _completion(convention: Convention, block: Mapping[str, object]) -> int:
    names = convention.names
    completion = agreed(block, names.completion)
    if completion is None and convention.zeros_omitted:
        # Only the total can tell a 0 that was left out from a block that lacks its count.
        needed(block, names.total)
        return 0
    return needed(block, names.completion)


def _counting(
    convention: Convention, without: int, reasoning: int | None, total: int | None
) -> pb.ReasoningCounting.ValueType:
    """Return how this block counts; `without` is the sum of prompt and completion."""
    if not convention.total_decides or not reasoning:
        return convention.counting
    if total is None:
        msg = (
            f"{reasoning} reasoning tokens and no total: replies of {convention.vendor} count "
            f"reasoning inside the completion or beside it, and only a total can tell; ask for it"
        )
        raise UsageError(UsageCode.AMBIGUOUS, msg)
    if total == without:
        return INSIDE
    if total == without + reasoning:
        return BESIDE
    return convention.counting


def _unnamed(convention: Convention, without: int, reasoning: int | None, total: int | None) -> int:
    if not convention.rest_unnamed or reasoning is not None:
        return 0
    if total is None:
        msg = (
            f"no `total_tokens`, where alone {convention.vendor} counts thinking; "
            f"take it from the same reply"
        )
        raise UsageError(UsageCode.MISSING_COUNT, msg)
    return max(total - without, 0)


def _check_reasoning(reported: Reported) -> None:
    reasoning, completion = reported.reasoning_tokens or 0, reported.completion_tokens
    if reported.counting == INSIDE and reasoning > completion:
        msg = (
            f"{reasoning} reasoning tokens of {completion} completion tokens, which "
            f"{reported.vendor} counts them inside; ask whether this block counts them beside, "
            f"or on another tokenizer, and do not add them up"
        )
        raise UsageError(UsageCode.REASONING_ABOVE_COMPLETION, msg)


def _check_total(reported: Reported) -> None:
    reasoning, total = reported.reasoning_tokens or 0, reported.total_tokens
    wanted = reported.prompt_tokens + reported.generated
    if total is None or total == wanted:
        return
    where = "inside the completion" if reported.counting == INSIDE else "beside the completion"
    sums = (
        f"a total of {total}, but {reported.prompt_tokens} prompt and {reported.generated} "
        f"generated tokens make {wanted} ({reasoning} reasoning tokens {where})"
    )
    if reasoning and total == wanted + reasoning:
        msg = f"{sums}: reasoning is counted twice; bill {wanted}"
        raise UsageError(UsageCode.REASONING_COUNTED_TWICE, msg)
    msg = f"{sums}; ask the vendor about the difference of {abs(total - wanted)}"
    raise UsageError(UsageCode.TOTAL_DISAGREES, msg)
