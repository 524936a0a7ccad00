"""What the code does nowhere, read from the code itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("coin_protocol", "provider_sdk", "verifier_sdk")

RUN_WHAT_THEY_READ = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
READ_MORE_THAN_DATA = {"yaml", "ruamel", "xml", "lxml", "telnetlib", "ftplib", "smtplib"}


@cache
def trees() -> tuple[tuple[Path, ast.Module], ...]:
    """Return the code of all packages but what is generated."""
    return tuple(
        (path, ast.parse(path.read_text()))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "v1" not in path.parts
    )


def imported() -> Iterator[tuple[Path, str]]:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield path, node.module


def dotted(function: ast.expr) -> str:
    """Return the name of what is called, `?` where it has none."""
    if isinstance(function, ast.Attribute):
        return f"{dotted(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else "?"


@cache
def calls() -> tuple[tuple[Path, str, ast.Call], ...]:
    """Return all calls, with the names of what is called."""
    return tuple(
        (path, dotted(node.func), node)
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    )


def keywords(call: ast.Call) -> dict[str, str]:
    return {one.arg: ast.unparse(one.value) for one in call.keywords if one.arg}


def test_all_of_the_code_is_looked_at() -> None:
    assert len(trees()) > 300
    assert len(calls()) > 10_000


@pytest.mark.parametrize("names", [RUN_WHAT_THEY_READ, READ_MORE_THAN_DATA])
def test_nothing_reads_files_that_could_do_something(names: set[str]) -> None:
    assert [(path, name) for path, name in imported() if name.partition(".")[0] in names] == []


def test_nothing_runs_what_it_was_given() -> None:
    never = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
    assert [path for path, name, _ in calls() if name in never] == []
    assert [path for path, _, call in calls() if keywords(call).get("shell") == "True"] == []


def test_no_array_and_no_weights_are_unpickled() -> None:
    assert [path for path, name, _ in calls() if name in {"torch.load", "torch.save"}] == []
    for path, name, call in calls():
        if name in {"np.load", "numpy.load", "np.save", "np.lib.format.read_array"}:
            assert keywords(call).get("allow_pickle", "False") == "False", path
        assert keywords(call).get("trust_remote_code", "False") == "False", path
        assert keywords(call).get("weights_only", "True") == "True", path


def test_certificates_are_checked_and_no_redirect_is_followed() -> None:
    for path, name, call in calls():
        given = keywords(call)
        assert given.get("verify") != "False", path
        assert given.get("check_hostname") != "False", path
        assert given.get("follow_redirects", "False") == "False", path
        assert name not in {"ssl._create_unverified_context", "ssl.wrap_socket"}, path


def test_temporary_files_are_made_and_not_only_named() -> None:
    assert [path for path, name, _ in calls() if name.endswith(("mktemp", "tmpnam"))] == []


def test_secrets_are_drawn_by_no_generator_that_can_be_guessed() -> None:
    allowed = {
        "verifier_sdk/witness/client.py",  # spreads retries over time
    }
    found = {
        path.relative_to(ROOT).as_posix()
        for path, name in imported()
        if name == "random" and not {"lab", "training", "testing", "demo"} & set(path.parts)
    }
    assert found <= allowed


def test_text_is_never_put_into_sql() -> None:
    allowed = {"verifier_sdk/log/outbox.py"}  # of two constants of its own
    for path, name, call in calls():
        if name in {"text", "sqlalchemy.text", "exec_driver_sql"} and call.args:
            first = call.args[0]
            made = isinstance(first, (ast.JoinedStr, ast.BinOp)) or (
                isinstance(first, ast.Call) and dotted(first.func).endswith(".format")
            )
            assert not made or path.relative_to(ROOT).as_posix() in allowed, path
