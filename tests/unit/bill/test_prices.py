"""Money beside tokens, by a list that the user writes: exact, and no accusation by a rounding."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.errors import InvalidInputError, LimitError
from tests.unit.bill.making import DATA, anthropic, chat, check, codes, line, prices
from verifier_sdk.bill import BillCheck, Code, Price, PriceList, Verdict
from verifier_sdk.bill import prices as prices_module

FULL = Price(
    input=Decimal(3),
    output=Decimal(15),
    cached_input=Decimal("0.30"),
    cache_write=Decimal("3.75"),
    cache_write_1h=Decimal(6),
)
LIST = prices(
    acme_large=FULL,
    plain=("3", "15"),
    dear=Price(input=Decimal(3), output=Decimal(15), reasoning=Decimal(60)),
)


def billed(cost: str, usage: dict[str, Any], **instead: Any) -> dict[str, Any]:
    return line(usage, cost=cost, currency="USD", **instead)


def cached(prompt: int, of_cache: int, completion: int) -> dict[str, Any]:
    return chat(prompt, completion) | {"prompt_tokens_details": {"cached_tokens": of_cache}}


WRITTEN = {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 100}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (billed("0.004500", chat(1000, 100, 80)), "0.0045"),
        (billed("0.00225", cached(1000, 900, 112)), "0.00225"),
        (billed("0.0081", chat(1000, 100, 80), model="dear"), "0.0081"),
        (billed("0.0045", chat(1000, 100, 80), model="router/acme/Acme-Large"), "0.0045"),
        (
            billed(
                "0.00669",
                anthropic(1000, 100, 80, cache_read_input_tokens=300)
                | {"cache_creation": WRITTEN, "cache_creation_input_tokens": 500},
                vendor="anthropic",
            ),
            "0.00669",
        ),
    ],
    ids=["plain", "cached", "reasoning dearer", "routed", "written to a cache"],
)
def test_what_tokens_cost(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    (checked,) = check(tmp_path, row, prices=LIST)
    assert checked.expected == Decimal(expected)
    assert codes(checked) == []


@pytest.mark.parametrize(
    ("cost", "usage", "code", "too_much"),
    [
        # 1,000 in and 100 out, of which 80 reasoning: 0.0045 is right.
        ("0.0057", chat(1000, 100, 80), Code.REASONING_PRICED_TWICE, "0.0012"),
        ("0.0033", chat(1000, 100, 80), Code.REASONING_NOT_PRICED, "-0.0012"),
        ("0.0042", chat(1000, 100, 80), Code.ANSWER_NOT_PRICED, "-0.0003"),
        ("0.0046", chat(1000, 100, 80), Code.PRICE_ABOVE_LIST, "0.0001"),
        ("0.0044", chat(1000, 100, 80), Code.PRICE_BELOW_LIST, "-0.0001"),
        ("0.0045", cached(1000, 900, 100), Code.CACHE_PRICED_IN_FULL, "0.00243"),
    ],
)
def test_another_price_is_named_by_the_mistake_that_gives_it(
    tmp_path: Path, cost: str, usage: dict[str, Any], code: Code, too_much: str
) -> None:
    (checked,) = check(tmp_path, billed(cost, usage), prices=LIST)
    assert codes(checked) == [code]
    assert checked.findings[0].money == Decimal(too_much)
    assert cost in checked.findings[0].sentence


@pytest.mark.parametrize(
    ("cost", "code"),
    [
        # A cent may be 0.0057 rounded; so may it be a least charge, or any other sum.
        ("0.01", Code.PRICE_ABOVE_LIST),
        ("0.0060", Code.PRICE_ABOVE_LIST),
        ("0.006", Code.PRICE_ABOVE_LIST),
        ("0.0000", Code.PRICE_BELOW_LIST),
    ],
)
def test_a_cost_that_rounds_to_many_sums_is_called_no_mistake(
    tmp_path: Path, cost: str, code: Code
) -> None:
    (checked,) = check(tmp_path, billed(cost, chat(1000, 100, 80)), prices=LIST)
    assert codes(checked) == [code]


def test_what_is_given_for_nothing_leaves_nothing_out(tmp_path: Path) -> None:
    """All is reasoning, and free: a cost of 0 is no mistake in reasoning's price."""
    row = billed("0.00000000", chat(0, 100, 100))
    (checked,) = check(tmp_path, row, prices=LIST)
    assert codes(checked) == [Code.PRICE_BELOW_LIST]


def test_reasoning_at_a_price_of_its_own_twice(tmp_path: Path) -> None:
    """Once more at either price: 80 tokens at 60, or at 15, beside 0.0081."""
    for cost in ("0.0129", "0.0093"):
        (checked,) = check(tmp_path, billed(cost, chat(1000, 100, 80), model="dear"), prices=LIST)
        assert codes(checked) == [Code.REASONING_PRICED_TWICE]


@pytest.mark.parametrize(
    "cost", ["0.0045", "0.004", "0.005", "0.00", "0.00449999999999999", 0.0045000000000000005, 0]
)
def test_a_cost_that_rounds_to_the_price_is_no_finding(tmp_path: Path, cost: object) -> None:
    row = line(chat(1000, 100, 80), cost=cost, currency="USD")
    (checked,) = check(tmp_path, row, prices=LIST)
    assert codes(checked) == []


