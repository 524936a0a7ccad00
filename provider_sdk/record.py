"""What a provider keeps of a session, and the interface of what keeps it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.commitment import SessionSecret, TokenIds, TokenTree
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError, UnknownCommitmentError
from coin_protocol.exposure import ExposureLedger
from coin_protocol.statements import read_commitment, read_manifest
from coin_protocol.v1 import delivery_pb2, envelope_pb2, opening_pb2, statements_pb2

MAX_RESPONSE_ID: Final = 256
"""Characters; those in use have some forty."""


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: what a commitment says of it.

    Attributes:
        sha256: Digest of its exact bytes.
        size: How many there are.
        at: When it came, by the provider's clock.
    """

    sha256: bytes
    size: int
    at: Timestamp

    @classmethod
    def of(cls, request: bytes, at: Timestamp) -> Received:
        """Digest a request; a large one takes milliseconds, and releases the interpreter."""
        return cls(sha256(request).digest(), len(request), at)


@dataclass(frozen=True, slots=True)
class ReplyRef:
    """Where a commitment belongs, so that the caller can ask for it again.

    Attributes:
        response_id: As the client sees it.
        choice: 0 for the first.
        caller: Digest of the caller's credentials, 32 bytes; empty where it gave none.
        nonce_from_client: Whether the client chose the nonce.
    """

    response_id: str
    choice: int = 0
    caller: bytes = field(default=b"", repr=False)
    nonce_from_client: bool = True

    def __post_init__(self) -> None:
        """Check the name: it comes from outside.

        Raises:
            InvalidInputError: It is longer than a store takes.
        """
        if len(self.response_id) > MAX_RESPONSE_ID:
            msg = f"a response id has at most {MAX_RESPONSE_ID} characters"
            raise InvalidInputError(msg)


@dataclass(frozen=True)
class OpenedSession:
    """A session as it begins: enough to close it, should this process die.

    Attributes:
        secret: Session id and secret.
        flip_secret: Start of the hash chain.
        statement: What is known of the commitment already.
        reply: Where it belongs; None where nobody asks for it by its reply.
    """

    secret: SessionSecret
    flip_secret: bytes = field(repr=False)
    statement: statements_pb2.Commitment = field(repr=False)
    reply: ReplyRef | None = None


@dataclass(frozen=True)
class Delivered:
    """What is handed over with a commitment, kept so that it can be handed over again.

    Attributes:
        notes: Sentences for people.
        reported: What the upstream reported; None where it reported nothing.
    """

    notes: tuple[str, ...] = ()
    reported: statements_pb2.Usage | None = None


