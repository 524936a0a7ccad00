"""Make a signed key set, and rings of pinned keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, Self

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.errors import InvalidInputError, StatementError
from coin_protocol.files import read_file
from coin_protocol.keys import KeyRing, ListedKey, VerificationKey
from coin_protocol.signer import Signer
from coin_protocol.statements import parse, read_key_set
from coin_protocol.v1 import envelope_pb2, keys_pb2, provider_service_pb2

ROOT_KEY_NAME: Final = "root"
"""Every root key signs under this name, so that its PEM alone is enough to pin it."""

_ALWAYS: Final = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class SignedKeySet:
    """A signed key set, with the certificates of its root where that is no pinned key.

    Attributes:
        signed: The statement "keyset".
        root_chain: DER certificates, leaf first; empty where the root is a pinned key.
    """

    signed: envelope_pb2.Envelope
    root_chain: tuple[bytes, ...] = ()

    @property
    def served(self) -> Self:
        """This key set: a `KeySetSource` that never changes."""
        return self

    def to_bytes(self) -> bytes:
        """Return the form in which it is served and kept: a serialized `GetKeySetResponse`."""
        response = provider_service_pb2.GetKeySetResponse(
            key_set=self.signed, root_chain=self.root_chain
        )
        return response.SerializeToString()


class KeySetSource(Protocol):
    """Something that knows the key set to serve now. Safe to use from several threads."""

    @property
    def served(self) -> SignedKeySet:
        """The key set as of now; take envelope and chain from one answer."""


def sign_key_set(
    owner: str, keys: Sequence[ListedKey], *, root: Signer, issued_at: datetime, sequence: int
) -> envelope_pb2.Envelope:
    """Return the signed key set of `owner`. List old keys too: old receipts need them.

    Raises:
        InvalidInputError: A reader would refuse the key set.
    """
    message = keys_pb2.KeySet(
        owner=owner,
        keys=[
            keys_pb2.PublicKey(
                name=listed.key.name,
                algorithm=listed.key.algorithm,
                spki=listed.key.spki,
                not_before=stamp(listed.not_before),
                not_after=stamp(listed.not_after),
                revoked_at=None if listed.revoked_at is None else stamp(listed.revoked_at),
            )
            for listed in keys
        ],
        issued_at=stamp(issued_at),
        sequence=sequence,
    )
    KeyRing.from_message(message)
    return envelope.sign(message.SerializeToString(), envelope.KEY_SET, root)


def read_signed_key_set(path: Path) -> SignedKeySet:
    """Read the key set that `coin keys` keeps, as `GetKeySet` serves it.

    Raises:
        InvalidInputError: The file cannot be read, or holds no signed key set.
    """
    try:
        response = parse(provider_service_pb2.GetKeySetResponse, read_file(path))
        read_key_set(response.key_set.payload)
    except StatementError as error:
        msg = f"{path} holds no signed key set: {error}"
        raise InvalidInputError(msg) from error
    if response.key_set.payload_type != envelope.KEY_SET:
        msg = f"{path} holds another statement than a key set"
        raise InvalidInputError(msg)
    return SignedKeySet(response.key_set, tuple(response.root_chain))


def read_key_set_file(path: Path) -> envelope_pb2.Envelope:
    """Read the envelope alone of the key set that `coin keys` keeps; errors as above."""
    return read_signed_key_set(path).signed


def pinned(owner: str, keys: Iterable[VerificationKey]) -> KeyRing:
    """Return a ring of keys that the reader vouches for, valid at any time."""
    return KeyRing(owner, (ListedKey(key, *_ALWAYS) for key in keys))


def pinned_verifiers(pems: Mapping[str, bytes]) -> KeyRing:
    """Return the ring of verifiers' public keys, PEM by name."""
    return pinned("verifiers", (VerificationKey.from_pem(name, pem) for name, pem in pems.items()))


def stamp(time: datetime) -> Timestamp:
    """Return an aware datetime as a protobuf Timestamp."""
    found = Timestamp()
    found.FromDatetime(time)
    return found
