"""What a receipt shows, one plain finding after another, each with the numbers that it rests on.

Most say how the deterministic checks came out. Those on order and times say, beyond the checks,
whether an audit could earn the tier `timed`: checkpoints that came bunched, or not at all, prove
nothing either way, and fail no check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from coin_protocol import envelope
from coin_protocol.checks import CHECKS, Case, Report
from coin_protocol.checks.kept import answer_known
from coin_protocol.keys import read_time
from coin_protocol.tiers import untimed_reason
from coin_protocol.usage import generated_tokens
from coin_protocol.v1 import statements_pb2

Shown = tuple[bool | None, str]

_PLACES: Final = {check.code: place for place, check in enumerate(CHECKS)}
_NO_CHECKPOINTS: Final = "no checkpoint was seen"
_UNTIMED: Final = "cannot be earned: checkpoints came sooner than they can have been decoded"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a receipt shows, or does not.

    Attributes:
        name: Stable, for programs.
        holds: None where there was nothing to look at, or an earlier check failed.
        detail: A sentence for people.
    """

    name: str
    holds: bool | None
    detail: str


def findings(case: Case, report: Report) -> tuple[Finding, ...]:
    """Return what a receipt shows.

    Args:
        case: The receipt, and what its reader believes and asks for.
        report: Of the checks on it.
    """
    failed = None if report.failed is None else report.failed.code
    place = len(CHECKS) if failed is None else _PLACES[failed]
    found = []
    for row in _ROWS:
        if failed in row.codes:
            holds, detail = False, row.instead or report.detail
        elif any(_PLACES[code] >= place for code in (*row.codes, *row.after)):
            holds, detail = None, f"not looked at, for {failed} failed"
        else:
            holds, detail = row.say(case)
        found.append(Finding(row.name, holds, detail))
    return tuple(found)


def _signature(case: Case) -> Shown:
    listed = envelope.verify(case.receipt.commitment, envelope.COMMITMENT, case.keys)
    count = 1 + len(case.receipt.checkpoints) + case.receipt.HasField("fingerprints")
    return True, (
        f"a root that you believe signed the key set of {case.keys.owner!r}, and its key "
        f"{listed.key.keyid[:16]} the commitment; {count} statements in all are well formed"
    )


def _key_window(case: Case) -> Shown:
    listed = envelope.verify(case.receipt.commitment, envelope.COMMITMENT, case.keys)
    return True, (
        f"the key is valid from {_utc(listed.not_before)} to {_utc(listed.end)}, the commitment "
        f"dated {_utc(read_time(case.commitment.ended_at))}"
    )


def _profile(case: Case) -> Shown:
    message = case.profile.message
    return True, f"{message.name}, with blocks of {message.block_size} tokens"


def _request(case: Case) -> Shown:
    return True, f"the {len(case.receipt.request)} bytes that you sent, with your nonce"


def _answer(case: Case) -> Shown:
    if not answer_known(case):
        reason = statements_pb2.AbortReason.Name(case.commitment.abort_reason)
        return None, f"no answer is bound ({reason.removeprefix('ABORT_REASON_')})"
    summary = ", and the summary" if case.receipt.HasField("summary") else ""
    return True, f"the {len(case.receipt.answer)} bytes that you received{summary}"


def _bill(case: Case) -> Shown:
    commitment, usage = case.commitment, case.commitment.usage
    told = "you were told nothing"
    if case.receipt.HasField("billed"):
        told = "you were told the same" + _split(case.receipt.billed, usage)
    return True, (
        f"{commitment.reasoning_tokens} reasoning and {commitment.answer_tokens} other tokens are "
        f"committed to, {generated_tokens(usage)} billed for {usage.prompt_tokens} prompt tokens; "
        f"{told}"
    )


def _split(told: statements_pb2.Usage, signed: statements_pb2.Usage) -> str:
    """Return how a client was told of reasoning, where that is not what is signed."""
    known = told.reasoning_counting != statements_pb2.REASONING_COUNTING_UNSPECIFIED
    if not known or told.reasoning_tokens == signed.reasoning_tokens:
        return ""
    return f" sum, {told.reasoning_tokens} of it as reasoning"


