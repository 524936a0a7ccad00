"""Make a signed key set, and rings of pinned keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol import envelope
from coin_protocol.errors import InvalidInputError, StatementError
from coin_protocol.files import read_file
from coin_protocol.keys import KeyRing, ListedKey, VerificationKey
from coin_protocol.signer import Signer
from coin_protocol.statements import parse, read_key_set
from coin_protocol.v1 import envelope_pb2, keys_pb2

ROOT_KEY_NAME: Final = "root"
"""Every root key signs under this name, so that its PEM alone is enough to pin it."""

_ALWAYS: Final = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


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


def read_key_set_file(path: Path) -> envelope_pb2.Envelope:
    """Read the signed key set that `coin keygen` wrote.

    Raises:
        InvalidInputError: The file cannot be read, or holds no signed key set.
    """
    try:
        signed = parse(envelope_pb2.Envelope, read_file(path))
        read_key_set(signed.payload)
    except StatementError as error:
        msg = f"{path} holds no signed key set: {error}"
        raise InvalidInputError(msg) from error
    return signed


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
