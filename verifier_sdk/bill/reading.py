"""A line's usage block, read by its vendor's convention; what is wrong with it is a finding. Pure.

A block that is refused is read again without what is wrong with it, as its vendor documents its
counts, so that the rest of the line can still be checked. Where reasoning may be inside the
completion it is taken to be: the lower count is the one that nobody disputes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from coin_protocol.usage import BESIDE, INSIDE
from coin_protocol.vendors import (
    CONVENTIONS,
    Convention,
    Reported,
    UsageCode,
    UsageError,
    detect_vendor,
    read_usage,
    readings,
)
from coin_protocol.vendors.counts import agreed
from verifier_sdk.bill.codes import Code, Finding
from verifier_sdk.bill.fields import UnreadableError
from verifier_sdk.bill.line import Line

_NOTHING_LEFT: Final = frozenset({UsageCode.MALFORMED, UsageCode.MISSING_COUNT})
_COMPATIBLE: Final = "openai-compatible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a block says.

    Attributes:
        reported: As documented; None where not even that can be read.
        beside: The same counts, reasoning beside the completion, where that may be meant.
        undecided: Whether `beside` may as well be meant, for the vendor counts both ways, or
            nobody says who it is, and no total tells.
        findings: What is wrong with the block.
    """

    reported: Reported | None = None
    beside: Reported | None = None
    undecided: bool = False
    findings: tuple[Finding, ...] = ()


def read(line: Line) -> Reading:
    """Read a line's counts.

    Raises:
        UnreadableError: They are no counts, or one is missing without which nothing can be said.
    """
    if line.usage is None:
        return Reading()
    try:
        if line.vendor is None:
            reading = _of_somebody(line.usage)
        else:
            reading = _of(CONVENTIONS[line.vendor], line.usage)
    except UsageError as error:
        raise UnreadableError(str(error)) from error
    if line.disagreement:
        found = Finding(code=Code.FIELDS_DISAGREE, sentence=line.disagreement)
        return replace(reading, findings=(*reading.findings, found))
    return reading


def _of(convention: Convention, block: Mapping[str, object]) -> Reading:
    """Read a known vendor's block.

    Raises:
        UsageError: Nothing in it can be read.
    """
    try:
        reported = read_usage(convention.vendor, block)
    except UsageError as error:
        if error.code in _NOTHING_LEFT:
            raise
        return _refused(convention, block, error)
    if reported.reasoning_tokens and reported.counting != convention.counting:
        return Reading(reported=reported, findings=(_otherwise(reported),))
    return Reading(reported=reported)


def _refused(convention: Convention, block: Mapping[str, object], error: UsageError) -> Reading:
    """Read what is left of a block that does not add up.

    Raises:
        UsageError: Nothing is.
    """
    names, code = convention.names, Code(error.code.value)
    finding = Finding(code=code, sentence=str(error))
    if code is Code.FIELDS_DISAGREE:
        return Reading(findings=(finding,))
    if code is Code.CACHED_ABOVE_PROMPT:
        again = _of(convention, _without(block, names.cached))
        return replace(again, findings=(finding, *again.findings))
    reasoning, total = agreed(block, names.reasoning), agreed(block, names.total)
    plain = _plain(convention, block)
    inside = convention.counting == INSIDE
    above = inside and (reasoning or 0) > plain.completion_tokens
    reported = replace(
        plain,
        vendor=convention.vendor,
        counting=convention.counting,
        reasoning_tokens=None if above else reasoning,
    )
    beside = None
    if inside and reasoning:
        beside = replace(reported, counting=BESIDE, reasoning_tokens=reasoning)
    if code is Code.AMBIGUOUS:
        # Exports of these vendors have no totals. What is documented holds, unless it cannot.
        findings = (_above(reported, reasoning),) if above else ()
        return Reading(
            reported=reported, beside=beside, undecided=beside is not None, findings=findings
        )
    if code in {Code.REASONING_COUNTED_TWICE, Code.TOTAL_DISAGREES} and total is not None:
        wanted = reported.prompt_tokens + reported.generated
        finding = replace(finding, tokens=total - wanted)
    return Reading(reported=reported, beside=beside, findings=(finding,))


def _plain(convention: Convention, block: Mapping[str, object]) -> Reported:
    """Read prompt and completion alone."""
    names = convention.names
    left = _without(block, (*names.total, *names.reasoning))
    if convention.zeros_omitted and agreed(left, names.completion) is None:
        left[names.completion[0]] = 0
    # Those whose totals decide have OpenAI's names, and some are refused without a total.
    return read_usage(_COMPATIBLE if convention.total_decides else convention.vendor, left)


def _of_somebody(block: Mapping[str, object]) -> Reading:
    """Read a block that nobody named the vendor of.

    Raises:
        UsageError: Nothing in it can be read.
    """
    fitting = readings(block)
    meanings = {(each.prompt_tokens, each.generated) for each in fitting.values()}
    if len(meanings) == 1 and _COMPATIBLE in fitting:
        return _unless_beside(fitting[_COMPATIBLE])
    try:
        return _of(CONVENTIONS[detect_vendor(block)], block)
    except UsageError as error:
        reading = _of(CONVENTIONS[_COMPATIBLE], block)
        if error.code is not UsageCode.AMBIGUOUS:
            return reading
    sentence = (
        f"the block adds up as these vendors count, and not as most others do: "
        f"{', '.join(fitting)}; say who sent it (--vendor)"
    )
    return replace(reading, findings=(Finding(code=Code.AMBIGUOUS, sentence=sentence),))


def _unless_beside(reported: Reported) -> Reading:
    """Return a reading of a block that most vendors would mean so; some would not."""
    if not reported.reasoning_tokens or reported.total_tokens is not None:
        return Reading(reported=reported)
    return Reading(reported=reported, beside=replace(reported, counting=BESIDE), undecided=True)


def _otherwise(reported: Reported) -> Finding:
    documented = CONVENTIONS[reported.vendor].counting
    found, wanted = ("inside", "beside") if documented == BESIDE else ("beside", "inside")
    sentence = (
        f"the total has the {reported.reasoning_tokens} reasoning tokens {found} the "
        f"{reported.completion_tokens} completion tokens; {reported.vendor} is documented to "
        f"count them {wanted}"
    )
    return Finding(code=Code.COUNTED_OTHERWISE, sentence=sentence)


def _above(reported: Reported, reasoning: int | None) -> Finding:
    sentence = (
        f"{reasoning} reasoning tokens of {reported.completion_tokens} completion tokens, which "
        f"{reported.vendor} is documented to count them inside, and no total that could tell: "
        f"ask whether they are beside, or counted on another tokenizer"
    )
    return Finding(code=Code.REASONING_ABOVE_COMPLETION, sentence=sentence)


def _without(block: Mapping[str, object], names: tuple[str, ...]) -> dict[str, object]:
    """Return a block without these dotted names."""
    left = dict(block)
    for name in names:
        group, _, last = name.rpartition(".")
        inner = left.get(group)
        if not group:
            left.pop(last, None)
        elif isinstance(inner, Mapping):
            left[group] = {key: value for key, value in inner.items() if key != last}
    return left
