"""DSSE envelopes: what is signed, and whose signature counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coin_protocol import envelope
from coin_protocol.envelope import pre_authentication_encoding, sign, verify, verify_with_key
from coin_protocol.errors import SignatureError
from coin_protocol.keys import ECDSA_P256, KeyRing
from coin_protocol.keyset import pinned
from coin_protocol.limits import MAX_SIGNATURES
from coin_protocol.signer import KeySigner
from coin_protocol.testing.world import PROVIDER, World
from coin_protocol.v1 import envelope_pb2 as pb

SIGNER = World().signer(PROVIDER)
STRANGER = World(seed="another").signer(PROVIDER)
RING = pinned(PROVIDER, [SIGNER.public])
PAYLOAD = b"exact bytes"
TYPES = [
    envelope.KEY_SET,
    envelope.CHECKPOINT,
    envelope.COMMITMENT,
    envelope.FINGERPRINTS,
    envelope.MANIFEST,
    envelope.CHALLENGE,
    envelope.WHOLE_CHALLENGE,
    envelope.OPENING,
    envelope.WHOLE_OPENING,
    envelope.REFUSAL,
    envelope.VERDICT,
]


def signed() -> pb.Envelope:
    return sign(PAYLOAD, envelope.COMMITMENT, SIGNER)


@pytest.mark.parametrize(
    ("payload_type", "payload", "wanted"),
    [
        (
            "http://example.com/HelloWorld",
            b"hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        ),
        ("", b"", b"DSSEv1 0  0 "),
        ("\u00e9", b"\x00 \xff", b"DSSEv1 2 \xc3\xa9 3 \x00 \xff"),
    ],
    ids=["of the specification", "empty", "lengths in bytes"],
)
def test_what_is_signed_is_the_pre_authentication_encoding_of_dsse(
    payload_type: str, payload: bytes, wanted: bytes
) -> None:
    assert pre_authentication_encoding(payload_type, payload) == wanted


def test_lengths_keep_type_and_payload_apart() -> None:
    assert pre_authentication_encoding("a b", b"c") != pre_authentication_encoding("a", b"b c")


def test_payload_types_are_distinct_and_name_protocol_version_and_encoding() -> None:
    assert len(set(TYPES)) == len(TYPES)
    for payload_type in TYPES:
        assert payload_type.startswith("application/vnd.coin.")
        assert payload_type.endswith(".v1+protobuf")


def test_a_signed_payload_verifies_under_its_key_and_stays_as_it_was() -> None:
    found = signed()
    assert found.payload == PAYLOAD
    assert [signature.keyid for signature in found.signatures] == [SIGNER.public.keyid]
    assert verify(found, envelope.COMMITMENT, RING).key == SIGNER.public
    assert verify_with_key(found, envelope.COMMITMENT, SIGNER.public) == PAYLOAD


def test_ecdsa_signatures_count_like_ed25519_ones() -> None:
    signer = KeySigner.generate("p-256", ECDSA_P256)
    found = sign(PAYLOAD, envelope.VERDICT, signer)
    assert verify(found, envelope.VERDICT, pinned("v", [signer.public])).key == signer.public


def altered(change: Callable[[pb.Envelope], object]) -> pb.Envelope:
    found = signed()
    change(found)
    return found


def grow(found: pb.Envelope) -> None:
    found.payload += b"\x00"


def cut(found: pb.Envelope) -> None:
    found.payload = found.payload[:-1]


def retype(found: pb.Envelope) -> None:
    found.payload_type = envelope.MANIFEST


def unsign(found: pb.Envelope) -> None:
    del found.signatures[:]


def cut_signature(found: pb.Envelope) -> None:
    found.signatures[0].sig = found.signatures[0].sig[:-1]


def lengthen_signature(found: pb.Envelope) -> None:
    found.signatures[0].sig += b"\x00"


def drop_keyid(found: pb.Envelope) -> None:
    found.signatures[0].keyid = ""


def upper_keyid(found: pb.Envelope) -> None:
    found.signatures[0].keyid = found.signatures[0].keyid.upper()


def claim_keyid(found: pb.Envelope) -> None:
    found.signatures[0].CopyFrom(sign(PAYLOAD, envelope.COMMITMENT, STRANGER).signatures[0])
    found.signatures[0].keyid = SIGNER.public.keyid


ALTERATIONS = [
    grow,
    cut,
    retype,
    unsign,
    cut_signature,
    lengthen_signature,
    drop_keyid,
    upper_keyid,
    claim_keyid,
]


@pytest.mark.parametrize("change", ALTERATIONS, ids=lambda change: change.__name__)
def test_no_altered_envelope_verifies(change: Callable[[pb.Envelope], object]) -> None:
    with pytest.raises(SignatureError):
        verify(altered(change), envelope.COMMITMENT, RING)
    with pytest.raises(SignatureError):
        verify_with_key(altered(change), envelope.COMMITMENT, SIGNER.public)


def test_a_signature_over_another_type_does_not_count_even_if_the_label_is_changed() -> None:
    found = sign(PAYLOAD, envelope.MANIFEST, SIGNER)
    with pytest.raises(SignatureError, match="payload type"):
        verify(found, envelope.COMMITMENT, RING)
    found.payload_type = envelope.COMMITMENT
    with pytest.raises(SignatureError, match="not that of key"):
        verify(found, envelope.COMMITMENT, RING)


def test_a_key_of_another_ring_is_not_known() -> None:
    with pytest.raises(SignatureError, match=r"no key of 'provider' signed this commitment$"):
        verify(sign(PAYLOAD, envelope.COMMITMENT, STRANGER), envelope.COMMITMENT, RING)
    with pytest.raises(SignatureError):
        verify(signed(), envelope.COMMITMENT, KeyRing("nobody", []))


def test_a_key_under_another_name_is_another_key() -> None:
    renamed = pinned("x", [type(SIGNER.public).from_pem("x", pem())])
    with pytest.raises(SignatureError):
        verify(signed(), envelope.COMMITMENT, renamed)


def pem() -> bytes:
    from coin_protocol.signer import public_pem

    return public_pem(SIGNER.public)


@pytest.mark.parametrize("good", [0, 1, MAX_SIGNATURES - 1])
def test_one_good_signature_among_others_is_enough(good: int) -> None:
    found = signed()
    wrong = pb.Signature(sig=bytes(64), keyid=SIGNER.public.keyid)
    strange = sign(PAYLOAD, envelope.COMMITMENT, STRANGER).signatures[0]
    others = [wrong if number % 2 else strange for number in range(MAX_SIGNATURES - 1)]
    signatures = [*others[:good], found.signatures[0], *others[good:]]
    del found.signatures[:]
    found.signatures.extend(signatures)
    assert verify(found, envelope.COMMITMENT, RING).key == SIGNER.public


def test_where_every_known_signature_is_wrong_that_is_said() -> None:
    found = signed()
    found.signatures[0].sig = bytes(64)
    found.signatures.add().CopyFrom(sign(PAYLOAD, envelope.COMMITMENT, STRANGER).signatures[0])
    with pytest.raises(SignatureError, match="not that of key 'provider'"):
        verify(found, envelope.COMMITMENT, RING)


def test_more_signatures_than_are_read_are_refused() -> None:
    found = signed()
    found.signatures.extend([found.signatures[0]] * MAX_SIGNATURES)
    with pytest.raises(SignatureError, match="signatures"):
        verify(found, envelope.COMMITMENT, RING)


def test_a_payload_past_the_limit_is_refused_and_one_at_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(envelope, "MAX_STATEMENT_BYTES", len(PAYLOAD))
    assert verify(signed(), envelope.COMMITMENT, RING)
    monkeypatch.setattr(envelope, "MAX_STATEMENT_BYTES", len(PAYLOAD) - 1)
    with pytest.raises(SignatureError, match="bytes"):
        verify(signed(), envelope.COMMITMENT, RING)
    with pytest.raises(SignatureError, match="bytes"):
        verify_with_key(signed(), envelope.COMMITMENT, SIGNER.public)


def test_an_error_quotes_no_more_than_the_start_of_a_payload_type() -> None:
    found = signed()
    found.payload_type = "x" * 10_000
    with pytest.raises(SignatureError) as caught:
        verify(found, envelope.COMMITMENT, RING)
    assert len(str(caught.value)) < 300
