"""Lines beside their receipts: equal, inflated, counted otherwise, or without a receipt."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bill.making import (
    NOON,
    Provider,
    anthropic,
    book,
    chat,
    check,
    codes,
    examiner,
    line,
    prices,
)
from verifier_sdk.bill import Checked, Code, Facts, How, ReceiptBook, State, Totals, Verdict

REPLY = "chatcmpl-1"


@pytest.fixture
def receipt(acme: Provider) -> Facts:
    """The receipt of a reply: 20 in, 300 of reasoning, 50 of answer."""
    return examiner(acme.trust).receipt(acme.receipt(), "here", REPLY)


def one(folder: Path, row: dict[str, Any], facts: ReceiptBook | Facts, **options: Any) -> Checked:
    found = book(facts) if isinstance(facts, Facts) else facts
    (checked,) = check(folder, {"id": REPLY} | row, book=found, **options)
    return checked


@pytest.mark.parametrize(
    "row",
    [
        line(chat(20, 350, 300)),
        line(chat(20, 350)),
        line(chat(20, 350, 0)),
        line(anthropic(20, 350, 300), vendor="anthropic"),
        line(chat(20, 50, 300, total=370), vendor="xai"),
        line(chat(20, 350, 300, total=None), vendor="openrouter"),
        line(chat(20, 350, 290)),
    ],
    ids=["whole", "unsplit", "0", "anthropic", "xai", "no total", "split otherwise"],
)
def test_a_line_that_bills_what_was_committed_is_equal(
    tmp_path: Path, receipt: Facts, row: dict[str, Any]
) -> None:
    checked = one(tmp_path, row, receipt)
    assert checked.verdict is Verdict.EQUAL
    assert codes(checked) == []
    assert (checked.how, checked.receipt, checked.tier) == (How.ID, State.VERIFIED, "asserted")
    assert checked.committed is not None
    assert checked.committed.generated == 350


# What is billed; what is said, and by how many tokens.
DEPARTS: dict[str, tuple[dict[str, Any], Verdict, list[Code], int | None]] = {
    "inflated": (line(chat(20, 450, 400)), Verdict.INFLATED, [Code.GENERATED_MORE], 100),
    "inflated by what markers explain": (
        line(chat(20, 353, 303)),
        Verdict.INFLATED,
        [Code.GENERATED_SLIGHTLY_MORE],
        3,
    ),
    "reasoning twice in the completion": (
        line(chat(20, 650, 300)),
        Verdict.COUNTED_TWICE,
        [Code.GENERATED_REASONING_TWICE],
        300,
    ),
    "reasoning twice in the total": (
        line(chat(20, 350, 300, total=670)),
        Verdict.COUNTED_TWICE,
        [Code.REASONING_COUNTED_TWICE],
        300,
    ),
    "beside, and the total has all": (
        line(chat(20, 50, 300, total=370)),
        Verdict.WRONG_CONVENTION,
        [Code.COUNTED_OTHERWISE],
        None,
    ),
    "beside, and no total tells": (
        line(chat(20, 50, 300, total=None), vendor="openrouter"),
        Verdict.WRONG_CONVENTION,
        [Code.COUNTED_OTHERWISE],
        None,
    ),
    "without the reasoning": (
        line(chat(20, 50)),
        Verdict.UNDERSTATED,
        [Code.GENERATED_WITHOUT_REASONING],
        -300,
    ),
    "understated": (line(chat(20, 250, 200)), Verdict.UNDERSTATED, [Code.GENERATED_LESS], -100),
    "understated by what markers explain": (
        line(chat(20, 347, 297)),
        Verdict.UNDERSTATED,
        [Code.GENERATED_SLIGHTLY_LESS],
        -3,
    ),
    "more prompt": (line(chat(25, 350, 300)), Verdict.INFLATED, [Code.PROMPT_MORE], 5),
    "less prompt": (line(chat(15, 350, 300)), Verdict.UNDERSTATED, [Code.PROMPT_LESS], -5),
}


@pytest.mark.parametrize("case", DEPARTS)
def test_a_line_that_departs_says_how_and_by_how_much(
    tmp_path: Path, receipt: Facts, case: str
) -> None:
    row, verdict, wanted, tokens = DEPARTS[case]
    checked = one(tmp_path, row, receipt)
    assert (checked.verdict, codes(checked)) == (verdict, wanted)
    assert checked.findings[0].tokens == tokens
    assert checked.receipt is State.VERIFIED


def test_excess_is_money_where_prices_are_known(tmp_path: Path, receipt: Facts) -> None:
    row = line(chat(20, 450, 400), cost="0.00681", currency="USD")
    checked = one(tmp_path, row, receipt, prices=prices(acme_large=("3", "15")))
    assert codes(checked) == [Code.GENERATED_MORE]
    assert checked.findings[0].money == Decimal("0.0015")


def test_a_long_answer_beside_hidden_reasoning_is_told_by_the_receipt(
    tmp_path: Path, acme: Provider
) -> None:
    """300 of 400 looks inside; the receipt has 400 of answer alone."""
    facts = examiner(acme.trust).receipt(acme.receipt(answer=400), response_id=REPLY)
    checked = one(tmp_path, line(chat(20, 400, 300)), facts)
    assert checked.verdict is Verdict.WRONG_CONVENTION
    assert set(codes(checked)) == {Code.COUNTED_OTHERWISE, Code.GENERATED_WITHOUT_REASONING}


def test_what_a_block_alone_leaves_open_the_receipt_settles(tmp_path: Path, receipt: Facts) -> None:
    row = line(chat(20, 50, 300, total=370), vendor=None)
    (alone,) = check(tmp_path, row)
    assert codes(alone) == [Code.AMBIGUOUS]
    checked = one(tmp_path, row, receipt)
    assert codes(checked) == [Code.COUNTED_OTHERWISE]


def test_a_prompt_that_the_provider_does_not_know_is_not_compared(
    tmp_path: Path, acme: Provider
) -> None:
    facts = examiner(acme.trust).receipt(acme.receipt(prompt=0), response_id=REPLY)
    assert one(tmp_path, line(chat(20, 350, 300)), facts).verdict is Verdict.EQUAL


def test_fewer_cached_tokens_than_signed_cost_more(tmp_path: Path, acme: Provider) -> None:
    facts = examiner(acme.trust).receipt(acme.receipt(cached=15), response_id=REPLY)
    block = chat(20, 350, 300)
    checked = one(tmp_path, line(block), facts)
    assert (checked.verdict, codes(checked)) == (Verdict.INFLATED, [Code.CACHED_LESS])
    block["prompt_tokens_details"] = {"cached_tokens": 15}
    assert one(tmp_path, line(block), facts).verdict is Verdict.EQUAL


# Receipts that do not count


def test_an_invalid_receipt_is_worth_nothing_and_named(tmp_path: Path, acme: Provider) -> None:
    facts = examiner(Provider().trust).receipt(acme.receipt(), "october/r.json", REPLY)
    checked = one(tmp_path, line(chat(20, 350, 300)), facts)
    assert (checked.verdict, codes(checked)) == (Verdict.INVALID_RECEIPT, [Code.RECEIPT_INVALID])
    assert "october/r.json" in checked.findings[0].sentence
    assert "SIGNATURE" in checked.findings[0].sentence
    assert checked.committed is None


def test_an_invalid_receipt_accuses_nobody_of_inflation(tmp_path: Path, acme: Provider) -> None:
    facts = examiner(Provider().trust).receipt(acme.receipt(), response_id=REPLY)
    assert codes(one(tmp_path, line(chat(20, 900, 850)), facts)) == [Code.RECEIPT_INVALID]


def test_an_undecided_receipt_is_no_finding(tmp_path: Path, receipt: Facts) -> None:
    facts = replace(receipt, state=State.UNDECIDED, reason="PROFILE: another")
    checked = one(tmp_path, line(chat(20, 350, 300)), facts)
    assert (checked.verdict, codes(checked)) == (Verdict.MISSING_RECEIPT, [])
    assert "PROFILE: another" in checked.notes[0]
    assert checked.receipt is State.UNDECIDED


def test_an_unverified_receipt_is_compared_and_bears_nothing_out(
    tmp_path: Path, receipt: Facts
) -> None:
    facts = replace(receipt, state=State.UNVERIFIED)
    checked = one(tmp_path, line(chat(20, 350, 300)), facts)
    assert (checked.verdict, checked.receipt) == (Verdict.EQUAL, State.UNVERIFIED)
    totals = Totals()
    totals.put(checked)
    assert (totals.borne_out.lines, totals.unverifiable.lines) == (0, 1)
    assert codes(one(tmp_path, line(chat(20, 450, 400)), facts)) == [Code.GENERATED_MORE]


def test_a_failed_audit_is_said(tmp_path: Path, receipt: Facts) -> None:
    facts = replace(receipt, audit_failed="the judge found filler")
    checked = one(tmp_path, line(chat(20, 350, 300)), facts)
    assert (checked.verdict, codes(checked)) == (Verdict.INVALID_RECEIPT, [Code.AUDIT_FAILED])
    assert "filler" in checked.findings[0].sentence


def test_the_weakest_tier_is_a_lines_tier(tmp_path: Path, acme: Provider, receipt: Facts) -> None:
    other = examiner(acme.trust).receipt(acme.receipt(seed="b", prompt=0), "there", REPLY)
    both = book(replace(receipt, tier="opened"), replace(other, tier="timed"))
    checked = one(tmp_path, line(chat(20, 700, 600), n=2), both)
    assert (checked.verdict, checked.tier) == (Verdict.EQUAL, "timed")


# One receipt, one line


def test_a_receipt_that_was_another_replys_counts_twice(tmp_path: Path, receipt: Facts) -> None:
    found = book(receipt, replace(receipt, response_id="chatcmpl-2"))
    rows = [line(chat(20, 350, 300), id=each) for each in (REPLY, "chatcmpl-2")]
    first, second = check(tmp_path, *rows, book=found)
    assert first.verdict is Verdict.EQUAL
    assert (second.verdict, codes(second)) == (Verdict.COUNTED_TWICE, [Code.RECEIPT_REUSED])
    assert REPLY in second.findings[0].sentence


def test_a_reply_billed_twice_has_one_receipt(tmp_path: Path, receipt: Facts) -> None:
    row = line(chat(20, 350, 300), id=REPLY)
    first, second = check(tmp_path, row, row, book=book(receipt))
    assert first.verdict is Verdict.EQUAL
    assert second.verdict is Verdict.COUNTED_TWICE
    assert codes(second) == [Code.REPLY_BILLED_TWICE]


def test_two_generations_of_one_upstream_reply_have_one_receipt(
    tmp_path: Path, acme: Provider
) -> None:
    """Two lines with ids of their own name the same reply of the provider's."""
    facts = examiner(acme.trust).receipt(acme.receipt(), response_id="upstream")
    common = {
        "upstream_id": "upstream",
        "model": "acme/acme-large",
        "native_tokens_prompt": 20,
        "native_tokens_completion": 350,
        "native_tokens_reasoning": 300,
    }
    rows = [{"id": f"gen-{number}", "usage": cost} | common for number, cost in enumerate("0011")]
    free, again, first, second = check(tmp_path, *rows, book=book(facts), form="openrouter")
    # A line that costs nothing takes the receipt from nobody.
    assert [each.verdict for each in (free, again, first)] == [Verdict.EQUAL] * 3
    assert (second.verdict, codes(second)) == (Verdict.COUNTED_TWICE, [Code.RECEIPT_REUSED])
    assert "vouches for line 3" in second.findings[0].sentence
    assert second.findings[0].tokens == 350


