"""Every vector that ships is valid under its schema, said once, and in the index of its version."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it has no types

from coin_protocol import errors
from coin_protocol.checks import CHECKS
from coin_protocol.testing import all_vectors, generate

Vector = dict[str, Any]
Runner = Callable[[Vector], object]
"""Takes the input of a vector, and returns a value in the form in which `expect` has it."""

ROOT = files("coin_protocol").joinpath("testing", "vectors")
FOLDERS = sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir())
KINDS = [name for name in FOLDERS if name != "schema"]
OLDER = ("merkle", "evidence")
"""Kinds whose documents have a form of their own."""


def document(path: Traversable) -> Vector:
    found: Vector = json.loads(path.read_text("utf-8"))
    return found


def vectors(kind: str) -> dict[str, Vector]:
    """Return the vectors of a kind by their names."""
    paths = sorted(ROOT.joinpath(kind).iterdir(), key=lambda path: path.name)
    return {path.name.removesuffix(".json"): document(path) for path in paths}


def run(vector: Vector, runners: dict[str, Runner]) -> None:
    """Check that an operation gives what its vector says; an error may have the code of a check."""
    expect, runner = vector["expect"], runners[vector["operation"]]
    if "error" in expect:
        with pytest.raises(errors.CoinError) as caught:
            runner(vector["input"])
        code = getattr(caught.value, "code", type(caught.value).__name__)
        assert code == expect["error"], caught.value
        return
    found = runner(vector["input"])
    assert found == expect["value"]
    assert found not in [wrong["value"] for wrong in expect.get("never", [])]


def cases(*kinds: str) -> list[Any]:
    """Return the vectors of some kinds as parameters of a test."""
    return [
        pytest.param(vector, id=f"{kind}/{name}")
        for kind in kinds
        for name, vector in vectors(kind).items()
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_is_valid_under_the_schema_of_its_kind(kind: str) -> None:
    schema = document(ROOT.joinpath("schema", f"{kind}.schema.json"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for name, vector in vectors(kind).items():
        wrong = [
            f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(vector)
        ]
        assert not wrong, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_refuses_what_is_no_vector_of_its_kind(kind: str) -> None:
    validator = Draft202012Validator(document(ROOT.joinpath("schema", f"{kind}.schema.json")))
    vector = next(iter(vectors(kind).values()))
    assert validator.is_valid(vector)
    assert not validator.is_valid(vector | {"more": "of something"})
    for name in vector:
        assert not validator.is_valid({key: vector[key] for key in vector if key != name}), name
        assert not validator.is_valid(vector | {name: 0.5}), name


def test_every_kind_has_a_schema_and_every_schema_a_kind() -> None:
    names = {path.name for path in ROOT.joinpath("schema").iterdir()}
    assert names == {f"{kind}.schema.json" for kind in [*KINDS, "index"]}
    schema = document(ROOT.joinpath("schema", "index.schema.json"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(document(ROOT.joinpath("index.json")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_is_named_by_its_file_and_says_what_it_is(kind: str) -> None:
    for name, vector in vectors(kind).items():
        assert vector["name"] == name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert vector["about"].endswith(".")


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(OLDER)))
def test_an_operation_is_shown_to_work_and_an_error_is_one_that_there_is(kind: str) -> None:
    known = {check.code for check in CHECKS} | {
        name for name, found in vars(errors).items() if isinstance(found, type)
    }
    worked = set()
    for vector in vectors(kind).values():
        if "error" in vector["expect"]:
            assert vector["expect"]["error"] in known
        else:
            worked.add(vector["operation"])
    assert worked == {vector["operation"] for vector in vectors(kind).values()}


def test_every_kind_shows_what_is_refused_or_wrong() -> None:
    for kind in set(KINDS) - {*OLDER, "exposure"}:
        wrong = [one for one in vectors(kind).values() if {"error", "never"} & one["expect"].keys()]
        assert len(wrong) >= 7, kind
    steps = [
        step
        for vector in vectors("exposure").values()
        for step in vector["expect"]["value"].get("steps", [])
    ]
    assert sum(not step["answered"] for step in steps) >= 7


def test_every_check_has_three_lies_that_trip_it() -> None:
    tripped = Counter(vector["expect"]["failed"] for vector in vectors("evidence").values())
    assert {
        code: tripped[code] for code in (check.code for check in CHECKS) if tripped[code] < 3
    } == {}
    assert tripped[None] >= 20


def test_the_index_has_the_version_and_every_vector() -> None:
    index = document(ROOT.joinpath("index.json"))
    assert index["version"] == ROOT.joinpath("VERSION").read_text("ascii").strip()
    assert sorted(index["kinds"]) == KINDS
    for kind, found in index["kinds"].items():
        paths = sorted(ROOT.joinpath(kind).iterdir(), key=lambda path: path.name)
        lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
        assert found["vectors"] == len(paths)
        assert found["sha256"] == sha256("".join(lines).encode()).hexdigest()


def test_the_changelog_begins_with_the_version_that_ships() -> None:
    lines = ROOT.joinpath("CHANGELOG.md").read_text("utf-8").splitlines()
    versions = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert versions[0] == all_vectors.version()
    assert len(set(versions)) == len(versions)


def test_what_ships_is_what_the_generators_make() -> None:
    files_made = {
        path: raw
        for generator in generate.VECTORS
        for path, raw in generate.made_by(generator).items()
    }
    files_made |= generate.index_file()
    found = generate.differences(files_made, generate.PACKAGE)
    assert found == {}


def test_all_vectors_together_stay_small() -> None:
    sizes = {
        path.name: len(path.read_bytes())
        for kind in KINDS
        for path in ROOT.joinpath(kind).iterdir()
    }
    assert max(sizes.values()) < 64_000
    assert sum(sizes.values()) < 5_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_the_documentation_names_every_kind_and_operation(kind: str) -> None:
    page = generate.PACKAGE.parent.joinpath("docs", "vectors.md")
    if not page.is_file():
        pytest.skip("the documentation does not come with the package")
    text = page.read_text("utf-8")
    assert f"`{kind}/`" in text
    for operation in {vector.get("operation") for vector in vectors(kind).values()} - {None}:
        assert f"`{operation}`" in text
