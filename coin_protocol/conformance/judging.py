"""Put cases to an implementation, one after another, and note what came of each."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from coin_protocol.conformance.case import Case, Kind


class Status(StrEnum):
    """What came of a case."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    """A case and what came of it.

    Attributes:
        case: The case.
        status: What came of it.
        wanted: What was expected; of a case that failed.
        came: What came; of one that was skipped, why.
        advice: What to do; of a case that failed.
        seconds: That it took.
    """

    case: Case
    status: Status
    wanted: str = ""
    came: str = ""
    advice: str = ""
    seconds: float = 0.0


class NotMet(Exception):  # noqa: N818 - a finding about others, no error of ours
    """The implementation did something else than the case expects."""

    def __init__(self, *, wanted: str, came: str, advice: str = "", hint: str = "") -> None:
        """Say what was expected and what came.

        Args:
            wanted: By the case.
            came: Instead.
            advice: What to do.
            hint: What to do where neither this nor the case says more.
        """
        super().__init__(f"wanted {wanted}; found {came}")
        self.wanted = wanted
        self.came = came
        self.advice = advice
        self.hint = hint


class NotApplicable(Exception):  # noqa: N818 - as above
    """The case cannot be put to this implementation; the message says why."""


Told = Callable[[Result], object]

_READ: Final[Mapping[Kind, str]] = {
    Kind.PROVIDER: "Compare with docs/challenge-service.md, which lists every outcome.",
    Kind.VERIFIER: "Compare with docs/verifier.md, which lists every outcome.",
    Kind.PROVIDER_PROGRAM: "Compare with the schema beside the vectors, and with the protocol.",
    Kind.VERIFIER_PROGRAM: "Compare with the schema beside the vectors, and with the protocol.",
}
"""What to do where nothing says more."""


def run_cases(cases: Sequence[Case], perform: Callable[[Case], None], told: Told) -> list[Result]:
    """Perform cases one after another.

    Args:
        cases: In the order in which they run.
        perform: Returns where a case is met, else raises `NotMet` or `NotApplicable`.
        told: Given each result as it comes.
    """
    results = []
    for case in cases:
        started = time.monotonic()
        try:
            perform(case)
        except (NotMet, NotApplicable) as raised:
            results.append(_result(case, started, raised))
        else:
            results.append(_result(case, started))
        told(results[-1])
    return results


async def run_live_cases(
    cases: Sequence[Case], perform: Callable[[Case], Awaitable[None]], told: Told
) -> list[Result]:
    """Perform cases as `run_cases` does, on this event loop."""
    results = []
    for case in cases:
        started = time.monotonic()
        try:
            await perform(case)
        except (NotMet, NotApplicable) as raised:
            results.append(_result(case, started, raised))
        else:
            results.append(_result(case, started))
        told(results[-1])
    return results


def _result(case: Case, started: float, raised: NotMet | NotApplicable | None = None) -> Result:
    seconds = time.monotonic() - started
    if raised is None:
        return Result(case, Status.PASSED, seconds=seconds)
    if isinstance(raised, NotApplicable):
        return Result(case, Status.SKIPPED, came=str(raised), seconds=seconds)
    advice = raised.advice or case.advice or raised.hint or _READ[case.kind]
    return Result(case, Status.FAILED, raised.wanted, raised.came, advice, seconds)
