"""Keys of notes: verifier keys, what each kind signs, and what is never shown."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from coin_protocol.errors import ConfigurationError, InvalidInputError, SignatureError
from coin_protocol.keys import VerificationKey
from coin_protocol.limits import MAX_NOTE_LINE_BYTES
from coin_protocol.note import NoteAlgorithm, NoteSignature, NoteSigner, NoteVerifier, split_note
from coin_protocol.note_key import cosignature_time, cosigned_message, is_key_name
from coin_protocol.signer import KeySigner, write_private_key
from tests.unit.test_note import ENOCH, EXAMPLE, PETER, PETER_SEED, peter, signer


@pytest.mark.parametrize("vkey", [PETER, ENOCH, EXAMPLE])
def test_a_verifier_key_is_written_as_it_was_read(vkey: str) -> None:
    assert NoteVerifier.from_vkey(vkey).vkey == vkey


def test_no_part_of_a_verifier_key_is_one_nor_one_with_a_byte_changed() -> None:
    cut = {PETER[i:j] for i in range(len(PETER)) for j in range(i + 1, len(PETER) + 1)} - {PETER}
    changed = {f"{PETER[:i]}{chr(ord(PETER[i]) + 1)}{PETER[i + 1 :]}" for i in range(len(PETER))}
    for vkey in ("", *cut, *changed):
        with pytest.raises(InvalidInputError):
            NoteVerifier.from_vkey(vkey)


@pytest.mark.parametrize(
    ("vkey", "said"),
    [
        # Source: golang.org/x/mod/sumdb/note, note_test.go; both with their hash put right.
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "base64"),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "kind 0x65"),
        # Source: transparency-dev/formats, note_cosigv1_test.go.
        ("bananas.sigstore.dev+12344556", "NAME"),
        ("rekor.sigstore.dev+12345678+THIS_IS_NOT_BASE64!", "base64"),
        ("rekor.sigstore.dev+12345678+AwEB", "kind 0x03"),
        (PETER.replace("c74f20a3", "00000000"), "another hash"),
        (PETER.replace("c74f20a3", "C74F20A3"), "another hash"),
        (PETER + "\n", "wanted a verifier key"),
        ("-----BEGIN PUBLIC KEY-----\nMCow+wYD+2Vw\n", "wanted a verifier key"),
        ("a b+00000000+AQ==", "no name"),
        ("\ud800+00000000+AQ==", "no name"),
        ("n" * 256 + "+00000000+AQ==", "no name"),
        ("name+00000000+AQ==", "0 bytes of key"),
        ("name+00000000+", "base64"),
        ("name+00000000+" + "A" * MAX_NOTE_LINE_BYTES, "at most"),
    ],
)
def test_a_wrong_verifier_key_is_refused(vkey: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        NoteVerifier.from_vkey(vkey)


@pytest.mark.parametrize("name", ["example.org/log", "ключ", "\ud7ff", "\ue000"])
def test_a_name_is_any_text(name: str) -> None:
    assert is_key_name(name)


@pytest.mark.parametrize("char", ["+", " ", "\u2003", "\x1f", *map(chr, (0xD800, 0xDFFF))])
def test_a_name_has_no_spaces_plus_controls_and_halves_of_pairs(char: str) -> None:
    assert not is_key_name("")
    assert not is_key_name(f"a{char}b")


def test_a_key_of_small_order_is_refused() -> None:
    material = base64.b64encode(b"\x01" + (1).to_bytes(32, "little")).decode()
    with pytest.raises(InvalidInputError, match="small order"):
        NoteVerifier.from_vkey(f"name+00000000+{material}")


def test_a_key_id_follows_from_name_kind_and_key() -> None:
    plain, cosigner = signer().verifier, signer(algorithm=NoteAlgorithm.COSIGNATURE).verifier
    assert plain.public == cosigner.public
    assert plain.key.key_hash != cosigner.key.key_hash
    assert plain.key.key_hash != signer("example.org/other").verifier.key.key_hash
    # Source: remora.n621.de, a witness of the public network.
    remora = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert NoteVerifier.from_vkey(remora).key.algorithm is NoteAlgorithm.COSIGNATURE


def test_a_cosignature_signs_header_time_and_text() -> None:
    cosigner = signer("witness.example.com/w1", algorithm=NoteAlgorithm.COSIGNATURE)
    made = cosigner.sign("text\n", 1679315147)
    assert made.signature[:8] == struct.pack(">Q", 1679315147)
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    assert made.signature[8:] == key.sign(b"cosignature/v1\ntime 1679315147\ntext\n")
    assert cosigned_message("text\n", 5) == b"cosignature/v1\ntime 5\ntext\n"
    assert cosignature_time(made) == 1679315147
    cosigner.verifier.verify("text\n", made)


@pytest.mark.parametrize(
    ("encoded", "time"),
    [
        # Source: transparency-dev/formats, note_cosigv1_test.go; https://c2sp.org/tlog-cosignature.
        (
            (
                "ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOwo"
                "rDcFiEBYJXORmnFBOBA=="
            ),
            1727964367,
        ),
        (
            (
                "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo"
                "0xUe+mbIUBkBIfZ+qnA=="
            ),
            1679315147,
        ),
    ],
)
def test_the_time_of_a_cosignature_is_read_as_published(encoded: str, time: int) -> None:
    (found,) = split_note(f"x\n\n— w {encoded}\n".encode())[1]
    assert cosignature_time(found) == time


def test_a_time_is_part_of_what_is_signed() -> None:
    cosigner = signer(algorithm=NoteAlgorithm.COSIGNATURE)
    made = cosigner.sign("text\n", 1000)
    for raw, said in (
        (struct.pack(">Q", 1001) + made.signature[8:], "signature"),
        (struct.pack(">Q", 1 << 63) + made.signature[8:], f"is dated {1 << 63}, past 2\\^63 - 1"),
        (made.signature[8:], "has 64 bytes; wanted 8 and 64"),
        (made.signature + b"x", "has 73 bytes; wanted 8 and 64"),
    ):
        forged = NoteSignature(made.name, made.key_hash, raw)
        with pytest.raises(SignatureError, match=said):
            cosigner.verifier.verify("text\n", forged)


@pytest.mark.parametrize("time", [0, -1, 1 << 63])
def test_a_cosignature_has_a_time_in_its_range(time: int) -> None:
    with pytest.raises(InvalidInputError, match="time"):
        signer(algorithm=NoteAlgorithm.COSIGNATURE).sign("text\n", time)


def test_a_time_belongs_to_cosignatures_and_to_nothing_else() -> None:
    with pytest.raises(InvalidInputError, match="its time"):
        signer().sign("text\n", 5)
    with pytest.raises(InvalidInputError, match="its time"):
        signer(algorithm=NoteAlgorithm.COSIGNATURE).sign("text\n")


def test_one_kind_of_signature_is_never_taken_for_the_other() -> None:
    plain, cosigner = signer(), signer(algorithm=NoteAlgorithm.COSIGNATURE)
    text = "cosignature/v1\ntime 5\ntext\n"
    made = plain.sign(text)
    raw = struct.pack(">Q", 5) + made.signature
    # The same bytes are signed; the key hash tells whose signature it says it is.
    with pytest.raises(SignatureError):
        cosigner.verifier.verify("text\n", NoteSignature(made.name, made.key_hash, raw))
    with pytest.raises(SignatureError):
        plain.verifier.verify("text\n", cosigner.sign("text\n", 5))


def test_private_keys_are_never_shown() -> None:
    shown = repr(peter())
    assert shown == f"NoteSigner({PETER!r})"
    for secret in (PETER_SEED.hex(), base64.b64encode(PETER_SEED).decode(), repr(PETER_SEED)):
        assert secret not in shown


def test_keys_are_found_by_uri(tmp_path: Path) -> None:
    key = KeySigner.generate("example.org/log")
    write_private_key(tmp_path / "log.pem", key)
    found = NoteSigner.from_uri(f"file:{tmp_path / 'log.pem'}", "example.org/log")
    assert found.verifier.public == key.public
    cosigner = NoteSigner.from_uri(
        f"file:{tmp_path / 'log.pem'}", "example.org/log", NoteAlgorithm.COSIGNATURE
    )
    assert cosigner.verifier == NoteVerifier.from_key(key.public, NoteAlgorithm.COSIGNATURE)
    for folder in (f"keys:{tmp_path}", f"keys:{tmp_path}/of:2026", f"KEYS:{tmp_path}"):
        with pytest.raises(ConfigurationError, match="one key"):
            NoteSigner.from_uri(folder, "example.org/log")
    with pytest.raises(ConfigurationError, match="no name"):
        NoteSigner.from_uri(f"file:{tmp_path / 'log.pem'}", "example org")


def test_an_ecdsa_key_signs_no_notes(tmp_path: Path) -> None:
    key = KeySigner("log", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(InvalidInputError, match="Ed25519"):
        NoteSigner(key)
    write_private_key(tmp_path / "log.pem", key)
    with pytest.raises(ConfigurationError, match="Ed25519"):
        NoteSigner.from_uri(f"file:{tmp_path / 'log.pem'}", "log")


@dataclass(frozen=True)
class Faulty:
    """A signer that gives what is no signature of its key."""

    inner: KeySigner
    raw: bytes

    @property
    def public(self) -> VerificationKey:
        return self.inner.public

    def sign(self, data: bytes) -> bytes:
        del data
        return self.raw

    def current(self) -> Faulty:
        return self


@pytest.mark.parametrize("raw", [b"", bytes(63), bytes(64), bytes(65)])
def test_what_a_faulty_signer_gives_stays_in_the_house(raw: bytes) -> None:
    faulty = NoteSigner(Faulty(KeySigner.generate("log"), raw))
    with pytest.raises(SignatureError):
        faulty.sign("text\n")
