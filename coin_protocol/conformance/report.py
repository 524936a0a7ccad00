"""What came of all cases: for people, for programs, and as JUnit XML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from coin_protocol.conformance.judging import Result, Status


@dataclass(frozen=True, slots=True)
class Report:
    """All results.

    Attributes:
        target: What was driven, as the caller named it.
        kind: Of cases.
        results: In the order in which the cases ran.
    """

    target: str
    kind: str
    results: Sequence[Result]

    @property
    def counts(self) -> dict[str, int]:
        """How many cases came to what."""
        found = Counter(result.status for result in self.results)
        return {str(status): found[status] for status in Status}

    @property
    def failed(self) -> bool:
        """Whether a case failed."""
        return any(result.status is Status.FAILED for result in self.results)

    @property
    def decided(self) -> bool:
        """Whether a case passed or failed, so that something is known."""
        return any(result.status is not Status.SKIPPED for result in self.results)

    def document(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "target": self.target,
            "kind": self.kind,
            "summary": self.counts,
            "cases": [
                {
                    "name": result.case.name,
                    "about": result.case.about,
                    "operation": result.case.operation,
                    "status": str(result.status),
                    "wanted": result.wanted,
                    "came": result.came,
                    "advice": result.advice,
                    "seconds": round(result.seconds, 3),
                }
                for result in self.results
            ],
        }

    def junit(self) -> str:
        """Return the report as JUnit XML, as CI systems read it."""
        counts = self.counts
        seconds = sum(result.seconds for result in self.results)
        suite = _attributes(
            name=f"coin conformance {self.kind}",
            tests=len(self.results),
            failures=counts[Status.FAILED],
            errors=0,
            skipped=counts[Status.SKIPPED],
            time=f"{seconds:.3f}",
        )
        target = _attributes(name="target", value=self.target)
        cases = "".join(map(self._junit_case, self.results))
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<testsuites>\n<testsuite{suite}>\n"
            f"<properties><property{target}/></properties>\n"
            f"{cases}</testsuite>\n</testsuites>\n"
        )

    def _junit_case(self, result: Result) -> str:
        case = _attributes(
            classname=f"coin.{self.kind}.{result.case.operation}",
            name=result.case.name,
            time=f"{result.seconds:.3f}",
        )
        if result.status is Status.PASSED:
            return f"<testcase{case}/>\n"
        if result.status is Status.SKIPPED:
            return f"<testcase{case}><skipped{_attributes(message=result.came)}/></testcase>\n"
        text = _text(
            f"{result.case.about}\nwanted: {result.wanted}\ncame: {result.came}\n"
            f"what to do: {result.advice}"
        )
        failure = _attributes(message=f"wanted {result.wanted}; came {result.came}", type="NotMet")
        return f"<testcase{case}><failure{failure}>{text}</failure></testcase>\n"


def _attributes(**values: object) -> str:
    # A line break in an attribute would be read as a space.
    return "".join(
        f' {name}="{_text(str(value)).replace(chr(10), "&#10;")}"' for name, value in values.items()
    )


def _text(value: str) -> str:
    """Return text as XML takes it; what XML 1.0 has no place for is replaced."""
    return escape("".join(char if _allowed(char) else "\ufffd" for char in value))


def _allowed(char: str) -> bool:
    code = ord(char)
    return char in "\t\n" or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
