"""Days and models summed up: receipts are added up too, and what is not certain is not said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bill.making import MODEL, NOON, Provider, book, examiner
from verifier_sdk.bill import BillCheck, Checked, Code, Facts, How, ReceiptBook, State, Verdict
from verifier_sdk.bill.committed import Committed

DAY = NOON.replace(hour=0)
HALF = timedelta(hours=12)


def result(output: int, prompt: int = 20, requests: int | None = 1, **instead: Any) -> Any:
    return {
        "model": MODEL,
        "input_tokens": prompt,
        "output_tokens": output,
        "num_model_requests": requests,
    } | instead


def check(folder: Path, found: ReceiptBook, *days: list[dict[str, Any]]) -> list[Checked]:
    """Check OpenAI's usage of so many days."""
    data = [
        {
            "object": "bucket",
            "start_time": int((DAY + timedelta(days=number)).timestamp()),
            "end_time": int((DAY + timedelta(days=number + 1)).timestamp()),
            "results": results,
        }
        for number, results in enumerate(days)
    ]
    (folder / "bill.json").write_text(json.dumps({"object": "page", "data": data}))
    return list(BillCheck(folder / "bill.json", book=found))


def facts(acme: Provider, name: str, at: datetime = NOON, **instead: Any) -> Facts:
    made = acme.receipt(seed=name, at=at, **instead)
    return examiner(acme.trust).receipt(made, name)


def codes(checked: Checked) -> list[str]:
    return [finding.code for finding in checked.findings]


def test_receipts_of_all_requests_are_added_up(tmp_path: Path, acme: Provider) -> None:
    found = book(facts(acme, "a"), facts(acme, "b", NOON + timedelta(hours=3)))
    (checked,) = check(tmp_path, found, [result(700, 40, 2)])
    assert (checked.verdict, checked.how) == (Verdict.EQUAL, How.BUCKET)
    assert checked.receipt is State.VERIFIED
    assert checked.committed is not None
    assert (checked.committed.receipts, checked.committed.generated) == (2, 700)


@pytest.mark.parametrize(
    ("output", "verdict", "code", "tokens"),
    [
        (900, Verdict.INFLATED, Code.GENERATED_MORE, 200),
        (732, Verdict.INFLATED, Code.GENERATED_SLIGHTLY_MORE, 32),
        (733, Verdict.INFLATED, Code.GENERATED_MORE, 33),
        (600, Verdict.UNDERSTATED, Code.GENERATED_LESS, -100),
        (100, Verdict.UNDERSTATED, Code.GENERATED_WITHOUT_REASONING, -600),
        (1300, Verdict.COUNTED_TWICE, Code.GENERATED_REASONING_TWICE, 600),
    ],
)
def test_a_day_that_departs_from_its_receipts(
    tmp_path: Path, acme: Provider, output: int, verdict: Verdict, code: Code, tokens: int
) -> None:
    found = book(facts(acme, "a"), facts(acme, "b"))
    (checked,) = check(tmp_path, found, [result(output, 40, 2)])
    assert (checked.verdict, codes(checked)) == (verdict, [code])
    assert checked.findings[0].tokens == tokens


def test_requests_without_receipts_are_no_inflation(tmp_path: Path, acme: Provider) -> None:
    (checked,) = check(tmp_path, book(facts(acme, "a")), [result(900, 90, 3)])
    assert (checked.verdict, codes(checked)) == (Verdict.MISSING_RECEIPT, [])
    assert checked.notes == (
        "1 receipts of 3 requests: 550 generated tokens are borne out by none",
    )


def test_a_part_cannot_be_more_than_the_day(tmp_path: Path, acme: Provider) -> None:
    found = book(facts(acme, "a"), facts(acme, "b"))
    (checked,) = check(tmp_path, found, [result(600, 40, 3)])
    assert (checked.verdict, codes(checked)) == (Verdict.UNDERSTATED, [Code.GENERATED_LESS])


def test_fewer_requests_than_receipts_that_cost_more(tmp_path: Path, acme: Provider) -> None:
    found = book(*(facts(acme, name) for name in "abc"))
    (checked,) = check(tmp_path, found, [result(2000, 60, 2)])
    assert (checked.verdict, codes(checked)) == (Verdict.INFLATED, [Code.GENERATED_MORE])
    assert checked.findings[0].tokens == 950


@pytest.mark.parametrize(
    ("output", "verdict"), [(700, Verdict.EQUAL), (900, Verdict.MISSING_RECEIPT)]
)
def test_where_no_number_of_requests_is_stated_only_equality_is_certain(
    tmp_path: Path, acme: Provider, output: int, verdict: Verdict
) -> None:
    found = book(facts(acme, "a"), facts(acme, "b"))
    (checked,) = check(tmp_path, found, [result(output, 40, None)])
    assert (checked.verdict, codes(checked)) == (verdict, [])


