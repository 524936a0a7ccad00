"""Audit one receipt to a verdict: check, challenge, check, judge, ask for more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.checks import Case, Trust, rooted_keys
from coin_protocol.checks.opened import RETENTION_ENDED
from coin_protocol.clock import wall_time
from coin_protocol.embedding import TextEmbedder
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    InvalidInputError,
    PeerUnavailableError,
    SignatureError,
    StatementError,
    VerificationError,
)
from coin_protocol.keys import read_time
from coin_protocol.keyset import stamp
from coin_protocol.limits import CHALLENGE_NONCE_BYTES
from coin_protocol.memory import EvidenceMemory, InMemoryEvidence
from coin_protocol.models import Models
from coin_protocol.profile import Policy
from coin_protocol.receipt import BUNDLE_FORMAT, check_receipt
from coin_protocol.signer import Signer
from coin_protocol.statements import (
    read_fingerprints,
    read_manifest,
    read_opening,
    read_refusal,
    read_whole_opening,
)
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2, statements_pb2
from verifier_sdk.client import ProviderClient, seconds_given
from verifier_sdk.deciding import (
    NEAR_DUPLICATE,
    AskManifest,
    AskRound,
    AskWhole,
    Course,
    Decided,
    as_planned,
    block_match,
    conclude,
)
from verifier_sdk.progress import Keep, Progress
from verifier_sdk.remembering import opened_blocks
from verifier_sdk.semantic import Judge, textual_scores
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.verdict import sign_verdict

if TYPE_CHECKING:
    # Loads torch, which a client that only keeps receipts can do without.
    from verifier_sdk.semantic.reader import ReferenceModel


_UNSIGNED: Final = "NOT_SIGNED_BY_PROVIDER"
_ANOTHERS: Final = "ANSWERS_ANOTHER_CHALLENGE"
_ANOTHERS_COMMITMENT: Final = "NAMES_ANOTHER_COMMITMENT"
_SPOILT: Final = frozenset({_UNSIGNED, _ANOTHERS, "DOES_NOT_PARSE"})
"""What the network may have done to an answer."""

_KEY_SET_SECONDS: Final = 10.0
"""Age of the key set that an audit may begin with: where it shows too old, it is asked anew."""


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
        self._loaded: tuple[Tokenizer, TextEmbedder] | None = None

    async def audit(
        self,
        receipt: receipt_pb2.Receipt,
        provider: ProviderClient,
        *,
        progress: receipt_pb2.Bundle | None = None,
        keep: Keep | None = None,
        patient: bool = False,
    ) -> receipt_pb2.Bundle:
        """Audit a receipt and return the bundle with its verdict.

        Args:
            receipt: As the client gave it.
            provider: Where its provider is reached.
            progress: What `keep` was last given by an earlier attempt, which went on no further.
            keep: Awaited before each challenge leaves and after each answer, so that what was
                opened is not asked for twice.
            patient: Do not decide where the provider cannot be reached: raise, to try later.

        Raises:
            InvalidInputError: The receipt is malformed in a part that the client wrote.
            ConfigurationError: The profile's models are not installed.
            PeerUnavailableError: The provider cannot be reached, and the audit is patient.
        """
        check_receipt(receipt)
        case = Case(
            receipt=receipt if progress is None else progress.receipt,
            trust=self._trust,
            profile=self._models.profile,
            policy=self._policy,
            installed=await self._installed(),
        )
        kept = Progress(progress, keep=keep, patient=patient)
        case = as_planned(kept.restored(case))
        case = await self._with_newer_keys(case, provider, within=_KEY_SET_SECONDS)
        case, decided = await self._decide(case, provider, kept)
        texts: list[receipt_pb2.Score] = []
        matches: list[receipt_pb2.BlockMatch] = []
        if decided.judgement is not None:
            texts, matches = await asyncio.to_thread(self._beyond, case)
        verdict = conclude(case, decided, verifier=self.name, texts=texts, matches=matches)
        return receipt_pb2.Bundle(
            format=BUNDLE_FORMAT,
            receipt=case.receipt,
            manifest=case.manifest,
            rounds=case.rounds,
            whole_rounds=case.whole_rounds,
            no_manifest=case.no_manifest or None,
            verdict=sign_verdict(verdict, self._signer),
            matches=matches,
        )

    async def _installed(self) -> tuple[Tokenizer, TextEmbedder]:
        """Return the profile's models, loaded where that holds nobody up."""
        if self._loaded is None:
            models = self._models
            self._loaded = await asyncio.to_thread(lambda: (models.tokenizer, models.embedder))
        return self._loaded

    async def _decide(
        self, case: Case, provider: ProviderClient, kept: Progress
    ) -> tuple[Case, Decided]:
        """Go on until a check fails, the judge decides, or nothing more can be opened."""
        course = Course(models=self._models, judge=self._judge)
        while True:
            step = await asyncio.to_thread(course.next, case)
            if isinstance(step, Decided):
                return case, step
            if isinstance(step, AskManifest):
                case = await self._ask_manifest(case, provider, kept)
            elif isinstance(step, AskRound):
                case = await self._challenge(case, provider, kept, step)
            else:
                case = await self._challenge_whole(case, provider, kept, step)

    async def _ask_manifest(self, case: Case, provider: ProviderClient, kept: Progress) -> Case:
        try:
            return await self._with_manifest(case, provider)
        except PeerUnavailableError as error:
            # Another server than the provider's has no commitment to show, and no blame.
            reached = await self._is_provider(case, provider)
            status = _blame(case, error.status) if reached else "UNAVAILABLE"
            kept.require_reached(status)
            return replace(case, no_manifest=status)

    async def _is_provider(self, case: Case, provider: ProviderClient) -> bool:
        try:
            keys = rooted_keys(await provider.served_key_set(), self._trust)
        except (PeerUnavailableError, VerificationError):
            return False
        return keys.owner == case.commitment.provider

    async def _with_newer_keys(
        self, case: Case, provider: ProviderClient, *, within: float = 0.0
    ) -> Case:
        """Take the key set that the provider serves, where it goes on from the receipt's.

        What a provider signs after a rotation is signed by keys that the receipt cannot list.

        Args:
            case: With the keys known so far.
            provider: To ask.
            within: Seconds that the key set may be old.
        """

        def now(issued_at: datetime) -> datetime:
            skew = timedelta(seconds=self._policy.clock_skew_seconds)
            return max(read_time(wall_time()) - skew, issued_at)

        try:
            served = await provider.served_key_set(within=within)
            if served == case.served:
                return case
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
        for statement, read in ((manifest, read_manifest), (fingerprints, read_fingerprints)):
            if not _names(case, statement, read):
                msg = "the provider sent a statement of another commitment than the one asked about"
                raise PeerUnavailableError(msg, status=_ANOTHERS_COMMITMENT)
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(case.receipt)
        if not receipt.HasField("fingerprints"):
            receipt.fingerprints.CopyFrom(fingerprints)
        case = replace(case, receipt=receipt, manifest=manifest)
        signed = ((manifest, envelope.MANIFEST), (receipt.fingerprints, envelope.FINGERPRINTS))
        if all(_signed_by(case, *one) for one in signed):
            return case
        return await self._with_newer_keys(case, provider)

    async def _challenge(
        self, case: Case, provider: ProviderClient, kept: Progress, step: AskRound
    ) -> Case:
        challenge = opening_pb2.Challenge(
            fingerprints_sha256=case.fingerprints_sha256,
            verifier=self.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=step.number,
            blocks=step.blocks,
            token_blocks=step.token_blocks,
            tokens_per_block=step.tokens_per_block,
            deadline=self._deadline(),
        )
        case, entry = await self._send(case, provider, kept, challenge)
        case = replace(case, rounds=(*case.rounds, entry))
        await kept.answered(case)
        return case

    async def _challenge_whole(
        self, case: Case, provider: ProviderClient, kept: Progress, step: AskWhole
    ) -> Case:
        challenge = opening_pb2.WholeBlockChallenge(
            fingerprints_sha256=case.fingerprints_sha256,
            verifier=self.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=1,
            blocks=step.blocks,
            deadline=self._deadline(),
        )
        case, entry = await self._send(case, provider, kept, challenge)
        case = replace(case, whole_rounds=(*case.whole_rounds, entry))
        await kept.answered(case)
        return case

    async def _send(
        self,
        case: Case,
        provider: ProviderClient,
        kept: Progress,
        challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge,
    ) -> tuple[Case, receipt_pb2.Round]:
        if self._on_round is not None:
            self._on_round(case.commitment_sha256.hex(), challenge.round)
        whole = isinstance(challenge, opening_pb2.WholeBlockChallenge)
        kind = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
        signed = kept.unanswered(challenge, seconds=self._policy.deadline_seconds) or envelope.sign(
            challenge.SerializeToString(), kind, self._signer
        )
        await kept.sending(case, signed, whole=whole)
        entry = await provider.challenge(case.commitment_sha256, signed, whole=whole)
        case, entry = await self._believed(case, provider, entry, whole=whole)
        if entry.no_answer in _SPOILT and self._gives_enough(signed, whole=whole):
            # What a network spoilt comes whole the second time: the same challenge is answered
            # alike, and opens nothing more.
            entry = await provider.challenge(case.commitment_sha256, signed, whole=whole)
            case, entry = await self._believed(case, provider, entry, whole=whole)
        if entry.HasField("no_answer"):
            entry.no_answer = _blame(case, entry.no_answer)
            kept.require_reached(entry.no_answer)
        return case, entry

    async def _believed(
        self, case: Case, provider: ProviderClient, entry: receipt_pb2.Round, *, whole: bool
    ) -> tuple[Case, receipt_pb2.Round]:
        """Take bytes that nobody signed, or that answer something else, for no answer."""
        answer = envelope.WHOLE_OPENING if whole else envelope.OPENING
        for field, payload_type in (("opening", answer), ("refusal", envelope.REFUSAL)):
            if not entry.HasField(field):  # type: ignore[arg-type]
                continue
            answered = getattr(entry, field)
            if not _signed_by(case, answered, payload_type):
                # By a key of today, if the provider rotated in the middle of the audit.
                case = await self._with_newer_keys(case, provider)
            spoilt = ""
            if not _signed_by(case, answered, payload_type):
                spoilt = _UNSIGNED
            elif not _answers(case, entry.challenge, answered):
                spoilt = _ANOTHERS
            if spoilt:
                # Evidence against nobody.
                entry.no_answer = spoilt
                entry.ClearField(field)  # type: ignore[arg-type]
        return case, entry

    def _gives_enough(self, challenge: envelope_pb2.Envelope, *, whole: bool) -> bool:
        """Say whether an answer to a challenge that is sent now could be told from a late one."""
        sent = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
        return seconds_given(sent, whole=whole) > self._policy.deadline_seconds / 2

    def _deadline(self) -> Timestamp:
        end = read_time(wall_time()) + timedelta(seconds=self._policy.deadline_seconds)
        return stamp(end)

    def _beyond(self, case: Case) -> tuple[list[receipt_pb2.Score], list[receipt_pb2.BlockMatch]]:
        """Look at the texts that were opened, and at other sessions."""
        return textual_scores(case, self._reference), self._across_sessions(case)

    def _across_sessions(self, case: Case) -> list[receipt_pb2.BlockMatch]:
        """Find opened blocks that other sessions of this provider showed, and keep these."""
        opened = opened_blocks(case)
        if not opened.indices:
            return []
        matches = [
            block_match(index, match)
            for index, match in zip(opened.indices, self._memory.recall(opened), strict=True)
            if match is not None and match.cosine >= NEAR_DUPLICATE
        ]
        self._memory.remember(opened)
        return matches


