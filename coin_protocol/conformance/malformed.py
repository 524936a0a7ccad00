"""One request as a case describes it: well formed, or wrong in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

from google.protobuf import json_format

from coin_protocol import envelope
from coin_protocol.conformance.case import Case
from coin_protocol.errors import InvalidInputError
from coin_protocol.keyset import stamp
from coin_protocol.limits import CHALLENGE_NONCE_BYTES
from coin_protocol.signer import KeySigner, Signer
from coin_protocol.v1 import envelope_pb2, opening_pb2
from coin_protocol.v1 import provider_service_pb2 as pb

_KNOWN: Final = "known"
_WHOLE: Final = "AnswerWholeBlockChallenge"
_CHALLENGES: Final = frozenset({"AnswerChallenge", _WHOLE})
_UNKNOWN_FIELD: Final = b"\xf8\x07\x01"
"""Field 127, which no statement has, with the value 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A request, and what is wrong with it.

    Attributes:
        method: Of `ProviderService`; or of another service, as `package.Service/Method`.
        commitment: `known`, or the hex of any bytes.
        fields: Of the challenge, in protobuf's JSON form, in place of honest ones.
        signed_by: `verifier`; `stranger`, under the same name; `altered`, with a bit of the
            signature flipped; or `nobody`.
        payload_type: Of the envelope, in place of the right one.
        payload: Hex, in place of the challenge.
        deadline_seconds: Until the challenge's deadline; 0 as the policy has it; None for no
            deadline at all.
        unknown_field: Whether the challenge has a field that version 1 does not know.
        padding: Bytes of signatures of nobody beside the true one.
        request: Hex, in place of the whole request.
        seconds: The call's own deadline; None for none, below 0 for the usual one.
    """

    method: str
    commitment: str = _KNOWN
    fields: Mapping[str, Any] = field(default_factory=dict)
    signed_by: str = "verifier"
    payload_type: str = ""
    payload: str | None = None
    deadline_seconds: float | None = 0.0
    unknown_field: bool = False
    padding: int = 0
    request_hex: str | None = None
    seconds: float | None = -1.0

    @classmethod
    def of(cls, case: Case) -> Self:
        """Read what a case describes.

        Raises:
            InvalidInputError: It has a field that is not known.
        """
        names = {one.name for one in dataclasses.fields(cls)}
        unknown = sorted(case.given.keys() - names)
        if unknown or "method" not in case.given:
            msg = f"case {case.name}: `call` takes {', '.join(sorted(names))}, `method` at least"
            raise InvalidInputError(msg)
        return cls(**case.given)

    @property
    def needs_reply(self) -> bool:
        """Whether it names a commitment of the target's."""
        return self.request_hex is None and self.commitment == _KNOWN and self._names_one

    @property
    def needs_key(self) -> bool:
        """Whether a verifier's key signs it."""
        signs = self.signed_by in ("verifier", "altered")
        return self.request_hex is None and self.method in _CHALLENGES and signs

    @property
    def _names_one(self) -> bool:
        return self.method in _CHALLENGES or self.method == "GetManifest"

    def request(
        self,
        *,
        commitment: bytes,
        fingerprints: bytes,
        signer: Signer | None,
        name: str,
        deadline: datetime,
    ) -> bytes:
        """Return the request's bytes.

        Args:
            commitment: Digest of the known one.
            fingerprints: Digest of its fingerprints.
            signer: The verifier's.
            name: The verifier's; any where a stranger signs.
            deadline: Of an honest challenge.
        """
        if self.request_hex is not None:
            return bytes.fromhex(self.request_hex)
        named = commitment if self.commitment == _KNOWN else bytes.fromhex(self.commitment)
        if self.method == "GetManifest":
            return pb.GetManifestRequest(commitment_sha256=named).SerializeToString()
        if self.method not in _CHALLENGES:
            return b""
        whole = self.method == _WHOLE
        payload = self._payload(fingerprints, name or "verifier", deadline, whole=whole)
        challenge = self._signed(payload, signer, name or "verifier", whole=whole)
        if whole:
            request = pb.AnswerWholeBlockChallengeRequest(
                commitment_sha256=named, challenge=challenge
            )
            return request.SerializeToString()
        return pb.AnswerChallengeRequest(
            commitment_sha256=named, challenge=challenge
        ).SerializeToString()

    def _payload(self, fingerprints: bytes, name: str, deadline: datetime, *, whole: bool) -> bytes:
        if self.payload is not None:
            return bytes.fromhex(self.payload)
        message: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge
        message = opening_pb2.WholeBlockChallenge() if whole else opening_pb2.Challenge()
        message.fingerprints_sha256 = fingerprints
        message.verifier = name
        # Nobody needs it to be random: what is malformed is answered to nobody.
        message.nonce = bytes(range(CHALLENGE_NONCE_BYTES))
        message.round = message.blocks = 1
        if self.deadline_seconds is not None:
            moved = timedelta(seconds=self.deadline_seconds)
            message.deadline.CopyFrom(stamp(deadline + moved))
        edited: Any = message
        for field_name in self.fields:
            edited.ClearField(field_name)
        json_format.ParseDict(dict(self.fields), message)
        extra = _UNKNOWN_FIELD if self.unknown_field else b""
        return message.SerializeToString() + extra

    def _signed(
        self, payload: bytes, signer: Signer | None, name: str, *, whole: bool
    ) -> envelope_pb2.Envelope:
        own = envelope.WHOLE_CHALLENGE if whole else envelope.CHALLENGE
        payload_type = self.payload_type or own
        if self.signed_by == "nobody":
            return envelope_pb2.Envelope(payload=payload, payload_type=payload_type)
        stranger = signer is None or self.signed_by == "stranger"
        made = envelope.sign(
            payload,
            payload_type,
            KeySigner.generate(name) if stranger or signer is None else signer,
        )
        if self.signed_by == "altered":
            first = made.signatures[0]
            first.sig = bytes((first.sig[0] ^ 1, *first.sig[1:]))
        if self.padding:
            made.signatures.add(sig=bytes(self.padding), keyid="00" * 32)
        return made
