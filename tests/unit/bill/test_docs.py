"""docs/bill.md says what there is: every form, verdict, finding and limit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coin_protocol.limits import MAX_COLLECTED_BYTES
from tests.support.command import ROOT
from verifier_sdk.bill import (
    SHAPES,
    VERDICT_OF,
    BillCheck,
    Code,
    PriceList,
    Shape,
    Verdict,
    limits,
)

PAGE = (ROOT / "docs" / "bill.md").read_text()
ROWS = [
    [cell.strip() for cell in row.strip("|").split("|")]
    for row in PAGE.splitlines()
    if row.startswith("| `")
]


@pytest.mark.parametrize("code", Code)
def test_every_finding_is_explained(code: Code) -> None:
    (row,) = [row for row in ROWS if row[0] == f"`{code}`"]
    assert row[1:3] == [*VERDICT_OF[code]]
    assert all(row[3:])


def test_no_finding_is_explained_that_is_none() -> None:
    explained = {row[0].strip("`") for row in ROWS if row[0].strip("`").isupper()}
    assert explained == set(Code)


def test_verdicts_stand_in_the_order_that_decides() -> None:
    named = [row[0].strip("`") for row in ROWS if row[0].strip("`") in set(Verdict)]
    assert named == list(Verdict)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_form_is_listed_with_what_it_needs_and_its_source(shape: Shape) -> None:
    (row,) = [row for row in ROWS if row[0] == f"`{shape.name}`" and len(row) == 4]
    assert set(re.findall(r"`([^`]+)`", row[2])) == shape.needs
    assert row[3] == shape.source


def test_the_limits_are_those_of_the_code() -> None:
    assert (limits.MAX_BILL_BYTES, limits.MAX_DOCUMENT_BYTES) == (16 << 30, 64 << 20)
    assert (limits.MAX_RECORD_BYTES, limits.MAX_COLUMNS) == (4 << 20, 1000)
    found = (limits.MAX_LINES, limits.MAX_RECEIPTS, limits.MAX_REQUESTS)
    assert found == (20_000_000, 2_000_000, 5_000_000)
    assert (MAX_COLLECTED_BYTES, limits.MAX_PRICES_BYTES) == (64 << 20, 4 << 20)
    assert limits.MAX_NAME_CHARACTERS == 512
    for wanted in ("16 GiB; 64 MiB", "4 MiB; 1,000", "20 million; 2 million; 5 million"):
        assert wanted in PAGE


def example(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_examples_work(tmp_path: Path) -> None:
    (tmp_path / "bill.json").write_text(example("json"))
    (tmp_path / "prices.toml").write_text(example("toml"))
    prices = PriceList.from_file(tmp_path / "prices.toml")
    assert prices.price("openai/GPT-5.4-pro", "batch") is not None
    (checked,) = BillCheck(tmp_path / "bill.json", prices=prices)
    assert (checked.verdict, checked.findings) == (Verdict.MISSING_RECEIPT, ())
    assert checked.line is not None
    assert (checked.line.terms.max_tokens, checked.line.seconds) == (200, 2.5)
    compile(example("python"), "docs/bill.md", "exec")