def test_a_free_line_after_a_charged_one_is_told_where_the_receipt_is(
    tmp_path: Path, receipt: Facts
) -> None:
    rows = [line(chat(20, 350, 300), id=REPLY, cost=cost, currency="USD") for cost in (1, 0)]
    _, free = check(tmp_path, *rows, book=book(receipt))
    assert (free.verdict, codes(free)) == (Verdict.MISSING_RECEIPT, [])
    assert free.notes == ("its receipt vouches for line 1",)


# Choices


def choices(acme: Provider, count: int, asked: int, body: object = None) -> ReceiptBook:
    look = examiner(acme.trust).receipt
    body = body or {"n": asked}
    receipts = (
        acme.receipt(seed=f"choice {i}", nonce="one", prompt=20 * (i == 0), request=body)
        for i in range(count)
    )
    return book(*(look(each, response_id=REPLY) for each in receipts))


def test_the_choices_of_a_reply_are_added_up(tmp_path: Path, acme: Provider) -> None:
    checked = one(tmp_path, line(chat(20, 700, 600)), choices(acme, 2, 2))
    assert checked.verdict is Verdict.EQUAL
    assert checked.committed is not None
    assert checked.committed.receipts == 2


def test_a_choice_without_receipt_is_missing_and_no_inflation(
    tmp_path: Path, acme: Provider
) -> None:
    checked = one(tmp_path, line(chat(20, 700, 600)), choices(acme, 1, 2))
    assert (checked.verdict, codes(checked)) == (Verdict.MISSING_RECEIPT, [])
    assert "receipts of 1 of 2 choices" in checked.notes


