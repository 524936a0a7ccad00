"""Check a receipt, or a bundle again, from pinned keys, a profile and a policy. No network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final

from coin_protocol import envelope, statements
from coin_protocol.checks import CHECKS, Case, Check, Report, Trust, run_checks
from coin_protocol.embedding import TextEmbedder
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.findings import Finding, findings
from coin_protocol.profile import Policy, Profile
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import receipt_pb2, statements_pb2
from coin_protocol.verdict import deterministic_verdict

_NEED_MODELS: Final = frozenset({"WHOLE_TEXT", "WHOLE_EMBEDDING"})
_RAN: Final = (receipt_pb2.CHECK_STATUS_PASSED, receipt_pb2.CHECK_STATUS_FAILED)


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


@dataclass(frozen=True, slots=True)
class CheckedReceipt:
    """What checking a receipt gave. Nothing of it is proven beyond the tier `asserted`.

    Attributes:
        report: Of the checks.
        findings: What they rest on, and whether an audit could earn the tier `timed`.
        commitment: What the provider signed; None where its signature or form is not good.
    """

    report: Report
    findings: tuple[Finding, ...]
    commitment: statements_pb2.Commitment | None

    @property
    def outcome(self) -> receipt_pb2.Outcome.ValueType:
        """PASS where no check failed, else what the failure means."""
        sound = self.report.failed is None
        return receipt_pb2.OUTCOME_PASS if sound else self.report.outcome


def verify_receipt(
    receipt: receipt_pb2.Receipt, *, trust: Trust, profile: Profile, policy: Policy
) -> CheckedReceipt:
    """Check what a receipt can show without its provider.

    Args:
        receipt: As `receipt.read_receipt` returns it.
        trust: Pinned roots of the provider.
        profile: The commitment's.
        policy: The reader's own rules.
    """
    case = Case(receipt=receipt, trust=trust, profile=profile, policy=policy)
    report = run_checks(case)
    signed = report.passed("STATEMENT")
    return CheckedReceipt(report, findings(case, report), case.commitment if signed else None)


def verify_bundle(
    bundle: receipt_pb2.Bundle,
    *,
    trust: Trust,
    profile: Profile,
    policy: Policy,
    installed: tuple[Tokenizer, TextEmbedder] | None = None,
) -> Rechecked:
    """Check that a bundle's evidence bears out its verdict.

    The graded part of a verdict is the judge's, and is replayed elsewhere (`replaying`).

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
    verdict = signed_verdict(bundle, trust=trust, profile=profile, policy=policy)
    case = case_of(bundle, trust=trust, profile=profile, policy=policy, installed=installed)
    report = run_checks(case)
    assumed, unchecked = _with_claims(case, report, verdict)
    _compare(verdict, deterministic_verdict(case, assumed), judged=assumed.failed is None)
    return Rechecked(verdict, report, unchecked)


def signed_verdict(
    bundle: receipt_pb2.Bundle, *, trust: Trust, profile: Profile, policy: Policy
) -> receipt_pb2.Verdict:
    """Return a bundle's verdict once its signature is checked; errors as `verify_bundle`."""
    listed = envelope.verify(bundle.verdict, envelope.VERDICT, trust.verifiers)
    verdict = statements.read_verdict(bundle.verdict.payload)
    if verdict.verifier != listed.key.name:
        msg = f"{listed.key.name!r} signed a verdict in the name of {verdict.verifier!r}"
        raise VerificationError(msg)
    for what, found, wanted in (
        ("profile", verdict.profile_sha256, profile.digest),
        ("policy", verdict.policy_sha256, policy.digest),
    ):
        if found != wanted:
            msg = f"the verdict is under {what} {found.hex()}; given is {wanted.hex()}"
            raise InvalidInputError(msg)
    return verdict


