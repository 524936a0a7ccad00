"""A provider: opens sessions, makes fingerprints in the background, answers challenges."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt

from coin_protocol import envelope, statements
from coin_protocol.clock import SteadyClock
from coin_protocol.embedding import quantised_windows, window_texts
from coin_protocol.encoding import digest
from coin_protocol.errors import (
    ConfigurationError,
    ExposureCapError,
    NotReadyError,
    RefusedError,
)
from coin_protocol.keys import KeyRing
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.signer import Signer
from coin_protocol.table import TokenTable
from coin_protocol.v1 import envelope_pb2, opening_pb2, statements_pb2
from provider_sdk.answering import Answerer
from provider_sdk.record import MemoryStore, SessionRecord, SessionStore
from provider_sdk.session import Session

P = ParamSpec("P")
T = TypeVar("T")

_LOG = logging.getLogger(__name__)


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
        key_set: envelope_pb2.Envelope,
        models: Models,
        verifiers: KeyRing,
        store: SessionStore | None = None,
    ) -> None:
        """Load the models and the token table.

        Args:
            name: As in the key set and on the bill.
            signer: Signs statements; its key must be in the key set.
            key_set: Signed by the provider's root key.
            models: Of the profile that commitments are made of.
            verifiers: Whose challenges are answered.
            store: Keeps finished sessions; by default in memory.

        Raises:
            ConfigurationError: The signer's key is not in the key set under this name, or of
                an algorithm that the profile does not list.
        """
        ring = statements.read_key_set(key_set.payload)
        if ring.owner != name or ring.find(signer.public.keyid) is None:
            msg = f"the key set of {ring.owner!r} does not list the signing key of {name!r}"
            raise ConfigurationError(msg)
        if signer.public.algorithm not in models.profile.message.key_algorithms:
            msg = f"profile {models.profile.message.name} does not list the algorithm of {name!r}"
            raise ConfigurationError(msg)
        self.name = name
        self.signer = signer
        self.key_set = key_set
        self.verifiers = verifiers
        self.store = store if store is not None else MemoryStore()
        self.clock = SteadyClock()
        self.closed = False
        self.profile: Profile = models.profile
        self.table = self.load_table(models)
        self.embedder = models.embedder
        self.tokenizer = models.tokenizer
        self.answerer = self.answerer_class(
            profile=self.profile,
            table=self.table,
            tokenizer=self.tokenizer,
            verifiers=verifiers,
            clock=self.clock,
        )
        self._background = ThreadPoolExecutor(1, thread_name_prefix="coin-fingerprints")
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
        """Finish the fingerprints under way and stop the background thread."""
        self.closed = True
        self._background.shutdown()

    def load_table(self, models: Models) -> TokenTable:
        """Return the token table that leaves are made from."""
        return models.table

    def open_session(self, *, model: str, request: bytes, client_nonce: bytes) -> Session:
        """Start committing to a reply.

        Args:
            model: Its name on the bill.
            request: Exact bytes of the client's request.
            client_nonce: 16 to 64 bytes that the client chose for this request.

        Raises:
            InvalidInputError: An argument is out of its limits.
        """
        return self.session_class(self, model=model, request=request, client_nonce=client_nonce)

    def run_later(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call on the background thread, after what was asked for before."""
        return self._background.submit(call, *args, **kwargs)

    def embed_block(self, token_ids: npt.NDArray[np.uint32]) -> list[bytes]:
        """Return the quantised window embeddings of a block."""
        spec = self.profile.message.embedding
        texts = window_texts(self.tokenizer, spec, token_ids.tolist())
        return quantised_windows(self.embedder, spec, texts)

    def keep(self, record: SessionRecord, windows: Sequence[Future[list[bytes]]]) -> None:
        """Store a finished session, and sign its fingerprints once they are made."""
        self.store.add(record)
        self.run_later(self._make_fingerprints, record, list(windows))

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
        record = self.store.get(commitment_sha256)
        self._fingerprints(record)
        with record.lock, self._refusing(record, challenge):
            opening = self.answerer.open(record, challenge)
        return envelope.sign(opening.SerializeToString(), envelope.OPENING, self.signer)

    def answer_whole(
        self, commitment_sha256: bytes, challenge: envelope_pb2.Envelope
    ) -> envelope_pb2.Envelope:
        """Answer a whole-block challenge; errors as `answer`."""
        record = self.store.get(commitment_sha256)
        self._fingerprints(record)
        with record.lock, self._refusing(record, challenge):
            opening = self.answerer.open_whole(record, challenge)
        return envelope.sign(opening.SerializeToString(), envelope.WHOLE_OPENING, self.signer)

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

    def _make_fingerprints(self, record: SessionRecord, windows: list[Future[list[bytes]]]) -> None:
        try:
            # The blocks of this session were queued before this, on the same thread.
            rows = [future.result() for future in windows]
            record.windows = b"".join(row for block in rows for row in block)
            statement = statements_pb2.Fingerprints(
                commitment_sha256=record.commitment_sha256,
                fingerprint_root=self.answerer.opener(record).fingerprint_root,
                size=len(rows),
                provider_time=self.clock.now(),
            )
            signed = envelope.sign(
                statement.SerializeToString(), envelope.FINGERPRINTS, self.signer
            )
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
