"""What an upstream reported, beside what was committed: each difference named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coin_protocol.usage import INSIDE
from coin_protocol.vendors.codes import DifferenceCode as Code
from coin_protocol.vendors.conventions import CONVENTIONS
from coin_protocol.vendors.reported import Reported

MARKER_TOKENS: Final = 16
"""Markers, channel headers and stop tokens of one reply: gpt-oss, the most wordy, has some ten."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference; `str()` gives a line for a receipt's notes.

    Attributes:
        code: Stable; fit for a metric label.
        sentence: With both numbers.
    """

    code: Code
    sentence: str

    def __str__(self) -> str:
        """Return code and sentence."""
        return f"{self.code}: {self.sentence}"


def compare(
    reported: Reported, *, committed_reasoning: int, answer_tokens: int
) -> list[Difference]:
    """Return how a report departs from the committed counts, which are the truth.

    At most one difference about reasoning, one about everything generated, and one about the
    way of counting.

    Args:
        reported: As read from the upstream's reply.
        committed_reasoning: Tokens; over all choices, as the upstream counts them.
        answer_tokens: Every other generated token, markers and stop tokens included.
    """
    found = (
        _reasoning(reported, committed_reasoning),
        _generated(reported, committed_reasoning, answer_tokens),
        _counted(reported, committed_reasoning, answer_tokens),
    )
    return [difference for difference in found if difference is not None]


def _reasoning(reported: Reported, committed: int) -> Difference | None:
    stated = reported.reasoning_tokens
    if stated == committed or (stated is None and committed == 0):
        return None
    if stated is None:
        sentence = f"the report does not state reasoning tokens; {committed} were committed"
        return Difference(code=Code.REASONING_NOT_STATED, sentence=sentence)
    if stated == 0:
        code = Code.REASONING_ZERO
    elif abs(stated - committed) <= MARKER_TOKENS:
        code = Code.REASONING_OFF_BY_MARKERS
    else:
        code = Code.REASONING_LESS if stated < committed else Code.REASONING_MORE
    sentence = f"the report counts {stated} reasoning tokens; {committed} were committed"
    return Difference(code=code, sentence=sentence)


def _generated(reported: Reported, reasoning: int, answer: int) -> Difference | None:
    stated, wanted = reported.generated, reasoning + answer
    if stated == wanted:
        return None
    sentence = (
        f"the report counts {stated} generated tokens; {reasoning} of reasoning and {answer} of "
        f"answer make {wanted}"
    )
    # Exact explanations come before near ones: a short reasoning counted twice is near, too.
    own = reported.reasoning_tokens or 0
    if stated > wanted and stated in {answer + 2 * reasoning, answer + 2 * own}:
        return Difference(
            code=Code.GENERATED_REASONING_TWICE,
            sentence=f"{sentence}: the report has the reasoning twice",
        )
    if reasoning and stated == answer:
        return Difference(
            code=Code.GENERATED_WITHOUT_REASONING,
            sentence=f"{sentence}: the report leaves the reasoning out",
        )
    if abs(stated - wanted) <= MARKER_TOKENS:
        code = Code.GENERATED_OFF_BY_MARKERS
    else:
        code = Code.GENERATED_LESS if stated < wanted else Code.GENERATED_MORE
    return Difference(code=code, sentence=sentence)


def _counted(reported: Reported, reasoning: int, answer: int) -> Difference | None:
    if not reported.reasoning_tokens:
        return None
    documented = CONVENTIONS[reported.vendor].counting
    beside_though_inside = (
        reported.counting == INSIDE
        and reported.reasoning_tokens == reasoning
        and reported.completion_tokens == answer
    )
    if reported.counting == documented and not beside_though_inside:
        return None
    wanted = "inside" if documented == INSIDE else "beside"
    other = "beside" if reported.counting != INSIDE or beside_though_inside else "inside"
    sentence = (
        f"the report counts reasoning {other} the completion; {reported.vendor} is documented "
        f"to count it {wanted}"
    )
    return Difference(code=Code.COUNTED_OTHERWISE, sentence=sentence)
