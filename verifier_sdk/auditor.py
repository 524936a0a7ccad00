"""Audit one receipt to a verdict: check, challenge, check, judge, ask for more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.checks import Case, Report, Trust, rooted_keys, run_checks
from coin_protocol.checks.opened import RETENTION_ENDED
from coin_protocol.clock import wall_time
from coin_protocol.embedding import Vectors, block_embedding, window_dimension
from coin_protocol.errors import (
    InvalidInputError,
    PeerUnavailableError,
    SignatureError,
    VerificationError,
)
from coin_protocol.keys import KeyRing, read_time
from coin_protocol.keyset import stamp
from coin_protocol.limits import CHALLENGE_NONCE_BYTES
from coin_protocol.memory import EvidenceMemory, InMemoryEvidence
from coin_protocol.models import Models
from coin_protocol.profile import Policy
from coin_protocol.receipt import BUNDLE_FORMAT, check_receipt
from coin_protocol.signer import Signer
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2
from verifier_sdk.client import ProviderClient
from verifier_sdk.rounds import affordable_round
from verifier_sdk.semantic import Judge, Judgement, OpenedEvidence, textual_scores
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.semantic.visible import visible_of
from verifier_sdk.verdict import make_verdict, sign_verdict

if TYPE_CHECKING:
    # Loads torch, which a client that only keeps receipts can do without.
    from verifier_sdk.semantic.reader import ReferenceModel

NEAR_DUPLICATE = 0.995
"""Cosine from which a block of another session is noted as the same."""


@dataclass(frozen=True)
class _Decision:
    case: Case
    report: Report
    judgement: Judgement | None
    notes: list[str]


class Auditor:
    """A verifier's name, keys, rules and judge. One serves any number of audits at once."""

    def __init__(  # noqa: PLR0913 - all keyword-only
        self,
        *,
        name: str,
        signer: Signer,
        trust: Trust,
        models: Models,
        policy: Policy,
        judge: Judge | None = None,
        memory: EvidenceMemory | None = None,
        reference: ReferenceModel | None = None,
        on_round: Callable[[str, int], None] | None = None,
    ) -> None:
        """Audit under these rules.

        Args:
            name: In challenges and verdicts.
            signer: Signs them; its key must be among `trust.verifiers`.
            trust: Pinned keys.
            models: Of the profile; the token table is not needed.
            policy: Rounds, thresholds, rates.
            judge: Of graded evidence; by default the learned one that the policy names, or
                its cosine rule where it names none.
            memory: Across sessions; by default in memory.
            reference: A language model whose surprise at blocks opened whole is noted.
            on_round: Told the commitment (hex) and the number of each round that is sent.

        Raises:
            InvalidInputError: The signer's key is not among the trusted verifiers.
            ConfigurationError: The policy names a judge that is not the one that ships, or
                that was not trained for the profile.
        """
        if trust.verifiers.find(signer.public.keyid) is None:
            msg = f"the key of verifier {name!r} is not among the trusted verifiers' keys"
            raise InvalidInputError(msg)
        self.name = name
        self._signer = signer
        self._trust = trust
        self._models = models
        self._policy = policy
        self._judge = judge or judge_for(policy, models)
        self._memory = memory or InMemoryEvidence()
        self._reference = reference
        self._on_round = on_round

    async def audit(
        self, receipt: receipt_pb2.Receipt, provider: ProviderClient
    ) -> receipt_pb2.Bundle:
        """Audit a receipt and return the bundle with its verdict.

        Raises:
            InvalidInputError: The receipt is malformed in a part that the client wrote.
            ConfigurationError: The profile's models are not installed.
        """
        check_receipt(receipt)
        models = self._models
        case = Case(
            receipt=receipt,
            trust=self._trust,
            profile=models.profile,
            policy=self._policy,
            installed=await asyncio.to_thread(lambda: (models.tokenizer, models.embedder)),
        )
        decision = await self._decide(await self._with_newer_keys(case, provider), provider)
        verdict = make_verdict(
            decision.case,
            decision.report,
            verifier=self.name,
            judgement=decision.judgement,
            notes=decision.notes,
        )
        case = decision.case
        return receipt_pb2.Bundle(
            format=BUNDLE_FORMAT,
            receipt=case.receipt,
            manifest=case.manifest,
            rounds=case.rounds,
            whole_rounds=case.whole_rounds,
            no_manifest=case.no_manifest or None,
            verdict=sign_verdict(verdict, self._signer),
        )

    async def _decide(self, case: Case, provider: ProviderClient) -> _Decision:
        """Go on until a check fails, the judge passes, or nothing more can be opened."""
        report = await self._check(case)
        if report.failed is not None:
            return _Decision(case, report, None, [])
        try:
            case = await self._with_manifest(case, provider)
        except PeerUnavailableError as error:
            # Another server than the provider's has no commitment to show, and no blame.
            reached = await self._is_provider(case, provider)
            status = _blame(case, error.status) if reached else "UNAVAILABLE"
            case = replace(case, no_manifest=status)
        report = await self._check(case)
        if report.failed is not None:
            return _Decision(case, report, None, [])
        if case.commitment.reasoning_tokens == 0:
            note = "The commitment is to zero reasoning tokens, and so is the bill."
            return _Decision(case, report, None, [note])
        return await self._rounds(case, report, provider)

    async def _rounds(self, case: Case, report: Report, provider: ProviderClient) -> _Decision:
        plan = self._policy.message.rounds
        models = self._models
        visible = await asyncio.to_thread(
            visible_of,
            case.receipt,
            case.profile.message.embedding,
            models.tokenizer,
            models.embedder,
        )
        judgement = Judgement(receipt_pb2.OUTCOME_INCONCLUSIVE, "nothing was opened")
        notes: list[str] = []
        for number in range(1, plan.max_rounds + 1):
            sample = self._sample(case, number)
            if not any(sample):
                notes.append("The exposure caps of the profile allow no further opening.")
                break
            case = await self._challenge(case, provider, number, sample)
            report = await self._check(case)
            if report.failed is None and number == 1 and plan.whole_blocks:
                case = await self._challenge_whole(case, provider, plan.whole_blocks)
                report = await self._check(case)
            if report.failed is not None:
                return _Decision(case, report, None, [])
            if not case.openings:
                notes.append("The provider refused, and shows that others have used up the caps.")
                break
            last = number == plan.max_rounds or not any(self._sample(case, number + 1))
            evidence = OpenedEvidence.of(case, visible, last=last)
            judgement = await asyncio.to_thread(self._judge.judge, evidence)
            if judgement.outcome != receipt_pb2.OUTCOME_INCONCLUSIVE:
                break
        texts = await asyncio.to_thread(textual_scores, case, self._reference)
        judgement = replace(judgement, scores=[*judgement.scores, *texts])
        return _Decision(case, report, judgement, notes + self._across_sessions(case))

    def _sample(self, case: Case, number: int) -> tuple[int, int, int]:
        """Return blocks, token blocks and tokens per block that a round may ask for."""
        return affordable_round(
            case.ledger,
            case.caps,
            self._policy.message.rounds,
            number=number,
            block_size=case.profile.message.block_size,
        )

    async def _check(self, case: Case) -> Report:
        return await asyncio.to_thread(run_checks, case)

    async def _is_provider(self, case: Case, provider: ProviderClient) -> bool:
        try:
            keys = rooted_keys(await provider.served_key_set(), self._trust)
        except (PeerUnavailableError, VerificationError):
            return False
        return keys.owner == case.commitment.provider

    async def _with_newer_keys(self, case: Case, provider: ProviderClient) -> Case:
        """Take the key set that the provider serves now, where it goes on from the receipt's.

        What a provider signs after a rotation is signed by keys that the receipt cannot list.
        """

        def now(issued_at: datetime) -> datetime:
            skew = timedelta(seconds=self._policy.clock_skew_seconds)
            return max(read_time(wall_time()) - skew, issued_at)

        try:
            served = await provider.served_key_set()
            if not rooted_keys(served, self._trust, seen_at=now).continues(case.keys):
                return case
        except (PeerUnavailableError, VerificationError):
            # Whatever that means for the audit shows in the answers.
            return case
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(case.receipt)
        receipt.key_set.CopyFrom(served.signed)
        receipt.root_chain[:] = served.root_chain
        return replace(case, receipt=receipt)

    async def _with_manifest(self, case: Case, provider: ProviderClient) -> Case:
        manifest, fingerprints = await provider.manifest(case.commitment_sha256)
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(case.receipt)
        if not receipt.HasField("fingerprints"):
            receipt.fingerprints.CopyFrom(fingerprints)
        case = replace(case, receipt=receipt, manifest=manifest)
        signed = ((manifest, envelope.MANIFEST), (receipt.fingerprints, envelope.FINGERPRINTS))
        if all(_signed_by(case.keys, *one) for one in signed):
            return case
        return await self._with_newer_keys(case, provider)

    async def _challenge(
        self, case: Case, provider: ProviderClient, number: int, sample: tuple[int, int, int]
    ) -> Case:
        blocks, token_blocks, tokens_per_block = sample
        challenge = opening_pb2.Challenge(
            fingerprints_sha256=case.fingerprints_sha256,
            verifier=self.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=number,
            blocks=blocks,
            token_blocks=token_blocks,
            tokens_per_block=tokens_per_block,
            deadline=self._deadline(),
        )
        case, entry = await self._send(case, provider, challenge)
        return replace(case, rounds=(*case.rounds, entry))

    async def _challenge_whole(self, case: Case, provider: ProviderClient, blocks: int) -> Case:
        blocks = min(blocks, case.caps.whole_blocks - len(case.ledger.whole_blocks))
        if blocks <= 0:
            return case
        challenge = opening_pb2.WholeBlockChallenge(
            fingerprints_sha256=case.fingerprints_sha256,
            verifier=self.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=1,
            blocks=blocks,
            deadline=self._deadline(),
        )
        case, entry = await self._send(case, provider, challenge)
        return replace(case, whole_rounds=(*case.whole_rounds, entry))

    async def _send(
        self,
        case: Case,
        provider: ProviderClient,
        challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge,
    ) -> tuple[Case, receipt_pb2.Round]:
        if self._on_round is not None:
            self._on_round(case.commitment_sha256.hex(), challenge.round)
        whole = isinstance(challenge, opening_pb2.WholeBlockChallenge)
        kind = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
        signed = envelope.sign(challenge.SerializeToString(), kind, self._signer)
        entry = await provider.challenge(case.commitment_sha256, signed, whole=whole)
        answer = envelope.WHOLE_OPENING if whole else envelope.OPENING
        for field, payload_type in (("opening", answer), ("refusal", envelope.REFUSAL)):
            if entry.HasField(field):  # type: ignore[arg-type]
                answered = getattr(entry, field)
                if not _signed_by(case.keys, answered, payload_type):
                    # By a key of today, if the provider rotated in the middle of the audit.
                    case = await self._with_newer_keys(case, provider)
                if not _signed_by(case.keys, answered, payload_type):
                    # Bytes that nobody signed are evidence against nobody: no answer came.
                    entry.no_answer = "NOT_SIGNED_BY_PROVIDER"
                    entry.ClearField(field)  # type: ignore[arg-type]
        if entry.HasField("no_answer"):
            entry.no_answer = _blame(case, entry.no_answer)
        return case, entry

    def _deadline(self) -> Timestamp:
        end = read_time(wall_time()) + timedelta(seconds=self._policy.deadline_seconds)
        return stamp(end)

    def _across_sessions(self, case: Case) -> list[str]:
        """Note opened blocks that other sessions of this provider showed, and keep these."""
        dimension = window_dimension(case.profile.message.embedding)
        provider, notes = case.commitment.provider, []
        for answered in case.openings:
            for block in answered.opening.blocks:
                vector: Vectors = block_embedding(block.windows, dimension)
                match = self._memory.nearest(provider, case.commitment_sha256, vector)
                if match is not None and match.cosine >= NEAR_DUPLICATE:
                    notes.append(
                        f"Block {block.block_index} is like block {match.block_index} of "
                        f"commitment {match.commitment_sha256.hex()} (cosine {match.cosine:.4f})."
                    )
                self._memory.remember(provider, case.commitment_sha256, block.block_index, vector)
        return notes


def _blame(case: Case, status: str) -> str:
    """Return why nothing came: no provider answers past the time that its commitment names."""
    commitment = case.commitment
    if not commitment.HasField("answers_until"):
        return status
    promised = read_time(wall_time()) <= read_time(commitment.answers_until)
    return status if promised else RETENTION_ENDED


def _signed_by(keys: KeyRing, signed: envelope_pb2.Envelope, payload_type: str) -> bool:
    try:
        envelope.verify(signed, payload_type, keys)
    except (SignatureError, InvalidInputError):
        return False
    return True
