"""The catalogue says of each threat which liars play it, and what finds them out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from coin_protocol.checks import CHECKS
from coin_protocol.testing import adversaries
from coin_protocol.testing.adversaries import (
    ADVERSARIES,
    ALL_ADVERSARIES,
    TOKEN_BLOCK_ADVERSARIES,
    Adversary,
    Found,
    Threat,
)
from provider_sdk.provider import Provider
from provider_sdk.replay import Replay

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"
CODES = [check.code for check in CHECKS]
WORDS = {
    "graded evidence": Found.GRADED,
    "evidence (section": Found.EVIDENCE,
    "no `timed` tier": Found.UNTIMED,
}
"""What a row says where no check stops a lie, and what the catalogue calls that."""


def _rows() -> dict[str, str]:
    """Return what a provider may try, and what stops it, of the table in section 1."""
    section = PROTOCOL.read_text().partition("\n## 1. ")[2].partition("\n## ")[0]
    rows, who = {}, ""
    for line in section.splitlines():
        if not line.startswith("| "):
            continue
        first, lie, stopped = (cell.strip() for cell in line.strip("|").split("|"))
        who = first or who
        if who == "provider":
            rows[lie] = stopped
    return rows


def _players(threat: str) -> list[Adversary]:
    return [liar for liar in ALL_ADVERSARIES if liar.threat == threat]


def test_the_threats_are_the_rows_of_the_protocol() -> None:
    assert set(Threat) - {Threat.UNLISTED} == set(_rows())


@pytest.mark.parametrize("lie", _rows())
def test_each_way_in_which_a_row_says_that_it_is_stopped_has_a_liar(lie: str) -> None:
    stopped = _rows()[lie]
    codes = {code for code in re.findall(r"`([A-Z_]+)`", stopped) if code in CODES}
    ways = {found for words, found in WORDS.items() if words in stopped}
    assert codes or ways
    players = _players(lie)
    assert codes <= {liar.caught_by for liar in players}
    assert ways <= {liar.found for liar in players}


def test_each_check_has_a_liar_that_it_catches() -> None:
    assert {liar.caught_by for liar in ALL_ADVERSARIES} - {""} == set(CODES)


@pytest.mark.parametrize("liar", ALL_ADVERSARIES, ids=lambda liar: liar.name)
def test_a_liar_is_caught_by_checks_or_found_out_otherwise(liar: Adversary) -> None:
    assert liar.codes <= set(CODES)
    assert bool(liar.codes) == bool(liar.caught_by) == (liar.found == Found.CHECK)
    assert liar.title
    assert inspect.getdoc(liar.provider)
    assert liar.replay is not Replay or liar.provider is not Provider or liar.name == "key-ended"


def test_checks_that_may_come_first_run_before_the_one_that_catches() -> None:
    for liar in ALL_ADVERSARIES:
        assert all(CODES.index(code) < CODES.index(liar.caught_by) for code in liar.or_by)


def test_no_two_have_a_name() -> None:
    names = [liar.name for liar in ALL_ADVERSARIES]
    assert len(set(names)) == len(names)
    assert "" not in names


def test_the_demo_plays_the_same_eight_as_ever() -> None:
    assert [liar.name for liar in ADVERSARIES] == [
        "over-reported-bill",
        "size-beyond-tree",
        "leaves-repeated",
        "made-up-rows",
        "copied-embedding",
        "replayed-commitment",
        "refused-opening",
        "tokens-after-answer",
    ]
    shown = (*ADVERSARIES, *TOKEN_BLOCK_ADVERSARIES)
    assert ALL_ADVERSARIES[: len(shown)] == shown


def test_every_liar_of_the_package_is_in_the_catalogue() -> None:
    classes = {
        found
        for name in adversaries.__all__
        if inspect.isclass(found := getattr(adversaries, name))
        and issubclass(found, (Provider, Replay))
    }
    assert classes == {
        kind for liar in ALL_ADVERSARIES for kind in (liar.provider, liar.replay)
    } - {
        Provider,
        Replay,
    }
