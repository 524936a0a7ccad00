"""Signatures in other forms, and messages that are made to cost more than they weigh."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from coin_protocol import envelope
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError, InvalidInputError, SignatureError
from coin_protocol.evidence import read_evidence
from coin_protocol.keys import ECDSA_P256
from coin_protocol.keyset import pinned
from coin_protocol.note import NoteAlgorithm, NoteSigner, open_note, sign_note
from coin_protocol.receipt import read_bundle, read_receipt
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import envelope_pb2

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PAYLOAD = b"exact bytes"
Edit = Callable[[bytes], bytes]


def with_greater_s(signature: bytes) -> bytes:
    """Return an Ed25519 signature with an S that equals its own modulo the group's order."""
    scalar = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    return signature[:32] + scalar.to_bytes(32, "little")


def with_other_s(signature: bytes) -> bytes:
    """Return the other signature that holds for the same r: S and its negative are both good."""
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, P256_ORDER - s)


def resigned(signer: KeySigner, edit: Edit) -> envelope_pb2.Envelope:
    """Return an envelope whose one signature was edited."""
    signed = envelope.sign(PAYLOAD, envelope.COMMITMENT, signer)
    signed.signatures[0].sig = edit(signed.signatures[0].sig)
    return signed


def test_an_ed25519_signature_has_no_second_form_in_an_envelope() -> None:
    signer = KeySigner.generate("acme")
    ring = pinned("acme", [signer.public])
    envelope.verify(resigned(signer, bytes), envelope.COMMITMENT, ring)
    for edit in (with_greater_s, lambda raw: raw + b"\0", lambda raw: raw[:-1]):
        with pytest.raises(SignatureError):
            envelope.verify(resigned(signer, edit), envelope.COMMITMENT, ring)


def test_an_ed25519_signature_has_no_second_form_in_a_note() -> None:
    signer = NoteSigner(KeySigner.generate("example.org/log"), NoteAlgorithm.ED25519)
    note = sign_note("a line\n", [signer])
    open_note(note, [signer.verifier])
    start, _, signature = note.decode().rpartition(" ")
    raw = base64.b64decode(signature)
    altered = base64.b64encode(raw[:4] + with_greater_s(raw[4:])).decode()
    with pytest.raises(SignatureError):
        open_note(f"{start} {altered}\n".encode(), [signer.verifier])


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw + b"\0",
        lambda raw: b"\x30\x81" + raw[1:],
        lambda raw: raw[:1] + bytes([raw[1] + 1]) + raw[2:3] + bytes([raw[3] + 1, 0]) + raw[4:],
        lambda raw: b"\x31" + raw[1:],
        lambda _: encode_dss_signature(0, 0),
        lambda _: b"",
    ],
    ids=["trailing byte", "long length", "padded integer", "a set", "zeros", "nothing"],
)
def test_an_ecdsa_signature_has_one_encoding(edit: Edit) -> None:
    signer = KeySigner.generate("acme", ECDSA_P256)
    ring = pinned("acme", [signer.public])
    with pytest.raises(SignatureError):
        envelope.verify(resigned(signer, edit), envelope.COMMITMENT, ring)


def test_the_negative_of_an_ecdsa_signature_names_the_same_statement() -> None:
    signer = KeySigner.generate("acme", ECDSA_P256)
    ring = pinned("acme", [signer.public])
    first, second = resigned(signer, bytes), resigned(signer, with_other_s)
    for signed in (first, second):
        envelope.verify(signed, envelope.COMMITMENT, ring)
    assert digest(first.payload) == digest(second.payload)


@pytest.mark.parametrize("read", [read_receipt, read_bundle, read_evidence])
@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":' * 200_000,
        b'{"format":"coin.receipt.v1","x":' + b"[" * 300_000,
        b'{"checkpoints":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"billed":{"prompt_tokens":' + b"9" * 1_000_000 + b"}}",
        b'{"billed":{"prompt_tokens":1e999999999}}',
        b'{"format":"coin.receipt.v1","format":"coin.bundle.v1"}',
        b'{"format":"\\ud800"}',
        b"\x0b" * 100_000,
        b"\x83\x40" * 1_000_000,
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\xff" * 11,
    ],
    ids=[
        *("objects without end", "lists without end", "lists in lists", "a number of a megabyte"),
        *("a number without end", "a name twice", "half a character", "groups in groups"),
        *("groups of unknown fields", "a length past the end", "no tag"),
    ],
)
def test_no_nesting_and_no_number_does_more_than_fail(
    read: Callable[[bytes], object], raw: bytes
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(raw)
    assert len(str(caught.value)) < 400


def test_an_error_of_a_parser_is_one_of_ours() -> None:
    with pytest.raises(CoinError) as caught:
        read_receipt(b'{"request":"' + b"secret" * 100)
    assert "secret" * 40 not in str(caught.value)
