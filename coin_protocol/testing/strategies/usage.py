"""Usage blocks as vendors send them, as plain dictionaries: they add up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol.errors import InvalidInputError
from coin_protocol.testing.strategies.values import COUNTS, Ints
from coin_protocol.vendors import CONVENTIONS, Reported, read_usage

Block = dict[str, Any]


@dataclass(frozen=True)
class _Counts:
    """What a block tells of."""

    prompt: int
    cached: int
    reasoning: int
    answer: int

    @property
    def completion(self) -> int:
        return self.reasoning + self.answer

    @property
    def total(self) -> int:
        return self.prompt + self.completion


def vendors() -> SearchStrategy[str]:
    """Return a strategy of the vendors whose convention is known."""
    return st.sampled_from(list(CONVENTIONS))


@st.composite
def usage_blocks(
    draw: st.DrawFn,
    vendor: str | SearchStrategy[str] | None = None,
    *,
    prompt_tokens: Ints = None,
    reasoning_tokens: Ints = None,
    answer_tokens: Ints = None,
) -> Block:
    """Draw usage blocks in the shape that a vendor sends.

    Args:
        draw: Of Hypothesis.
        vendor: A key of `vendors.CONVENTIONS`, or a strategy of some; any by default.
        prompt_tokens: All that was input, cached or not.
        reasoning_tokens: Generated.
        answer_tokens: Every other generated token.

    Raises:
        InvalidInputError: No convention has that name.
    """
    if not isinstance(vendor, str):
        vendor = draw(vendors() if vendor is None else vendor)
    if vendor not in CONVENTIONS:
        msg = f"no usage convention is called {vendor!r}; use one of {', '.join(CONVENTIONS)}"
        raise InvalidInputError(msg)
    prompt = draw(COUNTS if prompt_tokens is None else prompt_tokens)
    counts = _Counts(
        prompt=prompt,
        cached=draw(st.integers(0, prompt)),
        reasoning=draw(COUNTS if reasoning_tokens is None else reasoning_tokens),
        answer=draw(COUNTS if answer_tokens is None else answer_tokens),
    )
    return _SHAPES.get(vendor, _chat)(draw, counts)


@st.composite
def usage_reports(draw: st.DrawFn, vendor: str | None = None) -> Reported:
    """Draw what usage blocks report, as they are read.

    Args:
        draw: Of Hypothesis.
        vendor: A key of `vendors.CONVENTIONS`; any by default.
    """
    name = draw(vendors()) if vendor is None else vendor
    return read_usage(name, draw(usage_blocks(name)))


def _chat(draw: st.DrawFn, counts: _Counts) -> Block:
    """Return the block of chat completions, reasoning inside."""
    more = {"audio_tokens": 0} if draw(st.booleans()) else {}
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.total,
        "prompt_tokens_details": {"cached_tokens": counts.cached, **more},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning, **more},
    }


def _openai(draw: st.DrawFn, counts: _Counts) -> Block:
    block = _chat(draw, counts)
    form = draw(st.sampled_from(("chat", "responses", "realtime")))
    if form == "chat":
        for name in ("accepted_prediction_tokens", "rejected_prediction_tokens"):
            block["completion_tokens_details"][name] = 0
        return block
    group = "token_details" if form == "realtime" else "tokens_details"
    return {
        "input_tokens": counts.prompt,
        f"input_{group}": block["prompt_tokens_details"],
        "output_tokens": counts.completion,
        f"output_{group}": block["completion_tokens_details"],
        "total_tokens": counts.total,
    }


def _anthropic(draw: st.DrawFn, counts: _Counts) -> Block:
    written = draw(st.integers(0, counts.prompt - counts.cached))
    block: Block = {
        "input_tokens": counts.prompt - counts.cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.completion,
        "service_tier": "standard",
    }
    if draw(st.booleans()):
        short = draw(st.integers(0, written))
        block["cache_creation"] = {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": written - short,
        }
    if draw(st.booleans()):
        block["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
    return block


def _gemini(draw: st.DrawFn, counts: _Counts) -> Block:
    of_tools = draw(st.integers(0, counts.prompt - counts.cached))
    prompt = counts.prompt - of_tools
    rest = {
        "toolUsePromptTokenCount": of_tools,
        "cachedContentTokenCount": counts.cached,
        "candidatesTokenCount": counts.answer,
        "thoughtsTokenCount": counts.reasoning,
    }
    if draw(st.booleans()):
        rest = {name: count for name, count in rest.items() if count}
    return {
        "promptTokenCount": prompt,
        **rest,
        "totalTokenCount": counts.total,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }


def _gemini_openai(draw: st.DrawFn, counts: _Counts) -> Block:
    block = _chat(draw, counts)
    block["completion_tokens"] = counts.answer
    del block["completion_tokens_details"]
    return block


def _either(draw: st.DrawFn, counts: _Counts) -> Block:
    """Return a block whose total alone tells how reasoning is counted."""
    block = _chat(draw, counts)
    if draw(st.booleans()):
        block["completion_tokens"] = counts.answer
    return block


def _xai(draw: st.DrawFn, counts: _Counts) -> Block:
    # Beside, as documented, is the simpler of the two.
    block = _chat(draw, counts)
    if not draw(st.booleans()) or not counts.reasoning:
        block["completion_tokens"] = counts.answer
    return {**block, "num_sources_used": 0, "cost_in_usd_ticks": draw(COUNTS)}


def _deepseek(draw: st.DrawFn, counts: _Counts) -> Block:
    return {
        **_chat(draw, counts),
        "prompt_cache_hit_tokens": counts.cached,
        "prompt_cache_miss_tokens": counts.prompt - counts.cached,
    }


def _openrouter(draw: st.DrawFn, counts: _Counts) -> Block:
    cost = draw(st.floats(0, 10))
    return {
        **_either(draw, counts),
        "cost": cost,
        "is_byok": draw(st.booleans()),
        "cost_details": {"upstream_inference_cost": None},
    }


def _vllm(draw: st.DrawFn, counts: _Counts) -> Block:
    block = _chat(draw, counts)
    if draw(st.booleans()):
        # Without a reasoning parser it states none.
        block["completion_tokens_details"] = None
    return block


def _sglang(draw: st.DrawFn, counts: _Counts) -> Block:
    block = _chat(draw, counts)
    if draw(st.booleans()):
        del block["completion_tokens_details"]
        block["reasoning_tokens"] = counts.reasoning
    return block


_SHAPES: Final[Mapping[str, Callable[[st.DrawFn, _Counts], Block]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "gemini-openai": _gemini_openai,
    "xai": _xai,
    "deepseek": _deepseek,
    "openrouter": _openrouter,
    "vllm": _vllm,
    "sglang": _sglang,
}
"""Every other vendor sends the block of chat completions."""