def _blame(case: Case, status: str) -> str:
    """Return why nothing came: no provider answers past the time that its commitment names."""
    commitment = case.commitment
    if not commitment.HasField("answers_until"):
        return status
    promised = read_time(wall_time()) <= read_time(commitment.answers_until)
    return status if promised else RETENTION_ENDED


_READERS: Final[
    Mapping[
        str,
        Callable[
            [bytes],
            opening_pb2.Opening | opening_pb2.WholeBlockOpening | opening_pb2.Refusal,
        ],
    ]
] = {
    envelope.OPENING: read_opening,
    envelope.WHOLE_OPENING: read_whole_opening,
    envelope.REFUSAL: read_refusal,
}


def _answers(case: Case, challenge: envelope_pb2.Envelope, answer: envelope_pb2.Envelope) -> bool:
    """Say whether a signed answer is to this challenge, or cannot be read: a check will say so."""
    try:
        found = case.memo.read(_READERS[answer.payload_type], answer.payload)
    except StatementError:
        return True
    return found.challenge_sha256 == digest(challenge.payload)


def _names(
    case: Case,
    signed: envelope_pb2.Envelope,
    read: Callable[[bytes], statements_pb2.Manifest | statements_pb2.Fingerprints],
) -> bool:
    """Say whether a statement names this commitment, or cannot be read: a check will say so."""
    try:
        return case.memo.read(read, signed.payload).commitment_sha256 == case.commitment_sha256
    except StatementError:
        return True


def _signed_by(case: Case, signed: envelope_pb2.Envelope, payload_type: str) -> bool:
    try:
        case.signing_key(signed, payload_type)
    except (SignatureError, InvalidInputError):
        return False
    return True
