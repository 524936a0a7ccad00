"""DSSE envelopes over the exact bytes of a statement (protocol, section 5).

The signature covers `DSSEv1 SP len SP type SP len SP payload`. Nothing is ever serialized
again to be checked: `Envelope.payload` is what was signed, and its SHA-256 names the statement.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from coin_protocol.errors import SignatureError
from coin_protocol.keys import KeyRing, ListedKey, VerificationKey
from coin_protocol.limits import MAX_SIGNATURES, MAX_STATEMENT_BYTES
from coin_protocol.signer import Signer
from coin_protocol.v1 import envelope_pb2 as pb


def _payload_type(name: str) -> str:
    return f"application/vnd.coin.{name}.v1+protobuf"


KEY_SET: Final = _payload_type("keyset")
CHECKPOINT: Final = _payload_type("checkpoint")
COMMITMENT: Final = _payload_type("commitment")
FINGERPRINTS: Final = _payload_type("fingerprints")
MANIFEST: Final = _payload_type("manifest")
CHALLENGE: Final = _payload_type("challenge")
WHOLE_CHALLENGE: Final = _payload_type("whole-challenge")
OPENING: Final = _payload_type("opening")
WHOLE_OPENING: Final = _payload_type("whole-opening")
REFUSAL: Final = _payload_type("refusal")
VERDICT: Final = _payload_type("verdict")


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed (DSSE specification, PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, signer: Signer) -> pb.Envelope:
    """Return an envelope over `payload`, signed once."""
    # Held for both: a rotation between signature and key id must not part them.
    key = signer.current()
    signature = key.sign(pre_authentication_encoding(payload_type, payload))
    return pb.Envelope(
        payload=payload,
        payload_type=payload_type,
        signatures=[pb.Signature(sig=signature, keyid=key.public.keyid)],
    )


def verify_with_key(envelope: pb.Envelope, payload_type: str, key: VerificationKey) -> bytes:
    """Return the payload, if the pinned `key` signed it as `payload_type`.

    Raises:
        SignatureError: It did not, or the envelope is larger than any statement may be.
    """
    always = ListedKey(key, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    verify(envelope, payload_type, KeyRing(key.name, [always]))
    return envelope.payload


def verify(envelope: pb.Envelope, payload_type: str, ring: KeyRing) -> ListedKey:
    """Check that a key of `ring` signed the envelope as `payload_type`, and return that key.

    Windows are the caller's to check, at the time that the statement gives.

    Raises:
        SignatureError: No listed key signed it, a listed key's signature is wrong, or the
            envelope is larger than any statement may be.
    """
    data = _signed_bytes(envelope, payload_type)
    wrong: SignatureError | None = None
    for signature in envelope.signatures:
        listed = ring.find(signature.keyid)
        if listed is None:
            continue
        try:
            listed.key.verify(signature.sig, data)
        except SignatureError as error:
            # DSSE: another signature of the envelope may still be good.
            wrong = error
        else:
            return listed
    if wrong is not None:
        raise wrong
    msg = f"no key of {ring.owner!r} signed this {_short(payload_type)}"
    raise SignatureError(msg)


def _signed_bytes(envelope: pb.Envelope, payload_type: str) -> bytes:
    if envelope.payload_type != payload_type:
        msg = f"found payload type {envelope.payload_type[:100]!r}, wanted {payload_type!r}"
        raise SignatureError(msg)
    if len(envelope.payload) > MAX_STATEMENT_BYTES or len(envelope.signatures) > MAX_SIGNATURES:
        msg = (
            f"an envelope with {len(envelope.payload)} bytes and {len(envelope.signatures)} "
            f"signatures; at most {MAX_STATEMENT_BYTES} and {MAX_SIGNATURES} are read"
        )
        raise SignatureError(msg)
    return pre_authentication_encoding(payload_type, envelope.payload)


def _short(payload_type: str) -> str:
    return payload_type.removeprefix("application/vnd.coin.").removesuffix(".v1+protobuf")