def case_of(
    bundle: receipt_pb2.Bundle,
    *,
    trust: Trust,
    profile: Profile,
    policy: Policy,
    installed: tuple[Tokenizer, TextEmbedder] | None,
) -> Case:
    """Return a bundle's evidence, all of it."""
    return Case(
        receipt=bundle.receipt,
        trust=trust,
        profile=profile,
        policy=policy,
        manifest=bundle.manifest if bundle.HasField("manifest") else None,
        no_manifest=bundle.no_manifest,
        rounds=tuple(bundle.rounds),
        whole_rounds=tuple(bundle.whole_rounds),
        installed=installed,
    )


def _with_claims(
    case: Case, report: Report, verdict: receipt_pb2.Verdict
) -> tuple[Report, tuple[str, ...]]:
    """Fill in, from the verdict, what only a reader with models can check.

    Returns:
        The report as it would be if those claims are true, and their codes.
    """
    if case.installed is not None or not case.whole_rounds:
        return report, ()
    claims = {result.code: result for result in verdict.checks if result.code in _NEED_MODELS}
    results: list[receipt_pb2.CheckResult] = []
    unchecked: list[str] = []
    failed: Check | None = None
    for check, found in zip(CHECKS, report.results, strict=True):
        result = receipt_pb2.CheckResult(code=check.code, status=found.status)
        claimed = claims.get(check.code)
        if failed is not None:
            result.status = receipt_pb2.CHECK_STATUS_SKIPPED
        elif claimed is not None and claimed.status in _RAN and case.whole_openings:
            result.status = claimed.status
            unchecked.append(check.code)
            if claimed.status == receipt_pb2.CHECK_STATUS_FAILED:
                failed = check
        elif check is report.failed:
            return replace(report, results=(*results, *report.results[len(results) :])), tuple(
                unchecked
            )
        results.append(result)
    if failed is None:
        return replace(report, results=tuple(results)), tuple(unchecked)
    return Report(tuple(results), failed, "", failed.outcome, failed.fault), tuple(unchecked)


def _compare(claimed: receipt_pb2.Verdict, derived: receipt_pb2.Verdict, *, judged: bool) -> None:
    """Check that a verdict says what the evidence gives.

    Args:
        claimed: As signed.
        derived: From the evidence.
        judged: Whether no check failed, so that a judge had its say on the outcome.

    Raises:
        VerificationError: They differ; the message names the first difference.
    """
    names = ("commitment_sha256", "tier", "tiers", "exposure", "id_source", "abort_reason")
    for name in names:
        if getattr(claimed, name) != getattr(derived, name):
            msg = f"the verdict's {name} is not what the evidence gives"
            raise VerificationError(msg)
    for said, found in zip_longest(claimed.checks, derived.checks):
        if said is None or found is None or (said.code, said.status) != (found.code, found.status):
            code = (said or found).code
            msg = f"the verdict says of check {code} what the evidence does not give"
            raise VerificationError(msg)
    if not judged:
        if (claimed.outcome, claimed.fault) != (derived.outcome, derived.fault):
            msg = "the failed check does not make the outcome or the fault of the verdict"
            raise VerificationError(msg)
        return
    if claimed.outcome == receipt_pb2.OUTCOME_PASS != derived.outcome:
        msg = "the verdict is PASS, though nothing was opened that could bear it out"
        raise VerificationError(msg)
    opened = derived.exposure.block_embeddings > 0 and derived.outcome == receipt_pb2.OUTCOME_PASS
    if claimed.outcome == receipt_pb2.OUTCOME_FAIL and not (opened and claimed.scores):
        msg = "the verdict accuses without a failed check, or without scores of opened blocks"
        raise VerificationError(msg)
    accuses = claimed.outcome == receipt_pb2.OUTCOME_FAIL
    if claimed.fault != (receipt_pb2.FAULT_PROVIDER if accuses else receipt_pb2.FAULT_UNSPECIFIED):
        msg = "the verdict names another fault than its outcome has where no check failed"
        raise VerificationError(msg)
