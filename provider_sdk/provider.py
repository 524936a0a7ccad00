"""A provider: opens sessions, makes fingerprints in the background, answers challenges."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt

from coin_protocol import envelope, statements
from coin_protocol.clock import SteadyClock
from coin_protocol.embedding import TextEmbedder, quantised_windows, window_texts
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    ConfigurationError,
    ExposureCapError,
    InvalidInputError,
    NotReadyError,
    RefusedError,
)
from coin_protocol.keys import KeyRing
from coin_protocol.keyset import KeySetSource, SignedKeySet
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.signer import KeySigner, Signer
from coin_protocol.table import TokenTable
from coin_protocol.v1 import envelope_pb2, opening_pb2, statements_pb2
from provider_sdk.answering import Answerer, Challenge
from provider_sdk.live import LiveSession
from provider_sdk.record import (
    Delivered,
    KeptReply,
    MemoryStore,
    Received,
    ReplyRef,
    SessionRecord,
    SessionStore,
)
from provider_sdk.session import Session

P = ParamSpec("P")
T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_SIGNERS: Final = 8
"""Signatures that an HSM or a service is asked for at once."""
_NO_IDS: Final = np.empty(0, np.uint32)


class RefusedChallengeError(RefusedError):
    """A challenge is refused, with the signed statement that says why."""

    def __init__(self, message: str, signed: envelope_pb2.Envelope) -> None:
        """Carry the signed refusal."""
        super().__init__(message)
        self.signed = signed


class Provider:
    """One provider's sessions and keys. Use as a context manager, or call `close`."""

    session_class: type[Session] = Session
    answerer_class: type[Answerer] = Answerer

    def __init__(
        self,
        *,
        name: str,
        signer: Signer,
        key_set: envelope_pb2.Envelope | KeySetSource,
        models: Models,
        verifiers: KeyRing,
        store: SessionStore | None = None,
        clock: SteadyClock | None = None,
        retention: timedelta | None = None,
    ) -> None:
        """Load the models and the token table.

        Args:
            name: As in the key set and on the bill.
            signer: Signs statements; its key must be in the key set.
            key_set: Signed by the provider's root; or where to ask for it each time, so that a
                rotated one is served at once.
            models: Of the profile that commitments are made of.
            verifiers: Whose challenges are answered.
            store: Keeps sessions; by default in memory, lost at exit.
            clock: Dates statements; give it where the signer goes by one too.
            retention: How long after a reply its challenges are answered; commitments say until
                when. None names no end.

        Raises:
            ConfigurationError: The signer's key is not in the key set under this name, or of
                an algorithm that the profile does not list.
        """
        if isinstance(key_set, envelope_pb2.Envelope):
            key_set = SignedKeySet(key_set)
        ring = statements.read_key_set(key_set.served.signed.payload)
        if ring.owner != name or ring.find(signer.public.keyid) is None:
            msg = f"the key set of {ring.owner!r} does not list the signing key of {name!r}"
            raise ConfigurationError(msg)
        if signer.public.algorithm not in models.profile.message.key_algorithms:
            msg = f"profile {models.profile.message.name} does not list the algorithm of {name!r}"
            raise ConfigurationError(msg)
        self.name = name
        self.signer = signer
        self._keys = key_set
        self.verifiers = verifiers
        self.store = store if store is not None else MemoryStore()
        self.retention = retention
        self.clock = SteadyClock() if clock is None else clock
        self.closed = False
        self.profile: Profile = models.profile
        self.table = self.load_table(models)
        self._models = models
        self.tokenizer = models.tokenizer
        self.answerer = self.answerer_class(
            profile=self.profile,
            table=self.table,
            tokenizer=self.tokenizer,
            verifiers=verifiers,
            clock=self.clock,
        )
        self._background = ThreadPoolExecutor(1, thread_name_prefix="coin-fingerprints")
        self._signing = ThreadPoolExecutor(_SIGNERS, thread_name_prefix="coin-signing")
        self._ready = threading.Condition()

    def __enter__(self) -> Self:
        """Return the provider."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the provider."""
        self.close()

    def close(self) -> None:
        """Finish signatures and fingerprints under way, and stop the background threads."""
        self._signing.shutdown()  # sessions that end there need a provider that is open
        self.closed = True
        self._background.shutdown()

    @property
    def embedder(self) -> TextEmbedder:
        """The embedding model, loaded when it is first asked for: only fingerprints need it."""
        return self._models.embedder

    @property
    def served(self) -> SignedKeySet:
        """The key set to serve now, with the certificates of its root."""
        return self._keys.served

    @property
    def key_set(self) -> envelope_pb2.Envelope:
        """The signed key set to serve now."""
        return self.served.signed

    def load_table(self, models: Models) -> TokenTable:
        """Return the token table that leaves are made from."""
        return models.table

    def open_session(self, *, model: str, request: bytes, client_nonce: bytes) -> Session:
        """Start committing to a reply that is kept in memory; `session` is for all others.

        Args:
            model: Its name on the bill.
            request: Exact bytes of the client's request.
            client_nonce: 16 to 64 bytes that the client chose for this request.

        Raises:
            InvalidInputError: An argument is out of its limits.
            ConfigurationError: The store is on disk.
        """
        if not self.store.in_memory:
            msg = "this store writes sessions down as they go: open them with `session`"
            raise ConfigurationError(msg)
        return self.session_class.begin(
            self, model=model, request=request, client_nonce=client_nonce
        )

    def session(
        self,
        request: bytes | Received,
        *,
        client_nonce: bytes,
        model: str,
        reply: ReplyRef | None = None,
    ) -> LiveSession:
        """Start committing to a reply, and writing it down as it goes; for `async with`.

        Args:
            request: Exact bytes of the client's request, taken to have come now; or what was
                noted when it came, where its reply begins later.
            client_nonce: 16 to 64 bytes that the client chose for this request.
            model: Its name on the bill.
            reply: Where the commitment belongs, so that its caller can ask for it again.

        Raises:
            InvalidInputError: An argument is out of its limits.
            StoreUnavailableError: The store takes nothing more.
        """
        session = self.session_class.begin(
            self, model=model, request=request, client_nonce=client_nonce
        )
        return LiveSession(self, session, reply)

    def replies(self, response_id: str, caller: bytes) -> list[KeptReply]:
        """Return what there is to be handed over of a reply, to the caller that made it.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        return self.store.replies(response_id, caller)

    def run_later(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call on the background thread, after what was asked for before."""
        return self._background.submit(call, *args, **kwargs)

    @property
    def signs_at_once(self) -> bool:
        """Whether the key is in memory; an HSM or a service may be waited for, and long."""
        try:
            return isinstance(self.signer.current(), KeySigner)
        except Exception:  # noqa: BLE001 - whoever signs next meets it, and says so
            return True

    def sign_later(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call that signs on a thread that may be kept waiting.

        Raises:
            InvalidInputError: The provider is closed.
        """
        try:
            return self._signing.submit(call, *args, **kwargs)
        except RuntimeError as error:
            msg = "the provider is closed: it signs nothing more"
            raise InvalidInputError(msg) from error

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        """Return the quantised window embeddings of a block."""
        spec = self.profile.message.embedding
        texts = window_texts(self.tokenizer, spec, token_ids.tolist())
        return quantised_windows(self.embedder, spec, texts)

    def keep(
        self,
        record: SessionRecord,
        windows: Sequence[Future[list[bytes]]],
        delivered: Delivered,
        rest: npt.NDArray[np.uint32] = _NO_IDS,
    ) -> Future[None]:
        """Store a finished session, and have its fingerprints made and signed.

        Args:
            record: As signed.
            windows: Window embeddings under way, where they are made in this process.
            delivered: What is handed over with the commitment.
            rest: The ids of the last block where it is not full.
        """
        written = self.store.finish(record, rest, delivered)
        if self.store.in_memory:
            self.run_later(self._make_fingerprints, record, list(windows))
        return written

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Return the signed manifest and fingerprints of a commitment.

        Raises:
            UnknownCommitmentError: There is no such session.
            NotReadyError: The fingerprints are still being made.
        """
        record = self.store.get(commitment_sha256)
        return record.manifest, self._fingerprints(record)

    def wait_ready(self, commitment_sha256: bytes, timeout: float) -> None:
        """Block until the fingerprints of a commitment are made.

        Raises:
            NotReadyError: They were not, within `timeout` seconds.
        """
        record = self.store.get(commitment_sha256)
        with self._ready:
            self._ready.wait_for(lambda: record.fingerprints or record.failure, timeout)
        self._fingerprints(record)

    def answer(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        """Answer a challenge: the signed opening of what it draws.

        The same challenge again opens the same and costs nothing more.

        Raises:
            UnknownCommitmentError: There is no such session.
            NotReadyError: The fingerprints are still being made.
            ChallengeError: The challenge is malformed, late, or not from a known verifier.
            RefusedChallengeError: A cap or the hash chain stands in the way.
        """
        record = self._ready_record(commitment_sha256)
        message = self.answerer.read(record, challenge)
        step, before = self._step(record, challenge, message)
        opening = self.answerer.open(record, message, step)
        opening.answered.extend(before)
        return envelope.sign(opening.SerializeToString(), envelope.OPENING, self.signer)

    def answer_whole(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        """Answer a whole-block challenge; errors as `answer`."""
        record = self._ready_record(commitment_sha256)
        message = self.answerer.read_whole(record, challenge)
        step, before = self._step(record, challenge, message)
        opening = self.answerer.open_whole(record, message, step)
        opening.answered.extend(before)
        return envelope.sign(opening.SerializeToString(), envelope.WHOLE_OPENING, self.signer)

    def _ready_record(self, commitment_sha256: bytes) -> SessionRecord:
        record = self.store.get(commitment_sha256)
        self._fingerprints(record)
        return record

    def _step(
        self, record: SessionRecord, challenge: envelope_pb2.Envelope, message: Challenge
    ) -> tuple[opening_pb2.AnsweredChallenge, list[opening_pb2.AnsweredChallenge]]:
        """Give a challenge its place, on disk before anything is opened; return those before."""
        with self._refusing(record, challenge), self.store.exclusive(record):
            step = self.answerer.step(record, challenge, message)
            return step, self.answerer.before(record, step)

    @contextmanager
    def _refusing(self, record: SessionRecord, challenge: envelope_pb2.Envelope) -> Iterator[None]:
        """Turn a refusal into one that is signed and carries its proof."""
        try:
            yield
        except RefusedError as error:
            capped = isinstance(error, ExposureCapError)
            refusal = opening_pb2.Refusal(
                challenge_sha256=digest(challenge.payload),
                reason=opening_pb2.REFUSAL_REASON_EXPOSURE_CAP
                if capped
                else opening_pb2.REFUSAL_REASON_FLIPS_USED_UP,
                answered=record.answered.values(),
                provider_time=self.clock.now(),
            )
            signed = envelope.sign(refusal.SerializeToString(), envelope.REFUSAL, self.signer)
            raise RefusedChallengeError(str(error), signed) from error

    def sign_fingerprints(self, record: SessionRecord) -> envelope_pb2.Envelope:
        """Return the signed fingerprints of a session whose windows are made."""
        statement = statements_pb2.Fingerprints(
            commitment_sha256=record.commitment_sha256,
            fingerprint_root=self.answerer.opener(record).fingerprint_root,
            size=record.tree.block_count,
            provider_time=self.clock.now(),
        )
        return envelope.sign(statement.SerializeToString(), envelope.FINGERPRINTS, self.signer)

    def _make_fingerprints(self, record: SessionRecord, windows: list[Future[list[bytes]]]) -> None:
        try:
            # The blocks of this session were queued before this, on the same thread.
            rows = [future.result() for future in windows]
            record.windows = b"".join(row for block in rows for row in block)
            signed = self.sign_fingerprints(record)
        except Exception as error:  # noqa: BLE001 - or it would be lost on the thread
            _LOG.exception("fingerprints of %s failed", record.commitment_sha256.hex())
            with self._ready:
                record.failure = type(error).__name__
                self._ready.notify_all()
            return
        with self._ready:
            record.fingerprints = signed
            self._ready.notify_all()

    def _fingerprints(self, record: SessionRecord) -> envelope_pb2.Envelope:
        if record.fingerprints is None:
            why = f"failed ({record.failure})" if record.failure else "are still being made"
            msg = f"the fingerprints of this commitment {why}"
            raise NotReadyError(msg)
        return record.fingerprints
