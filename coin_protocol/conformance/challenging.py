"""Challenge a provider's replies, and hold each answer against the checks and the caps."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import DecodeError
from grpc import aio

from coin_protocol import envelope, transport
from coin_protocol.checks import Case as Evidence
from coin_protocol.checks import Trust
from coin_protocol.clock import wall_time
from coin_protocol.conformance.asking import REPLAY, ask_replay
from coin_protocol.conformance.judging import NotApplicable, NotMet
from coin_protocol.conformance.replies import (
    Asked,
    Fits,
    Installed,
    Reply,
    fits,
    require_sound,
)
from coin_protocol.conformance.wire import OK, Answer, Wire
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError, VerificationError
from coin_protocol.keyset import stamp
from coin_protocol.limits import CHALLENGE_NONCE_BYTES
from coin_protocol.profile import Policy, Profile
from coin_protocol.signer import Signer
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2
from coin_protocol.v1 import provider_service_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ProviderService"].full_name
NO_KEY: Final = "needs --key and --name of a verifier that the provider knows"

LAST_PREPARED: Final = "LEAF_REPEATED"
LAST_OPENED: Final = "WINDOW_EMBEDDING"
LAST_WHOLE: Final = "WHOLE_EMBEDDING"
"""Of each kind of evidence the last check that looks at it."""

_NO_REPLIES: Final = "needs replies: give --receipts, or --generate where the target replays traces"
_TRIES: Final = 4
"""Replies that are tried where others have challenged some before."""

_BROKEN: Final = 2
"""Replies that cannot be built on, after which no more are asked for."""


@dataclass(frozen=True, kw_only=True)
class ProviderSetting:
    """What the runner has beside the target.

    Attributes:
        trust: The provider's pinned roots, and the verifier's own key.
        profile: Of the commitments.
        policy: Deadlines and rates.
        signer: Signs challenges; None where no verifier's key was given.
        name: The verifier's.
        installed: Returns the profile's models, or raises `NotApplicable`.
        receipts: Kept before.
        model: Of the replay to ask.
        question: That it is asked; empty where none is.
        anonymous: Opens a channel that shows neither certificate nor token; None in plaintext.
    """

    trust: Trust
    profile: Profile
    policy: Policy
    signer: Signer | None
    name: str
    installed: Callable[[], Installed]
    receipts: Sequence[receipt_pb2.Receipt] = ()
    model: str = ""
    question: str = ""
    anonymous: Callable[[], aio.Channel] | None = None


class Challenger:
    """Holds the replies, and challenges them."""

    def __init__(self, wire: Wire, setting: ProviderSetting) -> None:
        """Challenge the target of a wire; nothing is sent yet."""
        self._wire = wire
        self._setting = setting
        self.replies = [self._reply(receipt) for receipt in setting.receipts]

    # Replies

    async def some_replies(self) -> Sequence[Reply]:
        """Return all replies so far, at least one.

        Raises:
            NotApplicable: There is none, and none can be asked for.
            NotMet: The target gives none.
        """
        if not self.replies:
            await self._new_reply()
        return self.replies

    async def prepared_reply(self) -> Reply:
        """Return a reply whose manifest came and holds; errors as `some_replies`."""
        for reply in await self.some_replies():
            await self.prepare(reply)
            if not reply.problem:
                return reply
        raise NotApplicable(self.replies[0].problem)

    async def known_reply(self) -> Reply:
        """Return a reply whose manifest came, whatever it says; errors as `some_replies`."""
        for reply in await self.some_replies():
            await self.prepare(reply)
            if reply.evidence.manifest is not None:
                return reply
        raise NotApplicable(self.replies[0].problem)

    async def reply_that(self, suits: Fits) -> Reply:
        """Return a prepared reply that suits, a new one if none does.

        Raises:
            NotApplicable: There is none, or no key to challenge it with.
            NotMet: The target gives none.
        """
        if self._setting.signer is None:
            raise NotApplicable(NO_KEY)
        for reply in self.replies:
            await self.prepare(reply)
            if not reply.problem and suits(reply):
                return reply
        broken = [reply for reply in self.replies if reply.problem]
        if len(broken) == len(self.replies) >= _BROKEN:
            raise NotApplicable(broken[0].problem)
        reply = await self._new_reply()
        await self.prepare(reply)
        if reply.problem:
            raise NotApplicable(reply.problem)
        if not suits(reply):
            msg = (
                f"a reply of {reply.evidence.commitment.reasoning_tokens} reasoning tokens does "
                "not allow this under the profile's caps: another length may"
            )
            raise NotApplicable(msg)
        return reply

    async def prepare(self, reply: Reply) -> None:
        """Ask for manifest and fingerprints, once; `problem` says where they are of no use."""
        if reply.problem or reply.evidence.manifest is not None:
            return
        try:
            found = await self.manifest(reply)
        except NotMet as error:
            reply.problem = f"no manifest came: {error.came}"
            return
        reply.evidence = self._with_manifest(reply.bare, found)
        try:
            # What follows looks at these.
            _ = reply.evidence.commitment, reply.evidence.blocks
            require_sound(reply.bare, reply.evidence, LAST_PREPARED)
        except NotMet as error:
            reply.problem = f"{error.came.partition(':')[0]} fails; another case is about that"
        except NotApplicable as error:
            reply.problem = str(error)
        except VerificationError as error:
            reply.problem = f"a statement cannot be read: {error}"

    async def manifest(self, reply: Reply) -> pb.GetManifestResponse:
        """Ask for manifest and fingerprints.

        Raises:
            NotMet: They do not come.
        """
        request = pb.GetManifestRequest(commitment_sha256=reply.bare.commitment_sha256)
        return await self._wire.ask(f"{SERVICE}/GetManifest", request, pb.GetManifestResponse())

    # Challenges

    async def opened(
        self, asked: Asked, reply: Reply | None = None
    ) -> tuple[Reply, envelope_pb2.Envelope, receipt_pb2.Round]:
        """Have something opened, of whichever reply still affords it.

        Returns:
            The reply, the challenge and the round.

        Raises:
            NotMet: What came breaks the protocol.
            NotApplicable: No reply affords it.
        """
        for _ in range(_TRIES):
            chosen = reply or await self.reply_that(fits(asked))
            challenge = self.signed(chosen, asked)
            entry, answer = await self.send(chosen, challenge, whole=False)
            self.hold(chosen, [entry], answer, whole=False)
            if entry.HasField("opening"):
                return chosen, challenge, entry
        raise NotApplicable(_ALL_CHALLENGED)

    async def opened_whole(self, blocks: int) -> Reply:
        """Have blocks opened whole; errors as `opened`."""
        for _ in range(_TRIES):
            reply = await self.reply_that(lambda one: one.affords_whole(blocks))
            challenge = self.signed_whole(reply, blocks)
            entry, answer = await self.send(reply, challenge, whole=True)
            self.hold(reply, [entry], answer, whole=True)
            if entry.HasField("opening"):
                return reply
        raise NotApplicable(_ALL_CHALLENGED)

    def hold(
        self, reply: Reply, rounds: Sequence[receipt_pb2.Round], answer: Answer, *, whole: bool
    ) -> None:
        """Check rounds, and keep them.

        Raises:
            NotMet: They break the protocol; they are then not kept.
            NotApplicable: The reply itself does.
        """
        reply.require_own(rounds)
        after = reply.with_rounds(rounds, whole=whole)
        said = "" if answer.status == OK else f" ({answer})"
        require_sound(reply.evidence, after, LAST_WHOLE if whole else LAST_OPENED, said=said)
        reply.enter(rounds, whole=whole)

    async def send(
        self, reply: Reply, challenge: envelope_pb2.Envelope, *, whole: bool
    ) -> tuple[receipt_pb2.Round, Answer]:
        """Send a challenge; return the round, and what came of the call."""
        named = reply.evidence.commitment_sha256
        reply.sent.add(digest(challenge.payload))
        kind = "AnswerWholeBlockChallenge" if whole else "AnswerChallenge"
        request = pb.AnswerChallengeRequest(commitment_sha256=named, challenge=challenge)
        entry = receipt_pb2.Round(challenge=challenge, sent_at=wall_time())
        # Both kinds of challenges have the same fields, and so have both kinds of replies.
        answer = await self._wire.call(
            f"{SERVICE}/{kind}", request.SerializeToString(), patient=True
        )
        entry.received_at.CopyFrom(wall_time())
        refusal = None
        if answer.error is not None:
            refusal = transport.details_of(answer.error, pb.RefusalDetail())
        opening = _opening_in(answer)
        if opening is not None:
            entry.opening.CopyFrom(opening)
        elif refusal is not None:
            entry.refusal.CopyFrom(refusal.refusal)
        else:
            entry.no_answer = "DOES_NOT_PARSE" if answer.status == OK else answer.status
        return entry, answer

    def signed(self, reply: Reply, asked: Asked) -> envelope_pb2.Envelope:
        """Return a signed challenge.

        Raises:
            NotApplicable: There is no key to sign it with.
        """
        message = opening_pb2.Challenge(
            fingerprints_sha256=reply.evidence.fingerprints_sha256,
            verifier=self._setting.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=1,
            blocks=asked.blocks,
            token_blocks=asked.token_blocks,
            tokens_per_block=asked.tokens_per_block,
            deadline=stamp(self.deadline()),
        )
        return self._sign(message.SerializeToString(), envelope.CHALLENGE)

    def signed_whole(self, reply: Reply, blocks: int) -> envelope_pb2.Envelope:
        """Return a signed whole-block challenge; errors as `signed`."""
        message = opening_pb2.WholeBlockChallenge(
            fingerprints_sha256=reply.evidence.fingerprints_sha256,
            verifier=self._setting.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=1,
            blocks=blocks,
            deadline=stamp(self.deadline()),
        )
        return self._sign(message.SerializeToString(), envelope.WHOLE_CHALLENGE)

    def deadline(self) -> datetime:
        """Return the deadline of a challenge that is sent now."""
        return datetime.now(UTC) + timedelta(seconds=self._setting.policy.deadline_seconds)

    def _sign(self, payload: bytes, payload_type: str) -> envelope_pb2.Envelope:
        if self._setting.signer is None:
            raise NotApplicable(NO_KEY)
        return envelope.sign(payload, payload_type, self._setting.signer)

    async def _new_reply(self) -> Reply:
        setting = self._setting
        if not setting.question:
            given = "none of the replies given allows this: give more" if self.replies else ""
            raise NotApplicable(given or _NO_REPLIES)
        try:
            receipt = await ask_replay(self._wire, model=setting.model, question=setting.question)
        except CoinError as error:
            raise NotMet(
                wanted=f"a reply of {REPLAY}, with its commitment",
                came=str(error),
                advice="--generate takes a question that the target answers, --model its model.",
            ) from error
        self.replies.append(self._reply(receipt, fresh=True))
        return self.replies[-1]

    def _reply(self, receipt: receipt_pb2.Receipt, *, fresh: bool = False) -> Reply:
        setting = self._setting
        evidence = Evidence(
            receipt=receipt, trust=setting.trust, profile=setting.profile, policy=setting.policy
        )
        return Reply(evidence, fresh=fresh)

    def _with_manifest(self, bare: Evidence, found: pb.GetManifestResponse) -> Evidence:
        receipt = receipt_pb2.Receipt()
        receipt.CopyFrom(bare.receipt)
        receipt.fingerprints.CopyFrom(found.fingerprints)
        return Evidence(
            receipt=receipt,
            trust=bare.trust,
            profile=bare.profile,
            policy=bare.policy,
            manifest=found.manifest,
        )


_ALL_CHALLENGED: Final = (
    "others have challenged the replies that were given, and their caps are reached"
)


def _opening_in(answer: Answer) -> envelope_pb2.Envelope | None:
    """Return the envelope in a reply; None where there is none, or it does not parse."""
    if answer.status != OK:
        return None
    try:
        return pb.AnswerChallengeResponse.FromString(answer.reply).opening
    except DecodeError:
        return None
