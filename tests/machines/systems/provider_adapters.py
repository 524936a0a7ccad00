"""Any provider as what the machines of exposure and of streams drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Protocol

from coin_protocol import envelope
from coin_protocol.commitment import SessionSecret
from coin_protocol.profile import Profile
from coin_protocol.statements import read_checkpoint, read_commitment, read_manifest
from coin_protocol.testing.machines.exposure import (
    Committed,
    ExposureSystem,
    Terms,
    verifier_ring,
)
from coin_protocol.testing.machines.provider_system import ProviderSystem
from coin_protocol.testing.machines.rules import Answer, Makes
from coin_protocol.testing.machines.stream import Closed, Head, StreamSystem
from coin_protocol.testing.small import VOCABULARY
from coin_protocol.v1 import envelope_pb2, opening_pb2

NONCE = bytes(range(32))


class Telling(ProviderSystem, Protocol):
    """A provider that tells secrets, to tests."""

    def secret(self, name: str) -> SessionSecret:
        """Tell the secret of a reply under way."""


class LedgerOf:
    """An `ExposureSystem` of a provider."""

    def __init__(self, provider: ProviderSystem) -> None:
        self._provider = provider
        self._count = 0

    def commit(self, tokens: int) -> Committed:
        self._count += 1
        name = f"commitment {self._count}"
        self._provider.open(name, b"request", NONCE)
        ids = [(7 * at + self._count) % VOCABULARY for at in range(tokens)]
        self._provider.append(name, ids, wait=True)
        ended = self._provider.finish(name, b"answer")
        key = sha256(ended.commitment.payload).digest()
        _, fingerprints = self._provider.manifest(key)
        anchor = read_commitment(ended.commitment.payload).flip_anchor
        return Committed(key, sha256(fingerprints.payload).digest(), anchor)

    def answer(
        self, committed: Committed, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[Answer | None]:
        return [*map(_parsed, self._provider.answer(committed.name, challenges))]

    def restart(self) -> None:
        self._provider.restart()

    def close(self) -> None:
        self._provider.close()


class StreamsOf:
    """A `StreamSystem` of a provider."""

    def __init__(self, provider: Telling) -> None:
        self._provider = provider
        self._names: dict[bytes, str] = {}
        self._count = 0

    def begin(self) -> SessionSecret:
        self._count += 1
        name = f"stream {self._count}"
        self._provider.open(name, b"request", NONCE)
        secret = self._provider.secret(name)
        self._names[secret.session_id] = name
        return secret

    def append(self, session_id: bytes, token_ids: Sequence[int], *, wait: bool) -> Sequence[Head]:
        name = self._names[session_id]
        return _heads(self._provider.append(name, token_ids, wait=wait))

    def finish(self, session_id: bytes) -> Closed:
        ended = self._provider.finish(self._names.pop(session_id), b"answer")
        return self._closed(ended.commitment, _heads(ended.checkpoints))

    def crash(self) -> Mapping[bytes, Closed]:
        names, self._names = self._names, {}
        self._provider.restart()
        found = {session_id: self._provider.find(name) for session_id, name in names.items()}
        return {
            session_id: self._closed(commitment, ())
            for session_id, commitment in found.items()
            if commitment is not None
        }

    def close(self) -> None:
        self._provider.close()

    def _closed(self, commitment: envelope_pb2.Envelope, heads: Sequence[Head]) -> Closed:
        statement = read_commitment(commitment.payload)
        manifest, _ = self._provider.manifest(sha256(commitment.payload).digest())
        blocks = [
            (entry.token_count, entry.token_root)
            for entry in read_manifest(manifest.payload).blocks
        ]
        head = Head(statement.block_count, statement.reasoning_tokens, statement.token_root)
        return Closed(head, blocks, heads)


def ledger_of(kind: Makes[Terms, ProviderSystem]) -> Makes[Terms, ExposureSystem]:
    """Return what makes an `ExposureSystem` of a kind of provider."""
    return lambda terms: LedgerOf(kind(terms))


def streams_of(kind: Makes[Terms, Telling]) -> Makes[Profile, StreamSystem]:
    """Return what makes a `StreamSystem` of a kind of provider."""
    return lambda profile: StreamsOf(kind(Terms(profile, verifier_ring())))


def _heads(checkpoints: Sequence[envelope_pb2.Envelope]) -> list[Head]:
    found = [read_checkpoint(signed.payload) for signed in checkpoints]
    return [Head(each.block_count, each.token_count, each.token_root) for each in found]


def _parsed(signed: envelope_pb2.Envelope | None) -> Answer | None:
    if signed is None:
        return None
    if signed.payload_type == envelope.REFUSAL:
        return opening_pb2.Refusal.FromString(signed.payload)
    if signed.payload_type == envelope.WHOLE_OPENING:
        return opening_pb2.WholeBlockOpening.FromString(signed.payload)
    return opening_pb2.Opening.FromString(signed.payload)
