"""Which evidence tiers an audit earned (protocol, section 2)."""

from __future__ import annotations

from itertools import pairwise

from coin_protocol.checks import Case, Report
from coin_protocol.keys import read_time
from coin_protocol.v1 import receipt_pb2 as pb


def earned_tiers(case: Case, report: Report) -> list[pb.Tier.ValueType]:
    """Return the tiers that the checks which passed bear out, weakest first.

    `asserted` always; `committed` once drawn openings verified (or there is nothing to
    open); `timed` and `opened` on top of it. The other tiers are not built.
    """
    tiers = [pb.TIER_ASSERTED]
    nothing_to_open = report.passed("SIZES") and case.commitment.reasoning_tokens == 0
    committed = nothing_to_open or (bool(case.openings) and report.passed("WINDOW_EMBEDDING"))
    if not committed:
        return tiers
    tiers.append(pb.TIER_COMMITTED)
    if report.passed("ARRIVAL_TIME") and not untimed_reason(case):
        tiers.append(pb.TIER_TIMED)
    if report.passed("WHOLE_EMBEDDING"):
        tiers.append(pb.TIER_OPENED)
    return tiers


def untimed_reason(case: Case) -> str:
    """Return why the client's times earn no `timed` tier, or nothing if they do.

    Wanted: a checkpoint seen for every full block, in order and before the answer began,
    and spread out as decoding is. Networks bunch arrivals, so bunched checkpoints prove
    nothing, neither way.
    """
    full_blocks = case.commitment.reasoning_tokens // case.profile.block_size
    if full_blocks == 0:
        return "the reasoning is shorter than one block, so no checkpoint was due"
    counts = [message.block_count for message in case.checkpoints]
    if counts != list(range(1, full_blocks + 1)):
        return f"the client saw {len(counts)} checkpoints of {full_blocks} full blocks"
    times = [read_time(seen.seen_at) for seen in case.receipt.checkpoints]
    marks = [read_time(case.receipt.sent_at), *times]
    if not case.receipt.HasField("answer_first_at"):
        return "the receipt does not say when the answer began"
    marks.append(read_time(case.receipt.answer_first_at))
    if any(later < earlier for earlier, later in pairwise(marks)):
        return "the client's clock ran backwards, or checkpoints came after the answer began"
    span = (times[-1] - times[0]).total_seconds()
    tokens = (full_blocks - 1) * case.profile.block_size
    if tokens > case.policy.message.max_tokens_per_second * span:
        return f"{full_blocks} checkpoints arrived within {span:.3f} s, together at the end"
    return ""
