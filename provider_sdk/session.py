"""One reply being generated: token ids in, checkpoints and the commitment out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from coin_protocol import envelope
from coin_protocol.commitment import CommitmentBuilder, Prefix, SessionSecret, TokenTree
from coin_protocol.draw import flip_anchor
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError
from coin_protocol.limits import (
    HASH_BYTES,
    MAX_NAME_BYTES,
    MAX_REASONING_TOKENS,
    MAX_TEXT_BYTES,
    NONCE_MAX_BYTES,
    NONCE_MIN_BYTES,
    SESSION_ID_BYTES,
)
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import envelope_pb2, statements_pb2
from provider_sdk.record import Delivered, OpenedSession, Received, ReplyRef, SessionRecord

if TYPE_CHECKING:
    from provider_sdk.provider import Provider


class Session:
    """Commits to the reasoning of one reply. Not for use from several threads at once.

    `append` costs microseconds a token and blocks on nothing; block embeddings are made on
    the provider's background thread.
    """

    builder_class: type[CommitmentBuilder] = CommitmentBuilder

    def __init__(self, provider: Provider, opened: OpenedSession) -> None:
        """Go on from where a session begins; `Provider.open_session` is the public way."""
        self.provider = provider
        self.opened = opened
        self._builder = self.builder_class(
            opened.secret,
            block_size=provider.profile.block_size,
            fingerprints=provider.table.fingerprints,
        )
        self._windows: list[Future[list[bytes]]] = []
        self._finished = False

    @classmethod
    def begin(
        cls, provider: Provider, *, model: str, request: bytes | Received, client_nonce: bytes
    ) -> Self:
        """Start a session with secrets of its own.

        Raises:
            InvalidInputError: Model name, request or nonce are out of their limits.
        """
        named = model.encode(errors="replace")
        if not 0 < len(named) <= MAX_NAME_BYTES or named.decode() != model:
            msg = f"the model's name must have 1 to {MAX_NAME_BYTES} bytes of UTF-8"
            raise InvalidInputError(msg)
        if not NONCE_MIN_BYTES <= len(client_nonce) <= NONCE_MAX_BYTES:
            msg = (
                f"the client's nonce must have {NONCE_MIN_BYTES} to {NONCE_MAX_BYTES} bytes; "
                f"found {len(client_nonce)}"
            )
            raise InvalidInputError(msg)
        if isinstance(request, bytes):
            request = Received.of(request, provider.clock.now())
        if request.size > MAX_TEXT_BYTES:
            msg = f"the request has {request.size} bytes; at most {MAX_TEXT_BYTES} are taken"
            raise InvalidInputError(msg)
        secret = SessionSecret(
            secrets.token_bytes(SESSION_ID_BYTES), secrets.token_bytes(HASH_BYTES)
        )
        flip_secret = secrets.token_bytes(HASH_BYTES)
        statement = statements_pb2.Commitment(
            profile_sha256=provider.profile.digest,
            provider=provider.name,
            model=model,
            session_id=secret.session_id,
            client_nonce=client_nonce,
            request_sha256=request.sha256,
            flip_anchor=flip_anchor(flip_secret),
            started_at=request.at,
        )
        return cls(provider, OpenedSession(secret, flip_secret, statement))

    def belongs_to(self, reply: ReplyRef | None) -> OpenedSession:
        """Return how the session begins, as part of a reply."""
        self.opened = replace(self.opened, reply=reply)
        return self.opened

    @property
    def session_id(self) -> bytes:
        """The session's public id, 16 bytes."""
        return self.opened.secret.session_id

    @property
    def token_count(self) -> int:
        """Reasoning tokens so far."""
        return self._builder.token_count

    @property
    def block_count(self) -> int:
        """Full blocks so far."""
        return self._builder.block_count

    @property
    def finished(self) -> bool:
        """Whether the commitment was signed."""
        return self._finished

    def block(self, index: int) -> npt.NDArray[np.uint32]:
        """Return the ids of block `index`, uint32; fewer, or none, where it is not full yet."""
        return self._builder.block(index)

    def append(
        self, token_ids: Sequence[int] | npt.NDArray[np.integer]
    ) -> list[envelope_pb2.Envelope]:
        """Commit to reasoning token ids, and return the checkpoints that are due.

        Raises:
            InvalidInputError: An id is outside the vocabulary, or the session is finished.
        """
        return [self.checkpoint(prefix) for prefix in self.take(token_ids)]

    def take(self, token_ids: Sequence[int] | npt.NDArray[np.integer]) -> list[Prefix]:
        """Commit to token ids, and return what checkpoints are due for; errors as `append`."""
        if self._finished or self.provider.closed:
            self._require_open()
        prefixes = self._builder.append(token_ids)
        if prefixes:
            self._embed_up_to(self._builder.block_count)
        return prefixes

    def finish(
        self,
        *,
        answer: bytes,
        answer_tokens: int,
        usage: statements_pb2.Usage,
        summary: bytes | None = None,
        id_source: statements_pb2.IdSource.ValueType = statements_pb2.ID_SOURCE_SAMPLED,
    ) -> envelope_pb2.Envelope:
        """Sign the commitment and keep the session for challenges. Call once.

        Args:
            answer: Exact bytes of the visible answer's text.
            answer_tokens: Every generated token that is not reasoning.
            usage: As billed.
            summary: Exact bytes of the visible reasoning summary, where there is one.
            id_source: Whether the ids were sampled, or the text tokenized again.

        Raises:
            InvalidInputError: The session is finished already, or the number of answer tokens
                is out of its limits.
            StatementError: Another number is out of the protocol's limits.
        """
        record = self.close(
            answer=answer,
            answer_tokens=answer_tokens,
            usage=usage,
            summary=summary,
            id_source=id_source,
        )
        self.provider.keep(record, self.block_windows(record.tree, answer), Delivered())
        return record.commitment

    def close(
        self,
        *,
        answer: bytes,
        answer_tokens: int,
        usage: statements_pb2.Usage,
        summary: bytes | None,
        id_source: statements_pb2.IdSource.ValueType,
        abort_reason: statements_pb2.AbortReason.ValueType = (
            statements_pb2.ABORT_REASON_UNSPECIFIED
        ),
    ) -> SessionRecord:
        """Sign the commitment, and return what is to be kept. Call once; errors as `finish`.

        Args:
            answer: As `finish`.
            answer_tokens: As `finish`.
            usage: As `finish`.
            summary: As `finish`.
            id_source: As `finish`.
            abort_reason: Why the reply is a part, where it is one.
        """
        self._require_open()
        if not 0 <= answer_tokens <= MAX_REASONING_TOKENS:
            msg = f"answer_tokens must lie in [0, {MAX_REASONING_TOKENS}]; found {answer_tokens}"
            raise InvalidInputError(msg)
        self._finished = True
        tree = self._builder.finish()
        statement = self.commitment_statement(
            tree,
            answer=answer,
            answer_tokens=answer_tokens,
            usage=usage,
            summary=summary,
            id_source=id_source,
        )
        statement.abort_reason = abort_reason
        payload = statement.SerializeToString()
        read_commitment(payload)
        manifest = statements_pb2.Manifest(
            commitment_sha256=digest(payload),
            blocks=tree.entries,
            provider_time=self.provider.clock.now(),
        )
        return SessionRecord(
            secret=self.opened.secret,
            flip_secret=self.opened.flip_secret,
            token_ids=tree.token_ids,
            commitment=self._sign(payload, envelope.COMMITMENT),
            manifest=self._sign(manifest.SerializeToString(), envelope.MANIFEST),
        )

    def block_windows(self, tree: TokenTree, answer: bytes) -> list[Future[list[bytes]]]:
        """Return every block's window embeddings, made or being made.

        Args:
            tree: The finished tree.
            answer: The visible answer; an honest provider has no use for it here.
        """
        del answer
        self._embed_up_to(tree.block_count)
        return self._windows

    def commitment_statement(
        self,
        tree: TokenTree,
        *,
        answer: bytes,
        answer_tokens: int,
        usage: statements_pb2.Usage,
        summary: bytes | None,
        id_source: statements_pb2.IdSource.ValueType,
    ) -> statements_pb2.Commitment:
        """Return what `finish` signs."""
        statement = statements_pb2.Commitment(
            answer_sha256=sha256(answer).digest(),
            summary_sha256=None if summary is None else sha256(summary).digest(),
            token_root=tree.token_root,
            block_count=tree.block_count,
            reasoning_tokens=tree.reasoning_tokens,
            answer_tokens=answer_tokens,
            id_source=id_source,
            usage=usage,
            ended_at=self.provider.clock.now(),
        )
        statement.MergeFrom(self.opened.statement)
        if self.provider.retention is not None:
            until = self.provider.clock.utc() + self.provider.retention
            statement.answers_until.FromDatetime(until)
        return statement

    def checkpoint(self, prefix: Prefix) -> envelope_pb2.Envelope:
        """Sign that the ids so far begin with a prefix."""
        opened = self.opened.statement
        statement = statements_pb2.Checkpoint(
            session_id=opened.session_id,
            profile_sha256=opened.profile_sha256,
            client_nonce=opened.client_nonce,
            block_count=prefix.block_count,
            token_count=prefix.token_count,
            token_root=prefix.token_root,
            provider_time=self.provider.clock.now(),
        )
        return self._sign(statement.SerializeToString(), envelope.CHECKPOINT)

    def _embed_up_to(self, blocks: int) -> None:
        if not self.provider.store.in_memory:
            return  # workers embed what is on disk
        for index in range(len(self._windows), blocks):
            ids = self._builder.block(index)
            self._windows.append(self.provider.run_later(self.provider.embed_block, ids))

    def _sign(self, payload: bytes, payload_type: str) -> envelope_pb2.Envelope:
        return envelope.sign(payload, payload_type, self.provider.signer)

    def _require_open(self) -> None:
        if self._finished:
            msg = "the session is finished: open another for the next reply"
            raise InvalidInputError(msg)
        if self.provider.closed:
            msg = "the provider is closed: its sessions take nothing more"
            raise InvalidInputError(msg)
