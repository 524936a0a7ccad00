"""A line beside its receipts: what they commit to, and how the bill departs from it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from coin_protocol.vendors import MARKER_TOKENS, DifferenceCode, Reported, compare
from verifier_sdk.bill.buckets import Group
from verifier_sdk.bill.codes import Code, Finding
from verifier_sdk.bill.committed import Committed
from verifier_sdk.bill.line import Line
from verifier_sdk.bill.matching import Match
from verifier_sdk.bill.reading import Reading
from verifier_sdk.bill.receipts import Facts, State

_CODES: Final = {
    DifferenceCode.GENERATED_REASONING_TWICE: Code.GENERATED_REASONING_TWICE,
    DifferenceCode.GENERATED_WITHOUT_REASONING: Code.GENERATED_WITHOUT_REASONING,
    DifferenceCode.GENERATED_MORE: Code.GENERATED_MORE,
    DifferenceCode.GENERATED_LESS: Code.GENERATED_LESS,
    DifferenceCode.COUNTED_OTHERWISE: Code.COUNTED_OTHERWISE,
}
_LESS: Final = frozenset(
    {Code.GENERATED_LESS, Code.GENERATED_SLIGHTLY_LESS, Code.GENERATED_WITHOUT_REASONING}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What receipts make of a line.

    Attributes:
        state: Of its receipts, the worst; None without any.
        equal: Whether they commit to what the line bills, and to all of it.
        committed: Their sums; None where there are none, or none that can be believed.
        tier: The weakest of theirs.
        reported: The line's counts, read as the receipts show that they are meant.
        findings: How the line departs from them, in place of what the block alone gave.
        notes: What is worth knowing and no finding.
    """

    state: State | None = None
    equal: bool = False
    committed: Committed | None = None
    tier: str = "asserted"
    reported: Reported | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def reconcile(line: Line, reading: Reading, match: Match) -> Reconciled:
    """Compare a line with its receipts.

    Args:
        line: As billed.
        reading: Of its counts.
        match: Its receipts.
    """
    notes = (match.note,) if match.note else ()
    found = Reconciled(reported=reading.reported, findings=reading.findings, notes=notes)
    if match.reused is not None or match.given_to is not None:
        return _spoken_for(line, found, match)
    if match.group is not None:
        return _bucket(line.number, found, match.group)
    if not match.receipts:
        return found
    doubtful = _doubtful(match.receipts)
    if doubtful is not None:
        return _without_worth(found, doubtful)
    return _request(found, reading, match)


def _spoken_for(line: Line, found: Reconciled, match: Match) -> Reconciled:
    """Return what a receipt is worth that another line has: it vouches for one line only."""
    if match.reused is not None:
        sentence = (
            f"its receipt ({match.reused.origin}) is that of reply {match.reused.response_id}"
        )
    else:
        sentence = f"its receipt vouches for line {match.given_to}"
    if found.reported is None or not line.charged(found.reported.generated):
        return replace(found, notes=(*found.notes, sentence))
    finding = Finding(
        code=Code.RECEIPT_REUSED,
        sentence=sentence,
        tokens=found.reported.generated,
        money=line.cost,
    )
    return replace(found, findings=(*found.findings, finding))


def _doubtful(receipts: Sequence[Facts]) -> Facts | None:
    bad = [facts for facts in receipts if not facts.counts]
    return min(bad, key=lambda facts: facts.state is not State.INVALID, default=None)


def _without_worth(found: Reconciled, facts: Facts) -> Reconciled:
    """Return what a receipt is worth that does not verify: nothing, and the line is told so."""
    sentence = f"its receipt ({facts.origin}) is worth nothing: {facts.reason}"
    if facts.state is State.UNDECIDED:
        note = f"its receipt ({facts.origin}) cannot be checked here: {facts.reason}"
        return replace(found, state=facts.state, notes=(*found.notes, note))
    finding = Finding(code=Code.RECEIPT_INVALID, sentence=sentence)
    return replace(found, state=facts.state, findings=(*found.findings, finding))


def _request(found: Reconciled, reading: Reading, match: Match) -> Reconciled:
    if reading.reported is None:
        return found
    committed = Committed.of(match.receipts)
    found = _resting_on(committed, found)
    findings = _audits(committed)
    if not match.complete:
        # What the other choices add nobody knows; the prompt is billed with one of them.
        findings += _at_least(reading.reported, committed)
        return replace(found, findings=(*reading.findings, *findings))
    reported, settled = _meant(reading, committed)
    differences, notes = _differences(reported, committed)
    findings += differences
    findings += _prompts(reported, committed)
    kept = () if settled else reading.findings
    return replace(
        found,
        equal=not findings and not kept,
        reported=reported,
        findings=(*kept, *findings),
        notes=(*found.notes, *notes),
    )


def _resting_on(committed: Committed, found: Reconciled) -> Reconciled:
    return replace(found, state=committed.state, committed=committed, tier=committed.tier)


def _audits(committed: Committed) -> list[Finding]:
    failed = committed.audit_failed
    if failed is None:
        return []
    sentence = f"the audit of its receipt ({failed.origin}) failed: {failed.audit_failed}"
    return [Finding(code=Code.AUDIT_FAILED, sentence=sentence)]


