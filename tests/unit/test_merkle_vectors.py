"""Every shipped Merkle vector gives what it says; the shipped files are those generated."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from coin_protocol import errors, merkle
from coin_protocol.testing import generate

FOLDER = files("coin_protocol").joinpath("testing", "vectors", "merkle")
NAMES = sorted(entry.name for entry in FOLDER.iterdir())


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FOLDER.joinpath(name).read_text("utf-8"))
    return document


def raw(entries: list[str]) -> list[bytes]:
    return [bytes.fromhex(entry) for entry in entries]


def check_root(vector: dict[str, Any]) -> None:
    leaves = [merkle.leaf_hash(data) for data in raw(vector["leaves"])]
    assert merkle.root(leaves).hex() == vector["root"]
    assert merkle.IncrementalTree(leaves).root().hex() == vector["root"]


def check_inclusion(vector: dict[str, Any]) -> None:
    merkle.verify_inclusion(
        leaf_hash=bytes.fromhex(vector["leaf_hash"]),
        index=vector["index"],
        size=vector["size"],
        proof=raw(vector["proof"]),
        root=bytes.fromhex(vector["root"]),
    )


def check_consistency(vector: dict[str, Any]) -> None:
    merkle.verify_consistency(
        old_size=vector["old_size"],
        new_size=vector["new_size"],
        old_root=bytes.fromhex(vector["old_root"]),
        new_root=bytes.fromhex(vector["new_root"]),
        proof=raw(vector["proof"]),
    )


OPERATIONS = {
    "root": check_root,
    "verify_inclusion": check_inclusion,
    "verify_consistency": check_consistency,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_gives_what_it_says(name: str) -> None:
    vector = read(name)
    assert name == f"{vector['name']}.json"
    check = OPERATIONS[vector["operation"]]
    if vector["expect"] == "ok":
        check(vector)
        return
    error: type[errors.CoinError] = getattr(errors, vector["expect"])
    with pytest.raises(error) as caught:
        check(vector)
    assert type(caught.value) is error


def test_vectors_cover_each_operation_both_ways() -> None:
    seen = {(vector["operation"], vector["expect"]) for vector in map(read, NAMES)}
    assert seen == {
        ("root", "ok"),
        ("verify_inclusion", "ok"),
        ("verify_inclusion", "InclusionProofError"),
        ("verify_consistency", "ok"),
        ("verify_consistency", "ConsistencyProofError"),
    }


def test_what_ships_is_what_the_generators_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), "differs"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.rename(path.with_name("old.json")), "missing"),
        (lambda path: path.with_name("extra.json").write_text("{}"), "stray"),
    ],
    ids=["differs", "missing", "renamed", "stray"],
)
def test_the_check_names_each_file_that_is_not_as_generated_and_mends_nothing(
    spoil: Callable[[Path], object],
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    capsys.readouterr()
    folder = tmp_path / "testing/vectors/merkle"
    spoil(folder / NAMES[0])
    name = "extra.json" if what == "stray" else NAMES[0]
    for _ in range(2):
        assert generate.main(["--check"], tmp_path) == 1
        assert f"{what}: testing/vectors/merkle/{name}\n" in capsys.readouterr().out
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0
    assert sorted(path.name for path in folder.iterdir()) == NAMES


def test_no_two_generators_make_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = (generate.merkle_files, generate.merkle_files)
    monkeypatch.setattr(generate, "GENERATORS", twice)
    with pytest.raises(ValueError, match="two generators make testing/vectors/merkle/"):
        generate.generated()
