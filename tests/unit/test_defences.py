"""The page of defences is what the code says, and no defence is without a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from coin_protocol.testing.adversaries import ALL_ADVERSARIES, Threat
from coin_protocol.testing.mutations import mutations_of
from tests.support import defences
from tests.support.defences import PAGE, liars, vectors
from tests.support.limit_cases import CAPS, CASES, MADE
from tests.support.threats import CODES, OTHERS, ROOT, Row, rows


def test_the_page_is_what_the_code_says() -> None:
    wanted = "run python -m tests.support.defences"
    assert PAGE.read_text() == defences.page(), wanted


@pytest.mark.parametrize("code", CODES)
def test_a_check_has_mutations_vectors_and_liars(code: str) -> None:
    assert len(mutations_of(code)) >= 3
    assert len(vectors()[code]) >= 3
    assert liars(code)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.lie)
def test_a_threat_has_somebody_who_tries_it_and_a_test(row: Row) -> None:
    assert row.stopped
    assert row.threatened.mounted
    assert row.threatened.tests
    assert row.threatened.without or not row.codes


def test_the_rows_are_those_of_liars_and_of_others() -> None:
    lies = [row.lie for row in rows()]
    assert len(set(lies)) == len(lies)
    assert {row.lie for row in rows() if row.who == "provider"} == set(Threat) - {Threat.UNLISTED}
    assert {row.lie for row in rows() if row.who != "provider"} == set(OTHERS)
    assert {liar.threat for liar in ALL_ADVERSARIES} >= set(Threat) - {Threat.UNLISTED}


def test_a_limit_has_a_value_a_reason_and_a_case() -> None:
    reasons = defences.reasons()
    ids = [case for name in reasons for case in defences.cases(name)]
    assert len(set(ids)) == len(ids) == len(CASES) + len(MADE)
    for name, reason in reasons.items():
        assert defences.cases(name), name
        assert reason.endswith("."), name


@pytest.mark.parametrize("test", sorted(defences.named()))
def test_every_test_that_is_named_is_there(test: str) -> None:
    assert f"`{defences.called(test)}`" in PAGE.read_text()
    path, _, name = test.partition("::")
    name, _, parameter = name.partition("[")
    assert (ROOT / path).exists()
    assert name in defences.held_in(path)
    known = {"", *CODES, *(case.cap for case in CAPS), *words(path)}
    assert parameter.removesuffix("]") in known


def words(file: str) -> set[object]:
    """Return the string literals of a file."""
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def test_a_page_that_drifted_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "defences.md"
    monkeypatch.setattr(defences, "ROOT", tmp_path)
    monkeypatch.setattr(defences, "PAGE", page)
    monkeypatch.setattr(defences, "page", lambda: "as it should be\n")
    page.write_text("another\n")
    assert defences.main(["--check"]) == 1
    assert page.read_text() == "another\n"
    assert defences.main([]) == 0
    assert page.read_text() == "as it should be\n"
    assert defences.main(["--check"]) == 0
    assert capsys.readouterr().out == "defences.md: differs\ndefences.md: written\n"
