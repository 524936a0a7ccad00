"""A pool of private keys that is made once: making one takes longer than a draw."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from coin_protocol.keys import ED25519
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import keys_pb2

POOL: Final = 8
"""Keys that are drawn from, of each algorithm."""


class PooledSigner(KeySigner):
    """A signer that gives one signature for the same bytes, whichever its algorithm."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data`; of ECDSA the one of RFC 6979."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return sign_alike(self._key, data)
        return super().sign(data)


@lru_cache(maxsize=1024)
def pooled(
    name: str, number: int = 0, algorithm: keys_pb2.KeyAlgorithm.ValueType = ED25519
) -> PooledSigner:
    """Return the signer of this number under a name, always the same one."""
    key = ed25519_key(number) if algorithm == ED25519 else ecdsa_key(number)
    return PooledSigner(name, key)


@lru_cache(maxsize=256)
def ed25519_key(number: int) -> ed25519.Ed25519PrivateKey:
    """Return the Ed25519 key of this number."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(_secret(number))


@lru_cache(maxsize=256)
def ecdsa_key(number: int) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key of this number."""
    # With its first byte cleared it is below the order of the group, and not 0.
    return ec.derive_private_key(int.from_bytes(_secret(number)[1:]), ec.SECP256R1())


def sign_alike(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return the ECDSA signature of RFC 6979, the same each time."""
    return key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def _secret(number: int) -> bytes:
    return sha256(b"key %d of the strategies" % number).digest()