def _meant(reading: Reading, committed: Committed) -> tuple[Reported, bool]:
    """Return the counts as the receipts show that they are meant, and whether that settles them."""
    reported, beside = reading.reported, reading.beside
    if reported is None:
        msg = "a line without counts has nothing to be meant"
        raise ValueError(msg)
    if (
        beside is not None
        and beside.generated == committed.generated
        and reported.generated != committed.generated
    ):
        return beside, True
    # Where several vendors' ways fit a block, its receipts tell which was meant.
    plain = all(finding.code is Code.AMBIGUOUS for finding in reading.findings)
    return reported, plain and reported.generated == committed.generated


def _differences(reported: Reported, committed: Committed) -> tuple[list[Finding], list[str]]:
    """Return how the generated tokens differ, and what of the split does that is not billed."""
    findings, notes = [], []
    excess = reported.generated - committed.generated
    for found in compare(
        reported,
        committed_reasoning=committed.reasoning_tokens,
        answer_tokens=committed.answer_tokens,
    ):
        code = _CODES.get(found.code)
        if found.code is DifferenceCode.GENERATED_OFF_BY_MARKERS:
            code = Code.GENERATED_SLIGHTLY_MORE if excess > 0 else Code.GENERATED_SLIGHTLY_LESS
        if code is None:
            notes.append(str(found))
            continue
        tokens = None if code is Code.COUNTED_OTHERWISE else excess
        findings.append(Finding(code=code, sentence=found.sentence, tokens=tokens))
    return findings, notes


def _prompts(reported: Reported, committed: Committed) -> Iterator[Finding]:
    """Yield how the prompt differs from the usage that the provider signed."""
    billed, signed = reported.prompt_tokens, committed.prompt_tokens
    if committed.prompts_known and billed != signed:
        code = Code.PROMPT_MORE if billed > signed else Code.PROMPT_LESS
        sentence = f"{billed} prompt tokens are billed, {signed} are signed"
        yield Finding(code=code, sentence=sentence, tokens=billed - signed)
    cached = reported.cached_prompt_tokens
    if cached < committed.cached_prompt_tokens:
        sentence = (
            f"{cached} prompt tokens are billed as cached, "
            f"{committed.cached_prompt_tokens} are signed"
        )
        yield Finding(code=Code.CACHED_LESS, sentence=sentence)


def _at_least(reported: Reported, committed: Committed) -> list[Finding]:
    """Return what receipts of a part already show: it cannot be more than the whole."""
    if reported.generated >= committed.generated:
        return []
    sentence = (
        f"{reported.generated} generated tokens are billed; receipts of a part of the requests "
        f"commit to {committed.generated}"
    )
    excess = reported.generated - committed.generated
    return [Finding(code=Code.GENERATED_LESS, sentence=sentence, tokens=excess)]


def _bucket(number: int, found: Reconciled, group: Group) -> Reconciled:
    """Compare a group of lines with the receipts of its period."""
    committed, complete = group.committed
    found = _resting_on(committed, found)
    shared = () if group.lines == 1 else (f"compared with {group.lines - 1} more lines together",)
    if complete:
        differences, notes = _differences(group.reported, committed)
        findings = [*differences, *_prompts(group.reported, committed)]
        findings = [_of_many(finding, committed.receipts) for finding in findings]
    else:
        findings, notes = _bounds(group, committed, group.every)
    findings = [*_audits(committed), *(_beside(each, group, committed) for each in findings)]
    if number != group.first:
        # Counted once in the totals.
        findings = [replace(finding, tokens=None, money=None) for finding in findings]
    return replace(
        found,
        equal=complete and not findings and not found.findings,
        findings=(*found.findings, *findings),
        notes=(*found.notes, *shared, *notes),
    )


def _of_many(finding: Finding, receipts: int) -> Finding:
    """Return a finding on sums; markers of many replies explain more than those of one."""
    explained = abs(finding.tokens or 0) <= MARKER_TOKENS * receipts
    slight = {
        Code.GENERATED_MORE: Code.GENERATED_SLIGHTLY_MORE,
        Code.GENERATED_LESS: Code.GENERATED_SLIGHTLY_LESS,
    }
    return replace(finding, code=slight.get(finding.code, finding.code)) if explained else finding


def _beside(finding: Finding, group: Group, committed: Committed) -> Finding:
    """Return a finding; as a question where reasoning beside the completion may explain it."""
    most = group.reported.completion_tokens + (group.reported.reasoning_tokens or 0)
    if not group.undecided or finding.code not in _LESS or most < committed.generated:
        return finding
    why = "reasoning may be beside the completion in some replies, and no total tells"
    return Finding(code=Code.AMBIGUOUS, sentence=f"{finding.sentence}: {why}")


def _bounds(group: Group, inside: Committed, every: Committed) -> tuple[list[Finding], list[str]]:
    """Return what is certain where the receipts need not be those of all requests."""
    findings = _at_least(group.reported, inside)
    billed = group.reported.generated
    notes = []
    if group.more_receipts_than_requests and billed > every.generated:
        sentence = (
            f"{billed} generated tokens are billed for {group.requests} requests; receipts of "
            f"{every.receipts} commit to {every.generated}"
        )
        excess = billed - every.generated
        findings.append(Finding(code=Code.GENERATED_MORE, sentence=sentence, tokens=excess))
    elif not findings:
        of = "" if group.requests is None else f" of {group.requests} requests"
        at_edge = f", {len(group.edge)} of them near its edge" if group.edge else ""
        notes.append(
            f"{every.receipts} receipts{of}{at_edge}: {billed - inside.generated} generated "
            f"tokens are borne out by none"
        )
    return findings, notes
