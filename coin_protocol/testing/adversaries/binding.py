"""Statements that belong to something else: another request, tree, name, time or key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, Self

from coin_protocol import envelope
from coin_protocol.clock import SteadyClock
from coin_protocol.commitment import CommitmentBuilder, Prefix, SessionSecret, TokenTree
from coin_protocol.limits import SESSION_ID_BYTES
from coin_protocol.signer import KeySigner
from coin_protocol.statements import read_fingerprints, read_manifest
from coin_protocol.v1 import envelope_pb2, statements_pb2
from coin_protocol.v1 import replay_service_pb2 as replay_pb
from provider_sdk.provider import Provider
from provider_sdk.record import SessionRecord
from provider_sdk.replay import Replay, Trace
from provider_sdk.session import Session

BACK: Final = timedelta(hours=2)
"""How far back `DatedBack` dates what it signs."""

_OTHER_NAME: Final = "another provider"


class ReplayedCommitment(Replay):
    """Gives every client the commitment of a session that was sold before."""

    async def stream(
        self, model: str, request: bytes, client_nonce: bytes
    ) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield the events of a session under another client's nonce."""
        other_nonce = bytes(byte ^ 0xFF for byte in client_nonce)
        async for event in super().stream(model, request, other_nonce):
            yield event


class AnotherRequest(Provider):
    """Commits to a reply to another request."""

    class session_class(Session):
        """Names another request."""

        def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
            """Return the statement with another request's digest."""
            statement = super().commitment_statement(tree, **of)
            statement.request_sha256 = sha256(statement.request_sha256).digest()
            return statement


class AnotherAnswer(Replay):
    """Sends another answer than the one it commits to."""

    async def answer(self, trace: Trace) -> AsyncIterator[replay_pb.GenerateResponse]:
        """Yield the answer, and words that are not in it."""
        async for event in super().answer(trace):
            yield event
        yield replay_pb.GenerateResponse(answer_delta=" or so")


class AnotherProfile(Provider):
    """Commits under a profile that its verifiers do not have."""

    class session_class(Session):
        """Names another profile."""

        def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
            """Return the statement with another profile's digest."""
            statement = super().commitment_statement(tree, **of)
            statement.profile_sha256 = sha256(statement.profile_sha256).digest()
            return statement


class AnothersName(Provider):
    """Commits in another provider's name, with its own key."""

    class session_class(Session):
        """Names another provider."""

        def commitment_statement(self, tree: TokenTree, **of: Any) -> statements_pb2.Commitment:
            """Return the statement with another name."""
            statement = super().commitment_statement(tree, **of)
            statement.provider = _OTHER_NAME
            return statement


class ForeignCheckpoint(Provider):
    """Signs checkpoints of a tree that it does not commit to."""

    class session_class(Session):
        """Signs other roots."""

        def checkpoint(self, prefix: Prefix) -> envelope_pb2.Envelope:
            """Sign another root."""
            other = sha256(prefix.token_root).digest()
            return super().checkpoint(replace(prefix, token_root=other))


class _RewritingBuilder(CommitmentBuilder):
    def finish(self) -> TokenTree:
        again = CommitmentBuilder(
            self._session, block_size=self._block_size, fingerprints=self._fingerprints
        )
        again.append([(token_id + 1) % len(self._fingerprints) for token_id in self._ids])
        return again.finish()


class RewrittenReply(Provider):
    """Commits to other tokens than its checkpoints did."""

    class session_class(Session):
        """Rewrites."""

        builder_class = _RewritingBuilder


class ForeignManifest(Provider):
    """Shows the manifest of another tree with as many blocks and tokens."""

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Return a manifest of other roots, signed."""
        manifest, fingerprints = super().manifest(commitment_sha256)
        statement = read_manifest(manifest.payload)
        for entry in statement.blocks:
            entry.token_root = sha256(entry.token_root).digest()
        payload = statement.SerializeToString()
        return envelope.sign(payload, envelope.MANIFEST, self.signer), fingerprints


class ForeignFingerprints(Provider):
    """Signs fingerprints that name another commitment."""

    def sign_fingerprints(self, record: SessionRecord) -> envelope_pb2.Envelope:
        """Return the fingerprints under another commitment's digest."""
        statement = read_fingerprints(super().sign_fingerprints(record).payload)
        statement.commitment_sha256 = sha256(statement.commitment_sha256).digest()
        return envelope.sign(statement.SerializeToString(), envelope.FINGERPRINTS, self.signer)


class FewerFingerprints(Provider):
    """Signs fingerprints that leave out the last block."""

    def sign_fingerprints(self, record: SessionRecord) -> envelope_pb2.Envelope:
        """Return the fingerprints of one block less."""
        statement = read_fingerprints(super().sign_fingerprints(record).payload)
        statement.size -= 1
        return envelope.sign(statement.SerializeToString(), envelope.FINGERPRINTS, self.signer)


class TwoCommitments(Provider):
    """Sells every reply under one session, which it commits to each time."""

    class session_class(Session):
        """Has one id."""

        @classmethod
        def begin(cls, provider: Provider, **of: Any) -> Self:
            """Start a session under the id of all."""
            opened = super().begin(provider, **of).opened
            secret = SessionSecret(bytes(SESSION_ID_BYTES), opened.secret.secret)
            opened.statement.session_id = secret.session_id
            return cls(provider, replace(opened, secret=secret))


class StrangersKey(Provider):
    """Signs with a key that its root never listed."""

    def __init__(self, **arguments: Any) -> None:
        """Take the arguments of any provider, and another key."""
        super().__init__(**arguments)
        self.signer = KeySigner.generate(self.name)


class _SlowClock(SteadyClock):
    def __init__(self) -> None:
        super().__init__()
        self._offset -= round(BACK.total_seconds() * 1e9)


class DatedBack(Provider):
    """Dates all that it signs back, to when its key was good."""

    def __init__(self, **arguments: Any) -> None:
        """Take the arguments of any provider, and a clock that is behind."""
        super().__init__(**(arguments | {"clock": _SlowClock()}))
