"""What a line says against itself, the request and the clock: found, and not found where honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coin_protocol.vendors import MARKER_TOKENS
from tests.unit.bill.making import anthropic, chat, check, codes, line, write_lines
from verifier_sdk.bill import VERDICT_OF, Code, Requests, Verdict, Weight

SOUND = line(
    chat(20, 120, 100),
    id="chatcmpl-1",
    cost="0.01",
    currency="USD",
    request={"max_completion_tokens": 200, "reasoning": {"max_tokens": 110}},
    sent_at="2026-10-01T12:00:00.000Z",
    ended_at="2026-10-01T12:00:02.500Z",
    answer="Blue.",
    finish_reason="stop",
    status="completed",
)


def found(folder: Path, row: dict[str, Any], **options: Any) -> list[str]:
    (checked,) = check(folder, row, **options)
    assert checked.verdict is not Verdict.MALFORMED, checked.reason
    return codes(checked)


def test_a_sound_line_raises_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, SOUND) == []


# Caps


@pytest.mark.parametrize(
    "request_body",
    [
        {"max_tokens": 119},
        {"max_completion_tokens": 119},
        {"max_output_tokens": 119},
        {"generationConfig": {"maxOutputTokens": 119}},
        {"max_tokens": 100, "max_completion_tokens": 119},
        {"max_tokens": 39, "n": 3},
        {"max_tokens": 39, "n": 1, "best_of": 3},
    ],
)
def test_more_completion_than_the_request_allowed(
    tmp_path: Path, request_body: dict[str, Any]
) -> None:
    row = line(chat(20, 120, 100), request=request_body)
    (checked,) = check(tmp_path, row)
    assert codes(checked) == [Code.COMPLETION_ABOVE_CAP]
    assert checked.verdict is Verdict.INCONSISTENT
    assert "the request allowed" in checked.findings[0].sentence


@pytest.mark.parametrize(
    "request_body",
    [
        {"max_tokens": 120},
        {"max_tokens": 100, "max_completion_tokens": 120},
        {"max_tokens": 40, "n": 3},
        {"max_tokens": 40, "best_of": 3},
        {"max_tokens": 40, "prompt": ["a", "b", "c"]},
        {"max_tokens": 20, "prompt": [[1, 2], [3], [4]], "n": 2},
        {"max_tokens": 40, "prompts": 3},
        {"max_tokens": None},
        {"max_tokens": "100"},
        {"max_tokens": True},
        {"max_tokens": 0},
        {},
    ],
)
def test_what_the_request_allowed_is_no_finding(
    tmp_path: Path, request_body: dict[str, Any]
) -> None:
    assert found(tmp_path, line(chat(20, 120, 100), request=request_body)) == []


def test_a_prompt_in_tokens_is_one_prompt(tmp_path: Path) -> None:
    row = line(chat(20, 120), request={"max_tokens": 119, "prompt": [1, 2, 3]})
    assert found(tmp_path, row) == [Code.COMPLETION_ABOVE_CAP]


def test_a_cap_may_stand_on_the_line_itself(tmp_path: Path) -> None:
    assert found(tmp_path, line(chat(20, 120), max_tokens=119)) == [Code.COMPLETION_ABOVE_CAP]
    assert found(tmp_path, line(chat(20, 120), max_tokens=119, n=2)) == []


def test_where_reasoning_is_beside_the_cap_may_bound_the_answer_alone(tmp_path: Path) -> None:
    row = line(chat(36, 10, 690, total=736), vendor="xai", max_tokens=500)
    (checked,) = check(tmp_path, row)
    assert codes(checked) == [Code.GENERATED_ABOVE_CAP]
    assert checked.findings[0].weight is Weight.QUESTION
    assert checked.findings[0].tokens == 200
    assert found(tmp_path, row | {"max_tokens": 9}) == [Code.COMPLETION_ABOVE_CAP]


@pytest.mark.parametrize(
    "request_body",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 60}},
        {"reasoning": {"max_tokens": 60}},
        {"generationConfig": {"thinkingConfig": {"thinkingBudget": 60}}},
    ],
)
def test_a_budget_of_reasoning_is_a_target(tmp_path: Path, request_body: dict[str, Any]) -> None:
    row = line(anthropic(20, 120, 70), vendor="anthropic", request=request_body)
    (checked,) = check(tmp_path, row)
    assert codes(checked) == [Code.REASONING_ABOVE_BUDGET]
    assert checked.verdict is Verdict.QUESTIONABLE
    assert checked.findings[0].tokens == 10


def test_a_dynamic_budget_bounds_nothing(tmp_path: Path) -> None:
    body = {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}}
    assert found(tmp_path, line(chat(20, 120, 70), request=body)) == []


# Answers that did not come


def test_an_empty_answer_that_is_billed(tmp_path: Path) -> None:
    (checked,) = check(tmp_path, line(chat(20, 120, 100), answer=""))
    assert codes(checked) == [Code.EMPTY_ANSWER_BILLED]
    assert checked.findings[0].tokens == 20
    assert found(tmp_path, line(chat(20, 120), answer="")) == [Code.EMPTY_ANSWER_BILLED]


@pytest.mark.parametrize(
    "row",
    [
        line(chat(20, 120, 100), answer="Blue."),
        line(chat(20, 120, 100)),
        line(chat(20, 100 + MARKER_TOKENS, 100), answer=""),
        line(chat(20, 100 + 2 * MARKER_TOKENS, 100), answer="", n=2),
        line(chat(20, 120), answer="", finish_reason="length"),
        line(chat(20, 120, 100), answer="", cost=0, currency="USD"),
        line(chat(20, 0), answer=""),
    ],
    ids=[
        *("there is one", "nobody says", "markers alone", "of two choices"),
        *("reasoning used up the limit", "not charged", "nothing generated"),
    ],
)
def test_an_empty_answer_with_an_honest_cause(tmp_path: Path, row: dict[str, Any]) -> None:
    assert found(tmp_path, row) == []


@pytest.mark.parametrize("status", ["failed", "Cancelled", "error"])
def test_a_failed_reply_that_is_billed(tmp_path: Path, status: str) -> None:
    row = line(chat(20, 120), status=status, cost="0.01", currency="USD", answer="")
    (checked,) = check(tmp_path, row)
    assert codes(checked) == [Code.FAILED_REPLY_BILLED]
    assert checked.verdict is Verdict.QUESTIONABLE
    assert str(checked.findings[0].money) == "0.01"


def test_a_failed_reply_that_costs_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, line(chat(20, 120), status="failed", cost=0, currency="USD")) == []
    assert found(tmp_path, line(chat(20, 0), status="failed")) == []


# Time


def timed(seconds: str, **instead: Any) -> dict[str, Any]:
    times = {"sent_at": "2026-10-01T12:00:00.000Z", "ended_at": f"2026-10-01T12:00:{seconds}Z"}
    return line(chat(20, 10_000, 9_000), **(times | instead))


def test_more_tokens_than_the_measured_time_allows(tmp_path: Path) -> None:
    (checked,) = check(tmp_path, timed("01.999"))
    assert codes(checked) == [Code.FASTER_THAN_DECODING]
    assert checked.findings[0].weight is Weight.QUESTION
    sentence = checked.findings[0].sentence
    assert "took 1.999 s" in sentence
    assert "5000 tokens a second (policy coin-default-3)" in sentence


@pytest.mark.parametrize(
    "row",
    [
        timed("02.000"),
        timed("01.000", n=2),
        timed("01"),
        timed("00.500", sent_at="2026-10-01T12:00:01.000Z"),
        timed("00.500", sent_at=None),
        timed("00.000001", sent_at="2026-10-01T12:00:00.000001Z"),
    ],
    ids=[
        *("just so", "two choices at once", "a clock of whole seconds", "backwards"),
        *("no start", "not measured"),
    ],
)
def test_time_that_proves_nothing(tmp_path: Path, row: dict[str, Any]) -> None:
    assert found(tmp_path, row) == []


def test_the_greatest_rate_may_be_given(tmp_path: Path) -> None:
    row = timed("10.000")
    assert found(tmp_path, row) == []
    assert found(tmp_path, row, max_rate=999.0) == [Code.FASTER_THAN_DECODING]
    assert found(tmp_path, row, max_rate=1000.0) == []


# The block itself


def test_a_total_that_is_another_sum(tmp_path: Path) -> None:
    (checked,) = check(tmp_path, line(chat(20, 120, 100, total=150)))
    assert codes(checked) == [Code.TOTAL_DISAGREES]
    assert checked.verdict is Verdict.INCONSISTENT
    assert checked.findings[0].tokens == 10
    assert checked.reported is not None
    assert checked.reported.generated == 120


def test_fields_of_one_meaning_that_differ(tmp_path: Path) -> None:
    block = chat(20, 120) | {"output_tokens": 130}
    (checked,) = check(tmp_path, line(block))
    assert codes(checked) == [Code.FIELDS_DISAGREE]
    assert checked.reported is None
    assert checked.verdict is Verdict.INCONSISTENT


def test_more_cached_than_prompt_leaves_the_rest_to_be_checked(tmp_path: Path) -> None:
    block = chat(20, 120, 100, total=240) | {"prompt_tokens_details": {"cached_tokens": 21}}
    (checked,) = check(tmp_path, line(block))
    assert set(codes(checked)) == {Code.CACHED_ABOVE_PROMPT, Code.REASONING_COUNTED_TWICE}
    assert checked.verdict is Verdict.COUNTED_TWICE


def test_openrouter_without_a_total_is_read_as_documented(tmp_path: Path) -> None:
    """Its exports have none: a finding on each line would be noise."""
    assert found(tmp_path, line(chat(20, 120, 100, total=None), vendor="openrouter")) == []


@pytest.mark.parametrize(
    ("vendor", "total", "wanted"),
    [
        ("openrouter", 240, [Code.COUNTED_OTHERWISE]),
        ("openrouter", 140, []),
        ("xai", 240, []),
        ("xai", 140, [Code.COUNTED_OTHERWISE]),
        ("xai", None, []),
        ("gemini-openai", 240, []),
        ("openai", 240, [Code.REASONING_COUNTED_TWICE]),
    ],
)
def test_who_counts_otherwise_than_documented(
    tmp_path: Path, vendor: str, total: int | None, wanted: list[str]
) -> None:
    assert found(tmp_path, line(chat(20, 120, 100, total=total), vendor=vendor)) == wanted


def test_gemini_that_only_thought_twice(tmp_path: Path) -> None:
    block = {"promptTokenCount": 21, "thoughtsTokenCount": 60, "totalTokenCount": 141}
    (checked,) = check(tmp_path, line(block, vendor="gemini"))
    assert codes(checked) == [Code.REASONING_COUNTED_TWICE]
    assert checked.reported is not None
    assert checked.reported.generated == 60


@pytest.mark.parametrize(
    "block",
    [
        chat(20, 120, 100),
        chat(20, 120, 100, total=None),
        chat(20, 120),
        {"input_tokens": 8, "output_tokens": 9},
        {"input_tokens": 8, "output_tokens": 9, "cache_read_input_tokens": 70},
    ],
)
def test_where_all_vendors_mean_the_same_nobody_need_be_named(
    tmp_path: Path, block: dict[str, Any]
) -> None:
    assert found(tmp_path, line(block, vendor=None)) == []


# The same reply again


def test_a_reply_that_is_billed_twice(tmp_path: Path) -> None:
    other = line(chat(20, 120), id="chatcmpl-2", cost="0.01", currency="USD")
    checked = check(tmp_path, SOUND, other, SOUND, SOUND)
    assert [codes(each) for each in checked] == [
        [],
        [],
        [Code.REPLY_BILLED_TWICE],
        [Code.REPLY_BILLED_TWICE],
    ]
    assert checked[2].verdict is Verdict.COUNTED_TWICE
    assert "line 1" in checked[2].findings[0].sentence
    assert checked[2].findings[0].tokens == 120
    assert str(checked[2].findings[0].money) == "0.01"


def test_a_reply_that_is_listed_again_for_nothing(tmp_path: Path) -> None:
    free = SOUND | {"cost": 0}
    assert [codes(each) for each in check(tmp_path, free, SOUND, free)] == [[], [], []]


def test_lines_without_ids_are_never_the_same_reply(tmp_path: Path) -> None:
    row = line(chat(20, 120))
    assert [codes(each) for each in check(tmp_path, row, row)] == [[], []]


# What the user kept


KEPT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "request": {"max_tokens": 100},
    "sent_at": "2026-10-01T12:00:00.000Z",
    "ended_at": "2026-10-01T12:00:00.010Z",
    "response": {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]},
}


def kept(folder: Path, *rows: dict[str, Any]) -> Requests:
    return Requests.from_file(write_lines(folder / "requests.jsonl", rows))


def test_what_the_user_kept_of_the_request_counts(tmp_path: Path) -> None:
    row = line(chat(20, 120, 100), id="chatcmpl-1")
    assert found(tmp_path, row) == []
    assert set(found(tmp_path, row, requests=kept(tmp_path, KEPT))) == {
        Code.COMPLETION_ABOVE_CAP,
        Code.EMPTY_ANSWER_BILLED,
        Code.FASTER_THAN_DECODING,
    }


def test_another_replys_request_does_not(tmp_path: Path) -> None:
    row = line(chat(20, 120, 100), id="chatcmpl-2")
    assert found(tmp_path, row, requests=kept(tmp_path, KEPT)) == []


def test_what_the_bill_says_stands_where_nothing_was_kept(tmp_path: Path) -> None:
    row = line(chat(20, 120, 100), id="chatcmpl-1", max_tokens=100)
    requests = kept(tmp_path, {"response_id": "chatcmpl-1"})
    assert found(tmp_path, row, requests=requests) == [Code.COMPLETION_ABOVE_CAP]


@pytest.mark.parametrize(
    ("body", "empty"),
    [
        ({"choices": [{"message": {"content": None, "tool_calls": [{"id": "1"}]}}]}, False),
        ({"choices": [{"message": {"content": ""}}, {"message": {"content": "Blue."}}]}, False),
        ({"choices": [{"text": "Blue."}]}, False),
        ({"choices": [{"text": ""}]}, True),
        ({"choices": []}, True),
        ({"output": [{"type": "reasoning"}]}, True),
        ({"output": [{"type": "function_call"}]}, False),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": ""}]}]}, True),
        (
            {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
            False,
        ),
        ({"content": [{"type": "thinking", "thinking": "…"}]}, True),
        ({"content": [{"type": "text", "text": "Blue."}]}, False),
        ({"content": [{"type": "tool_use"}]}, False),
        ({}, False),
    ],
)
def test_an_answer_is_more_than_text(tmp_path: Path, body: dict[str, Any], *, empty: bool) -> None:
    row = line(chat(20, 120, 100), id="chatcmpl-1")
    requests = kept(tmp_path, {"id": "chatcmpl-1", "response": body})
    assert found(tmp_path, row, requests=requests) == [Code.EMPTY_ANSWER_BILLED] * empty


def test_every_code_has_a_verdict_and_a_weight() -> None:
    assert set(VERDICT_OF) == set(Code)
    order = [VERDICT_OF[code][0] for code in Code]
    assert order == sorted(order, key=list(Verdict).index)
