"""A verifier in TypeScript, written from the documents alone, decides every vector alike."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "coin_protocol" / "testing" / "vectors"
BUILT_HERE = shutil.ignore_patterns("node_modules", "build", "gen")


def tool(name: str) -> str:
    """Where a program lies."""
    found = shutil.which(name)
    assert found, f"{name} not found: install Node.js 20 or later"
    return found


def npm(folder: Path, *arguments: str) -> None:
    """Run npm in a folder, and show what it printed where it fails."""
    done = subprocess.run(
        [tool("npm"), *arguments],
        cwd=folder,
        env={**os.environ, "COIN_PROTOS": str(ROOT / "protos")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier, installed and compiled outside the checkout."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{' and '.join(missing)} not found: install Node.js 20 or later")
    folder = tmp_path_factory.mktemp("typescript") / "verifier"
    shutil.copytree(ROOT / "tests" / "typescript", folder, ignore=BUILT_HERE)
    npm(folder, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    npm(folder, "run", "generate")
    npm(folder, "run", "build")
    return folder / "build" / "main.js"


def run(program: Path, vectors: Path) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the line of each vector."""
    done = subprocess.run(
        [tool("node"), str(program), str(vectors)], capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_every_vector_is_decided_alike(program: Path) -> None:
    code, lines = run(program, VECTORS)
    assert [line for line in lines if not line["ok"]] == []
    index = json.loads((VECTORS / "index.json").read_text())
    decided = Counter(line["file"].partition("/")[0] for line in lines)
    assert decided == {kind: known["vectors"] for kind, known in index["kinds"].items()}
    assert {line["file"] for line in lines} == {
        path.relative_to(VECTORS).as_posix()
        for path in VECTORS.glob("*/*.json")
        if path.parent.name != "schema"
    }
    assert code == 0


def test_a_vector_that_expects_otherwise_is_told(program: Path, tmp_path: Path) -> None:
    vector = json.loads((VECTORS / "merkle" / "root-of-3.json").read_text())
    (tmp_path / "merkle").mkdir()
    (tmp_path / "merkle" / "other.json").write_text(json.dumps({**vector, "root": "00" * 32}))
    code, lines = run(program, tmp_path)
    assert code == 1
    assert [(line["file"], line["ok"]) for line in lines] == [("merkle/other.json", False)]


def test_a_kind_that_is_not_known_is_told(program: Path, tmp_path: Path) -> None:
    (tmp_path / "rumours").mkdir()
    (tmp_path / "rumours" / "one.json").write_text('{"name": "one", "expect": "ok"}')
    code, lines = run(program, tmp_path)
    assert code == 1
    assert [line["ok"] for line in lines] == [False]
