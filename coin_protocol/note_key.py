"""Keys that sign notes, and what they sign: the C2SP verifier key and both its kinds here.

Source: https://c2sp.org/signed-note v1.0.0; cosignatures, https://c2sp.org/tlog-cosignature.
Known are Ed25519 over the text (0x01), and Ed25519 over the text and a time (0x04,
`cosignature/v1`), with which witnesses sign the heads of logs.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519

from coin_protocol.errors import (
    ConfigurationError,
    InvalidInputError,
    LimitError,
    SignatureError,
    StatementError,
)
from coin_protocol.keys import ED25519, VerificationKey
from coin_protocol.limits import MAX_NOTE_BYTES, MAX_NOTE_LINE_BYTES, MAX_NOTE_NAME_BYTES
from coin_protocol.signer import Signer, signer_from_uri

MARK: Final = "\N{EM DASH} "
"""What a signature line begins with."""

_ED25519_BYTES: Final = 64
_MAX_TIME: Final = (1 << 63) - 1


class NoteAlgorithm(IntEnum):
    """How a key signs notes: the signature type of its C2SP key."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class NoteKey:
    """What a signature says of its key.

    Attributes:
        name: Of the key; without spaces and `+`.
        key_hash: First four bytes of `SHA-256(name || 0x0A || algorithm || public key)`.
        algorithm: How it signs.
    """

    name: str
    key_hash: int
    algorithm: NoteAlgorithm


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note.

    Attributes:
        name: Of the key that it says it is by.
        key_hash: That key's, 32 bits.
        signature: What follows the key hash: one byte at least.
    """

    name: str
    key_hash: int
    signature: bytes

    def line(self) -> str:
        """Return the signature as a line of a note, with its newline."""
        raw = struct.pack(">I", self.key_hash) + self.signature
        return f"{MARK}{self.name} {base64.b64encode(raw).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A public key that signs notes."""

    key: NoteKey
    public: VerificationKey

    @classmethod
    def from_key(
        cls, public: VerificationKey, algorithm: NoteAlgorithm = NoteAlgorithm.ED25519
    ) -> NoteVerifier:
        """Wrap a public key under its own name.

        Raises:
            InvalidInputError: It is not Ed25519, or its name is none of a note's key.
        """
        _require_name(public.name)
        material = bytes((algorithm,)) + _raw(public)
        (key_hash,) = struct.unpack(
            ">I", sha256(public.name.encode() + b"\n" + material).digest()[:4]
        )
        return cls(NoteKey(public.name, key_hash, algorithm), public)

    @classmethod
    def from_vkey(cls, text: str) -> NoteVerifier:
        """Parse a verifier key, `NAME+HASH+BASE64`.

        Raises:
            InvalidInputError: It is malformed, of an algorithm that is not known, or an Ed25519
                key of small order.
            LimitError: It is too long.
        """
        if len(text) > MAX_NOTE_LINE_BYTES:
            msg = (
                f"a verifier key of {len(text)} characters; at most {MAX_NOTE_LINE_BYTES} are read"
            )
            raise LimitError(msg)
        name, *rest = text.split("+", 2)
        # Base64 has a + as well, so that a PEM of two of them comes this far.
        if len(rest) != 2 or "\n" in text:
            msg = f"found {text[:80]!r}; wanted a verifier key, NAME+HASH+BASE64"
            raise InvalidInputError(msg)
        encoded = rest[1]
        _require_name(name)
        material = decode_base64(encoded, InvalidInputError, f"the verifier key of {name!r}")
        if material[0] not in set(NoteAlgorithm):
            msg = (
                f"the verifier key of {name!r} is of kind 0x{material[0]:02x}; known are 0x01 "
                "(Ed25519) and 0x04 (cosignature/v1)"
            )
            raise InvalidInputError(msg)
        try:
            public = ed25519.Ed25519PublicKey.from_public_bytes(material[1:])
        except ValueError as error:
            msg = f"the verifier key of {name!r} has {len(material) - 1} bytes of key; wanted 32"
            raise InvalidInputError(msg) from error
        found = cls.from_key(VerificationKey.from_key(name, public), NoteAlgorithm(material[0]))
        if found.vkey != text:
            msg = f"the verifier key of {name!r} has another hash than its key; is it whole?"
            raise InvalidInputError(msg)
        return found

    @property
    def vkey(self) -> str:
        """The verifier key as others write it in their configuration."""
        material = bytes((self.key.algorithm,)) + _raw(self.public)
        encoded = base64.b64encode(material).decode()
        return f"{self.key.name}+{self.key.key_hash:08x}+{encoded}"

    def made(self, signature: NoteSignature) -> bool:
        """Whether a signature says that it is by this key; it may lie."""
        return (signature.name, signature.key_hash) == (self.key.name, self.key.key_hash)

    def verify(self, text: str, signature: NoteSignature) -> None:
        """Check a signature that says it is by this key.

        Raises:
            SignatureError: It is not.
        """
        raw = signature.signature
        message = text.encode()
        if self.key.algorithm is NoteAlgorithm.COSIGNATURE:
            message = cosigned_message(text, cosignature_time(signature))
            raw = raw[8:]
        if not self.made(signature) or len(raw) != _ED25519_BYTES:
            msg = f"the signature is none of key {self.vkey}"
            raise SignatureError(msg)
        self.public.verify(raw, message)


