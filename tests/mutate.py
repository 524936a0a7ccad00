"""Mutation testing with mutmut: `python -P tests/mutate.py [run|results|show|browse …]`.

Each mutant is the verification path with one thing wrong; a mutant that no test notices is a
hole in the tests. What is mutated, and which tests look, is in `pyproject.toml`; which mutants no
test can notice, and why, is in `docs/mutants.md`. Mutants live in `mutants/`, where a run
goes on from where the last one stopped.

Mutmut leaves out every decorated function and knows nothing of messages. Here properties are
mutated too, as much of what a case is checked by is one, and what an error says is left alone.
Tests are collected once for all mutants. Run by its path: as a module it would bring the tests
of the tree along, and those of the copy are wanted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from math import ceil
from typing import Any, Final

import libcst as cst
import pytest
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation, trampoline
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.utils.file_utils import change_cwd
from mutmut.workers.isolation import ForkServerRunner, run_in_fork

SECONDS: Final = float(os.environ.get("MUTANT_SECONDS", "20"))
"""Of tests of one mutant: the fastest that last so long together, as `mutants/` has it."""

_PROPERTIES: Final = ("property", "cached_property")

_skips = MutationVisitor._skip_node_and_children
_arranges = file_mutation.function_trampoline_arrangement
_runs = PytestRunner.run_tests
_serves = ForkServerRunner._forkserver_main

_collected: dict[str, pytest.Item] = {}
"""Tests by name, in the process that mutants are forked from."""


def main(arguments: Sequence[str]) -> None:
    """Run mutmut, as changed below."""
    # Examples are the same for each mutant, or one is noticed on one day and not on the next.
    os.environ["CI"] = "true"
    for owner, name, instead in _INSTEAD:
        setattr(owner, name, instead)
    mutmut.cli.main(list(arguments) or ["run"], prog_name="python -P tests/mutate.py")


def _skips_here(visitor: MutationVisitor, node: cst.CSTNode) -> bool:
    if isinstance(node, cst.FunctionDef) and _is_property(node):
        return False
    return _is_message(node) or _skips(visitor, node)


def _is_property(function: cst.FunctionDef) -> bool:
    names = [decorator.decorator for decorator in function.decorators]
    return len(names) == 1 and isinstance(names[0], cst.Name) and names[0].value in _PROPERTIES


def _is_message(node: cst.CSTNode) -> bool:
    """Whether a node is `msg = …`, which this project only raises, or `raise …(msg)`."""
    if isinstance(node, cst.Assign):
        target = node.targets[0].target
        return isinstance(target, cst.Name) and target.value == "msg"
    if isinstance(node, cst.Raise) and isinstance(node.exc, cst.Call):
        given = node.exc.args
        return len(given) == 1 and isinstance(given[0].value, cst.BaseString | cst.Name)
    return False


def _arranges_here(
    function: cst.FunctionDef, mutants: Iterable[Mutation], class_name: str | None
) -> Any:
    """Arrange a property as the method that it wraps, and wrap what chooses between mutants."""
    if not _is_property(function):
        return _arranges(function, mutants, class_name)
    bare = function.with_changes(decorators=())
    declared, nodes, assigned, names = _arranges(bare, mutants, class_name)
    chooser, *copies = nodes
    assert isinstance(chooser, cst.FunctionDef)
    wrapped = chooser.with_changes(decorators=(*function.decorators, *chooser.decorators))
    return declared, [wrapped, *copies], assigned, names


def _serves_here(server: ForkServerRunner, work: int, results: int) -> None:
    """Serve mutants from within a run of pytest that has collected the tests, once for all."""
    _within_pytest(lambda: _serves(server, work, results))


def _within_pytest(act: Callable[[], None]) -> None:
    """Collect the tests, and act instead of running them."""

    class Loop:
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            _collected.update((item.nodeid, item) for item in session.items)
            act()
            return True

    runner = PytestRunner()
    # What mutmut leaves open would be the fault of the next test. Many a mutant never ends.
    arguments = ["-q", "--capture=no", "-p", "no:unraisableexception"]
    arguments.append(f"--timeout={ceil(2 * SECONDS) + 10}")
    with change_cwd("mutants"):
        runner.execute_pytest(
            [*arguments, *runner._pytest_add_cli_args_test_selection], plugins=[Loop()]
        )


def _runs_clean(_server: ForkServerRunner, tests: Iterable[str]) -> int:
    """Run what is about to be run of mutants, of no mutant."""
    code = 0

    def act() -> None:
        nonlocal code
        code = _run_items(_ordered("coin_protocol", tests or state().duration_by_test))

    def child() -> int:
        _within_pytest(act)
        return code

    return run_in_fork(child)


def _runs_here(runner: PytestRunner, *, mutant_name: str | None, tests: Iterable[str]) -> int:
    """Run tests, the fastest first, up to the first that fails."""
    if mutant_name is None:
        return _runs(runner, mutant_name=mutant_name, tests=tests)
    return _run_items(_ordered(mutant_name, tests))


def _run_items(tests: Sequence[str]) -> int:
    items = [_collected[test] for test in tests]
    for item, following in zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return 1
    return 0


def _ordered(mutant: str, tests: Iterable[str]) -> list[str]:
    """Order tests: those in the file named after the module first, then by how long they last."""
    module = mutant.split(".")[1:-1]
    lasts = state().duration_by_test
    left = SECONDS

    def rank(test: str) -> tuple[bool, float, str]:
        file = test.partition("::")[0]
        return all(f"test_{part}" not in file for part in module), lasts.get(test, 0.0), test

    chosen: list[str] = []
    for test in sorted(tests, key=rank):
        left -= lasts.get(test, 0.0)
        if left >= 0 or not chosen:
            chosen.append(test)
    return chosen


_INSTEAD: Final[tuple[tuple[object, str, object], ...]] = (
    (MutationVisitor, "_skip_node_and_children", _skips_here),
    (file_mutation, "function_trampoline_arrangement", _arranges_here),
    (PytestRunner, "run_tests", _runs_here),
    (PytestRunner, "warm_up", lambda _: None),
    (ForkServerRunner, "run_clean_tests", _runs_clean),
    (ForkServerRunner, "_forkserver_main", _serves_here),
    # Called at each call of each function: the environment is slow to look into.
    (trampoline, "get_mutant_under_test", lambda: trampoline._mutant_under_test or ""),
    (trampoline, "record_trampoline_hit", lambda name, **_: state()._stats.add(name)),
)


if __name__ == "__main__":
    main(sys.argv[1:])
