"""How each vendor counts, and under which names. Facts, with where they are documented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from coin_protocol.usage import BESIDE, INSIDE
from coin_protocol.v1 import statements_pb2 as pb


class CachedCounting(Enum):
    """Where prompt tokens read from a cache are counted."""

    INSIDE_PROMPT = "inside the prompt count"
    BESIDE_PROMPT = "beside the prompt count"


@dataclass(frozen=True, kw_only=True)
class Names:
    """Dotted names in the JSON block; where several are given, any that is stated counts.

    Attributes:
        prompt: The prompt.
        prompt_beside: Each is added to the prompt: it was input too.
        parts_beside: Make up what `prompt_beside` names, and stand for it where it is not stated.
        cached: Prompt tokens read from a cache.
        uncached: The rest of the prompt: with `cached` it must make the prompt.
        completion: What was generated, with or without reasoning.
        reasoning: Reasoning.
        total: Everything.
    """

    prompt: tuple[str, ...]
    prompt_beside: tuple[str, ...] = ()
    parts_beside: tuple[str, ...] = ()
    cached: tuple[str, ...]
    uncached: tuple[str, ...] = ()
    completion: tuple[str, ...]
    reasoning: tuple[str, ...]
    total: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How one vendor counts.

    Attributes:
        vendor: Its name here.
        counting: Whether the completion count contains reasoning, as documented.
        cached: Whether the prompt count contains cached tokens.
        source: Where that is documented or was measured.
        names: Of the fields.
        marks: Fields that only this vendor sends.
        total_decides: Replies are known to count otherwise than documented, so where there
            is reasoning the block's own total says how.
        zeros_omitted: Counts of 0 may be left out; the total then has to be there.
        rest_unnamed: The total contains generated tokens that no field names.
    """

    vendor: str
    counting: pb.ReasoningCounting.ValueType
    cached: CachedCounting = CachedCounting.INSIDE_PROMPT
    source: str
    names: Names
    marks: tuple[str, ...] = ()
    total_decides: bool = False
    zeros_omitted: bool = False
    rest_unnamed: bool = False


_OPENAI: Final = Names(
    # Chat and legacy completions; Responses and realtime.
    prompt=("prompt_tokens", "input_tokens"),
    cached=(
        "prompt_tokens_details.cached_tokens",
        "input_tokens_details.cached_tokens",
        "input_token_details.cached_tokens",
    ),
    completion=("completion_tokens", "output_tokens"),
    reasoning=(
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "output_token_details.reasoning_tokens",
        # SGLang states it flat.
        "reasoning_tokens",
    ),
    total=("total_tokens",),
)

_DEEPSEEK: Final = Names(
    prompt=_OPENAI.prompt,
    cached=(*_OPENAI.cached, "prompt_cache_hit_tokens"),
    uncached=("prompt_cache_miss_tokens",),
    completion=_OPENAI.completion,
    reasoning=_OPENAI.reasoning,
    total=_OPENAI.total,
)

_ANTHROPIC: Final = Names(
    prompt=("input_tokens",),
    prompt_beside=("cache_creation_input_tokens",),
    parts_beside=(
        "cache_creation.ephemeral_5m_input_tokens",
        "cache_creation.ephemeral_1h_input_tokens",
    ),
    cached=("cache_read_input_tokens",),
    completion=("output_tokens",),
    reasoning=("output_tokens_details.thinking_tokens",),
    # The API sends none; exports and gateways add one.
    total=("total_tokens",),
)

_GEMINI: Final = Names(
    prompt=("promptTokenCount",),
    prompt_beside=("toolUsePromptTokenCount",),
    cached=("cachedContentTokenCount",),
    completion=("candidatesTokenCount",),
    reasoning=("thoughtsTokenCount",),
    total=("totalTokenCount",),
)

_ALL: Final = (
    Convention(
        vendor="openai",
        counting=INSIDE,
        source="https://platform.openai.com/docs/guides/reasoning",
        names=_OPENAI,
    ),
    Convention(
        vendor="anthropic",
        counting=INSIDE,
        cached=CachedCounting.BESIDE_PROMPT,
        source="https://platform.claude.com/docs/en/build-with-claude/extended-thinking",
        names=_ANTHROPIC,
        marks=(
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "output_tokens_details.thinking_tokens",
        ),
    ),
    Convention(
        vendor="gemini",
        counting=BESIDE,
        source="https://ai.google.dev/api/generate-content#UsageMetadata",
        names=_GEMINI,
        marks=("promptTokenCount",),
        zeros_omitted=True,
    ),
    Convention(
        vendor="gemini-openai",
        counting=BESIDE,
        source="https://discuss.ai.google.dev/t/question-with-usage-in-openai-compatibility/98760",
        names=_OPENAI,
        total_decides=True,
        rest_unnamed=True,
    ),
    Convention(
        vendor="xai",
        counting=BESIDE,
        source="https://docs.x.ai/docs/key-information/consumption-and-rate-limits",
        names=_OPENAI,
        marks=("num_sources_used", "cost_in_usd_ticks"),
        total_decides=True,
    ),
    Convention(
        vendor="deepseek",
        counting=INSIDE,
        source="https://api-docs.deepseek.com/api/create-chat-completion",
        names=_DEEPSEEK,
        marks=("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"),
    ),
    Convention(
        vendor="openrouter",
        counting=INSIDE,
        source="https://openrouter.ai/docs/use-cases/usage-accounting",
        names=_OPENAI,
        marks=("cost_details", "is_byok"),
        total_decides=True,
    ),
    Convention(
        vendor="vllm",
        counting=INSIDE,
        source="https://github.com/vllm-project/vllm/pull/45802",
        names=_OPENAI,
    ),
    Convention(
        vendor="sglang",
        counting=INSIDE,
        source="https://github.com/sgl-project/sglang/pull/15562",
        names=_OPENAI,
    ),
    Convention(
        vendor="fireworks",
        counting=INSIDE,
        source="https://docs.fireworks.ai/api-reference/post-chatcompletions",
        names=_OPENAI,
    ),
    Convention(
        vendor="openai-compatible",
        counting=INSIDE,
        source="https://platform.openai.com/docs/guides/reasoning",
        names=_OPENAI,
    ),
)

CONVENTIONS: Final[Mapping[str, Convention]] = MappingProxyType({c.vendor: c for c in _ALL})
"""By vendor, in the order of docs/usage.md."""
