"""Audit one receipt to a verdict: check, challenge, check, judge, ask for more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.checks import Case, Report, Trust, rooted_keys, run_checks
from coin_protocol.clock import wall_time
from coin_protocol.embedding import Vectors, block_embedding, embed_texts, window_dimension
from coin_protocol.errors import (
    InvalidInputError,
    PeerUnavailableError,
    SignatureError,
    VerificationError,
)
from coin_protocol.exposure import affordable
from coin_protocol.keys import read_time
from coin_protocol.keyset import stamp
from coin_protocol.limits import CHALLENGE_NONCE_BYTES
from coin_protocol.memory import EvidenceMemory, InMemoryEvidence
from coin_protocol.models import Models
from coin_protocol.profile import Policy
from coin_protocol.receipt import BUNDLE_FORMAT, check_receipt
from coin_protocol.signer import Signer
from coin_protocol.v1 import opening_pb2, receipt_pb2
from verifier_sdk.client import ProviderClient
from verifier_sdk.semantic import CosineJudge, Judge, Judgement, OpenedEvidence, textual_scores
from verifier_sdk.verdict import make_verdict, sign_verdict

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

    def __init__(
        self,
        *,
        name: str,
        signer: Signer,
        trust: Trust,
        models: Models,
        policy: Policy,
        judge: Judge | None = None,
        memory: EvidenceMemory | None = None,
        on_round: Callable[[str, int], None] | None = None,
    ) -> None:
        """Audit under these rules.

        Args:
            name: In challenges and verdicts.
            signer: Signs them; its key must be among `trust.verifiers`.
            trust: Pinned keys.
            models: Of the profile; the token table is not needed.
            policy: Rounds, thresholds, rates.
            judge: Of graded evidence; by default the policy's cosine rule.
            memory: Across sessions; by default in memory.
            on_round: Told the commitment (hex) and the number of each round that is sent.

        Raises:
            InvalidInputError: The signer's key is not among the trusted verifiers.
        """
        if trust.verifiers.find(signer.public.keyid) is None:
            msg = f"the key of verifier {name!r} is not among the trusted verifiers' keys"
            raise InvalidInputError(msg)
        self.name = name
        self._signer = signer
        self._trust = trust
        self._models = models
        self._policy = policy
        self._judge = judge or CosineJudge(policy.message.cosine_rules)
        self._memory = memory or InMemoryEvidence()
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
        decision = await self._decide(case, provider)
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
            case = replace(case, no_manifest=error.status if reached else "UNAVAILABLE")
        report = await self._check(case)
        if report.failed is not None:
            return _Decision(case, report, None, [])
        if case.commitment.reasoning_tokens == 0:
            note = "The commitment is to zero reasoning tokens, and so is the bill."
            return _Decision(case, report, None, [note])
        return await self._rounds(case, report, provider)

    async def _rounds(self, case: Case, report: Report, provider: ProviderClient) -> _Decision:
        plan = self._policy.message.rounds
        answer = await asyncio.to_thread(
            embed_texts, self._models.embedder, [case.receipt.answer.decode(errors="replace")]
        )
        judgement = Judgement(receipt_pb2.OUTCOME_INCONCLUSIVE, "nothing was opened")
        notes: list[str] = []
        for number in range(1, plan.max_rounds + 1):
            wanted = plan.blocks_first_round if number == 1 else plan.blocks_per_round
            blocks, tokens = affordable(
                case.ledger, case.caps, blocks=wanted, tokens_per_block=plan.tokens_per_block
            )
            if blocks == 0:
                notes.append("The exposure caps of the profile allow no further opening.")
                break
            case = await self._challenge(case, provider, number, blocks, tokens)
            report = await self._check(case)
            if report.failed is None and number == 1 and plan.whole_blocks:
                case = await self._challenge_whole(case, provider, plan.whole_blocks)
                report = await self._check(case)
            if report.failed is not None:
                return _Decision(case, report, None, [])
            if not case.openings:
                notes.append("The provider refused, and shows that others have used up the caps.")
                break
            evidence = OpenedEvidence.of(case, answer)
            judgement = self._judge.judge(evidence)
            if judgement.outcome != receipt_pb2.OUTCOME_INCONCLUSIVE:
                break
        judgement = replace(judgement, scores=[*judgement.scores, *textual_scores(case)])
        return _Decision(case, report, judgement, notes + self._across_sessions(case))

    async def _check(self, case: Case) -> Report:
        return await asyncio.to_thread(run_checks, case)

    async def _is_provider(self, case: Case, provider: ProviderClient) -> bool:
        try:
            keys = rooted_keys(await provider.key_set(), self._trust.provider_roots)
        except (PeerUnavailableError, VerificationError):
            return False
        return keys.owner == case.commitment.provider

    async def _with_manifest(self, case: Case, provider: ProviderClient) -> Case:
        manifest, fingerprints = await provider.manifest(case.commitment_sha256)
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(case.receipt)
        if not receipt.HasField("fingerprints"):
            receipt.fingerprints.CopyFrom(fingerprints)
        return replace(case, receipt=receipt, manifest=manifest)

    async def _challenge(
        self, case: Case, provider: ProviderClient, number: int, blocks: int, tokens: int
    ) -> Case:
        challenge = opening_pb2.Challenge(
            fingerprints_sha256=case.fingerprints_sha256,
            verifier=self.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=number,
            blocks=blocks,
            tokens_per_block=tokens,
            deadline=self._deadline(),
        )
        entry = await self._send(case, provider, challenge)
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
        entry = await self._send(case, provider, challenge)
        return replace(case, whole_rounds=(*case.whole_rounds, entry))

    async def _send(
        self,
        case: Case,
        provider: ProviderClient,
        challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge,
    ) -> receipt_pb2.Round:
        if self._on_round is not None:
            self._on_round(case.commitment_sha256.hex(), challenge.round)
        whole = isinstance(challenge, opening_pb2.WholeBlockChallenge)
        kind = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
        signed = envelope.sign(challenge.SerializeToString(), kind, self._signer)
        entry = await provider.challenge(case.commitment_sha256, signed, whole=whole)
        answer = envelope.WHOLE_OPENING if whole else envelope.OPENING
        for field, payload_type in (("opening", answer), ("refusal", envelope.REFUSAL)):
            if entry.HasField(field):  # type: ignore[arg-type]
                try:
                    envelope.verify(getattr(entry, field), payload_type, case.keys)
                except (SignatureError, InvalidInputError):
                    # Bytes that nobody signed are evidence against nobody: no answer came.
                    entry.no_answer = "NOT_SIGNED_BY_PROVIDER"
                    entry.ClearField(field)  # type: ignore[arg-type]
        return entry

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
