"""Each vendor's usage block reads to one canonical count, or is refused with its reason."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.usage import BESIDE, INSIDE, verify_usage
from coin_protocol.v1 import statements_pb2 as pb
from coin_protocol.vendors import (
    CONVENTIONS,
    MAX_TOKENS,
    DifferenceCode,
    Reported,
    UsageCode,
    UsageError,
    detect_vendor,
    read_usage,
    readings,
)

Block = dict[str, Any]


def chat(
    prompt: int, completion: int, reasoning: int | None = None, total: int | None = None
) -> Block:
    """Return a block of the chat API; without a total, prompt and completion make it."""
    block: Block = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion if total is None else total,
    }
    if reasoning is not None:
        block["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return block


def anthropic(prompt: int, completion: int, thinking: int, **more: int) -> Block:
    details = {"thinking_tokens": thinking}
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "output_tokens_details": details,
        **more,
    }


def refused(vendor: str, block: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_usage(vendor, block)
    return caught.value


# What a reply of each vendor says, and what it means: prompt, cached, answer, reasoning.
WHOLE: dict[str, tuple[str, Block, tuple[int, int, int | None, int | None]]] = {
    "openai chat": (
        "openai",
        {
            "prompt_tokens": 1486,
            "completion_tokens": 651,
            "total_tokens": 2137,
            "prompt_tokens_details": {"cached_tokens": 1408, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 512,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        (1486, 1408, 139, 512),
    ),
    "openai responses (routstr-core#213)": (
        "openai",
        {
            "input_tokens": 75,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 1186,
            "output_tokens_details": {"reasoning_tokens": 1024},
            "total_tokens": 1261,
        },
        (75, 0, 162, 1024),
    ),
    "anthropic with cache (counted beside the input)": (
        "anthropic",
        {
            "input_tokens": 1,
            "output_tokens": 67,
            "cache_creation_input_tokens": 287,
            "cache_read_input_tokens": 30433,
            "output_tokens_details": {"thinking_tokens": 40},
        },
        (30721, 30433, 27, 40),
    ),
    "anthropic with what was written to the cache by lifetime alone": (
        "anthropic",
        {
            "input_tokens": 3,
            "output_tokens": 9,
            "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
        },
        (103, 0, None, None),
    ),
    "anthropic with what was written to the cache, twice told": (
        "anthropic",
        {
            "input_tokens": 2048,
            "output_tokens": 503,
            "cache_read_input_tokens": 1800,
            "cache_creation_input_tokens": 248,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        },
        (4096, 1800, None, None),
    ),
    "anthropic before thinking was told": (
        "anthropic",
        {"input_tokens": 8, "output_tokens": 9, "cache_read_input_tokens": None},
        (8, 0, None, None),
    ),
    "gemini": (
        "gemini",
        {
            "promptTokenCount": 15,
            "candidatesTokenCount": 359,
            "thoughtsTokenCount": 661,
            "totalTokenCount": 1035,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 15}],
        },
        (15, 0, 359, 661),
    ),
    "gemini that only thought (CLIProxyAPI#5733)": (
        "gemini",
        {"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 81},
        (21, 0, 0, 60),
    ),
    "gemini with grounding (litellm#33530)": (
        "gemini",
        {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 64,
            "candidatesTokenCount": 40,
            "toolUsePromptTokenCount": 25,
            "totalTokenCount": 165,
        },
        (125, 64, 40, None),
    ),
    "xai with cache": (
        "xai",
        {
            "prompt_tokens": 663,
            "completion_tokens": 50,
            "completion_tokens_details": {"reasoning_tokens": 124, "audio_tokens": 0},
            "prompt_tokens_details": {"cached_tokens": 654, "text_tokens": 663},
            "total_tokens": 837,
            "num_sources_used": 0,
            "cost_in_usd_ticks": 0,
        },
        (663, 654, 50, 124),
    ),
    "deepseek": (
        "deepseek",
        {
            **chat(100, 250, 200),
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
        (100, 64, 50, 200),
    ),
    "openrouter": (
        "openrouter",
        {
            **chat(194, 2, 0),
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 100},
            "cost": 0.95,
            "cost_details": {"upstream_inference_cost": 19},
        },
        (194, 0, 2, 0),
    ),
    "vllm without details (vllm#50895)": (
        "vllm",
        {
            **chat(72, 30),
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": None,
        },
        (72, 64, None, None),
    ),
    "sglang states reasoning flat (CLIProxyAPI#5387)": (
        "sglang",
        {**chat(18, 225), "prompt_tokens_details": None, "reasoning_tokens": 162},
        (18, 0, 63, 162),
    ),
    "fireworks": ("fireworks", chat(12, 640, 600), (12, 0, 40, 600)),
    "a server of OpenAI's format": ("openai-compatible", chat(12, 640, 600), (12, 0, 40, 600)),
    "openai with audio, which is inside both": (
        "openai",
        {
            **chat(90, 310),
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 70, "text_tokens": 20},
            "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 60},
        },
        (90, 0, 110, 200),
    ),
    "gemini with audio and a tool's prompt beside the rest": (
        "gemini",
        {
            "promptTokenCount": 100,
            "toolUsePromptTokenCount": 30,
            "candidatesTokenCount": 40,
            "thoughtsTokenCount": 50,
            "totalTokenCount": 220,
            "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}],
        },
        (130, 0, 40, 50),
    ),
    "openai, reasoning null": (
        "openai",
        chat(3, 4) | {"reasoning_tokens": None},
        (3, 0, None, None),
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_block_reads_to_what_it_says(case: str) -> None:
    vendor, block, (prompt, cached, answer, reasoning) = WHOLE[case]
    reported = read_usage(vendor, json.loads(json.dumps(block)))
    assert reported.vendor == vendor
    assert (reported.prompt_tokens, reported.cached_prompt_tokens) == (prompt, cached)
    assert (reported.answer_tokens, reported.reasoning_tokens) == (answer, reasoning)
    if answer is not None and reasoning is not None:
        assert reported.generated == answer + reasoning
        verify_usage(reported.to_usage(), reasoning_tokens=reasoning, answer_tokens=answer)


# Bugs that shared FIELD.md or the vendors' trackers list, with their numbers: what a correct
# reader makes of the block, in generated tokens.
KNOWN_BUGS: dict[str, tuple[str, Block, int]] = {
    "opencode#17566, priced twice": ("openai", chat(14_746, 1_944, 1_360), 1_944),
    # The issue shows pictures and no counts; these stand for an o3 whose reasoning went unpriced.
    "litellm#10567, reasoning not priced": ("openai", chat(20, 2_000, 1_900), 2_000),
    "llmgateway#3486, total too high": ("anthropic", anthropic(51, 136, 31), 136),
    "llmgateway#3486, live on Vertex": ("anthropic", anthropic(64, 135, 78), 135),
    "litellm#18607, answer not priced": ("openai", chat(20, 977, 768), 977),
    "litellm#18607, grok beside": ("xai", chat(36, 10, 690, total=736), 700),
    "vercel/ai#12425, grok-3-mini": ("xai", chat(12, 2, 317, total=331), 319),
    "omni-llm-provider#49, xAI's example": ("xai", chat(32, 9, 94, total=135), 103),
    "litellm#39850, realtime": (
        "openai",
        {
            "total_tokens": 375,
            "input_tokens": 346,
            "output_tokens": 29,
            "input_token_details": {"text_tokens": 152, "image_tokens": 194, "cached_tokens": 322},
            "output_token_details": {"text_tokens": 29, "reasoning_tokens": 19},
        },
        29,
    ),
    "litellm#41849, reasoning 0 though there was some": (
        "vllm",
        {
            "input_tokens": 32,
            "output_tokens": 474,
            "total_tokens": 506,
            "output_tokens_details": {"reasoning_tokens": 0, "audio_tokens": None},
        },
        474,
    ),
    "any-llm#1290, thoughts dropped": (
        "gemini",
        {
            "promptTokenCount": 20,
            "candidatesTokenCount": 198,
            "thoughtsTokenCount": 405,
            "totalTokenCount": 623,
        },
        603,
    ),
    "Gemini's OpenAI endpoint, 865 under no name": (
        "gemini-openai",
        chat(758, 102, total=1725),
        967,
    ),
}


@pytest.mark.parametrize("bug", KNOWN_BUGS)
def test_known_bugs_are_not_repeated(bug: str) -> None:
    vendor, block, generated = KNOWN_BUGS[bug]
    reported = read_usage(vendor, block)
    assert reported.generated == generated
    if reported.total_tokens is not None:
        assert reported.total_tokens == reported.prompt_tokens + reported.generated


def test_reasoning_is_priced_once_in_opencode_17566() -> None:
    reported = read_usage("openai", chat(14_746, 1_944, 1_360))
    assert reported.answer_tokens == 584
    dollars = (reported.prompt_tokens * 30 + reported.generated * 180) / 1e6
    assert dollars == pytest.approx(0.7923)


def test_what_no_name_claims_is_generated_but_not_called_reasoning() -> None:
    reported = read_usage("gemini-openai", chat(758, 102, total=1725))
    assert (reported.unnamed_tokens, reported.reasoning_tokens) == (865, None)
    assert reported.answer_tokens == 102
    assert reported.to_usage().completion_tokens == 967


@pytest.mark.parametrize(
    ("vendor", "block", "wanted"),
    [
        pytest.param("anthropic", anthropic(51, 136, 31, total_tokens=218), 187, id="3486"),
        pytest.param("anthropic", anthropic(64, 135, 78, total_tokens=277), 199, id="3486-live"),
        pytest.param("openai", chat(14_746, 1_944, 1_360, total=18_050), 16_690, id="17566"),
        pytest.param("xai", chat(36, 10, 690, total=1_426), 736, id="grok-twice-beside"),
        pytest.param(
            "gemini",
            {
                "promptTokenCount": 20,
                "candidatesTokenCount": 198,
                "thoughtsTokenCount": 405,
                "totalTokenCount": 1028,
            },
            623,
            id="gemini-twice",
        ),
    ],
)
def test_a_total_with_reasoning_twice_is_refused_by_that_name(
    vendor: str, block: Block, wanted: int
) -> None:
    error = refused(vendor, block)
    assert error.code is UsageCode.REASONING_COUNTED_TWICE
    assert f"make {wanted}" in str(error)


@pytest.mark.parametrize(
    "vendor",
    ["openai", "deepseek", "vllm", "sglang", "fireworks", "openai-compatible", "openrouter"],
)
def test_reasoning_above_completion_is_refused_where_it_is_inside(vendor: str) -> None:
    """The numbers of effect#8170."""
    error = refused(vendor, chat(1000, 293, 321))
    assert error.code is UsageCode.REASONING_ABOVE_COMPLETION
    assert "321 reasoning tokens of 293 completion" in str(error)


