"""Each vendor's export is known by its columns, and read to what it bills."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.errors import InvalidInputError
from coin_protocol.usage import BESIDE, INSIDE
from tests.unit.bill.making import DATA, MODEL, NOON, chat, line, write_lines
from verifier_sdk.bill import FORMATS, SHAPES, BillCheck, Checked, Code, Kind, Line, Verdict

# Form; of its first line: kind, model, prompt, cached, generated, reasoning, cost.
SAMPLES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "openai_usage.csv": ("openai-usage", ("bucket", MODEL, 3000, 1000, 900, None, None)),
    "openai_usage.json": ("openai-usage", ("bucket", MODEL, 3000, 1000, 900, None, None)),
    "openai_costs.csv": (
        "openai-costs-csv",
        ("money", "acme-large, input_tokens", None, None, None, None, "0.06"),
    ),
    "openai_costs.json": (
        "openai-costs",
        ("money", "acme-large, input_tokens", None, None, None, None, "0.06"),
    ),
    "openai_replies.jsonl": ("openai-replies", ("request", MODEL, 20, 0, 120, 100, None)),
    "anthropic_usage.csv": (
        "anthropic-usage-csv",
        ("bucket", "acme-opus", 6700, 2000, 900, None, None),
    ),
    "anthropic_usage.json": (
        "anthropic-usage",
        ("bucket", "acme-opus", 6700, 2000, 900, None, None),
    ),
    "anthropic_costs.csv": (
        "anthropic-costs-csv",
        ("money", "Acme Opus", None, None, None, None, "1.5"),
    ),
    # Cents, as the API gives them.
    "anthropic_costs.json": (
        "anthropic-costs",
        ("money", "acme-opus", None, None, None, None, "1.2345"),
    ),
    "anthropic_replies.jsonl": (
        "anthropic-replies",
        ("request", "acme-opus", 103, 0, 90, 70, None),
    ),
    "openrouter_log.csv": (
        "openrouter-log",
        ("request", "acme/large-20260901", 100, 0, 80, 60, "0.0021"),
    ),
    # The native counts are billed, not those of the common tokenizer.
    "openrouter_generations.jsonl": (
        "openrouter-generations",
        ("request", "acme/large", 10, 3, 25, 5, "0.0015"),
    ),
    "openrouter_activity.json": (
        "openrouter-activity",
        ("bucket", "acme/large-20260901", 50, 0, 125, 25, "0.015"),
    ),
    "openrouter_activity.csv": (
        "openrouter-activity-csv",
        ("bucket", "acme/large", 70965, 0, 30099, 12000, "4.3"),
    ),
    "litellm_spend_logs.jsonl": (
        "litellm-spend-logs",
        ("request", "acme/large", 20, 0, 120, 100, "0.00123"),
    ),
    "litellm_spend_logs.csv": (
        "litellm-spend-logs",
        ("request", "acme/large", 20, 0, 120, 100, "0.00123"),
    ),
    "litellm_daily.json": ("litellm-daily", ("bucket", "acme/large", 1000, 200, 500, None, "0.5")),
    "coin.jsonl": ("coin", ("request", MODEL, 20, 0, 120, 100, "0.0013")),
}


def read(name: str, **options: Any) -> list[Checked]:
    return list(BillCheck(DATA / name, **options))


def of(checked: Checked) -> Line:
    assert checked.line is not None
    return checked.line


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_reads_to_what_it_bills(name: str) -> None:
    form, wanted = SAMPLES[name]
    bill = BillCheck(DATA / name)
    assert bill.shape is not None
    assert bill.shape.name == form
    first = next(iter(bill))
    row, reported = of(first), first.reported
    counts: tuple[int | None, ...] = (None, None, None, None)
    if reported is not None:
        counts = (
            reported.prompt_tokens,
            reported.cached_prompt_tokens,
            reported.generated,
            reported.reasoning_tokens,
        )
    *same, cost = wanted
    assert [row.kind, row.model, *counts] == same
    assert row.cost == (None if cost is None else Decimal(cost))
    assert row.currency == ("USD" if cost else "")


@pytest.mark.parametrize("name", SAMPLES)
def test_no_line_of_a_sample_is_malformed(name: str) -> None:
    assert Verdict.MALFORMED not in {checked.verdict for checked in read(name)}


def test_there_is_a_sample_of_every_form() -> None:
    assert {form for form, _ in SAMPLES.values()} == {shape.name for shape in SHAPES}
    assert {path.name for path in DATA.iterdir()} == set(SAMPLES)


@pytest.mark.parametrize("pair", [("openai_usage", 2), ("anthropic_usage", 1)])
def test_csv_and_api_of_one_vendor_read_alike(pair: tuple[str, int]) -> None:
    name, lines = pair
    csv, api = (read(f"{name}.{suffix}")[0] for suffix in ("csv", "json"))
    assert (of(csv).period, csv.reported) == (of(api).period, api.reported)
    assert of(csv).cache_write == of(api).cache_write
    assert len(read(f"{name}.csv")) == 2
    assert len(read(f"{name}.json")) == lines


def test_csv_and_json_lines_of_spend_logs_read_alike() -> None:
    csv, lines = (read(f"litellm_spend_logs.{suffix}") for suffix in ("csv", "jsonl"))
    assert [(c.reported, c.verdict, c.findings) for c in csv] == [
        (c.reported, c.verdict, c.findings) for c in lines
    ]
    # The CSV has JSON over several lines in a cell; lines are counted as an editor does.
    assert [c.number for c in csv] == [2, 15, 25, 28]
    assert [c.number for c in lines] == [1, 2, 3, 4]


def test_a_day_without_usage_is_no_line() -> None:
    assert [checked.number for checked in read("openai_usage.csv")] == [2, 4]


@pytest.mark.parametrize("nothing", ['"0E-6176"', "0E-6176", '"0"', "0.0", "-0", '"0e+6111"'])
def test_nothing_is_an_amount_however_it_is_written(tmp_path: Path, nothing: str) -> None:
    """OpenAI writes the zero of a 128-bit decimal, such as 0E-6176."""
    result = f'{{"amount": {{"value": {nothing}, "currency": "usd"}}, "line_item": "cached"}}'
    bucket = f'{{"start_time": 1790812800, "end_time": 1790899200, "results": [{result}]}}'
    (tmp_path / "costs.json").write_text(f'{{"data": [{bucket}]}}')
    (checked,) = BillCheck(tmp_path / "costs.json")
    assert checked.verdict is Verdict.NO_COUNTS
    assert checked.line is not None
    assert checked.line.cost == 0
    assert len(str(checked.line.cost)) < 10


def test_a_page_that_is_not_the_last_is_noticed() -> None:
    bill = BillCheck(DATA / "openai_usage.json")
    assert [of(checked).requests for checked in bill] == [3, 1]
    assert bill.source.more
    bill = BillCheck(DATA / "anthropic_usage.json")
    assert list(bill)
    assert not bill.source.more


def test_batches_and_tiers_are_told_apart() -> None:
    assert [of(checked).service_tier for checked in read("openai_usage.json")] == ["", "batch"]
    assert [of(checked).service_tier for checked in read("anthropic_usage.csv")] == ["", "batch"]


def test_what_was_written_to_a_cache_is_known_by_its_lifetime() -> None:
    for name in ("anthropic_usage.csv", "anthropic_usage.json"):
        assert of(read(name)[0]).cache_write == (600, 100)
    assert of(read("anthropic_replies.jsonl")[0]).cache_write == (60, 40)


def test_times_are_taken_so_that_nobody_is_wronged() -> None:
    """Both parts of OpenRouter's; from request to end of LiteLLM's, not from the first token."""
    assert of(read("openrouter_log.csv")[0]).seconds == pytest.approx(3.956)
    assert of(read("openrouter_generations.jsonl")[0]).seconds == pytest.approx(2.45)
    assert of(read("litellm_spend_logs.jsonl")[0]).seconds == pytest.approx(3.5)
    assert of(read("coin.jsonl")[0]).seconds == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("latency", "generation"), [(0, 0), (100, 0), (100, None), (100, -5), (-100, 5)]
)
def test_a_time_that_nobody_measured_accuses_nobody(
    tmp_path: Path, latency: int, generation: int | None
) -> None:
    row = json.loads((DATA / "openrouter_generations.jsonl").read_text().splitlines()[0])["data"]
    row |= {"latency": latency, "generation_time": generation}
    (checked,) = BillCheck(write_lines(tmp_path / "bill.jsonl", [row]))
    assert of(checked).seconds is None
    assert checked.findings == ()


@pytest.mark.parametrize("hit", [True, "True", "true"])
def test_a_reply_out_of_a_gateways_cache_was_decoded_by_nobody(tmp_path: Path, hit: object) -> None:
    row = json.loads((DATA / "litellm_spend_logs.jsonl").read_text().splitlines()[0])
    row["endTime"] = row["startTime"].replace("00.000000", "00.000900")
    missed, cached = BillCheck(
        write_lines(tmp_path / "bill.jsonl", [row, row | {"request_id": "b", "cache_hit": hit}])
    )
    assert [finding.code for finding in missed.findings] == [Code.FASTER_THAN_DECODING]
    assert cached.findings == ()


def test_a_generation_has_the_upstreams_id_too() -> None:
    assert of(read("openrouter_generations.jsonl")[0]).ids == ("gen-3", "chatcmpl-3")


def test_hours_of_the_activity_page_are_hours() -> None:
    first, second = (of(checked).period for checked in read("openrouter_activity.csv"))
    assert first is not None
    assert second is not None
    assert (first.end - first.start).total_seconds() == 86_400
    assert (second.end - second.start).total_seconds() == 3_600


@pytest.mark.parametrize(
    ("completion", "counted"), [(10, BESIDE), (700, INSIDE)], ids=["as xAI counts", "folded in"]
)
def test_xai_through_a_gateway_is_read_by_the_total(
    tmp_path: Path, completion: int, counted: int
) -> None:
    row = json.loads((DATA / "litellm_spend_logs.jsonl").read_text().splitlines()[1])
    row["completion_tokens"] = completion
    row["metadata"]["usage_object"]["completion_tokens"] = completion
    (checked,) = BillCheck(write_lines(tmp_path / "bill.jsonl", [row]))
    assert checked.reported is not None
    assert checked.reported.generated == 700
    assert checked.reported.counting == counted
    assert checked.findings == ()


def test_a_spend_log_that_bills_other_counts_than_the_reply_had(tmp_path: Path) -> None:
    row = json.loads((DATA / "litellm_spend_logs.jsonl").read_text().splitlines()[0])
    row["completion_tokens"], row["total_tokens"] = 220, 240
    (checked,) = BillCheck(write_lines(tmp_path / "bill.jsonl", [row]))
    assert [finding.code for finding in checked.findings] == [Code.FIELDS_DISAGREE]
    assert checked.verdict is Verdict.INCONSISTENT
    assert "220" in checked.findings[0].sentence
    assert "120" in checked.findings[0].sentence


def test_a_response_that_was_cut_off_in_a_log_costs_no_line(tmp_path: Path) -> None:
    row = json.loads((DATA / "litellm_spend_logs.jsonl").read_text().splitlines()[0])
    row["response"] = '{"choices": [{"message"'
    (checked,) = BillCheck(write_lines(tmp_path / "bill.jsonl", [row]))
    assert checked.verdict is Verdict.MISSING_RECEIPT


# Detection


def test_where_several_forms_fit_the_error_says_which(tmp_path: Path) -> None:
    row = line(chat(1, 2)) | {"object": "chat.completion"}
    path = write_lines(tmp_path / "bill.jsonl", [row])
    with pytest.raises(InvalidInputError, match="openai-replies, coin") as caught:
        BillCheck(path)
    assert "--format openai or --format coin" in str(caught.value)
    for form in ("openai", "coin"):
        bill = BillCheck(path, form=form)
        assert bill.shape is not None
        assert bill.shape.format == form


def test_an_unknown_form_is_told_what_the_nearest_lacks(tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text("generation_id,tokens_prompt,tokens_completion\ngen-1,1,2\n")
    with pytest.raises(InvalidInputError, match="openrouter-log, for which it lacks cost_total"):
        BillCheck(path)


def test_a_named_format_is_held_to(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bill.jsonl", [line(chat(1, 2))])
    with pytest.raises(InvalidInputError, match="nearest is litellm"):
        BillCheck(path, form="litellm")
    with pytest.raises(InvalidInputError, match=f"use one of auto, {FORMATS[0]}"):
        BillCheck(path, form="word")


def test_later_lines_may_lack_what_the_first_has(tmp_path: Path) -> None:
    rows = [line(chat(1, 2)), {"time": NOON.isoformat(), "model": MODEL}]
    first, second = BillCheck(write_lines(tmp_path / "bill.jsonl", rows))
    assert first.verdict is Verdict.MISSING_RECEIPT
    assert second.verdict is Verdict.MALFORMED
    assert "lacks usage" in second.reason


@pytest.mark.parametrize(
    "name", ["openai_usage.csv", "anthropic_usage.csv", "anthropic_replies.jsonl"]
)
def test_a_form_with_its_own_counts_takes_no_vendor(name: str) -> None:
    with pytest.raises(InvalidInputError, match="leave --vendor out"):
        BillCheck(DATA / name, vendor="xai")


def test_a_vendor_that_nobody_knows(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bill.jsonl", [line(chat(1, 2))])
    with pytest.raises(InvalidInputError, match="use one of openai, anthropic"):
        BillCheck(path, vendor="acme")


def test_the_vendor_may_be_said_for_all_lines(tmp_path: Path) -> None:
    row = line(chat(36, 10, 690, total=736), vendor=None)
    path = write_lines(tmp_path / "bill.jsonl", [row])
    (unsaid,), (said,) = BillCheck(path), BillCheck(path, vendor="xai")
    assert [finding.code for finding in unsaid.findings] == [Code.AMBIGUOUS]
    assert said.findings == ()


def test_who_names_openais_format_means_openai(tmp_path: Path) -> None:
    """A log in this form may be anybody's: only then is a total with reasoning twice one."""
    reply = json.loads((DATA / "openai_replies.jsonl").read_text().splitlines()[0])
    reply["usage"]["total_tokens"] = 240
    path = write_lines(tmp_path / "bill.jsonl", [reply])
    (unsaid,), (said,) = BillCheck(path), BillCheck(path, form="openai")
    assert [finding.code for finding in unsaid.findings] == [Code.AMBIGUOUS]
    assert [finding.code for finding in said.findings] == [Code.REASONING_COUNTED_TWICE]


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda row: row.pop(name)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (drop("time"), "lacks time"),
        (lambda row: row.update(time="yesterday"), "`time` is another text"),
        (lambda row: row.update(time=-5), "`time` is another number"),
        (lambda row: row.update(usage=[1]), "`usage` is of type list"),
        (lambda row: row.update(cost="1.5"), "without `currency`"),
        (lambda row: row.update(cost="1,5", currency="EUR"), "`cost` is another text"),
        (lambda row: row.update(cost=True, currency="EUR"), "`cost` is of type bool"),
        (lambda row: row.update(vendor="acme"), "`vendor` is none of openai"),
        (lambda row: row.update(answer=["a"]), "`answer` is no text"),
        (lambda row: row.update(id="x" * 600), "`id` has 600 characters"),
        (lambda row: row.update(id=7), "`id` is of type int|`id` is another number"),
        (lambda row: row["usage"].update(completion_tokens=-1), "`completion_tokens` is out of"),
        (lambda row: row["usage"].update(completion_tokens=2.5), "of type Decimal"),
        (lambda row: row["usage"].update(completion_tokens="2"), "of type str"),
        (lambda row: row["usage"].update(completion_tokens=None), "states no `completion_tokens`"),
        (lambda row: row["usage"].update(prompt_tokens=1 << 41), "out of range"),
    ],
)
def test_a_line_that_is_none_says_of_which_field(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], reason: str
) -> None:
    row = line(chat(1, 2))
    edit(row)
    bill = write_lines(tmp_path / "bill.jsonl", [line(chat(1, 2)), row])
    good, bad = BillCheck(bill)
    assert good.verdict is Verdict.MISSING_RECEIPT
    assert bad.verdict is Verdict.MALFORMED
    assert bad.number == 2
    assert any(each in bad.reason for each in reason.split("|")), bad.reason


def test_a_line_without_usage_states_no_counts(tmp_path: Path) -> None:
    (checked,) = BillCheck(
        write_lines(tmp_path / "bill.jsonl", [line(None, cost=0, currency="USD")]), form="coin"
    )
    assert checked.verdict is Verdict.NO_COUNTS
    assert of(checked).kind is Kind.REQUEST
