"""Check a bundle again from pinned keys, a profile and a policy alone. No network."""

from __future__ import annotations

from dataclasses import dataclass

from coin_protocol import envelope, statements
from coin_protocol.checks import Case, Report, Trust, run_checks
from coin_protocol.embedding import TextEmbedder
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.profile import Policy, Profile
from coin_protocol.tiers import earned_tiers
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import receipt_pb2


@dataclass(frozen=True, slots=True)
class Rechecked:
    """What checking a bundle again gave.

    Attributes:
        verdict: As signed by the verifier.
        report: Of the checks, run again here.
        unchecked: Codes that the verifier reports as passed and that need models which are
            not installed here.
    """

    verdict: receipt_pb2.Verdict
    report: Report
    unchecked: tuple[str, ...]


def verify_bundle(
    bundle: receipt_pb2.Bundle,
    *,
    trust: Trust,
    profile: Profile,
    policy: Policy,
    installed: tuple[Tokenizer, TextEmbedder] | None = None,
) -> Rechecked:
    """Check that a bundle's evidence bears out its verdict.

    The graded part of a verdict is the verifier's judgement and is not repeated here.

    Args:
        bundle: As `receipt.read_bundle` returns it.
        trust: Pinned roots of the provider, and keys of the verifier.
        profile: The commitment's.
        policy: The verdict's.
        installed: The profile's models, to check blocks opened whole.

    Raises:
        VerificationError: The verdict is not signed by a known verifier, or says other than
            the evidence: a verifier that lies.
        InvalidInputError: The verdict is under another profile or policy, or the verifier's
            part of the bundle is malformed.
    """
    envelope.verify(bundle.verdict, envelope.VERDICT, trust.verifiers)
    verdict = statements.read_verdict(bundle.verdict.payload)
    for what, found, wanted in (
        ("profile", verdict.profile_sha256, profile.digest),
        ("policy", verdict.policy_sha256, policy.digest),
    ):
        if found != wanted:
            msg = f"the verdict is under {what} {found.hex()}; given is {wanted.hex()}"
            raise InvalidInputError(msg)
    case = Case(
        receipt=bundle.receipt,
        trust=trust,
        profile=profile,
        policy=policy,
        manifest=bundle.manifest if bundle.HasField("manifest") else None,
        rounds=tuple(bundle.rounds),
        whole_rounds=tuple(bundle.whole_rounds),
        installed=installed,
    )
    if verdict.commitment_sha256 != case.commitment_sha256:
        msg = "the verdict is on another commitment than the receipt's"
        raise VerificationError(msg)
    report = run_checks(case)
    unchecked = _compare(verdict, report)
    if report.failed is None and not unchecked and not _failed(verdict):
        tiers = earned_tiers(case, report)
        if list(verdict.tiers) != tiers:
            names = ", ".join(map(receipt_pb2.Tier.Name, tiers))
            msg = f"the evidence earns the tiers {names}; the verdict claims others"
            raise VerificationError(msg)
    return Rechecked(verdict, report, unchecked)


def _failed(verdict: receipt_pb2.Verdict) -> list[str]:
    failed = receipt_pb2.CHECK_STATUS_FAILED
    return [result.code for result in verdict.checks if result.status == failed]


def _compare(verdict: receipt_pb2.Verdict, report: Report) -> tuple[str, ...]:
    """Return what could not be checked here; raise where the verdict is contradicted."""
    passed = receipt_pb2.CHECK_STATUS_PASSED
    ran = {result.code for result in report.results if result.status == passed}
    claimed = {result.code for result in verdict.checks if result.status == passed}
    said, found = _failed(verdict), [report.failed.code] if report.failed else []
    needs_models = {"WHOLE_TEXT", "WHOLE_EMBEDDING"}
    unchecked = (claimed | set(said)) & needs_models - ran - set(found)
    if said != found and not set(said) <= unchecked:
        msg = f"the verdict reports failed checks {said}, the evidence gives {found}"
        raise VerificationError(msg)
    if report.failed is not None and verdict.outcome != report.outcome:
        msg = f"{report.failed.code} fails, which does not make the verdict's outcome"
        raise VerificationError(msg)
    if not said and verdict.outcome == receipt_pb2.OUTCOME_FAIL and not verdict.scores:
        msg = "the verdict accuses without a failed check and without scores"
        raise VerificationError(msg)
    invented = claimed - ran - unchecked
    if report.failed is None and invented:
        msg = f"the verdict reports checks as passed that had no evidence: {sorted(invented)}"
        raise VerificationError(msg)
    return tuple(sorted(unchecked))