def test_receipts_go_to_the_day_and_model_they_are_of(tmp_path: Path, acme: Provider) -> None:
    found = book(
        facts(acme, "a"),
        facts(acme, "b", NOON + timedelta(days=1), reasoning=100),
        facts(acme, "c", model="acme/ACME-small", reasoning=10),
        facts(acme, "d", NOON - timedelta(days=30)),
        facts(acme, "e", model="other"),
    )
    small = result(60, model="acme-small")
    checked = check(tmp_path, found, [result(350), small], [result(150)])
    assert [each.verdict for each in checked] == [Verdict.EQUAL] * 3
    bill = BillCheck(tmp_path / "bill.json", book=found)
    assert len(list(bill)) == 3
    assert bill.unused_receipts == 2


def test_lines_that_receipts_cannot_tell_apart_are_compared_together(
    tmp_path: Path, acme: Provider
) -> None:
    """Two projects, one model, one day: receipts know nothing of projects."""
    found = book(facts(acme, "a"), facts(acme, "b"))
    rows = [result(300, 20, 1, project_id="p"), result(400, 20, 1, project_id="q")]
    checked = check(tmp_path, found, rows)
    assert [each.verdict for each in checked] == [Verdict.EQUAL, Verdict.EQUAL]
    assert "compared with 1 more lines together" in checked[0].notes
    rows[1]["output_tokens"] = 600
    checked = check(tmp_path, found, rows)
    assert [codes(each) for each in checked] == [[Code.GENERATED_MORE], [Code.GENERATED_MORE]]
    # Counted once in the totals.
    assert [each.findings[0].tokens for each in checked] == [200, None]


def test_a_bill_that_names_no_models_takes_all_receipts(tmp_path: Path, acme: Provider) -> None:
    found = book(facts(acme, "a"), facts(acme, "b", model="other"))
    (checked,) = check(tmp_path, found, [result(700, 40, 2, model=None)])
    assert checked.verdict is Verdict.EQUAL


def test_the_choices_of_a_request_are_one_request(tmp_path: Path, acme: Provider) -> None:
    found = book(facts(acme, "a", nonce="one"), facts(acme, "b", nonce="one", prompt=0))
    (checked,) = check(tmp_path, found, [result(700, 20, 1)])
    assert checked.verdict is Verdict.EQUAL


def test_choices_without_receipts_of_other_requests_are_no_inflation(
    tmp_path: Path, acme: Provider
) -> None:
    """Three receipts are of one request; the other request has none."""
    found = book(*(facts(acme, name, nonce="one") for name in "abc"))
    (checked,) = check(tmp_path, found, [result(2000, 60, 2)])
    assert (checked.verdict, codes(checked)) == (Verdict.MISSING_RECEIPT, [])


def test_prompts_that_the_provider_does_not_know_are_not_compared(
    tmp_path: Path, acme: Provider
) -> None:
    found = book(facts(acme, "a"), facts(acme, "b", prompt=0))
    (checked,) = check(tmp_path, found, [result(700, 45, 2)])
    assert checked.verdict is Verdict.EQUAL
    found = book(facts(acme, "a"), facts(acme, "b"))
    (checked,) = check(tmp_path, found, [result(700, 45, 2)])
    assert codes(checked) == [Code.PROMPT_MORE]


def test_a_failed_audit_is_said_of_the_day(tmp_path: Path, acme: Provider) -> None:
    failed = replace(facts(acme, "b"), audit_failed="the judge found filler")
    (checked,) = check(tmp_path, book(facts(acme, "a"), failed), [result(700, 40, 2)])
    assert codes(checked) == [Code.AUDIT_FAILED]
    assert "(b)" in checked.findings[0].sentence


@pytest.mark.parametrize(
    ("completion", "reasoning", "requests", "code"),
    [
        (400, 300, 2, Code.AMBIGUOUS),
        (400, 290, 2, Code.GENERATED_LESS),
        (400, 300, 3, Code.AMBIGUOUS),
        (400, 0, 2, Code.GENERATED_LESS),
        (900, 600, 2, Code.GENERATED_MORE),
    ],
)
def test_a_routers_day_may_count_reasoning_both_ways(
    tmp_path: Path, acme: Provider, completion: int, reasoning: int, requests: int, code: Code
) -> None:
    """700 tokens are committed; the summary has no total that could tell."""
    row = {
        "date": "2026-10-01",
        "model_permaslug": f"acme/{MODEL}",
        "prompt_tokens": 40,
        "completion_tokens": completion,
        "reasoning_tokens": reasoning,
        "requests": requests,
    }
    (tmp_path / "bill.json").write_text(json.dumps([row]))
    found = book(facts(acme, "a"), facts(acme, "b"))
    (checked,) = BillCheck(tmp_path / "bill.json", book=found)
    assert codes(checked) == [code]


