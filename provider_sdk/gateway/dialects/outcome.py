"""What comes of a reply that is not as it should be: no commitment, or a note."""

from __future__ import annotations

from typing import Final

from coin_protocol.v1 import delivery_pb2 as pb
from provider_sdk.gateway.dialects.choice import Choice
from provider_sdk.gateway.splitter import Flag

_REASONS: Final = {
    Flag.BAD_IDS: pb.MISSING_REASON_MALFORMED_UPSTREAM,
    Flag.SOME_IDS: pb.MISSING_REASON_NO_TOKEN_IDS,
    Flag.TEXT_MISMATCH: pb.MISSING_REASON_NO_TOKEN_IDS,
    Flag.NESTED: pb.MISSING_REASON_MALFORMED_REASONING,
    Flag.REOPENED: pb.MISSING_REASON_MALFORMED_REASONING,
    Flag.STRAY_CLOSE: pb.MISSING_REASON_MALFORMED_REASONING,
    Flag.UNCLOSED: pb.MISSING_REASON_MALFORMED_REASONING,
}


def missing_reason(
    choice: Choice, *, reported_reasoning: int
) -> tuple[pb.MissingReason.ValueType, str] | None:
    """Return why a choice can have no commitment, and a sentence; None where it can.

    Reasoning that the reply's end cut off is committed to as far as it went. Reasoning that never
    closes though the reply ended by itself is malformed: the answer may be in it.

    Args:
        choice: After its last token.
        reported_reasoning: Reasoning tokens of the upstream's usage block, over all choices.
    """
    for flag, reason in _REASONS.items():
        if flag in choice.flags and not (flag is Flag.UNCLOSED and choice.cut_off):
            return reason, f"{flag.value}, in choice {choice.index}"
    if not choice.sampled and not choice.reasoning_tokens and reported_reasoning:
        note = f"the upstream counts {reported_reasoning} reasoning tokens and shows none"
        return pb.MISSING_REASON_NO_TOKEN_IDS, note
    return None
