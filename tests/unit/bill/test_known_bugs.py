"""Bugs that others' trackers list, with their numbers: each is found on a bill, by its name."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bill.making import anthropic, chat, check, codes, line, prices
from verifier_sdk.bill import Code, Verdict

REALTIME = {
    "total_tokens": 375,
    "input_tokens": 346,
    "output_tokens": 29,
    "input_token_details": {"cached_tokens": 0},
    "output_token_details": {"reasoning_tokens": 19},
}
LIST = prices(pro=("30", "180"), nano=("0.05", "0.40"), grok=("3", "15"), realtime=("4", "16"))


def cost(amount: str, model: str) -> dict[str, Any]:
    return {"cost": amount, "currency": "USD", "model": model}


# What is billed, what is said of it, by how many tokens, by how much money, what is right.
BUGS: dict[str, tuple[dict[str, Any], Verdict, Code, int | None, str | None, str | None]] = {
    "opencode#17566: $0.79 true, $1.04 shown": (
        line(chat(14_746, 1_944, 1_360), **cost("1.04", "pro")),
        Verdict.COUNTED_TWICE,
        Code.REASONING_PRICED_TWICE,
        None,
        "0.2477",
        "0.7923",
    ),
    "opencode#17566, to the last digit": (
        line(chat(14_746, 1_944, 1_360), **cost("1.0371", "pro")),
        Verdict.COUNTED_TWICE,
        Code.REASONING_PRICED_TWICE,
        None,
        "0.2448",
        "0.7923",
    ),
    "llmgateway#3486: 187, not 218": (
        line(anthropic(51, 136, 31, total_tokens=218), vendor="anthropic"),
        Verdict.COUNTED_TWICE,
        Code.REASONING_COUNTED_TWICE,
        31,
        None,
        None,
    ),
    "llmgateway#3486: a live Vertex reply, 199 reported as 277": (
        line(anthropic(64, 135, 78, total_tokens=277), vendor="anthropic"),
        Verdict.COUNTED_TWICE,
        Code.REASONING_COUNTED_TWICE,
        78,
        None,
        None,
    ),
    "litellm#39850: realtime, reasoning inside the text priced once more": (
        line(REALTIME, **cost("0.002152", "realtime")),
        Verdict.COUNTED_TWICE,
        Code.REASONING_PRICED_TWICE,
        None,
        "0.000304",
        "0.001848",
    ),
    # The issue shows pictures and no counts; these stand for an o3.
    "litellm#10567: reasoning not priced": (
        line(chat(20, 2_000, 1_900), **cost("0.0186", "pro")),
        Verdict.UNDERSTATED,
        Code.REASONING_NOT_PRICED,
        None,
        "-0.3420",
        "0.3606",
    ),
    "litellm#18607: of 977 only the 768 of reasoning priced": (
        line(chat(20, 977, 768), **cost("0.00030820", "nano")),
        Verdict.UNDERSTATED,
        Code.ANSWER_NOT_PRICED,
        None,
        "-0.00008360",
        "0.0003918",
    ),
    "litellm#18607: grok, 690 beside and not priced": (
        line(chat(36, 10, 690, total=736), vendor="xai", **cost("0.000258", "grok")),
        Verdict.UNDERSTATED,
        Code.REASONING_NOT_PRICED,
        None,
        "-0.01035",
        "0.010608",
    ),
    "grok, 690 beside, of a vendor who is said to count inside": (
        line(chat(36, 10, 690, total=736)),
        Verdict.WRONG_CONVENTION,
        Code.REASONING_ABOVE_COMPLETION,
        None,
        None,
        None,
    ),
    "grok, of nobody knows whom": (
        line(chat(36, 10, 690, total=736), vendor=None),
        Verdict.WRONG_CONVENTION,
        Code.AMBIGUOUS,
        None,
        None,
        None,
    ),
    "grok, added once more": (
        line(chat(36, 10, 690, total=1_426), vendor="xai"),
        Verdict.COUNTED_TWICE,
        Code.REASONING_COUNTED_TWICE,
        690,
        None,
        None,
    ),
    "effect#8170: 321 of 293": (
        line(chat(1_000, 293, 321)),
        Verdict.WRONG_CONVENTION,
        Code.REASONING_ABOVE_COMPLETION,
        None,
        None,
        None,
    ),
    "effect#8170, through OpenRouter, without a total": (
        line(chat(1_000, 293, 321, total=None), vendor="openrouter"),
        Verdict.WRONG_CONVENTION,
        Code.REASONING_ABOVE_COMPLETION,
        None,
        None,
        None,
    ),
    "effect#8170, through OpenRouter, with a total that tells": (
        line(chat(1_000, 293, 321, total=1_614), vendor="openrouter"),
        Verdict.WRONG_CONVENTION,
        Code.COUNTED_OTHERWISE,
        None,
        None,
        None,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_known_bug_is_found_and_named(tmp_path: Path, bug: str) -> None:
    row, verdict, code, tokens, money, expected = BUGS[bug]
    (checked,) = check(tmp_path, row, prices=LIST)
    assert checked.verdict is verdict
    assert codes(checked) == [code]
    assert checked.tier == "asserted"
    (finding,) = checked.findings
    assert finding.tokens == tokens
    assert finding.money == (None if money is None else Decimal(money))
    assert checked.expected == (None if expected is None else Decimal(expected))


# The same replies, billed as they should be.
RIGHT: dict[str, dict[str, Any]] = {
    "opencode#17566": line(chat(14_746, 1_944, 1_360), **cost("0.7923", "pro")),
    "opencode#17566, to the cent": line(chat(14_746, 1_944, 1_360), **cost("0.79", "pro")),
    "llmgateway#3486": line(anthropic(51, 136, 31, total_tokens=187), vendor="anthropic"),
    "Vertex": line(anthropic(64, 135, 78, total_tokens=199), vendor="anthropic"),
    "realtime": line(REALTIME, **cost("0.001848", "realtime")),
    "litellm#10567": line(chat(20, 2_000, 1_900), **cost("0.3606", "pro")),
    "litellm#18607": line(chat(20, 977, 768), **cost("0.0003918", "nano")),
    "grok": line(chat(36, 10, 690, total=736), vendor="xai", **cost("0.010608", "grok")),
    "grok, marked": line(
        chat(36, 10, 690, total=736) | {"num_sources_used": 0}, vendor=None, model="grok"
    ),
}


@pytest.mark.parametrize("reply", RIGHT)
def test_the_same_reply_billed_rightly_raises_nothing(tmp_path: Path, reply: str) -> None:
    (checked,) = check(tmp_path, RIGHT[reply], prices=LIST)
    assert codes(checked) == []
    assert checked.verdict is Verdict.MISSING_RECEIPT


def test_both_mistakes_on_one_line_are_both_found(tmp_path: Path) -> None:
    row = line(chat(14_746, 1_944, 1_360, total=18_050), **cost("1.0371", "pro"))
    (checked,) = check(tmp_path, row, prices=LIST)
    assert checked.verdict is Verdict.COUNTED_TWICE
    assert codes(checked) == [Code.REASONING_COUNTED_TWICE, Code.REASONING_PRICED_TWICE]
    # 1,360 tokens at 180 dollars a million.
    assert checked.findings[0].money == Decimal("0.2448")