# Midnight


def test_a_receipt_near_midnight_goes_where_the_number_of_requests_says(
    tmp_path: Path, acme: Provider
) -> None:
    found = book(facts(acme, "a"), facts(acme, "late", DAY + timedelta(days=1, seconds=-100)))
    first, second = check(tmp_path, found, [result(700, 40, 2)], [result(0, 0, 0)])
    assert (first.verdict, second.verdict) == (Verdict.EQUAL, Verdict.EQUAL)
    first, second = check(tmp_path, found, [result(350)], [result(350)])
    assert (first.verdict, second.verdict) == (Verdict.EQUAL, Verdict.EQUAL)


def test_a_receipt_near_midnight_accuses_neither_day(tmp_path: Path, acme: Provider) -> None:
    """Three requests, two receipts for certain and two at the edges: nothing is known."""
    found = book(
        facts(acme, "a"),
        facts(acme, "b"),
        facts(acme, "early", DAY + timedelta(seconds=60)),
        facts(acme, "late", DAY + timedelta(days=1, seconds=-100)),
    )
    (checked,) = check(tmp_path, found, [result(1100, 60, 3)])
    assert (checked.verdict, codes(checked)) == (Verdict.MISSING_RECEIPT, [])
    assert "2 of them near its edge" in checked.notes[0]


def test_even_then_less_than_the_certain_ones_is_less(tmp_path: Path, acme: Provider) -> None:
    found = book(facts(acme, "a"), facts(acme, "late", DAY + timedelta(days=1)))
    (checked,) = check(tmp_path, found, [result(300, 20, 5)])
    assert codes(checked) == [Code.GENERATED_LESS]


def test_hours_within_a_day_do_not_each_have_the_same_receipt(
    tmp_path: Path, acme: Provider
) -> None:
    """A bill that lists a day and half of it: the receipt is certain in neither."""
    day = {"start_time": DAY.timestamp(), "end_time": (DAY + 2 * HALF).timestamp()}
    half = {"start_time": DAY.timestamp(), "end_time": (NOON + timedelta(hours=1)).timestamp()}
    rows = [
        {name: int(value) for name, value in each.items()} | result(900, 20, 3)
        for each in (day, half)
    ]
    (tmp_path / "bill.json").write_text(json.dumps(rows))
    for checked in BillCheck(tmp_path / "bill.json", book=book(facts(acme, "a"))):
        assert (checked.verdict, codes(checked)) == (Verdict.MISSING_RECEIPT, [])
        assert "near its edge" in checked.notes[0]


def test_invalid_receipts_are_not_added_up(tmp_path: Path, acme: Provider) -> None:
    invalid = examiner(Provider().trust).receipt(acme.receipt(seed="x"), "x")
    (checked,) = check(tmp_path, book(facts(acme, "a"), invalid), [result(350)])
    assert checked.verdict is Verdict.EQUAL
    assert checked.committed is not None
    assert checked.committed.receipts == 1


def test_one_unverified_receipt_leaves_the_day_unverified(tmp_path: Path, acme: Provider) -> None:
    unverified = examiner().receipt(acme.receipt(seed="u"), "u")
    (checked,) = check(tmp_path, book(facts(acme, "a"), unverified), [result(700, 40, 2)])
    assert (checked.verdict, checked.receipt) == (Verdict.EQUAL, State.UNVERIFIED)


def test_receipts_are_summed_up_once_for_all_lines_of_a_group(
    tmp_path: Path, acme: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many keys, one model, one day: the sums must not be made again for each line."""
    sums = 0
    make = Committed.of

    def counting(receipts: Sequence[Facts]) -> Committed:
        nonlocal sums
        sums += 1
        return make(receipts)

    monkeypatch.setattr(Committed, "of", counting)
    found = book(*(facts(acme, str(number)) for number in range(4)))
    rows = [result(35, 2, None, project_id=str(number)) for number in range(40)]
    checked = check(tmp_path, found, rows)
    assert [each.verdict for each in checked] == [Verdict.EQUAL] * 40
    assert sums <= 2


def test_each_of_many_buckets_finds_its_receipts(tmp_path: Path, acme: Provider) -> None:
    receipts = [
        facts(acme, str(number), NOON + timedelta(days=number), reasoning=number)
        for number in range(30)
    ]
    days = [[result(number + 50)] for number in range(30)]
    checked = check(tmp_path, book(*receipts), *days)
    assert [each.verdict for each in checked] == [Verdict.EQUAL] * 30