def test_each_prompt_of_a_request_has_a_choice_of_its_own(tmp_path: Path, acme: Provider) -> None:
    asked = {"prompt": ["why?", "how?"]}
    checked = one(tmp_path, line(chat(20, 700, 600)), choices(acme, 1, 2, asked))
    assert (checked.verdict, codes(checked)) == (Verdict.MISSING_RECEIPT, [])
    checked = one(tmp_path, line(chat(20, 700, 600)), choices(acme, 2, 2, asked))
    assert checked.verdict is Verdict.EQUAL


def test_a_part_cannot_be_more_than_the_whole(tmp_path: Path, acme: Provider) -> None:
    checked = one(tmp_path, line(chat(20, 200, 150)), choices(acme, 1, 2))
    assert codes(checked) == [Code.GENERATED_LESS]


# What the receipt tells of request and reply


def test_the_receipt_tells_of_caps_times_and_answers(tmp_path: Path, acme: Provider) -> None:
    made = acme.receipt(request={"max_tokens": 100}, text=b"", seconds=0.01)
    facts = examiner(acme.trust).receipt(made, response_id=REPLY)
    checked = one(tmp_path, line(chat(20, 350, 300)), facts)
    assert set(codes(checked)) == {
        Code.COMPLETION_ABOVE_CAP,
        Code.EMPTY_ANSWER_BILLED,
        Code.FASTER_THAN_DECODING,
    }
    assert checked.verdict is Verdict.INCONSISTENT


