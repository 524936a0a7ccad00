"""One canonical reading of any vendor's usage block."""

from __future__ import annotations

from dataclasses import dataclass

from coin_protocol.usage import INSIDE
from coin_protocol.v1 import statements_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a vendor reported, in tokens, with how it counts.

    Attributes:
        vendor: Whose convention it was read by.
        counting: Whether `completion_tokens` contains reasoning in this block.
        prompt_tokens: Everything that was input, cached or not.
        cached_prompt_tokens: The part of it that came from a cache; 0 where not stated.
        completion_tokens: As the vendor counts them, under `counting`.
        reasoning_tokens: None where the block does not state them, which is not 0.
        total_tokens: None where the block does not state it.
        unnamed_tokens: In the total but under no name (Gemini's OpenAI endpoint: thinking).
    """

    vendor: str
    counting: pb.ReasoningCounting.ValueType
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int | None
    total_tokens: int | None
    unnamed_tokens: int = 0

    @property
    def generated(self) -> int:
        """All generated tokens that the block tells of, reasoning once."""
        if self.counting == INSIDE:
            return self.completion_tokens
        return self.completion_tokens + (self.reasoning_tokens or 0) + self.unnamed_tokens

    @property
    def answer_tokens(self) -> int | None:
        """Generated tokens that are not reasoning; None where the block cannot tell."""
        if self.counting != INSIDE:
            return self.completion_tokens
        if self.reasoning_tokens is None:
            return None
        return self.completion_tokens - self.reasoning_tokens

    def to_usage(self) -> pb.Usage:
        """Return the canonical message.

        It has no way to say "reasoning not stated". Where it is not, the counting is left
        unspecified, so that `verify_usage` refuses the message as a bill, and the completion
        holds everything generated.
        """
        usage = pb.Usage(
            prompt_tokens=self.prompt_tokens, cached_prompt_tokens=self.cached_prompt_tokens
        )
        if self.reasoning_tokens is None:
            usage.completion_tokens = self.generated
            return usage
        usage.completion_tokens = self.completion_tokens
        usage.reasoning_tokens = self.reasoning_tokens
        usage.reasoning_counting = self.counting
        return usage