class NoteSigner:
    """Signs notes with one Ed25519 key, always the same."""

    def __init__(self, signer: Signer, algorithm: NoteAlgorithm = NoteAlgorithm.ED25519) -> None:
        """Sign under the name of the signer's key.

        Raises:
            InvalidInputError: The key is not Ed25519, or its name is none of a note's key.
        """
        # Of a signer that follows a folder, the key of now: whoever verifies knows one key.
        self._signer = signer.current()
        self.verifier: Final = NoteVerifier.from_key(self._signer.public, algorithm)

    @classmethod
    def from_uri(
        cls, uri: str, name: str, algorithm: NoteAlgorithm = NoteAlgorithm.ED25519
    ) -> NoteSigner:
        """Return a signer of the key that `uri` names (`file:PATH`, `pkcs11:…`).

        Raises:
            ConfigurationError: The key cannot be used, is not Ed25519, or is one of a folder
                whose keys change.
        """
        if uri.partition(":")[0].lower() == "keys":
            msg = "a folder of keys that change cannot sign notes; wanted one key, file:PATH"
            raise ConfigurationError(msg)
        try:
            return cls(signer_from_uri(uri, name), algorithm)
        except InvalidInputError as error:
            raise ConfigurationError(str(error)) from error

    def __repr__(self) -> str:
        """Name the public half only."""
        return f"{type(self).__name__}({self.verifier.vkey!r})"

    @property
    def key(self) -> NoteKey:
        """What its signatures say of its key."""
        return self.verifier.key

    def sign(self, text: str, at: int | None = None) -> NoteSignature:
        """Sign the text of a note.

        Args:
            text: It ends in a newline.
            at: POSIX time in seconds; for a cosignature, and for nothing else.

        Raises:
            InvalidInputError: It is no text of a note, or the time is missing or out of place.
            SignatureError: The signer gave something that is no signature of its key.
        """
        require_text(text, InvalidInputError)
        cosigns = self.key.algorithm is NoteAlgorithm.COSIGNATURE
        if cosigns != (at is not None):
            msg = "a cosignature needs its time, and no other signature has one"
            raise InvalidInputError(msg)
        if at is None:
            raw = self._signer.sign(text.encode())
        else:
            if not 0 < at <= _MAX_TIME:
                msg = f"found the time {at}; wanted POSIX seconds from 1 to 2^63 - 1"
                raise InvalidInputError(msg)
            raw = struct.pack(">Q", at) + self._signer.sign(cosigned_message(text, at))
        signature = NoteSignature(self.key.name, self.key.key_hash, raw)
        # A fault in a signer must not leave the house: it can give the key away.
        self.verifier.verify(text, signature)
        return signature


def cosigned_message(text: str, at: int) -> bytes:
    """Return what a cosignature/v1 signs: a header, the time in POSIX seconds, the text."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def cosignature_time(signature: NoteSignature) -> int:
    """Return the time of a cosignature/v1, POSIX seconds; unchecked unless it was verified.

    Raises:
        SignatureError: It is no cosignature, or later than 2^63 - 1.
    """
    if len(signature.signature) != 8 + _ED25519_BYTES:
        found = len(signature.signature)
        msg = f"a cosignature of {signature.name!r} has {found} bytes; wanted 8 and 64"
        raise SignatureError(msg)
    at = int.from_bytes(signature.signature[:8])
    if at > _MAX_TIME:
        msg = f"a cosignature of {signature.name!r} is dated {at}, past 2^63 - 1"
        raise SignatureError(msg)
    return at


def require_text(text: str, error: type[InvalidInputError | StatementError]) -> None:
    """Check that a note can have this text.

    Raises:
        error: It does not end in a newline, has control characters, or is no Unicode text.
        LimitError: It or one of its lines is too long.
    """
    if not text.endswith("\n"):
        msg = "a note's text must end in a newline"
        raise error(msg)
    if any(char < " " and char != "\n" for char in text):
        msg = "a note's text has control characters; only newlines are allowed"
        raise error(msg)
    try:
        raw = text.encode()
    except UnicodeEncodeError as problem:
        msg = "a note's text has halves of surrogate pairs, which no UTF-8 can say"
        raise error(msg) from problem
    longest = max(map(len, raw.split(b"\n")))
    if longest > MAX_NOTE_LINE_BYTES or len(raw) > MAX_NOTE_BYTES:
        msg = (
            f"a note's text of {len(raw)} bytes with a line of {longest}; at most "
            f"{MAX_NOTE_BYTES} and {MAX_NOTE_LINE_BYTES} are allowed"
        )
        raise LimitError(msg)


def decode_base64(
    encoded: str, error: type[InvalidInputError | StatementError], what: str
) -> bytes:
    """Return what base64 says, in the one form in which it is written.

    Raises:
        error: It is not standard base64, with its padding and nothing in the spare bits; `what`
            names it.
    """
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not raw or base64.b64encode(raw).decode() != encoded:
        msg = f"{what} is not standard base64 with its padding"
        raise error(msg)
    return raw


def is_key_name(name: str) -> bool:
    """Whether a key can have this name: text that is not empty, no Unicode space, no `+`."""
    return bool(name) and not any(
        char.isspace() or char < " " or char == "+" or "\ud800" <= char <= "\udfff" for char in name
    )


def _require_name(name: str) -> None:
    if not is_key_name(name) or len(name.encode(errors="replace")) > MAX_NOTE_NAME_BYTES:
        msg = (
            f"{name[:80]!r} is no name of a note's key: wanted 1 to {MAX_NOTE_NAME_BYTES} bytes "
            "of UTF-8 without spaces, control characters and +, such as example.org/log"
        )
        raise InvalidInputError(msg)


def _raw(public: VerificationKey) -> bytes:
    if public.algorithm != ED25519 or not isinstance(public.key, ed25519.Ed25519PublicKey):
        msg = f"key {public.name!r} is ECDSA; logs and witnesses sign with Ed25519"
        raise InvalidInputError(msg)
    return public.key.public_bytes_raw()
