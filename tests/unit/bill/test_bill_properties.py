"""For any counts: what adds up raises nothing, what is doubled is found, and nothing crashes."""

from __future__ import annotations

import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coin_protocol.errors import CoinError
from coin_protocol.vendors import CONVENTIONS
from tests.unit.bill.making import NOON, Provider, book, examiner
from tests.unit.test_vendors_properties import block_of
from verifier_sdk.bill import (
    SHAPES,
    BillCheck,
    Checked,
    Code,
    Price,
    PriceList,
    ReceiptBook,
    Totals,
    Verdict,
)

COUNTS = st.integers(0, 1 << 20)
SOME = st.integers(1, 1 << 20)
VENDORS = st.sampled_from(list(CONVENTIONS.values()))
PRICES = st.decimals(Decimal("0.01"), Decimal(1000), places=2)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def check(*rows: object, **options: Any) -> list[Checked]:
    with tempfile.TemporaryDirectory() as folder:
        bill = Path(folder, "bill.jsonl")
        bill.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return list(BillCheck(bill, **options))


def row(vendor: str, block: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"time": NOON.isoformat(), "model": "m", "vendor": vendor, "usage": block} | more


@given(
    data=st.data(), convention=VENDORS, cached=COUNTS, rest=COUNTS, reasoning=COUNTS, answer=COUNTS
)
def test_counts_that_add_up_raise_nothing(
    data: st.DataObject, convention: Any, cached: int, rest: int, reasoning: int, answer: int
) -> None:
    price = Price(
        input=data.draw(PRICES),
        output=data.draw(PRICES),
        cached_input=data.draw(PRICES),
        reasoning=data.draw(st.none() | PRICES),
    )
    block = block_of(
        convention,
        prompt=cached + rest,
        cached=cached,
        reasoning=reasoning,
        answer=answer,
        counting=convention.counting,
    )
    each = price.output if price.reasoning is None else price.reasoning
    cost = rest * price.input + answer * price.output + reasoning * each
    cost += cached * (price.cached_input or 0)
    billed = row(convention.vendor, block, cost=str(cost.scaleb(-6)), currency="USD")
    (checked,) = check(billed, prices=PriceList("USD", {"m": {"": price}}))
    assert checked.findings == ()
    assert checked.verdict is Verdict.MISSING_RECEIPT
    assert checked.reported is not None
    assert checked.reported.generated == reasoning + answer
    assert checked.expected == cost.scaleb(-6)


@given(convention=VENDORS, prompt=COUNTS, reasoning=SOME, answer=COUNTS)
def test_reasoning_that_is_added_to_the_total_again_is_always_found(
    convention: Any, prompt: int, reasoning: int, answer: int
) -> None:
    block = block_of(
        convention,
        prompt=prompt,
        cached=0,
        reasoning=reasoning,
        answer=answer,
        counting=convention.counting,
    )
    block[convention.names.total[0]] += reasoning
    (checked,) = check(row(convention.vendor, block))
    # Where a total says how a vendor counts, this one says: otherwise than documented.
    otherwise = convention.total_decides and convention.vendor == "openrouter"
    wanted = Code.COUNTED_OTHERWISE if otherwise else Code.REASONING_COUNTED_TWICE
    assert [finding.code for finding in checked.findings] == [wanted]


@given(
    prompt=COUNTS,
    reasoning=st.integers(100, 1 << 20),
    answer=SOME,
    input_price=PRICES,
    output_price=PRICES,
)
def test_reasoning_that_is_priced_again_is_always_found(
    prompt: int, reasoning: int, answer: int, input_price: Decimal, output_price: Decimal
) -> None:
    block = block_of(
        CONVENTIONS["openai"],
        prompt=prompt,
        cached=0,
        reasoning=reasoning,
        answer=answer,
        counting=CONVENTIONS["openai"].counting,
    )
    cost = prompt * input_price + (answer + 2 * reasoning) * output_price
    # Below the noise that sums in floating point are allowed, nothing can be told.
    assume(reasoning * output_price > cost / 100_000)
    listed = PriceList("USD", {"m": {"": Price(input=input_price, output=output_price)}})
    billed = row("openai", block, cost=str(cost.scaleb(-6)), currency="USD")
    (checked,) = check(billed, prices=listed)
    assert [finding.code for finding in checked.findings] == [Code.REASONING_PRICED_TWICE]
    assert checked.findings[0].money == (reasoning * output_price).scaleb(-6)


@pytest.fixture(scope="module")
def receipts(acme: Provider) -> ReceiptBook:
    """The receipt of a reply of 300 tokens of reasoning and 50 of answer."""
    return book(examiner(acme.trust).receipt(acme.receipt(), response_id="a"))


@given(convention=VENDORS, excess=st.integers(-300, 5000))
def test_any_excess_over_a_receipt_is_found_to_the_token(
    receipts: ReceiptBook, convention: Any, excess: int
) -> None:
    block = block_of(
        convention,
        prompt=20,
        cached=0,
        reasoning=300 + excess,
        answer=50,
        counting=convention.counting,
    )
    (checked,) = check(row(convention.vendor, block, id="a"), book=receipts)
    found = [finding.tokens for finding in checked.findings if finding.tokens is not None]
    assert found == ([excess] if excess else [])
    assert (checked.verdict is Verdict.EQUAL) == (excess == 0)
    if excess > 0:
        assert checked.verdict in {Verdict.INFLATED, Verdict.COUNTED_TWICE}
    if excess < 0:
        assert checked.verdict is Verdict.UNDERSTATED


@given(data=st.data(), shape=st.sampled_from(SHAPES))
def test_garbage_in_any_form_is_a_malformed_line_and_no_crash(
    data: st.DataObject, shape: Any
) -> None:
    names = st.sampled_from([*sorted(shape.needs), "id", "metadata", "status", "cost", "response"])
    rows = [
        {**dict.fromkeys(shape.needs, 1), **data.draw(st.dictionaries(names, JSON, max_size=6))}
        for _ in range(2)
    ]
    try:
        checked = check(*rows, form=shape.format)
    except CoinError:
        return
    totals = Totals()
    for each in checked:
        totals.put(each)
    assert totals.lines == len(checked)
    assert totals.billed.lines == totals.lines - totals.malformed
    parts = (totals.borne_out, totals.disputed, totals.unverifiable)
    assert sum(part.lines for part in parts) == totals.billed.lines
    assert sum(part.generated_tokens for part in parts) == totals.billed.generated_tokens


@given(raw=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".json", ".jsonl"]))
def test_any_bytes_are_a_bill_or_a_sentence(raw: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"bill{suffix}")
        path.write_bytes(raw)
        try:
            checked = list(BillCheck(path))
        except CoinError:
            return
        assert all(each.verdict is Verdict.MALFORMED for each in checked)
