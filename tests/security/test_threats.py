"""The tables of threats name tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.defences import held_in

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "docs" / "threats.md").read_text().splitlines()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [line for line in LINES if line.startswith("| ") and not line.startswith("| threat ")]


OF_OUR_OWN = {
    "test_a_trap_tells_when_it_is_called",
    "test_all_of_the_code_is_looked_at",
    "test_harm_is_seen_where_there_is_some",
}
"""Tests of what the others here rely on."""


def test_there_are_tables() -> None:
    assert len(ROWS) >= 60
    assert sum(line.startswith("| threat ") for line in LINES) >= 6


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50].rstrip())
def test_each_threat_has_what_stops_it_a_test_and_what_is_left(row: str) -> None:
    _, threat, stopped, tests, left, _ = (cell.strip() for cell in row.split("|"))
    assert threat
    assert stopped
    assert left
    assert NAMED.findall(tests)
    assert not NAMED.sub("", tests).strip(", ")
    assert not NAMED.findall(threat + stopped + left)


def test_every_test_that_is_named_is_there() -> None:
    named = NAMED.findall("\n".join(LINES))
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or name not in held_in(path)
    ]
    assert missing == []
    assert "\n".join(LINES).count("tests/") == len(named) + 1  # and this file's own name


def test_every_test_of_this_folder_is_named() -> None:
    named = {name for path, name in NAMED.findall("\n".join(LINES)) if "/security/" in path}
    held = {
        name
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if path != Path(__file__)
        for name in held_in(path.relative_to(ROOT).as_posix())
    }
    assert held - named == OF_OUR_OWN
