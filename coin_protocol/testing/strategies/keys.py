"""Keys, key sets with windows, revocations and rotations, and envelopes.

Private keys come out of a pool that is made once: making one takes longer than a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol import envelope
from coin_protocol.checks import Trust
from coin_protocol.keys import ECDSA_P256, ED25519, KeyRing, ListedKey, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, pinned, sign_key_set
from coin_protocol.signer import KeySigner, PrivateKey
from coin_protocol.testing.strategies.values import EARLIEST, LATEST, names, times
from coin_protocol.testing.world import PROVIDER, VERIFIER
from coin_protocol.v1 import envelope_pb2, keys_pb2

POOL: Final = 8
"""Keys that are drawn from, of each algorithm."""

_TICK: Final = timedelta(microseconds=1)
_SEQUENCES: Final = st.integers(1, 1 << 32)


class PooledSigner(KeySigner):
    """A signer that gives one signature for the same bytes, whichever its algorithm."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data`; of ECDSA the one of RFC 6979."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        return super().sign(data)


@lru_cache(maxsize=1024)
def pooled(
    name: str, number: int = 0, algorithm: keys_pb2.KeyAlgorithm.ValueType = ED25519
) -> PooledSigner:
    """Return the signer of this number under a name, always the same one."""
    return PooledSigner(name, _private(number, algorithm))


@lru_cache(maxsize=256)
def _private(number: int, algorithm: keys_pb2.KeyAlgorithm.ValueType) -> PrivateKey:
    raw = sha256(b"key %d of the strategies" % number).digest()
    if algorithm == ED25519:
        return ed25519.Ed25519PrivateKey.from_private_bytes(raw)
    # With its first byte cleared it is below the order of the group, and not 0.
    return ec.derive_private_key(int.from_bytes(raw[1:]), ec.SECP256R1())


def trust() -> Trust:
    """Return whom to believe of what is drawn outside a world: its one root and verifier."""
    verifiers = pinned("verifiers", [pooled(VERIFIER).public])
    return Trust([pooled(ROOT_KEY_NAME).public], verifiers)


def signers(
    *, algorithm: keys_pb2.KeyAlgorithm.ValueType | None = None
) -> SearchStrategy[KeySigner]:
    """Return a strategy of signers that hold their key in memory.

    Args:
        algorithm: Of all of them; either by default.
    """
    algorithms = st.sampled_from((ED25519, ECDSA_P256)) if algorithm is None else st.just(algorithm)
    return st.builds(pooled, names(), st.integers(0, POOL - 1), algorithms)


def verification_keys(
    *, algorithm: keys_pb2.KeyAlgorithm.ValueType | None = None
) -> SearchStrategy[VerificationKey]:
    """Return a strategy of public keys; options as of `signers`."""
    return signers(algorithm=algorithm).map(lambda signer: signer.public)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key set's entry, but for which key it is."""

    name: str
    algorithm: keys_pb2.KeyAlgorithm.ValueType
    window: tuple[datetime, datetime, datetime | None]

    def listed(self, number: int) -> ListedKey:
        return ListedKey(pooled(self.name, number, self.algorithm).public, *self.window)


@st.composite
def _entries(draw: st.DrawFn, revoked: SearchStrategy[bool]) -> _Entry:
    not_before = draw(times(most=LATEST - _TICK))
    not_after = draw(times(least=not_before + _TICK))
    revoked_at = draw(times()) if draw(revoked) else None
    algorithm = draw(st.sampled_from((ED25519, ECDSA_P256)))
    return _Entry(draw(names()), algorithm, (not_before, not_after, revoked_at))


def listed_keys(*, revoked: SearchStrategy[bool] | None = None) -> SearchStrategy[ListedKey]:
    """Return a strategy of keys with a window that is not empty.

    Args:
        revoked: Whether it was revoked, whenever.
    """
    entries = _entries(st.booleans() if revoked is None else revoked)
    return st.builds(_Entry.listed, entries, st.integers(0, POOL - 1))


NEVER: Final = st.just(value=False)


def listed_key_lists(
    *, least: int = 1, most: int = 4, revoked: SearchStrategy[bool] | None = None, first: int = 0
) -> SearchStrategy[list[ListedKey]]:
    """Return a strategy of lists of keys, each another one.

    Args:
        least: Keys in the list.
        most: Keys in the list.
        revoked: Whether each was revoked.
        first: Number in the pool of the first.
    """
    entries = _entries(st.booleans() if revoked is None else revoked)
    return st.lists(entries, min_size=least, max_size=most).map(
        lambda found: [entry.listed(number) for number, entry in enumerate(found, first)]
    )