def _checkpoints(case: Case) -> Shown:
    seen, full = len(case.checkpoints), _full_blocks(case)
    if not seen:
        return None, f"{_NO_CHECKPOINTS} of {full} full blocks"
    return True, f"{seen} seen for {full} full blocks, all of this session"


def _order(case: Case) -> Shown:
    counts = [message.block_count for message in case.checkpoints]
    if not counts:
        return None, _NO_CHECKPOINTS
    for number, (earlier, later) in enumerate(pairwise(counts), 2):
        if later <= earlier:
            return False, (
                f"checkpoint {number} counts {later} blocks, the one before it {earlier}: "
                "they came out of order, or twice"
            )
    return True, f"blocks grow from {counts[0]} to {counts[-1]}"


def _times(case: Case) -> Shown:
    receipt = case.receipt
    marks = [("the request", read_time(receipt.sent_at))]
    marks += [
        (f"checkpoint {number}", read_time(seen.seen_at))
        for number, seen in enumerate(receipt.checkpoints, 1)
    ]
    if receipt.HasField("answer_first_at"):
        marks.append(("the answer's first text", read_time(receipt.answer_first_at)))
    if receipt.HasField("answer_last_at"):
        marks.append(("its last text", read_time(receipt.answer_last_at)))
    if len(marks) == 1:
        return None, "nothing was seen after the request"
    for (before, earlier), (what, at) in pairwise(marks):
        if at < earlier:
            return False, f"{what} came {_seconds(at, earlier)} s before {before}"
    sent, first, last = marks[0][1], marks[1], marks[-1]
    return True, (
        f"none before the request, none backwards: {first[0]} after {_seconds(sent, first[1])} s, "
        f"{last[0]} after {_seconds(sent, last[1])} s"
    )


def _decode_rate(case: Case) -> Shown:
    rate = case.policy.message.max_tokens_per_second
    if not case.checkpoints:
        return None, _NO_CHECKPOINTS
    sent = read_time(case.receipt.sent_at)
    fastest = max(
        message.token_count / max((read_time(seen.seen_at) - sent).total_seconds(), 1e-6)
        for seen, message in zip(case.receipt.checkpoints, case.checkpoints, strict=True)
    )
    return True, f"{fastest:.0f} tokens a second at most since the request; {rate:g} are plausible"


def _timed(case: Case) -> Shown:
    why = untimed_reason(case)
    return (False, f"cannot be earned: {why}") if why else (True, "an audit can earn it")


@dataclass(frozen=True, slots=True)
class _Row:
    """Which checks a finding rests on, and which must have passed before it can be looked at.

    Where a check that it rests on failed, it says what that says, or what stands in `instead`.
    """

    name: str
    say: Callable[[Case], Shown]
    codes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    instead: str = ""


_ROWS: Final = (
    _Row("signature", _signature, ("SIGNATURE", "STATEMENT")),
    _Row("key_window", _key_window, ("KEY_WINDOW",)),
    _Row("profile", _profile, ("PROFILE",)),
    _Row("request", _request, ("CLIENT_NONCE", "REQUEST_DIGEST")),
    _Row("answer", _answer, ("ANSWER_DIGEST",)),
    _Row("bill", _bill, ("BILL",)),
    _Row("checkpoints", _checkpoints, ("CHECKPOINT_PREFIX",)),
    _Row("order", _order, after=("CHECKPOINT_PREFIX",)),
    _Row("times", _times, after=("CHECKPOINT_PREFIX",)),
    _Row("decode_rate", _decode_rate, ("ARRIVAL_TIME",)),
    _Row("timed", _timed, ("ARRIVAL_TIME",), instead=_UNTIMED),
)


def _full_blocks(case: Case) -> int:
    return case.commitment.reasoning_tokens // case.profile.block_size


def _utc(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def _seconds(earlier: datetime, later: datetime) -> str:
    return f"{abs((later - earlier).total_seconds()):.3f}"
