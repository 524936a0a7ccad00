"""Receipts as far as a bill needs them: what they commit to, and whether that can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from coin_protocol import envelope
from coin_protocol.checks import CHECKS, Case, Trust, run_checks
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, StatementError, VerificationError
from coin_protocol.keys import VerificationKey, read_time
from coin_protocol.keyset import pinned
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy, Profile
from coin_protocol.statements import parse, read_commitment
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.bill.fields import YEARS, read_json
from verifier_sdk.bill.line import NO_TERMS, Period, Terms
from verifier_sdk.bill.replies import terms_of

_BILL: Final = "BILL"
_NEED_NO_KEYS: Final = frozenset({"CLIENT_NONCE", "REQUEST_DIGEST", "ANSWER_DIGEST", _BILL})


class State(StrEnum):
    """Whether a receipt can be believed."""

    VERIFIED = "verified"
    """Signed by the provider, and every check that it allows passed."""
    UNVERIFIED = "unverified"
    """No root was given, so anybody may have made it."""
    INVALID = "invalid"
    """A check failed: it is worth nothing."""
    UNDECIDED = "undecided"
    """It cannot be checked here, for it is made under another profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is remembered of a receipt.

    Attributes:
        origin: File, and line where there are several.
        response_id: As whoever kept the receipt noted it, unsigned; empty where nobody did.
        state: Whether it can be believed.
        reason: Why not; empty where it can.
        tier: What its audit proved; `asserted` without one.
        audit_failed: Why a judge failed its audit; empty where none did.
        commitment_sha256: Names the commitment.
        session_id: Of the reply's choice.
        client_nonce: Of the request; its choices share it.
        model: As committed.
        prompt_tokens: As signed; 0 where the provider did not know.
        cached_prompt_tokens: As signed.
        reasoning_tokens: As committed.
        answer_tokens: As committed.
        served: From start to end, by the provider's clock.
        seconds: From sending the request to the answer's last token, by the client's clock.
        terms: Of the request.
        answer_empty: Whether the answer is.
    """

    origin: str
    response_id: str
    state: State
    reason: str = ""
    tier: str = "asserted"
    audit_failed: str = ""
    commitment_sha256: bytes
    session_id: bytes
    client_nonce: bytes
    model: str
    prompt_tokens: int
    cached_prompt_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    served: Period
    seconds: float | None
    terms: Terms
    answer_empty: bool

    @property
    def generated(self) -> int:
        """All tokens that were generated."""
        return self.reasoning_tokens + self.answer_tokens

    @property
    def counts(self) -> bool:
        """Whether its counts may be compared with a bill."""
        return self.state in {State.VERIFIED, State.UNVERIFIED}


@dataclass(frozen=True)
class Examiner:
    """Checks receipts, offline.

    Attributes:
        trust: Whom to believe; None where nobody was named, and then nothing is proven.
        profiles: By digest; those that receipts may be made under, one at least.
        policy: The verifier's own rules.
        verifiers: PEM public keys of verifiers whose audits are believed.
        others: Keys of further verifiers, who may have asked about a commitment before. Their
            own audits are not believed.
    """

    trust: Trust | None
    profiles: Mapping[bytes, Profile]
    policy: Policy
    verifiers: Sequence[bytes] = field(default=())
    others: Sequence[VerificationKey] = field(default=())

    def receipt(
        self, receipt: receipt_pb2.Receipt, origin: str = "", response_id: str = ""
    ) -> Facts:
        """Return what a receipt says, and whether it can be believed.

        Args:
            receipt: As `read_receipt` returns it.
            origin: For messages.
            response_id: As it was noted beside the receipt.

        Raises:
            InvalidInputError: Its commitment is none, or dated in another age.
        """
        try:
            commitment = read_commitment(receipt.commitment.payload)
        except StatementError as error:
            msg = f"it holds no commitment: {error}"
            raise InvalidInputError(msg) from error
        served = Period(read_time(commitment.started_at), read_time(commitment.ended_at))
        if served.start.year not in YEARS or served.end.year not in YEARS:
            msg = f"its reply is dated {served.start.year} to {served.end.year}"
            raise InvalidInputError(msg)
        state, reason = self._state(receipt, commitment.profile_sha256)
        return Facts(
            origin=origin,
            response_id=response_id,
            state=state,
            reason=reason,
            commitment_sha256=digest(receipt.commitment.payload),
            session_id=commitment.session_id,
            client_nonce=commitment.client_nonce,
            model=commitment.model,
            prompt_tokens=commitment.usage.prompt_tokens,
            cached_prompt_tokens=commitment.usage.cached_prompt_tokens,
            reasoning_tokens=commitment.reasoning_tokens,
            answer_tokens=commitment.answer_tokens,
            served=served,
            seconds=_seconds(receipt),
            terms=_terms(receipt.request),
            answer_empty=not receipt.answer,
        )

    def bundle(self, bundle: receipt_pb2.Bundle, origin: str = "", response_id: str = "") -> Facts:
        """Return what a receipt says whose audit is at hand; errors as `receipt`."""
        facts = self.receipt(bundle.receipt, origin, response_id)
        if facts.state is not State.VERIFIED or self.trust is None or not self.verifiers:
            return facts
        try:
            claimed = parse(receipt_pb2.Verdict, bundle.verdict.payload)
            name = claimed.verifier or "verifier"
            keys = [VerificationKey.from_pem(name, pem) for pem in self.verifiers]
            envelope.verify(bundle.verdict, envelope.VERDICT, pinned("verifiers", keys))
            found = verify_bundle(
                bundle,
                trust=replace(self.trust, verifiers=pinned("verifiers", [*keys, *self.others])),
                profile=self.profiles[claimed.profile_sha256],
                policy=self.policy,
            )
        except (VerificationError, InvalidInputError, KeyError):
            # An audit that nobody here can believe takes nothing from the receipt.
            return facts
        return audited(facts, found.verdict, opened=not found.unchecked)

    def _state(self, receipt: receipt_pb2.Receipt, profile: bytes) -> tuple[State, str]:
        case = Case(
            receipt=_untold(receipt),
            trust=self.trust or Trust((), pinned("verifiers", ())),
            profile=self.profiles.get(profile) or next(iter(self.profiles.values())),
            policy=self.policy,
        )
        if self.trust is None:
            return _without_keys(case)
        report = run_checks(case)
        if report.failed is None:
            return State.VERIFIED, ""
        reason = f"{report.failed.code}: {report.detail}"
        failed = report.outcome == receipt_pb2.OUTCOME_FAIL
        return (State.INVALID if failed else State.UNDECIDED), reason


def _untold(receipt: receipt_pb2.Receipt) -> receipt_pb2.Receipt:
    """Return a receipt without the usage that came with its reply.

    Here the line is the bill, and is held against what is signed. A gateway may have passed on
    a block of its upstream's that counts otherwise: that takes nothing from the receipt.
    """
    if not receipt.HasField("billed"):
        return receipt
    untold = receipt_pb2.Receipt()
    untold.CopyFrom(receipt)
    untold.ClearField("billed")
    return untold


def _without_keys(case: Case) -> tuple[State, str]:
    """Run what can be checked of a receipt that anybody may have made."""
    for check in CHECKS:
        if check.code in _NEED_NO_KEYS and check.applies(case):
            try:
                check.verify(case)
            except VerificationError as error:
                return State.INVALID, f"{check.code}: {error}"
    return State.UNVERIFIED, ""


def audited(facts: Facts, verdict: receipt_pb2.Verdict, *, opened: bool) -> Facts:
    """Return a receipt's facts with what its audit adds.

    Args:
        facts: Of the receipt alone.
        verdict: Believed.
        opened: Whether all that it opened was checked again.
    """
    failed = [
        result.code for result in verdict.checks if result.status == receipt_pb2.CHECK_STATUS_FAILED
    ]
    if failed == [_BILL] and verdict.fault == receipt_pb2.FAULT_UNATTRIBUTED:
        # It stopped at what the client was told, which is no word of the provider's.
        return facts
    if failed:
        return replace(facts, state=State.INVALID, reason=f"{failed[0]}: its audit failed")
    if verdict.outcome == receipt_pb2.OUTCOME_FAIL:
        reasons = "; ".join(verdict.reasons)[:500] or "the judge gives no reason"
        return replace(facts, audit_failed=reasons)
    tiers = [tier for tier in verdict.tiers if opened or tier != receipt_pb2.TIER_OPENED]
    name = receipt_pb2.Tier.Name(tiers[-1] if tiers else receipt_pb2.TIER_ASSERTED)
    return replace(facts, tier=name.removeprefix("TIER_").lower())


def _seconds(receipt: receipt_pb2.Receipt) -> float | None:
    if not receipt.HasField("answer_last_at"):
        return None
    took = (read_time(receipt.answer_last_at) - read_time(receipt.sent_at)).total_seconds()
    return took if took > 0 else None


def _terms(request: bytes) -> Terms:
    try:
        body = read_json(request)
    except ValueError:
        return NO_TERMS
    return terms_of(body) if isinstance(body, Mapping) else NO_TERMS