@st.composite
def key_rings(
    draw: st.DrawFn,
    *,
    owner: SearchStrategy[str] | None = None,
    least: int = 1,
    most: int = 4,
    revoked: SearchStrategy[bool] | None = None,
) -> KeyRing:
    """Draw the keys of an owner.

    Args:
        draw: Of Hypothesis.
        owner: Whose keys they are.
        least: Keys in it.
        most: Keys in it.
        revoked: Whether each was revoked.
    """
    keys = draw(listed_key_lists(least=least, most=most, revoked=revoked))
    return KeyRing(
        draw(names() if owner is None else owner),
        keys,
        sequence=draw(_SEQUENCES),
        issued_at=draw(times()),
    )


def signed_key_sets(
    *,
    owner: SearchStrategy[str] | None = None,
    least: int = 1,
    most: int = 4,
    revoked: SearchStrategy[bool] | None = None,
) -> SearchStrategy[SignedKeySet]:
    """Return a strategy of signed key sets, by the root of `trust`; options as of `key_rings`."""
    rings = key_rings(owner=owner, least=least, most=most, revoked=revoked)
    return rings.map(lambda ring: SignedKeySet(_signed(ring)))


def key_sets(
    *,
    owner: SearchStrategy[str] | None = None,
    least: int = 1,
    most: int = 4,
    revoked: SearchStrategy[bool] | None = None,
) -> SearchStrategy[keys_pb2.KeySet]:
    """Return a strategy of the statement `keyset`; options as of `key_rings`."""
    rings = key_rings(owner=owner, least=least, most=most, revoked=revoked)
    return rings.map(lambda ring: keys_pb2.KeySet.FromString(_signed(ring).payload))


def _signed(ring: KeyRing) -> envelope_pb2.Envelope:
    return sign_key_set(
        ring.owner,
        ring.keys,
        root=pooled(ROOT_KEY_NAME),
        # Never None in a ring that was drawn.
        issued_at=ring.issued_at or EARLIEST,
        sequence=ring.sequence,
    )


@st.composite
def rotations(
    draw: st.DrawFn, *, owner: SearchStrategy[str] | None = None
) -> tuple[KeyRing, KeyRing]:
    """Draw the keys of an owner before and after rotations: the later ones continue the older.

    All older keys are listed still, some of them revoked since.

    Args:
        draw: Of Hypothesis.
        owner: Whose keys they are.
    """
    older = draw(key_rings(owner=owner, revoked=NEVER))
    kept = [
        ListedKey(
            listed.key,
            listed.not_before,
            listed.not_after,
            draw(st.none() | times(least=listed.not_before)),
        )
        for listed in older.keys
    ]
    new = draw(listed_key_lists(most=2, first=len(older)))
    sequence = older.sequence + draw(_SEQUENCES)
    issued_at = draw(times(least=older.issued_at or EARLIEST))
    return older, KeyRing(older.owner, [*kept, *new], sequence=sequence, issued_at=issued_at)


@st.composite
def trusts(draw: st.DrawFn) -> Trust:
    """Draw whom a reader believes: roots and verifiers that are pinned."""
    roots = draw(st.lists(st.integers(0, POOL - 1), min_size=1, max_size=2, unique=True))
    verifiers = draw(st.lists(verification_keys(), max_size=3))
    return Trust(
        [pooled(ROOT_KEY_NAME, number).public for number in roots], pinned("verifiers", verifiers)
    )


def signed(message: Message, payload_type: str, name: str = PROVIDER) -> envelope_pb2.Envelope:
    """Return a statement in an envelope, signed by the key of the pool under this name."""
    payload = message.SerializeToString(deterministic=True)
    return envelope.sign(payload, payload_type, pooled(name))


@st.composite
def envelopes(
    draw: st.DrawFn,
    *,
    payload: SearchStrategy[bytes] | None = None,
    payload_type: SearchStrategy[str] | None = None,
    by: Sequence[KeySigner] = (),
) -> envelope_pb2.Envelope:
    """Draw signed envelopes, over anything.

    Args:
        draw: Of Hypothesis.
        payload: What is signed.
        payload_type: As what.
        by: Who signs; the provider's key of the pool by default.
    """
    signer = draw(st.sampled_from(by or (pooled(PROVIDER),)))
    return envelope.sign(
        draw(st.binary(max_size=64) if payload is None else payload),
        draw(st.sampled_from(_PAYLOAD_TYPES) if payload_type is None else payload_type),
        signer,
    )


_PAYLOAD_TYPES: Final = (
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
)