def test_whole_dollars_are_not_taken_for_rounded_ones(tmp_path: Path) -> None:
    """A million in and out cost 18 dollars; 18.4 would round to it."""
    rows = [billed(cost, chat(1_000_000, 1_000_000)) for cost in ("18", "19", "17")]
    assert [codes(each) for each in check(tmp_path, *rows, prices=LIST)] == [
        [],
        [Code.PRICE_ABOVE_LIST],
        [Code.PRICE_BELOW_LIST],
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (billed("1", chat(1, 2), model="other"), "no price of other"),
        (billed("1", chat(1, 2), service_tier="flex"), "no price of acme-large at tier flex"),
        (billed("1", cached(10, 5, 1), model="plain"), "no cached_input price of plain"),
        (line(chat(1, 2), cost=1, currency="EUR"), "billed in EUR, listed in USD"),
        (
            billed("1", chat(10, 2, total=50), vendor="gemini-openai"),
            "tokens under no name",
        ),
    ],
)
def test_what_the_list_does_not_say_is_not_guessed(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    (checked,) = check(tmp_path, row, prices=LIST)
    assert checked.unpriced == reason
    assert checked.expected is None
    assert codes(checked) == []


def test_tokens_that_somebody_else_bills_are_not_priced(tmp_path: Path) -> None:
    text = (DATA / "openrouter_log.csv").read_text().replace(",0,0,0,0,100,", ",0,0,0,0.5,100,")
    (tmp_path / "bill.csv").write_text(text)
    listed = PriceList("USD", {"large-20260901": {"": FULL}})
    first, _ = BillCheck(tmp_path / "bill.csv", prices=listed)
    assert first.unpriced == "somebody else bills the tokens"


def test_where_no_total_tells_a_doubled_price_is_a_question(tmp_path: Path) -> None:
    """OpenRouter's exports have no totals, and some of its upstreams count beside."""
    row = billed("0.0057", chat(1000, 100, 80, total=None), vendor="openrouter")
    (checked,) = check(tmp_path, row, prices=LIST)
    assert codes(checked) == [Code.AMBIGUOUS]
    assert checked.verdict is Verdict.WRONG_CONVENTION
    # The same, where nobody says whose block it is.
    (checked,) = check(tmp_path, row | {"vendor": None}, prices=LIST)
    assert codes(checked) == [Code.AMBIGUOUS]
    with_total = billed("0.0057", chat(1000, 100, 80, total=1100), vendor="openrouter")
    (checked,) = check(tmp_path, with_total, prices=LIST)
    assert codes(checked) == [Code.REASONING_PRICED_TWICE]


def test_a_day_is_priced_like_a_request() -> None:
    listed = PriceList("USD", {"large-20260901": {"": FULL}})
    (checked,) = BillCheck(DATA / "openrouter_activity.json", prices=listed)
    assert checked.expected == Decimal("0.002025")
    assert [finding.code for finding in checked.findings] == [Code.PRICE_ABOVE_LIST]


# The list


TOML = """
currency = "usd"
[models."Acme-Large"]
input = "3"
output = 15.0
[models."Acme-Large".tiers.batch]
input = 1.5
output = 7.5
reasoning = 7
"""
JSON = """{"currency": "USD", "models": {"acme/acme-large": {"input": 3, "output": 15,
"tiers": {"batch": {"input": 1.5, "output": "7.5", "reasoning": 7}}}}}"""


@pytest.mark.parametrize(("name", "text"), [("p.toml", TOML), ("p.json", JSON)])
def test_a_list_reads_alike_in_both_forms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = PriceList.from_file(tmp_path / name)
    assert found.currency == "USD"
    assert found.price("openai/ACME-large", "") == Price(input=Decimal(3), output=Decimal(15))
    batch = found.price("acme-large", "batch")
    assert batch == Price(input=Decimal("1.5"), output=Decimal("7.5"), reasoning=Decimal(7))
    assert found.price("acme-large", "flex") is None
    assert found.price("acme", "") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "needs a `currency`"),
        ('currency = "DOLLARS"', "needs a `currency`"),
        ('currency = "USD"', "needs a table `models`"),
        ('currency = "USD"\nmodels = 3', "needs a table `models`"),
        ('currency = "USD"\n[models.a]\ninput = 1', "'a' needs input and output"),
        ('currency = "USD"\n[models.a]\ninput=1\noutput=2\nouput=3', "no more"),
        ('currency = "USD"\n[models.a]\ninput=1\noutput=nan', "`output of a`"),
        ('currency = "USD"\n[models.a]\ninput=1\noutput=inf', "`output of a`"),
        ('currency = "USD"\n[models.a]\ninput=1\noutput=true', "`output of a`"),
        ('currency = "USD"\n[models.a]\ninput=1\noutput=-2', "is negative"),
        ('currency = "USD"\n[models]\na = 3', "the entry of 'a' is no table"),
        ('currency = "USD"\n[models.a]\ninput=1\noutput=2\ntiers=3', "`tiers` of 'a'"),
        ('currency = "USD"\n[models.a]\ninput=1\noutput=2\n[models.A]\ninput=1\noutput=2', "twice"),
        ("[", "is no price list"),
    ],
)
def test_a_list_that_is_none_says_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=r"prices\.toml") as caught:
        PriceList.from_file(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"currency": NaN}', '{"currency": "USD", "currency": "EUR"}', "\xff"]
)
def test_a_json_list_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError, match=r"prices\.json"):
        PriceList.from_file(path)


def test_a_list_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices_module, "MAX_PRICES_BYTES", 10)
    (tmp_path / "p.toml").write_text(TOML)
    with pytest.raises(LimitError, match="more than 10 bytes"):
        PriceList.from_file(tmp_path / "p.toml")
    with pytest.raises(InvalidInputError, match="cannot read"):
        PriceList.from_file(tmp_path / "none.toml")
