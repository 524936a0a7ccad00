"""Public keys, key ids, and key sets with validity windows (protocol, section 5)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.encoding import KEY_TAG
from coin_protocol.errors import InvalidInputError, KeyWindowError, SignatureError
from coin_protocol.limits import MAX_KEYS, MAX_NAME_BYTES
from coin_protocol.v1 import keys_pb2 as pb

ED25519: Final = pb.KEY_ALGORITHM_ED25519
ECDSA_P256: Final = pb.KEY_ALGORITHM_ECDSA_P256_SHA256

PublicKeyObject = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

_P: Final = 2**255 - 19
# y coordinates of the points of order 1, 2, 4 and 8 on edwards25519, and those that some
# decoders reduce to them: a signature under such a key verifies for many messages.
_ORDER_8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8, _P, _P + 1})


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key under a name, with the id that binds name, algorithm and key."""

    name: str
    algorithm: pb.KeyAlgorithm.ValueType
    spki: bytes
    key: PublicKeyObject

    @classmethod
    def from_spki(cls, name: str, spki: bytes) -> VerificationKey:
        """Parse a DER SubjectPublicKeyInfo.

        Raises:
            InvalidInputError: It is no Ed25519 or P-256 key, an Ed25519 key of small order,
                or not DER of this very form.
        """
        _require_name(name)
        try:
            key = serialization.load_der_public_key(spki)
        except (ValueError, UnsupportedAlgorithm) as error:
            msg = f"public key {name!r} is not a DER SubjectPublicKeyInfo"
            raise InvalidInputError(msg) from error
        found = cls.from_key(name, key)
        if found.spki != spki:
            # One key in two encodings would have two ids.
            msg = f"public key {name!r} is not in the one DER form of its key"
            raise InvalidInputError(msg)
        return found

    @classmethod
    def from_pem(cls, name: str, pem: bytes) -> VerificationKey:
        """Parse a PEM public key (`BEGIN PUBLIC KEY`).

        Raises:
            InvalidInputError: It is no Ed25519 or P-256 key, or an Ed25519 key of small order.
        """
        _require_name(name)
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            msg = f"public key {name!r} is not PEM; wanted a file with BEGIN PUBLIC KEY"
            raise InvalidInputError(msg) from error
        return cls.from_key(name, key)

    @classmethod
    def from_key(cls, name: str, key: object) -> VerificationKey:
        """Wrap a public key of `cryptography`.

        Raises:
            InvalidInputError: It is no Ed25519 or P-256 key, or an Ed25519 key of small order.
        """
        _require_name(name)
        if isinstance(key, ed25519.Ed25519PublicKey):
            algorithm = ED25519
            y = int.from_bytes(key.public_bytes_raw(), "little") & ((1 << 255) - 1)
            if y in _SMALL_ORDER_Y:
                msg = f"public key {name!r} is a point of small order: anyone can sign for it"
                raise InvalidInputError(msg)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            algorithm = ECDSA_P256
        else:
            msg = f"public key {name!r} is {type(key).__name__}; wanted Ed25519 or ECDSA P-256"
            raise InvalidInputError(msg)
        spki = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(name, algorithm, spki, key)

    @property
    def keyid(self) -> str:
        """Hex of `SHA-256(T("coin.key.v1") || u16 length || name || u8 algorithm || SPKI)`."""
        name = self.name.encode()
        head = KEY_TAG + struct.pack(">H", len(name)) + name + bytes((self.algorithm,))
        return sha256(head + self.spki).hexdigest()

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature over `data`.

        Raises:
            SignatureError: It is not this key's.
        """
        try:
            if isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(signature, data)
            else:
                self.key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            msg = f"the signature is not that of key {self.name!r} ({self.keyid[:16]}…)"
            raise SignatureError(msg) from error


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key in a key set: signatures count from `not_before` to `not_after`, unless revoked."""

    key: VerificationKey
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None

    @property
    def end(self) -> datetime:
        """When signatures cease to count: the end of the window, or the revocation before it."""
        return self.not_after if self.revoked_at is None else min(self.not_after, self.revoked_at)

    def is_valid(self, at: datetime) -> bool:
        """Whether a signature dated `at` counts."""
        return self.not_before <= at < self.end

    def require_valid(self, at: datetime) -> None:
        """Check that a signature dated `at` counts.

        Raises:
            KeyWindowError: It does not; the message says why.
        """
        end = self.end
        if not self.is_valid(at):
            why = "was revoked" if end == self.revoked_at else "ends"
            msg = (
                f"the signature is dated {at.isoformat()}; key {self.key.name!r} is valid from "
                f"{self.not_before.isoformat()} and {why} at {end.isoformat()}"
            )
            raise KeyWindowError(msg)