def test_thinking_above_output_is_refused() -> None:
    assert refused("anthropic", anthropic(5, 293, 321)).code is UsageCode.REASONING_ABOVE_COMPLETION


@pytest.mark.parametrize("vendor", ["openrouter", "xai", "gemini-openai"])
@pytest.mark.parametrize(
    ("block", "counting", "generated"),
    [
        (chat(36, 10, 690, total=736), BESIDE, 700),
        (chat(36, 700, 690, total=736), INSIDE, 700),
        # effect#8170, with a total that settles it.
        (chat(1000, 293, 321, total=1614), BESIDE, 614),
    ],
)
def test_the_total_decides_where_a_vendor_counts_both_ways(
    vendor: str, block: Block, counting: int, generated: int
) -> None:
    reported = read_usage(vendor, block)
    assert (reported.counting, reported.generated) == (counting, generated)


@pytest.mark.parametrize("vendor", ["openrouter", "xai"])
@pytest.mark.parametrize("reasoning", [77, 78])
def test_without_a_total_nothing_is_guessed(vendor: str, reasoning: int) -> None:
    """opencode#24268: 77 out and 78 reasoning were billed as 155, though reasoning was inside."""
    block = chat(10, 77, reasoning)
    del block["total_tokens"]
    assert refused(vendor, block).code is UsageCode.AMBIGUOUS


