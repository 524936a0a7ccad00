"""A report that departs from what was committed is told by a stable code, with both numbers."""

from __future__ import annotations

import pytest

from coin_protocol.vendors import (
    MARKER_TOKENS,
    Difference,
    DifferenceCode,
    Reported,
    compare,
    read_usage,
)

REASONING, ANSWER = 300, 50


def report(
    completion: int, reasoning: int | None, *, vendor: str = "vllm", beside: int = 0
) -> Reported:
    block: dict[str, object] = {
        "prompt_tokens": 20,
        "completion_tokens": completion,
        "total_tokens": 20 + completion + beside,
    }
    if reasoning is not None:
        block["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return read_usage(vendor, block)


def codes(reported: Reported, reasoning: int = REASONING, answer: int = ANSWER) -> list[str]:
    found = compare(reported, committed_reasoning=reasoning, answer_tokens=answer)
    return [difference.code for difference in found]


@pytest.mark.parametrize(
    "reported",
    [
        report(350, 300),
        report(50, 300, vendor="xai", beside=300),
        read_usage(
            "anthropic",
            {
                "input_tokens": 1,
                "output_tokens": 350,
                "output_tokens_details": {"thinking_tokens": 300},
            },
        ),
        read_usage(
            "gemini",
            {
                "promptTokenCount": 1,
                "candidatesTokenCount": 50,
                "thoughtsTokenCount": 300,
                "totalTokenCount": 351,
            },
        ),
    ],
    ids=lambda reported: reported.vendor,
)
def test_a_true_report_shows_no_difference(reported: Reported) -> None:
    assert codes(reported) == []


@pytest.mark.parametrize(
    ("reported", "wanted"),
    [
        pytest.param(report(350, None), ["REASONING_NOT_STATED"], id="not-stated"),
        pytest.param(report(350, 0), ["REASONING_ZERO"], id="zero"),
        pytest.param(
            report(50, None),
            ["REASONING_NOT_STATED", "GENERATED_WITHOUT_REASONING"],
            id="left-out",
        ),
        pytest.param(
            report(50, 0), ["REASONING_ZERO", "GENERATED_WITHOUT_REASONING"], id="zero-left-out"
        ),
        pytest.param(report(650, 300), ["GENERATED_REASONING_TWICE"], id="twice"),
        pytest.param(
            report(350, 300, vendor="xai", beside=300),
            ["GENERATED_REASONING_TWICE"],
            id="beside-and-inside",
        ),
        pytest.param(
            report(650, None),
            ["REASONING_NOT_STATED", "GENERATED_REASONING_TWICE"],
            id="twice-null",
        ),
        pytest.param(report(353, 302), ["REASONING_OFF_BY_MARKERS", "GENERATED_OFF_BY_MARKERS"]),
        pytest.param(report(349, 300), ["GENERATED_OFF_BY_MARKERS"], id="no-stop-token"),
        pytest.param(report(350, 200), ["REASONING_LESS"], id="re-encoded"),
        pytest.param(report(450, 400), ["REASONING_MORE", "GENERATED_MORE"], id="inflated"),
        pytest.param(report(250, 200), ["REASONING_LESS", "GENERATED_LESS"], id="deflated"),
        pytest.param(
            report(50, 300, vendor="openrouter", beside=300), ["COUNTED_OTHERWISE"], id="beside"
        ),
        pytest.param(report(350, 300, vendor="xai"), ["COUNTED_OTHERWISE"], id="inside"),
    ],
)
def test_each_difference_has_its_code(reported: Reported, wanted: list[str]) -> None:
    assert codes(reported) == wanted


def test_reasoning_beside_though_said_to_be_inside_is_named() -> None:
    """A long answer hides it from the reader of the block; the committed counts show it."""
    assert codes(report(400, 300), answer=400) == [
        "GENERATED_WITHOUT_REASONING",
        "COUNTED_OTHERWISE",
    ]


def test_thinking_under_no_name_is_not_stated_but_counted() -> None:
    reported = report(50, None, vendor="gemini-openai", beside=300)
    assert codes(reported) == ["REASONING_NOT_STATED"]


def test_where_nothing_was_committed_silence_is_no_difference() -> None:
    assert codes(report(50, None), reasoning=0) == []
    assert codes(report(50, 0), reasoning=0) == []


def test_reasoning_out_of_nothing_is_told() -> None:
    assert codes(report(350, 300), reasoning=0) == ["REASONING_MORE", "GENERATED_MORE"]


def test_reasoning_twice_is_seen_on_the_reports_own_count_too() -> None:
    assert codes(report(646, 298)) == ["REASONING_OFF_BY_MARKERS", "GENERATED_REASONING_TWICE"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_beyond_the_markers_it_is_another_count(sign: int) -> None:
    near, far = sign * MARKER_TOKENS, sign * (MARKER_TOKENS + 1)
    assert codes(report(350 + near, 300)) == ["GENERATED_OFF_BY_MARKERS"]
    assert codes(report(350 + far, 300)) == [f"GENERATED_{'MORE' if sign > 0 else 'LESS'}"]


def test_a_difference_prints_as_a_note_with_both_numbers() -> None:
    (found,) = compare(report(350, 0), committed_reasoning=REASONING, answer_tokens=ANSWER)
    assert isinstance(found, Difference)
    assert found.code is DifferenceCode.REASONING_ZERO
    assert str(found) == (
        "REASONING_ZERO: the report counts 0 reasoning tokens; 300 were committed"
    )


def test_comparing_counts_once_per_kind() -> None:
    for completion in range(0, 700, 7):
        for reasoning in (None, 0, completion // 2, completion):
            found = codes(report(completion, reasoning))
            assert len(found) == len(set(found)) <= 3
            kinds = [code.split("_")[0] for code in found]
            assert kinds == sorted(set(kinds), key=["REASONING", "GENERATED", "COUNTED"].index)
