"""What a line says against itself, the request and the clock, without any receipt. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from coin_protocol.vendors import MARKER_TOKENS, Reported
from verifier_sdk.bill.codes import Code, Finding
from verifier_sdk.bill.line import Kind, Line

_CUT_OFF: Final = frozenset({"length", "max_tokens", "max_output_tokens", "MAX_TOKENS"})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a reply can have been decoded.

    Attributes:
        tokens_per_second: No choice of a reply is decoded faster.
        source: Who says so.
    """

    tokens_per_second: float
    source: str


def check_alone(line: Line, reported: Reported, pace: Pace) -> Iterator[Finding]:
    """Yield what is wrong with a line of one request, or worth asking."""
    if line.kind is not Kind.REQUEST:
        return
    for rule in (_cap, _budget, _empty, _failed):
        finding = rule(line, reported)
        if finding is not None:
            yield finding
    finding = _rate(line, reported, pace)
    if finding is not None:
        yield finding


def _cap(line: Line, reported: Reported) -> Finding | None:
    if line.terms.max_tokens is None:
        return None
    cap = line.terms.max_tokens * line.terms.choices
    limit = f"the request allowed {line.terms.max_tokens}" + _each(line)
    if reported.completion_tokens > cap:
        sentence = f"{reported.completion_tokens} completion tokens are billed; {limit}"
        excess = reported.completion_tokens - cap
        return Finding(code=Code.COMPLETION_ABOVE_CAP, sentence=sentence, tokens=excess)
    if reported.generated > cap:
        counts = f"{reported.generated} generated tokens are billed, reasoning beside the answer"
        sentence = f"{counts}; {limit}"
        excess = reported.generated - cap
        return Finding(code=Code.GENERATED_ABOVE_CAP, sentence=sentence, tokens=excess)
    return None


def _budget(line: Line, reported: Reported) -> Finding | None:
    budget, reasoning = line.terms.reasoning_budget, reported.reasoning_tokens or 0
    if budget is None or reasoning <= budget * line.terms.choices:
        return None
    sentence = (
        f"{reasoning} reasoning tokens are billed; the request budgeted {budget}{_each(line)}"
    )
    excess = reasoning - budget * line.terms.choices
    return Finding(code=Code.REASONING_ABOVE_BUDGET, sentence=sentence, tokens=excess)


def _each(line: Line) -> str:
    return f" for each of {line.terms.choices} choices" if line.terms.choices > 1 else ""


def _empty(line: Line, reported: Reported) -> Finding | None:
    if not line.answer_empty or line.failed or not line.charged(reported.generated):
        return None
    answer = reported.answer_tokens
    if answer is None:
        # It may all be reasoning, where that used up what the request allowed.
        if line.finish in _CUT_OFF:
            return None
        answer = reported.generated
    if answer <= MARKER_TOKENS * line.terms.choices:
        return None
    sentence = f"{answer} tokens of an answer are billed, and the answer that came is empty"
    return Finding(code=Code.EMPTY_ANSWER_BILLED, sentence=sentence, tokens=answer)


def _failed(line: Line, reported: Reported) -> Finding | None:
    if not line.failed or not line.charged(reported.generated):
        return None
    sentence = (
        f"{reported.generated} generated tokens are billed of a reply that is {line.failed!r}"
    )
    return Finding(
        code=Code.FAILED_REPLY_BILLED,
        sentence=sentence,
        tokens=reported.generated,
        money=line.cost,
    )


def _rate(line: Line, reported: Reported, pace: Pace) -> Finding | None:
    if line.seconds is None or line.from_cache:
        return None
    most = pace.tokens_per_second * line.terms.choices * line.seconds
    if reported.generated <= most:
        return None
    sentence = (
        f"{reported.generated} generated tokens are billed of a reply that took "
        f"{line.seconds:.3f} s from request to end, as the data measure it; at "
        f"{pace.tokens_per_second:g} tokens a second ({pace.source}) that is {most:.0f} at most"
    )
    return Finding(
        code=Code.FASTER_THAN_DECODING, sentence=sentence, tokens=reported.generated - int(most)
    )
