"""What the machines are pointed at: the rules alone, the SDKs in process, real processes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar
from unittest import TestCase

from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, invariant

from coin_protocol.testing.machines.rules import RuleBrokenError
from tests.support.examples import LONG

FOUND_OUT = (RuleBrokenError, Flaky)
"""How a broken system shows. What is drawn depends on the time of day, so that one that errs with
some draws may not do so again."""

MOST_TO_FIND = 200
"""Examples in which a broken system must have shown; most take ten."""

LEAST_EXAMPLES = 3
"""Of a machine at a time, however few the profile asks for: the first has hardly a step."""


OF_PROCESSES = LONG // 10
"""Steps of a machine over real processes in a long run: each is killed and started again and again,
which takes a second."""

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


def folder() -> TemporaryDirectory[str]:
    """Return a new folder, in memory where there is such a place: nothing here cuts the power."""
    return TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)


class _Counted(RuleBasedStateMachine):
    """Counts its steps, over all examples."""

    steps: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        type(self).steps -= 1  # the first look comes before any step

    @invariant()
    def counts(self) -> None:
        type(self).steps += 1


def tried(
    machine: type[RuleBasedStateMachine], chosen: settings, *, least: int = LONG
) -> type[TestCase]:
    """Return the test of a machine.

    However many steps the profile asks for, Hypothesis ends an example after some hundred of ours:
    the profile `long` goes on, a few examples at a time, until there were so many.

    Args:
        machine: To be tried.
        chosen: How, under any other profile.
        least: Steps under the profile `long`.
    """
    if settings().stateful_step_count >= LONG:
        # An example of so many steps is large, and meant to be.
        checks = list(HealthCheck)
        chosen = settings(chosen, max_examples=LEAST_EXAMPLES, suppress_health_check=checks)
    else:
        least = 1

    class Test(_Counted, machine):  # type: ignore[misc, valid-type] # whichever it is given
        steps = 0

    Test.__qualname__ = Test.__name__ = machine.__qualname__

    class Case(Test.TestCase):  # type: ignore[misc, valid-type] # made by Hypothesis
        settings = chosen

        def runTest(self) -> None:
            while Test.steps < least:
                super().runTest()

    return Case


def fewer(divisor: int) -> settings:
    """Return the loaded profile with a share of its examples, for systems that take long."""
    loaded = settings()
    return settings(
        max_examples=max(LEAST_EXAMPLES, loaded.max_examples // divisor),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def of_processes(steps: int) -> settings:
    """Return few examples of so many steps, for real processes.

    Nobody can make a kill happen again at the same moment: there is nothing to shrink.
    """
    return settings(fewer(30), phases=[Phase.generate], database=None, stateful_step_count=steps)


def finding() -> settings:
    """Return the loaded profile for systems that are broken: found is enough, not made small."""
    return settings(
        max_examples=max(MOST_TO_FIND, settings().max_examples),
        phases=[Phase.generate],
        database=None,
        print_blob=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def searching() -> settings:
    """Return settings in which what is broken is found, by the same examples each time."""
    loaded = settings()
    return settings(
        phases=[Phase.generate],
        max_examples=max(2 * MOST_TO_FIND, loaded.max_examples),
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