# Without ids


def bare(acme: Provider, **instead: Any) -> Facts:
    return examiner(acme.trust).receipt(acme.receipt(**instead))


def at(seconds: float, block: dict[str, Any] | None = None, **instead: Any) -> dict[str, Any]:
    time = (NOON + timedelta(seconds=seconds)).isoformat()
    return line(block or chat(20, 350, 300), time=time, **instead)


def test_model_time_and_counts_match_where_they_are_unique(tmp_path: Path, acme: Provider) -> None:
    for row in (at(2), at(2, id="gen-1"), at(-290), at(304), at(2, model="acme/Acme-Large")):
        (checked,) = check(tmp_path, row, book=book(bare(acme)))
        assert (checked.verdict, checked.how) == (Verdict.EQUAL, How.COUNTS)


@pytest.mark.parametrize(
    "row",
    [
        at(2, chat(21, 350, 300)),
        at(2, chat(20, 351, 300)),
        at(2, model="acme-small"),
        at(-302),
        at(306),
        at(86_400),
    ],
    ids=["prompt", "completion", "model", "before", "after", "the day after"],
)
def test_what_differs_is_not_matched(tmp_path: Path, acme: Provider, row: dict[str, Any]) -> None:
    (checked,) = check(tmp_path, row, book=book(bare(acme)))
    assert (checked.verdict, checked.how) == (Verdict.MISSING_RECEIPT, How.NONE)


def test_a_receipt_with_another_replys_id_is_not_matched(tmp_path: Path, receipt: Facts) -> None:
    (checked,) = check(tmp_path, at(2, id="chatcmpl-2"), book=book(receipt))
    assert checked.how is How.NONE


def test_a_line_without_id_may_match_a_receipt_that_has_one(tmp_path: Path, receipt: Facts) -> None:
    (checked,) = check(tmp_path, at(2), book=book(receipt))
    assert checked.how is How.COUNTS


def test_two_lines_that_look_alike_leave_one_receipt_with_neither(
    tmp_path: Path, acme: Provider
) -> None:
    for checked in check(tmp_path, at(2), at(3), book=book(bare(acme))):
        assert (checked.verdict, checked.how) == (Verdict.MISSING_RECEIPT, How.AMBIGUOUS)
        assert "2 lines fit them" in checked.notes[0]


def test_two_receipts_that_look_alike_leave_one_line_without(
    tmp_path: Path, acme: Provider
) -> None:
    found = book(bare(acme, seed="a"), bare(acme, seed="b"))
    (checked,) = check(tmp_path, at(2), book=found)
    assert (checked.verdict, checked.how) == (Verdict.MISSING_RECEIPT, How.AMBIGUOUS)
    assert "2 receipts without id fit" in checked.notes[0]


def test_a_receipt_that_is_one_lines_by_id_is_no_others_by_counts(
    tmp_path: Path, receipt: Facts
) -> None:
    first, second = check(tmp_path, at(2, id=REPLY), at(3), book=book(receipt))
    assert (first.verdict, first.how) == (Verdict.EQUAL, How.ID)
    assert (second.verdict, second.how) == (Verdict.MISSING_RECEIPT, How.AMBIGUOUS)


def test_an_invalid_receipt_without_id_matches_nothing(tmp_path: Path, acme: Provider) -> None:
    facts = examiner(Provider().trust).receipt(acme.receipt())
    (checked,) = check(tmp_path, at(2), book=book(facts))
    assert (checked.verdict, checked.how) == (Verdict.MISSING_RECEIPT, How.NONE)
