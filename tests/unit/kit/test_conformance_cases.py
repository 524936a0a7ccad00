"""Cases: read from folders, made of vectors, chosen by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.conformance import Case, FolderCases, Kind, selected
from coin_protocol.conformance import provider as provider_driver
from coin_protocol.conformance import verifier as verifier_driver
from coin_protocol.conformance.case import SHIPPED, read_case
from coin_protocol.conformance.malformed import Malformed
from coin_protocol.conformance.own_providers import LiarCases, liars
from coin_protocol.conformance.program_cases import ProgramCases
from coin_protocol.conformance.vectors import VectorCases
from coin_protocol.errors import InvalidInputError
from coin_protocol.testing.adversaries import Found

OPERATIONS = {
    Kind.PROVIDER: provider_driver.OPERATIONS.keys(),
    Kind.VERIFIER: verifier_driver.OPERATIONS.keys(),
}
GOOD = {
    "name": "mine",
    "about": "What must hold.",
    "kind": "provider",
    "operation": "call",
    "expect": {"status": ["OK"]},
}


def write(folder: Path, document: object, name: str = "mine") -> Path:
    path = folder / name / "case.json"
    path.parent.mkdir(parents=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def shipped() -> list[Case]:
    return list(FolderCases(SHIPPED).cases())


def test_every_shipped_case_is_of_an_operation_that_there_is() -> None:
    for case in shipped():
        assert case.operation in OPERATIONS[case.kind], case.name


def test_every_operation_has_a_shipped_case() -> None:
    for kind, operations in OPERATIONS.items():
        assert {case.operation for case in shipped() if case.kind is kind} == set(operations)


def test_shipped_cases_say_what_must_hold_in_a_sentence_each_in_its_own() -> None:
    said = [(case.kind, case.about) for case in shipped()]
    assert all(about.endswith(".") and about[0].isupper() for _, about in said)
    assert len(set(said)) == len(said)


def test_requests_of_shipped_cases_are_understood() -> None:
    calls = [case for case in shipped() if case.kind is Kind.PROVIDER and case.operation == "call"]
    assert len(calls) > 20
    for case in calls:
        assert Malformed.of(case).method, case.name


def test_there_is_a_case_for_each_liar() -> None:
    cases = {case.name: case for case in LiarCases().cases()}
    assert cases.keys() == {f"lie-{name}" for name in liars()}
    for liar in liars().values():
        failed = cases[f"lie-{liar.name}"].expect.get("failed")
        assert failed == (sorted(liar.codes) if liar.found is Found.CHECK else None)


def test_files_that_a_case_refers_to_stand_in_its_input(tmp_path: Path) -> None:
    given = {"a": {"file": "raw"}, "b": [{"hex_file": "raw"}], "c": {"file": "raw", "d": 1}}
    path = write(tmp_path, GOOD | {"input": given})
    (path.parent / "raw").write_bytes(b"\0\1")
    found = read_case(path).given
    assert found == {"a": "AAE=", "b": ["0001"], "c": {"file": "raw", "d": 1}}


def malformed(**instead: object) -> dict[str, object]:
    return GOOD | instead


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "parts"),
        ("[]", "one JSON object"),
        (malformed(more=1), "'more'"),
        (malformed(about=""), "'about' must be text"),
        (malformed(operation=7), "'operation' must be text"),
        (malformed(advice=[]), "'advice' must be text"),
        (malformed(input=[]), "'input' must be an object"),
        (malformed(expect=None), "'expect' must be an object"),
        (malformed(expect={}), "'expect' must say"),
        (malformed(kind="gateway"), "none of provider"),
        (malformed(name="other"), "named as its folder"),
        (malformed(input={"a": {"file": "../case.json"}}), "own folder"),
        (malformed(input={"a": {"file": 1}}), "own folder"),
        (malformed(input={"a": {"file": "missing"}}), "cannot read"),
    ],
)
def test_a_malformed_case_is_named_with_what_is_wrong(
    tmp_path: Path, document: object, says: str
) -> None:
    write(tmp_path, document)
    with pytest.raises(InvalidInputError, match=says):
        list(FolderCases(tmp_path).cases())


def test_a_folder_without_cases_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no cases"):
        list(FolderCases(tmp_path).cases())


def test_cases_are_chosen_by_kind_and_pattern(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD | {"name": "other", "kind": "verifier"}, "other")
    source = FolderCases(tmp_path)
    assert [case.name for case in selected([source], Kind.PROVIDER)] == ["mine"]
    assert [case.name for case in selected([source], Kind.VERIFIER, ["x", "o*"])] == ["other"]


def test_patterns_that_fit_nothing_and_names_that_stand_twice_are_errors(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    source = FolderCases(tmp_path)
    with pytest.raises(InvalidInputError, match="named like other"):
        selected([source], Kind.PROVIDER, ["other"])
    with pytest.raises(InvalidInputError, match="two cases"):
        selected([source, source], Kind.PROVIDER)


# Cases for programs


def test_every_vector_on_disk_is_a_case_and_none_tells_its_answer() -> None:
    cases = selected([VectorCases()], Kind.VERIFIER_PROGRAM)
    folder = Path(__file__).parents[3] / "coin_protocol" / "testing" / "vectors"
    on_disk = {
        f"{path.parent.name}/{path.stem}"
        for path in folder.glob("*/*.json")
        if path.parent.name != "schema"
    }
    assert {case.name for case in cases} == on_disk
    for case in cases:
        assert case.operation
        assert "expect" not in case.given
        assert set(case.expect) & {"holds", "failed", "value", "error"}


@pytest.mark.parametrize(
    ("expect", "given"),
    [
        ({"value": {"root": "00"}}, {"value": {"root": "00"}}),
        ({"error": "LimitError"}, {"error": "LimitError"}),
        ("ok", {"holds": True}),
        ("InclusionProofError", {"holds": False}),
    ],
)
def test_vectors_of_either_form_become_cases(
    tmp_path: Path, expect: object, given: dict[str, Any]
) -> None:
    document = {"name": "one", "about": "A.", "operation": "seed", "input": {}, "expect": expect}
    for folder in ("draws", "log"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.json").write_text(json.dumps(document))
    (tmp_path / "VERSION").write_text("1")
    source = VectorCases(tmp_path)
    (made,) = selected([source], Kind.PROVIDER_PROGRAM)
    assert (made.name, made.expect) == ("draws/one", given)
    assert [case.name for case in selected([source], Kind.VERIFIER_PROGRAM)] == [
        "draws/one",
        "log/one",
    ]


def test_openings_are_asked_of_whoever_makes_what_a_provider_makes() -> None:
    cases = selected([ProgramCases()], Kind.PROVIDER_PROGRAM)
    assert {case.operation for case in cases} == {"open", "open_whole"}
    assert list(ProgramCases().cases()) == cases  # the same each time