@pytest.mark.parametrize("vendor", ["openrouter", "xai"])
def test_without_reasoning_no_total_is_needed(vendor: str) -> None:
    block = chat(10, 77, 0)
    del block["total_tokens"]
    assert read_usage(vendor, block).generated == 77


TOO_MUCH_CACHE = {**chat(10, 1), "prompt_tokens_details": {"cached_tokens": 11}}
REFUSED: dict[str, tuple[str, Any, UsageCode]] = {
    "no block": ("openai", None, UsageCode.MALFORMED),
    "a list": ("gemini", [1, 2], UsageCode.MALFORMED),
    "an empty block": ("openai", {}, UsageCode.MISSING_COUNT),
    "an empty Gemini block": ("gemini", {}, UsageCode.MISSING_COUNT),
    "another vendor's block": ("anthropic", chat(1, 2), UsageCode.MISSING_COUNT),
    "no prompt": ("openai", {"completion_tokens": 3}, UsageCode.MISSING_COUNT),
    "prompt null": ("openai", chat(1, 2) | {"prompt_tokens": None}, UsageCode.MISSING_COUNT),
    "no candidates, no total": ("gemini", {"promptTokenCount": 5}, UsageCode.MISSING_COUNT),
    "Gemini's endpoint without total": (
        "gemini-openai",
        {"prompt_tokens": 5, "completion_tokens": 6},
        UsageCode.MISSING_COUNT,
    ),
    "a boolean": ("openai", chat(1, 2) | {"prompt_tokens": True}, UsageCode.MALFORMED),
    "a float": ("openai", chat(1, 2) | {"completion_tokens": 2.0}, UsageCode.MALFORMED),
    "a string": ("openai", chat(1, 2) | {"total_tokens": "3"}, UsageCode.MALFORMED),
    "negative": ("openai", chat(-1, 4), UsageCode.MALFORMED),
    "absurd": ("openai", chat(1, MAX_TOKENS + 1), UsageCode.MALFORMED),
    "too long to print": ("openai", chat(1, 10**5000), UsageCode.MALFORMED),
    "too long and negative": ("openai", chat(1, -(10**5000)), UsageCode.MALFORMED),
    "details of another shape": (
        "openai",
        chat(1, 2) | {"completion_tokens_details": 7},
        UsageCode.MALFORMED,
    ),
    "total too low": ("openai", chat(10, 20, 5, total=29), UsageCode.TOTAL_DISAGREES),
    "total too high": ("vllm", chat(10, 20, total=31), UsageCode.TOTAL_DISAGREES),
    "total without thoughts": (
        "gemini",
        {
            "promptTokenCount": 20,
            "candidatesTokenCount": 198,
            "thoughtsTokenCount": 405,
            "totalTokenCount": 218,
        },
        UsageCode.TOTAL_DISAGREES,
    ),
    "total fits neither way": ("openrouter", chat(10, 9, 4, total=22), UsageCode.TOTAL_DISAGREES),
    "a rest, reasoning said to be 0": (
        "gemini-openai",
        chat(10, 9, 0, total=22),
        UsageCode.TOTAL_DISAGREES,
    ),
    "total below its parts": ("gemini-openai", chat(9, 9, total=17), UsageCode.TOTAL_DISAGREES),
    "cache above prompt": ("openai", TOO_MUCH_CACHE, UsageCode.CACHED_ABOVE_PROMPT),
    "cache beside prompt (effect#8170)": (
        "openrouter",
        TOO_MUCH_CACHE,
        UsageCode.CACHED_ABOVE_PROMPT,
    ),
    "hit and miss do not make the prompt": (
        "deepseek",
        chat(100, 5) | {"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 36},
        UsageCode.FIELDS_DISAGREE,
    ),
    "two lifetimes do not make what was written to the cache": (
        "anthropic",
        {
            "input_tokens": 3,
            "output_tokens": 9,
            "cache_creation_input_tokens": 100,
            "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 30},
        },
        UsageCode.FIELDS_DISAGREE,
    ),
    "a lifetime that is no count": (
        "anthropic",
        {
            "input_tokens": 3,
            "output_tokens": 9,
            "cache_creation": {"ephemeral_5m_input_tokens": -1},
        },
        UsageCode.MALFORMED,
    ),
    "a tool's prompt that is not in the total": (
        "gemini",
        {
            "promptTokenCount": 100,
            "toolUsePromptTokenCount": 30,
            "candidatesTokenCount": 40,
            "totalTokenCount": 140,
        },
        UsageCode.TOTAL_DISAGREES,
    ),
    "two cached counts": (
        "deepseek",
        chat(9, 5) | {"prompt_cache_hit_tokens": 6, "prompt_tokens_details": {"cached_tokens": 5}},
        UsageCode.FIELDS_DISAGREE,
    ),
    "two reasoning counts": (
        "sglang",
        chat(9, 50, 20) | {"reasoning_tokens": 0},
        UsageCode.FIELDS_DISAGREE,
    ),
    "two prompts": ("openai", chat(9, 5) | {"input_tokens": 8}, UsageCode.FIELDS_DISAGREE),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_add_up_is_refused_with_its_code(case: str) -> None:
    vendor, block, code = REFUSED[case]
    error = refused(vendor, block)
    assert error.code is code
    assert isinstance(error, VerificationError)


def test_values_that_are_no_counts_are_not_repeated_in_errors() -> None:
    error = refused("openai", chat(1, 2) | {"prompt_tokens": "sk-secret"})
    assert "secret" not in str(error)


def test_reasoning_not_stated_is_not_zero() -> None:
    stated, silent = read_usage("vllm", chat(9, 50, 0)), read_usage("vllm", chat(9, 50))
    assert (stated.reasoning_tokens, stated.answer_tokens) == (0, 50)
    assert (silent.reasoning_tokens, silent.answer_tokens) == (None, None)
    assert silent.generated == stated.generated == 50
    assert silent.to_usage() == pb.Usage(prompt_tokens=9, completion_tokens=50)
    with pytest.raises(VerificationError, match="does not say whether"):
        verify_usage(silent.to_usage(), reasoning_tokens=0, answer_tokens=50)


def test_reading_leaves_the_block_as_it_is() -> None:
    for vendor, block, _ in WHOLE.values():
        before = copy.deepcopy(block)
        read_usage(vendor, block)
        assert block == before


def test_an_unknown_vendor_is_the_callers_mistake() -> None:
    with pytest.raises(InvalidInputError, match=r"'acme'.*openai, anthropic"):
        read_usage("acme", chat(1, 2))


def test_conventions_are_stated_with_a_source_and_cannot_be_changed() -> None:
    assert isinstance(CONVENTIONS, Mapping)
    assert not hasattr(CONVENTIONS, "__setitem__")
    for vendor, convention in CONVENTIONS.items():
        assert convention.vendor == vendor
        assert convention.source.startswith("https://")
        assert convention.counting in {INSIDE, BESIDE}


@pytest.mark.parametrize(
    ("case", "vendor"),
    [
        ("anthropic with cache (counted beside the input)", "anthropic"),
        ("gemini", "gemini"),
        ("gemini that only thought (CLIProxyAPI#5733)", "gemini"),
        ("xai with cache", "xai"),
        ("deepseek", "deepseek"),
        ("openrouter", "openrouter"),
    ],
)
def test_a_vendors_own_fields_name_it(case: str, vendor: str) -> None:
    assert detect_vendor(WHOLE[case][1]) == vendor


def test_a_block_that_fits_several_is_not_guessed() -> None:
    with pytest.raises(UsageError, match=r"openai.*vllm.*say which") as caught:
        detect_vendor(chat(10, 20, 5))
    assert caught.value.code is UsageCode.AMBIGUOUS


def test_readings_may_agree_where_the_vendor_is_open() -> None:
    found = readings(chat(36, 10, 690, total=736))
    assert set(found) == {"xai", "openrouter", "gemini-openai"}
    assert {reading.generated for reading in found.values()} == {700}


def test_a_false_total_is_not_taken_for_geminis_endpoint() -> None:
    with pytest.raises(UsageError, match="no known convention"):
        detect_vendor(chat(10, 20, total=50))


def test_a_named_vendors_block_that_does_not_add_up_says_why() -> None:
    with pytest.raises(UsageError) as caught:
        detect_vendor({"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 7})
    assert caught.value.code is UsageCode.TOTAL_DISAGREES


def test_readings_of_nothing_are_none() -> None:
    assert readings({}) == {}
    assert all(isinstance(reading, Reported) for reading in readings(chat(1, 1)).values())


def test_the_page_on_usage_has_every_convention_and_every_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "usage.md").read_text("utf-8")
    for convention in CONVENTIONS.values():
        row = next(
            line for line in page.splitlines() if line.startswith(f"| `{convention.vendor}`")
        )
        assert convention.source in row
        assert ("inside" if convention.counting == INSIDE else "beside") in row
    for code in (*UsageCode, *DifferenceCode):
        assert f"| `{code}` |" in page


def test_reading_usage_loads_nothing_but_protobuf() -> None:
    code = "import coin_protocol.vendors, sys; print(*sys.modules)"
    run = [sys.executable, "-c", code]
    # Measuring coverage would load modules of its own.
    plain = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    done = subprocess.run(run, check=True, capture_output=True, text=True, env=plain)
    loaded = done.stdout.split()
    assert "google.protobuf" in loaded
    assert not {"torch", "numpy", "grpc", "cryptography", "typer", "socket"} & set(loaded)
