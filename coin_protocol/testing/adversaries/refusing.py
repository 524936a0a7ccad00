"""Lies of providers that will not be audited: silence, delay, refusals that show nothing."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta
from typing import Final, NoReturn

from coin_protocol import envelope
from coin_protocol.draw import flip_for
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError
from coin_protocol.keys import read_time
from coin_protocol.keyset import stamp
from coin_protocol.limits import CHALLENGE_NONCE_BYTES
from coin_protocol.signer import KeySigner, Signer
from coin_protocol.v1 import envelope_pb2, opening_pb2
from provider_sdk.answering import Answerer
from provider_sdk.provider import Provider, RefusedChallengeError
from provider_sdk.record import SessionRecord

_LATE_SECONDS: Final = 0.1
_STRANGER: Final = "a verifier that nobody knows"


class RefusedOpening(Provider):
    """Answers no challenge, though no cap is reached."""

    class answerer_class(Answerer):
        """Refuses."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Refuse."""
            del record, message, step
            msg = "openings are not available at this time"
            raise CoinError(msg)


class ManifestWithheld(Provider):
    """Shows no manifest of what it signed."""

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Refuse."""
        del commitment_sha256
        msg = "manifests are not available at this time"
        raise CoinError(msg)


class AnswersLate(Provider):
    """Answers a challenge a moment past its deadline."""

    class answerer_class(Answerer):
        """Waits."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the opening when it is too late."""
            left = read_time(message.deadline) - read_time(self.clock.now())
            time.sleep(max(left.total_seconds(), 0.0) + _LATE_SECONDS)
            return super().open(record, message, step)


class LateDatedBack(Provider):
    """Answers past the deadline, and dates the answer before it."""

    class answerer_class(AnswersLate.answerer_class):
        """Waits, and dates back."""

        def open(
            self,
            record: SessionRecord,
            message: opening_pb2.Challenge,
            step: opening_pb2.AnsweredChallenge,
        ) -> opening_pb2.Opening:
            """Return the late opening under an earlier time."""
            opening = super().open(record, message, step)
            earlier = read_time(message.deadline) - timedelta(seconds=1)
            opening.provider_time.CopyFrom(stamp(earlier))
            return opening


class UnsignedAnswer(Provider):
    """Opens what is drawn, and signs it not."""

    def answer(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        """Return the opening without its signature."""
        opening = super().answer(commitment_sha256, challenge)
        opening.ClearField("signatures")
        return opening


class MadeUpRefusal(Provider):
    """Refuses, and shows a challenge of its own as what used up the caps."""

    def answer(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        """Refuse."""
        self.refuse(self.store.get(commitment_sha256), challenge, self.signer)

    def refuse(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope, verifier: Signer
    ) -> NoReturn:
        """Refuse for a challenge that draws everything, which `verifier` signs.

        Raises:
            RefusedChallengeError: Always.
        """
        fingerprints = record.fingerprints or envelope_pb2.Envelope()
        everything = opening_pb2.Challenge(
            fingerprints_sha256=digest(fingerprints.payload),
            verifier=verifier.public.name,
            nonce=secrets.token_bytes(CHALLENGE_NONCE_BYTES),
            round=1,
            blocks=record.tree.block_count,
            tokens_per_block=self.profile.block_size,
            deadline=self.clock.now(),
        )
        number = len(record.answered) + 1
        signed = envelope.sign(everything.SerializeToString(), envelope.CHALLENGE, verifier)
        record.answered[digest(signed.payload)] = opening_pb2.AnsweredChallenge(
            challenge=signed, flip_index=number, flip=flip_for(record.flip_secret, number)
        )
        refusal = opening_pb2.Refusal(
            challenge_sha256=digest(challenge.payload),
            reason=opening_pb2.REFUSAL_REASON_EXPOSURE_CAP,
            answered=record.answered.values(),
            provider_time=self.clock.now(),
        )
        msg = "the caps are reached"
        raise RefusedChallengeError(
            msg, envelope.sign(refusal.SerializeToString(), envelope.REFUSAL, self.signer)
        )


class StrangersRefusal(MadeUpRefusal):
    """Refuses for a challenge of a verifier that it made up as well."""

    def answer(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        """Refuse."""
        record = self.store.get(commitment_sha256)
        self.refuse(record, challenge, KeySigner.generate(_STRANGER))
