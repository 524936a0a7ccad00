"""What a bill says must be what was committed, with reasoning counted once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coin_protocol.errors import VerificationError
from coin_protocol.usage import (
    BESIDE,
    INSIDE,
    generated_tokens,
    is_as_signed,
    usage_for,
    verify_usage,
)
from coin_protocol.v1 import statements_pb2 as pb

REASONING, ANSWER = 300, 50
COUNTINGS = [INSIDE, BESIDE]


def bill(counting: pb.ReasoningCounting.ValueType, **edits: int) -> pb.Usage:
    usage = usage_for(
        prompt_tokens=20,
        cached_prompt_tokens=12,
        reasoning_tokens=REASONING,
        answer_tokens=ANSWER,
        counting=counting,
    )
    for name, value in edits.items():
        setattr(usage, name, value)
    return usage


def verify(usage: pb.Usage) -> None:
    verify_usage(usage, reasoning_tokens=REASONING, answer_tokens=ANSWER)


def test_completion_tokens_contain_reasoning_or_stand_beside_it() -> None:
    assert bill(INSIDE) == pb.Usage(
        prompt_tokens=20,
        cached_prompt_tokens=12,
        completion_tokens=350,
        reasoning_tokens=300,
        reasoning_counting=pb.REASONING_COUNTING_INSIDE_COMPLETION,
    )
    assert bill(BESIDE) == pb.Usage(
        prompt_tokens=20,
        cached_prompt_tokens=12,
        completion_tokens=50,
        reasoning_tokens=300,
        reasoning_counting=pb.REASONING_COUNTING_BESIDE_COMPLETION,
    )


@pytest.mark.parametrize("counting", COUNTINGS)
def test_the_usage_of_the_counts_committed_verifies(
    counting: pb.ReasoningCounting.ValueType,
) -> None:
    verify(bill(counting))


@pytest.mark.parametrize("counting", COUNTINGS)
@pytest.mark.parametrize("reasoning", [0, 1])
@pytest.mark.parametrize("answer", [0, 1])
def test_replies_without_reasoning_or_answer_verify(
    counting: pb.ReasoningCounting.ValueType, reasoning: int, answer: int
) -> None:
    usage = usage_for(
        prompt_tokens=0, reasoning_tokens=reasoning, answer_tokens=answer, counting=counting
    )
    verify_usage(usage, reasoning_tokens=reasoning, answer_tokens=answer)


@pytest.mark.parametrize("counting", COUNTINGS)
@pytest.mark.parametrize("off", [-1, 1, 1000])
def test_another_reasoning_count_is_named_with_both_numbers(
    counting: pb.ReasoningCounting.ValueType, off: int
) -> None:
    usage = bill(counting, reasoning_tokens=REASONING + off)
    with pytest.raises(
        VerificationError, match=f"counts {REASONING + off} reasoning .* commitment {REASONING}"
    ):
        verify(usage)


@pytest.mark.parametrize(
    ("counting", "sum_of", "wanted"),
    [
        (INSIDE, "reasoning and answer", 350),
        (BESIDE, "answer alone (reasoning is counted beside)", 50),
    ],
)
@pytest.mark.parametrize("off", [-1, 1, 1000])
def test_another_completion_sum_is_named_with_both_numbers(
    counting: pb.ReasoningCounting.ValueType, sum_of: str, wanted: int, off: int
) -> None:
    usage = bill(counting, completion_tokens=wanted + off)
    with pytest.raises(VerificationError) as caught:
        verify(usage)
    assert str(caught.value) == (
        f"the bill counts {wanted + off} completion tokens, {sum_of} make {wanted}"
    )


@pytest.mark.parametrize(
    "lie",
    [
        lambda: bill(BESIDE, completion_tokens=REASONING + ANSWER),
        lambda: bill(INSIDE, completion_tokens=2 * REASONING + ANSWER),
        lambda: bill(INSIDE, reasoning_counting=BESIDE),
    ],
    ids=["billed-beside-and-inside", "billed-inside-twice", "counted-inside-said-beside"],
)
def test_reasoning_cannot_be_counted_twice(lie: Callable[[], pb.Usage]) -> None:
    with pytest.raises(VerificationError, match="completion tokens"):
        verify(lie())


def test_reasoning_cannot_be_left_out_of_a_sum_that_is_said_to_contain_it() -> None:
    with pytest.raises(VerificationError, match="reasoning and answer make 350"):
        verify(bill(INSIDE, completion_tokens=ANSWER))


@pytest.mark.parametrize("counting", COUNTINGS)
def test_no_more_prompt_tokens_are_cached_than_there_are(
    counting: pb.ReasoningCounting.ValueType,
) -> None:
    verify(bill(counting, cached_prompt_tokens=20))
    with pytest.raises(VerificationError, match="21 cached prompt tokens of 20 prompt tokens"):
        verify(bill(counting, cached_prompt_tokens=21))


@pytest.mark.parametrize("counting", [pb.REASONING_COUNTING_UNSPECIFIED, 99])
@pytest.mark.parametrize("completion", [ANSWER, REASONING + ANSWER])
def test_a_bill_must_say_how_it_counts(counting: int, completion: int) -> None:
    usage = bill(INSIDE, reasoning_counting=counting, completion_tokens=completion)
    with pytest.raises(VerificationError, match="does not say whether"):
        verify(usage)


@pytest.mark.parametrize("counting", COUNTINGS)
def test_all_that_was_generated_has_reasoning_once(
    counting: pb.ReasoningCounting.ValueType,
) -> None:
    assert generated_tokens(bill(counting)) == REASONING + ANSWER


@pytest.mark.parametrize("counting", COUNTINGS)
def test_a_client_that_was_told_of_no_reasoning_was_told_all_that_was_generated(
    counting: pb.ReasoningCounting.ValueType,
) -> None:
    signed = bill(counting)
    told = pb.Usage(prompt_tokens=20, cached_prompt_tokens=5, completion_tokens=REASONING + ANSWER)
    signed.cached_prompt_tokens = 5
    assert is_as_signed(told, signed)
    assert is_as_signed(signed, signed)
    for name in ("prompt_tokens", "cached_prompt_tokens", "completion_tokens"):
        for honest in (told, signed):
            other = pb.Usage()
            other.CopyFrom(honest)
            setattr(other, name, getattr(other, name) + 1)
            assert not is_as_signed(other, signed), name


@pytest.mark.parametrize("told", [0, REASONING - 7, REASONING + 7])
def test_another_split_of_the_same_sum_is_paid_for_alike(told: int) -> None:
    """Upstreams state 0, or count marks with the reasoning: the sum is what is paid for."""
    signed = bill(INSIDE)
    other = pb.Usage()
    other.CopyFrom(signed)
    other.reasoning_tokens = told
    assert is_as_signed(other, signed)


def test_the_same_sum_may_be_told_by_another_way_of_counting() -> None:
    assert is_as_signed(bill(INSIDE), bill(BESIDE))
    twice = bill(INSIDE)
    twice.reasoning_counting = BESIDE
    assert not is_as_signed(twice, bill(INSIDE))
