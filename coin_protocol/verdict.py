"""The part of a verdict that follows from the evidence alone: anyone can derive it again."""

from __future__ import annotations

from coin_protocol.checks import Case, Report
from coin_protocol.errors import VerificationError
from coin_protocol.tiers import earned_tiers
from coin_protocol.v1 import receipt_pb2 as pb


def deterministic_verdict(case: Case, report: Report) -> pb.Verdict:
    """Return a verdict without judge, verifier, reasons and time.

    Args:
        case: The evidence.
        report: Of the checks on it. If one failed, that decides outcome and fault; else the
            outcome is INCONCLUSIVE, or PASS where the tier `committed` was earned, for the
            judge to lower.
    """
    verdict = pb.Verdict(
        commitment_sha256=case.commitment_sha256,
        profile_sha256=case.profile.digest,
        policy_sha256=case.policy.digest,
        checks=report.results,
        outcome=report.outcome,
        fault=report.fault,
    )
    try:
        verdict.tiers.extend(earned_tiers(case, report))
        verdict.exposure.CopyFrom(case.ledger.exposure())
        verdict.id_source = case.commitment.id_source
        verdict.abort_reason = case.commitment.abort_reason
    except VerificationError:
        # Statements that do not parse expose nothing that could be counted.
        verdict.tiers[:] = [pb.TIER_ASSERTED]
    verdict.tier = verdict.tiers[-1]
    if report.failed is None:
        committed = pb.TIER_COMMITTED in verdict.tiers
        verdict.outcome = pb.OUTCOME_PASS if committed else pb.OUTCOME_INCONCLUSIVE
    return verdict
