"""Keys, key sets with windows, revocations and rotations, and envelopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from coin_protocol import envelope
from coin_protocol.checks import Trust
from coin_protocol.keys import ECDSA_P256, ED25519, KeyRing, ListedKey, VerificationKey
from coin_protocol.keyset import ROOT_KEY_NAME, SignedKeySet, pinned, sign_key_set
from coin_protocol.signer import KeySigner
from coin_protocol.testing.strategies.certifying import (
    DOMAINS,
    PINNED,
    DrawnRoot,
    domain,
    domains,
    roots,
)
from coin_protocol.testing.strategies.pool import POOL, pooled
from coin_protocol.testing.strategies.values import EARLIEST, LATEST, names, times
from coin_protocol.testing.world import PROVIDER, VERIFIER
from coin_protocol.v1 import envelope_pb2, keys_pb2

_TICK: Final = timedelta(microseconds=1)
_SEQUENCES: Final = st.integers(1, 1 << 32)


def trust() -> Trust:
    """Return whom to believe of what is drawn outside a world: all its roots, one verifier."""
    verifiers = pinned("verifiers", [pooled(VERIFIER).public])
    return Trust([PINNED.signer.public], verifiers, [domain(name) for name in DOMAINS])


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


@st.composite
def signed_key_sets(
    draw: st.DrawFn,
    *,
    owner: SearchStrategy[str] | None = None,
    least: int = 1,
    most: int = 4,
    revoked: SearchStrategy[bool] | None = None,
    certified: SearchStrategy[bool] | None = None,
) -> SignedKeySet:
    """Draw signed key sets, with the certificates of their root where it has any.

    Args:
        draw: Of Hypothesis.
        owner: As of `key_rings`.
        least: As of `key_rings`.
        most: As of `key_rings`.
        revoked: As of `key_rings`.
        certified: As of `roots`.
    """
    ring = draw(key_rings(owner=owner, least=least, most=most, revoked=revoked))
    root = draw(roots(certified=certified, at=ring.issued_at or EARLIEST))
    return SignedKeySet(_signed(ring, root), root.chain)


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


def _signed(ring: KeyRing, root: DrawnRoot = PINNED) -> envelope_pb2.Envelope:
    return sign_key_set(
        ring.owner,
        ring.keys,
        root=root.signer,
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
    """Draw whom a reader believes: roots and verifiers that are pinned, and domains."""
    named = draw(st.lists(domains(), max_size=2, unique_by=lambda found: found.domain))
    numbers = st.lists(
        st.integers(0, POOL - 1), min_size=0 if named else 1, max_size=2, unique=True
    )
    pins = [pooled(ROOT_KEY_NAME, number).public for number in draw(numbers)]
    verifiers = draw(st.lists(verification_keys(), max_size=3))
    return Trust(pins, pinned("verifiers", verifiers), named)


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
