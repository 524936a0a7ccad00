"""For any counts: blocks read back, doubling is noticed, and garbage is refused in one way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from coin_protocol.usage import BESIDE, INSIDE, verify_usage
from coin_protocol.vendors import (
    CONVENTIONS,
    CachedCounting,
    Convention,
    DifferenceCode,
    UsageError,
    compare,
    detect_vendor,
    read_usage,
    readings,
)

COUNTS = st.integers(0, 1 << 24)
VENDORS = st.sampled_from(list(CONVENTIONS.values()))


def put(block: dict[str, Any], name: str, value: object) -> None:
    *groups, last = name.split(".")
    for group in groups:
        block = block.setdefault(group, {})
    block[last] = value


def block_of(
    convention: Convention,
    *,
    prompt: int,
    cached: int,
    reasoning: int,
    answer: int,
    counting: int,
    pick: Callable[[tuple[str, ...]], str] = lambda names: names[0],
) -> dict[str, Any]:
    """Return what a vendor would send for these counts."""
    names, block = convention.names, dict[str, Any]()
    beside = convention.cached is CachedCounting.BESIDE_PROMPT
    put(block, pick(names.prompt), prompt - cached if beside else prompt)
    put(block, pick(names.cached), cached)
    for name in names.uncached:
        put(block, name, prompt - cached)
    put(block, pick(names.completion), answer + reasoning * (counting == INSIDE))
    put(block, pick(names.reasoning), reasoning)
    put(block, pick(names.total), prompt + reasoning + answer)
    return block


@given(
    data=st.data(), convention=VENDORS, cached=COUNTS, rest=COUNTS, reasoning=COUNTS, answer=COUNTS
)
def test_counts_under_a_convention_read_back(
    data: st.DataObject, convention: Convention, cached: int, rest: int, reasoning: int, answer: int
) -> None:
    ways = [INSIDE, BESIDE] if convention.total_decides and reasoning else [convention.counting]
    counting = data.draw(st.sampled_from(ways))
    block = block_of(
        convention,
        prompt=cached + rest,
        cached=cached,
        reasoning=reasoning,
        answer=answer,
        counting=counting,
        pick=lambda names: data.draw(st.sampled_from(names)),
    )
    reported = read_usage(convention.vendor, block)
    assert reported.counting == counting
    assert (reported.prompt_tokens, reported.cached_prompt_tokens) == (cached + rest, cached)
    assert (reported.reasoning_tokens, reported.answer_tokens) == (reasoning, answer)
    assert reported.generated == reasoning + answer
    verify_usage(reported.to_usage(), reasoning_tokens=reasoning, answer_tokens=answer)
    assert convention.vendor in readings(block)
    found = compare(reported, committed_reasoning=reasoning, answer_tokens=answer)
    assert [d.code for d in found if d.code is not DifferenceCode.COUNTED_OTHERWISE] == []


@given(
    convention=VENDORS,
    prompt=COUNTS,
    reasoning=st.integers(1, 1 << 24),
    answer=COUNTS,
    in_completion=st.booleans(),
    in_total=st.booleans(),
)
def test_reasoning_added_twice_is_always_noticed(
    convention: Convention,
    prompt: int,
    reasoning: int,
    answer: int,
    *,
    in_completion: bool,
    in_total: bool,
) -> None:
    assume(in_completion or in_total)
    block = block_of(
        convention,
        prompt=prompt,
        cached=0,
        reasoning=reasoning,
        answer=answer,
        counting=convention.counting,
    )
    if in_completion:
        block[convention.names.completion[0]] += reasoning
    if in_total:
        block[convention.names.total[0]] += reasoning
    try:
        reported = read_usage(convention.vendor, block)
    except UsageError:
        return
    assert compare(reported, committed_reasoning=reasoning, answer_tokens=answer)
    # Where a total that does not move proves the completion to hold the reasoning, it is right.
    assert reported.generated in {answer + reasoning, answer + 2 * reasoning}


@given(reasoning=COUNTS, answer=COUNTS, stated=st.none() | COUNTS, completion=COUNTS)
def test_a_silent_comparison_means_equal_counts(
    reasoning: int, answer: int, stated: int | None, completion: int
) -> None:
    block: dict[str, Any] = {"prompt_tokens": 1, "completion_tokens": completion}
    put(block, "completion_tokens_details.reasoning_tokens", stated)
    with contextlib.suppress(UsageError):
        reported = read_usage("openai", block)
        equal = reported.generated == reasoning + answer and (stated or 0) == reasoning
        found = compare(reported, committed_reasoning=reasoning, answer_tokens=answer)
        assert (found == []) == equal


KNOWN_NAMES = sorted(
    {
        part
        for c in CONVENTIONS.values()
        for names in (
            c.names.prompt,
            c.names.prompt_beside,
            c.names.parts_beside,
            c.names.cached,
            c.names.uncached,
            c.names.completion,
            c.names.reasoning,
            c.names.total,
            c.marks,
        )
        for name in names
        for part in name.split(".")
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | COUNTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KNOWN_NAMES) | st.text(max_size=4), inner, max_size=8)
    ),
    max_leaves=12,
)
# Mostly whole blocks with something wrong in them: pure garbage rarely gets past the prompt.
NEARLY = st.builds(
    lambda block, more: {**block, **more},
    st.fixed_dictionaries(
        {},
        optional={name: st.integers(-1, 9) for name in KNOWN_NAMES if "details" not in name}
        | {
            name: st.none() | st.dictionaries(st.sampled_from(KNOWN_NAMES), st.integers(-1, 9))
            for name in KNOWN_NAMES
            if "details" in name
        },
    ),
    st.dictionaries(st.sampled_from(KNOWN_NAMES), JSON, max_size=1),
)


@given(vendor=st.sampled_from(list(CONVENTIONS)), block=JSON | NEARLY)
def test_nothing_but_a_usage_error_escapes(vendor: str, block: object) -> None:
    with contextlib.suppress(UsageError):
        reported = read_usage(vendor, block)
        counts = (reported.reasoning_tokens or 0, reported.cached_prompt_tokens)
        assert all(count >= 0 for count in counts)
        assert reported.cached_prompt_tokens <= reported.prompt_tokens
        assert reported.generated >= (reported.reasoning_tokens or 0)
        reported.to_usage().SerializeToString()
        compare(reported, committed_reasoning=3, answer_tokens=4)
    with contextlib.suppress(UsageError):
        assert detect_vendor(block) in readings(block)