class KeyRing:
    """The keys of one owner, found by key id."""

    def __init__(
        self,
        owner: str,
        keys: Iterable[ListedKey],
        *,
        sequence: int = 0,
        issued_at: datetime | None = None,
    ) -> None:
        """Hold `keys` of `owner`; `sequence` and `issued_at` are those of its key set."""
        self.owner = owner
        self.sequence = sequence
        self.issued_at = issued_at
        self._keys: Mapping[str, ListedKey] = {listed.key.keyid: listed for listed in keys}

    def find(self, keyid: str) -> ListedKey | None:
        """Return the key with this id, or None."""
        return self._keys.get(keyid)

    @property
    def keys(self) -> tuple[ListedKey, ...]:
        """All keys, in the order of the key set."""
        return tuple(self._keys.values())

    def continues(self, older: KeyRing) -> bool:
        """Whether this is a later key set of the same owner that still lists all older keys."""
        return (
            self.owner == older.owner
            and self.sequence > older.sequence
            and older._keys.keys() <= self._keys.keys()
        )

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    @classmethod
    def from_message(cls, message: pb.KeySet) -> KeyRing:
        """Read a key set whose signature was checked.

        Raises:
            InvalidInputError: A key is malformed or weak, a window is empty, a key stands
                twice, or there are too many.
        """
        _require_name(message.owner)
        if len(message.keys) > MAX_KEYS:
            msg = f"the key set has {len(message.keys)} keys, at most {MAX_KEYS} are read"
            raise InvalidInputError(msg)
        listed = []
        for entry in message.keys:
            key = VerificationKey.from_spki(entry.name, entry.spki)
            if key.algorithm != entry.algorithm:
                msg = f"key {entry.name!r} is listed under another algorithm than its own"
                raise InvalidInputError(msg)
            if not entry.HasField("not_before") or not entry.HasField("not_after"):
                msg = f"key {entry.name!r} has no validity window"
                raise InvalidInputError(msg)
            window = ListedKey(
                key,
                read_time(entry.not_before),
                read_time(entry.not_after),
                read_time(entry.revoked_at) if entry.HasField("revoked_at") else None,
            )
            if window.not_after <= window.not_before:
                msg = f"key {entry.name!r} has an empty validity window"
                raise InvalidInputError(msg)
            listed.append(window)
        issued_at = read_time(message.issued_at) if message.HasField("issued_at") else None
        ring = cls(message.owner, listed, sequence=message.sequence, issued_at=issued_at)
        if len(ring) != len(listed):
            msg = "a key stands twice in the key set"
            raise InvalidInputError(msg)
        return ring


def read_time(stamp: Timestamp) -> datetime:
    """Return a protobuf Timestamp as an aware UTC datetime (microseconds, rounded down).

    Raises:
        InvalidInputError: It is out of the range of years 1 to 9999.
    """
    try:
        return _moment(stamp.seconds, stamp.nanos)
    except (ValueError, OverflowError) as error:
        msg = "a time is out of the range of years 1 to 9999"
        raise InvalidInputError(msg) from error


@lru_cache(maxsize=4096)
def _moment(seconds: int, nanos: int) -> datetime:
    # The checks of an audit read each of a session's times again and again.
    return Timestamp(seconds=seconds, nanos=nanos).ToDatetime(tzinfo=UTC)


def _require_name(name: str) -> None:
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        msg = f"a name must have 1 to {MAX_NAME_BYTES} bytes of UTF-8; found {len(name)}"
        raise InvalidInputError(msg)