@dataclass
class SessionRecord:
    """Secret, ids and window embeddings; all else is derived again when asked for.

    Attributes:
        secret: Session id and secret.
        flip_secret: Start of the hash chain.
        token_ids: Packed.
        commitment: As signed.
        manifest: As signed.
        windows: All blocks' quantised window embeddings in order; empty until made.
        nodes: What was kept of each block's tree (`Opener.kept_nodes`); empty where nothing was.
        fingerprints: As signed; None until made.
        failure: Why the fingerprints could not be made, if they could not.
        ledger: What was opened.
        answered: Challenges answered so far, by the digest of their statement.
        lock: Held while a challenge is given its place, where the store keeps records in memory.
    """

    secret: SessionSecret
    flip_secret: bytes = field(repr=False)
    token_ids: TokenIds = field(repr=False)
    commitment: envelope_pb2.Envelope = field(repr=False)
    manifest: envelope_pb2.Envelope = field(repr=False)
    windows: bytes = field(default=b"", repr=False)
    nodes: Sequence[bytes] = field(default=(), repr=False)
    fingerprints: envelope_pb2.Envelope | None = field(default=None, repr=False)
    failure: str = ""
    ledger: ExposureLedger = field(default_factory=ExposureLedger, repr=False)
    answered: dict[bytes, opening_pb2.AnsweredChallenge] = field(default_factory=dict, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def commitment_sha256(self) -> bytes:
        """What names the commitment."""
        return digest(self.commitment.payload)

    @property
    def tree(self) -> TokenTree:
        """The committed tokens, with the entries that the manifest signs."""
        return TokenTree(
            token_root=read_commitment(self.commitment.payload).token_root,
            token_ids=self.token_ids,
            entries=tuple(read_manifest(self.manifest.payload).blocks),
        )


@dataclass(frozen=True)
class KeptReply:
    """One choice of a reply, as it stands.

    Attributes:
        ref: Where it belongs.
        client_nonce: As the commitment carries it.
        choice: What is handed over; None while the reply is still being generated.
        reported: What the upstream reported.
    """

    ref: ReplyRef
    client_nonce: bytes
    choice: delivery_pb2.DeliveredChoice | None
    reported: statements_pb2.Usage | None


class SessionStore(Protocol):
    """Keeps sessions from their first token on. Safe to use from several threads.

    What returns a future returns at once; the future is done when the write can no longer be
    lost, and fails with a `CoinError` where it never will be made.

    Attributes:
        in_memory: Whether records live and die with this process, and are the very objects that
            were added: their fingerprints are then made here, else by `provider_sdk.fingerprints`.
        deadline: Seconds that a finished reply waits for its commitment to be on disk.
    """

    in_memory: bool
    deadline: float

    def open(self, opened: OpenedSession) -> Future[None]:
        """Note that a session begins."""

    def add_block(self, session_id: bytes, index: int, ids: npt.NDArray[np.uint32]) -> Future[None]:
        """Keep the ids of a full block."""

    def finish(
        self, record: SessionRecord, rest: npt.NDArray[np.uint32], delivered: Delivered
    ) -> Future[None]:
        """Keep what ends a session.

        Args:
            record: As signed.
            rest: The ids of the last block where it is not full, else none.
            delivered: What is handed over with the commitment.
        """

    def give_up(self, session_id: bytes) -> None:
        """Leave a session that could not be ended to whoever recovers those of dead processes."""

    def get(self, commitment_sha256: bytes) -> SessionRecord:
        """Return the record of a commitment.

        Raises:
            UnknownCommitmentError: There is none, or its secrets were deleted.
            TryLaterError: The store does not answer.
        """

    def exclusive(self, record: SessionRecord) -> AbstractContextManager[None]:
        """Hold a record for one challenge at a time, over all processes.

        Inside, `answered` and `ledger` are as they stand now; what is added to `answered` is
        kept when it ends.

        Raises:
            TryLaterError: The store does not answer; nothing was kept.
        """

    def replies(self, response_id: str, caller: bytes) -> list[KeptReply]:
        """Return the choices of a reply, to the caller that made it, in order."""

    def close(self) -> None:
        """Finish writing and let go."""


class MemoryStore:
    """A `SessionStore` for one process: lost at exit."""

    in_memory = True
    deadline = 0.0

    def __init__(self) -> None:
        """Start empty."""
        self._records: dict[bytes, SessionRecord] = {}
        self._replies: dict[tuple[str, bytes], dict[int, KeptReply]] = {}
        self._refs: dict[bytes, ReplyRef] = {}

    def open(self, opened: OpenedSession) -> Future[None]:
        """Note where the session's reply belongs."""
        if opened.reply is not None:
            self._refs[opened.secret.session_id] = opened.reply
            self._keep(KeptReply(opened.reply, opened.statement.client_nonce, None, None))
        return done()

    def add_block(self, session_id: bytes, index: int, ids: npt.NDArray[np.uint32]) -> Future[None]:
        """Do nothing: the session itself holds its ids until it ends."""
        del session_id, index, ids
        return done()

    def finish(
        self, record: SessionRecord, rest: npt.NDArray[np.uint32], delivered: Delivered
    ) -> Future[None]:
        """Keep a record."""
        del rest
        self._records[record.commitment_sha256] = record
        ref = self._refs.pop(record.secret.session_id, None)
        if ref is not None:
            nonce = read_commitment(record.commitment.payload).client_nonce
            choice = delivered_choice(ref, record.commitment, delivered.notes)
            self._keep(KeptReply(ref, nonce, choice, delivered.reported))
        return done()

    def give_up(self, session_id: bytes) -> None:
        """Forget the session: its ids are in nobody's hands."""
        self._refs.pop(session_id, None)

    def get(self, commitment_sha256: bytes) -> SessionRecord:
        """Return the record of a commitment."""
        try:
            return self._records[commitment_sha256]
        except KeyError:
            raise unknown(commitment_sha256) from None

    @contextmanager
    def exclusive(self, record: SessionRecord) -> Iterator[None]:
        """Hold the record's lock."""
        with record.lock:
            yield

    def replies(self, response_id: str, caller: bytes) -> list[KeptReply]:
        """Return the choices of a reply."""
        found = self._replies.get((response_id, caller), {})
        return [found[choice] for choice in sorted(found)]

    def close(self) -> None:
        """Do nothing."""

    def _keep(self, reply: KeptReply) -> None:
        choices = self._replies.setdefault((reply.ref.response_id, reply.ref.caller), {})
        choices[reply.ref.choice] = reply


def delivered_choice(
    ref: ReplyRef, commitment: envelope_pb2.Envelope, notes: Sequence[str]
) -> delivery_pb2.DeliveredChoice:
    """Return what is handed over of one choice."""
    return delivery_pb2.DeliveredChoice(choice=ref.choice, commitment=commitment, notes=notes)


def unknown(commitment_sha256: bytes) -> UnknownCommitmentError:
    """Return the error for a commitment that is not kept."""
    msg = f"no session with commitment {commitment_sha256.hex()[:64] or '(empty)'}"
    return UnknownCommitmentError(msg)


def done() -> Future[None]:
    """Return a future that is done."""
    future: Future[None] = Future()
    future.set_result(None)
    return future
