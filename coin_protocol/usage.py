"""Usage blocks as billed, and whether they add up."""

from __future__ import annotations

from coin_protocol.errors import VerificationError
from coin_protocol.v1 import statements_pb2 as pb

INSIDE = pb.REASONING_COUNTING_INSIDE_COMPLETION
BESIDE = pb.REASONING_COUNTING_BESIDE_COMPLETION


def usage_for(
    *,
    prompt_tokens: int,
    reasoning_tokens: int,
    answer_tokens: int,
    counting: pb.ReasoningCounting.ValueType,
    cached_prompt_tokens: int = 0,
) -> pb.Usage:
    """Return the usage block that these counts give under a counting convention."""
    inside = reasoning_tokens if counting == INSIDE else 0
    return pb.Usage(
        prompt_tokens=prompt_tokens,
        cached_prompt_tokens=cached_prompt_tokens,
        completion_tokens=answer_tokens + inside,
        reasoning_tokens=reasoning_tokens,
        reasoning_counting=counting,
    )


def generated_tokens(usage: pb.Usage) -> int:
    """Return all generated tokens of a usage block, reasoning once."""
    beside = usage.reasoning_tokens if usage.reasoning_counting == BESIDE else 0
    return usage.completion_tokens + beside


def is_as_signed(told: pb.Usage, signed: pb.Usage) -> bool:
    """Whether a client was told to pay for what is signed: so many tokens of prompt, so many more.

    How the told block splits what was generated is not compared. Many upstreams state no reasoning,
    or 0, or count its marks otherwise; the sum is what is paid for, and the split is signed.

    Args:
        told: As the client was told it. Where its counting is unspecified the client was told of
            no reasoning, and the completion is everything generated (`vendors.to_usage`).
        signed: Of the commitment.
    """
    return _paid_for(told) == _paid_for(signed)


def _paid_for(usage: pb.Usage) -> tuple[int, int, int]:
    return usage.prompt_tokens, usage.cached_prompt_tokens, generated_tokens(usage)


def verify_usage(usage: pb.Usage, *, reasoning_tokens: int, answer_tokens: int) -> None:
    """Check that a usage block bills exactly these counts, reasoning once.

    Args:
        usage: As billed.
        reasoning_tokens: Committed.
        answer_tokens: Every generated token that is not reasoning.

    Raises:
        VerificationError: A count or a sum differs; the message gives both numbers.
    """
    if usage.reasoning_tokens != reasoning_tokens:
        msg = (
            f"the bill counts {usage.reasoning_tokens} reasoning tokens, "
            f"the commitment {reasoning_tokens}"
        )
        raise VerificationError(msg)
    if usage.cached_prompt_tokens > usage.prompt_tokens:
        msg = (
            f"the bill counts {usage.cached_prompt_tokens} cached prompt tokens "
            f"of {usage.prompt_tokens} prompt tokens"
        )
        raise VerificationError(msg)
    if usage.reasoning_counting == INSIDE:
        wanted, sum_of = reasoning_tokens + answer_tokens, "reasoning and answer"
    elif usage.reasoning_counting == BESIDE:
        wanted, sum_of = answer_tokens, "answer alone (reasoning is counted beside)"
    else:
        msg = "the bill does not say whether completion tokens contain reasoning tokens"
        raise VerificationError(msg)
    if usage.completion_tokens != wanted:
        msg = f"the bill counts {usage.completion_tokens} completion tokens, {sum_of} make {wanted}"
        raise VerificationError(msg)
