"""Put what checks and judge found into a signed verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.checks import Case, Report
from coin_protocol.clock import wall_time
from coin_protocol.signer import Signer
from coin_protocol.tiers import untimed_reason
from coin_protocol.v1 import envelope_pb2, statements_pb2
from coin_protocol.v1 import receipt_pb2 as pb
from coin_protocol.verdict import deterministic_verdict
from verifier_sdk.semantic import Judgement

CAVEAT = (
    "No tier below reexecuted answers a provider that pays a cheap model to write plausible "
    "filler, and no tier proves that the reasoning was useful."
)

_ABORTS: Final = {
    statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED: "the client hung up",
    statements_pb2.ABORT_REASON_UPSTREAM_ERROR: "what generated it failed",
    statements_pb2.ABORT_REASON_CANCELLED: "the provider stopped it",
    statements_pb2.ABORT_REASON_CRASHED: (
        "the provider's process died, and bills the blocks that it had written down"
    ),
}


def make_verdict(
    case: Case,
    report: Report,
    *,
    verifier: str,
    judgement: Judgement | None,
    notes: list[str],
    decided_at: Timestamp | None = None,
) -> pb.Verdict:
    """Return the verdict on a case.

    Args:
        case: The evidence.
        report: Of the deterministic checks; a failed one decides.
        verifier: Name of who decides.
        judgement: Of the graded evidence; None where nothing was opened.
        notes: More reasons, for people.
        decided_at: When; now by default.
    """
    verdict = deterministic_verdict(case, report)
    verdict.verifier = verifier
    verdict.decided_at.CopyFrom(wall_time() if decided_at is None else decided_at)
    verdict.reasons.extend(_standing(verdict, case, report))
    if judgement is not None:
        verdict.scores.extend(judgement.scores)
        if judgement.probability is not None:
            verdict.inflation_probability = judgement.probability
        if judgement.interval is not None:
            low, high = judgement.interval
            verdict.inflated_share.CopyFrom(pb.ShareInterval(low=low, high=high))
        verdict.reasons.append(_sentence(judgement.reason))
    verdict.reasons.extend(notes)
    if report.failed is not None:
        verdict.reasons.append(f"{report.failed.code}: {report.detail}.")
        verdict.reasons.append(report.advice)
    elif judgement is not None:
        verdict.outcome = judgement.outcome
        if judgement.outcome == pb.OUTCOME_FAIL:
            verdict.fault = pb.FAULT_PROVIDER
    if verdict.outcome == pb.OUTCOME_PASS:
        verdict.reasons.append(CAVEAT)
    return verdict


def sign_verdict(verdict: pb.Verdict, signer: Signer) -> envelope_pb2.Envelope:
    """Return the signed verdict."""
    return envelope.sign(verdict.SerializeToString(), envelope.VERDICT, signer)


def _standing(verdict: pb.Verdict, case: Case, report: Report) -> Iterator[str]:
    """Yield what to know of the commitment before any judgement."""
    if verdict.id_source == statements_pb2.ID_SOURCE_RETOKENIZED:
        yield "The ids are RETOKENIZED from text: they may differ from those that were sampled."
    if verdict.abort_reason in _ABORTS:
        yield f"The reply is a part: {_ABORTS[verdict.abort_reason]}."
    if pb.TIER_COMMITTED in verdict.tiers and pb.TIER_TIMED not in verdict.tiers:
        yield f"Not timed: {untimed_reason(case) or report.detail}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
