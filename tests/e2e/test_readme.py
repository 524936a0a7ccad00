"""The README's own examples run, and its first screen names the commands that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from provider_sdk import Provider

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))


def _coin(*arguments: str, folder: Path) -> None:
    command = [sys.executable, "-m", "coin_protocol.cli", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_there_is_an_example_for_each_kind_of_user() -> None:
    assert EXAMPLES.keys() == {"provider", "auditor", "tester"}


def test_commands_of_the_first_screen_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_benchmark_that_is_named_exists() -> None:
    names = set(re.findall(r"python -m benchmarks\.(\w+)", TEXT))
    assert names
    for name in names:
        assert (README.parent / "benchmarks" / f"{name}.py").is_file(), name


def test_the_testers_example_runs() -> None:
    exec(compile(EXAMPLES["tester"], "README tester", "exec"), {})  # noqa: S102 - our own README


@pytest.mark.models
def test_the_providers_and_auditors_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _coin("keys", "init", "keys", "--name", "acme", folder=tmp_path)
    _coin("provider", "sealing-key", "keys/sealing.key", folder=tmp_path)
    _coin("keys", "init", "auditor", "--name", "auditor", "--role", "verifier", folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for name in ("provider", "auditor"):
        exec(compile(EXAMPLES[name], f"README {name}", "exec"), scope)  # noqa: S102 - our own README
    printed = capsys.readouterr().out
    assert printed.startswith(("OUTCOME_PASS TIER_COMMITTED", "OUTCOME_INCONCLUSIVE"))
    provider = scope["provider"]
    assert isinstance(provider, Provider)
    provider.close()
    provider.store.close()
