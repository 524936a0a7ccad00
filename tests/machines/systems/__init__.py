"""What the machines are pointed at: the rules alone, the SDKs in process, real processes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky

from coin_protocol.testing.machines.rules import RuleBrokenError

FOUND_OUT = (RuleBrokenError, Flaky)
"""How a broken system shows. What is drawn depends on the time of day, so that one that errs with
some draws may not do so again."""

MOST_TO_FIND = 200
"""Examples in which a broken system must have shown; most take ten."""

LEAST_EXAMPLES = 3
"""Of a machine over real processes, however few the profile asks for."""


_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


def folder() -> TemporaryDirectory[str]:
    """Return a new folder, in memory where there is such a place: nothing here cuts the power."""
    return TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)


def fewer(divisor: int) -> settings:
    """Return the loaded profile with a share of its examples, for systems that take long."""
    loaded = settings()
    return settings(
        max_examples=max(LEAST_EXAMPLES, loaded.max_examples // divisor),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


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
