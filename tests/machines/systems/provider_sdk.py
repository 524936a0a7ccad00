"""The provider of `provider_sdk` in this process: over a store in memory, and over SQLite."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete

from coin_protocol import envelope
from coin_protocol.commitment import SessionSecret
from coin_protocol.database.engine import writing
from coin_protocol.errors import UnknownCommitmentError
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import KeySetSource, SignedKeySet
from coin_protocol.signer import Signer
from coin_protocol.testing.machines.exposure import Terms
from coin_protocol.testing.machines.provider_system import DiedError, Ended
from coin_protocol.testing.small import SmallModels
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import envelope_pb2, statements_pb2
from provider_sdk.answering import ChallengeError
from provider_sdk.fingerprints import FingerprintWorker
from provider_sdk.live import LiveSession
from provider_sdk.provider import Provider, RefusedChallengeError
from provider_sdk.record import (
    Delivered,
    MemoryStore,
    OpenedSession,
    ReplyRef,
    SessionRecord,
    SessionStore,
)
from provider_sdk.recovery import recover
from provider_sdk.store import KeySealer, SqlStore
from provider_sdk.store.tables import PROCESS
from tests.machines.systems import folder as new_folder
from tests.machines.systems.provider_keys import OWNER, FolderKeys, FollowingSigner, RulesKeys
from tests.machines.systems.provider_rules import LONG, MODEL, PROMPT_TOKENS, MovedClock

WAIT_SECONDS: Final = 60.0
SEALING_KEY: Final = sha256(b"sealing key of the machines").digest()
DATABASE: Final = "coin.db"
_THREADS: Final = 4


class Killed(BaseException):
    """The process is dead from here on."""


class MortalStore(SqlStore):
    """A store whose process can be told to die at any of its steps."""

    steps: int | None = None

    def step(self) -> None:
        """Take a step, and die where it is the last.

        Raises:
            Killed: It is, or one before was.
        """
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                raise Killed

    def open(self, opened: OpenedSession) -> Any:
        self.step()
        return super().open(opened)

    def add_block(self, session_id: bytes, index: int, ids: npt.NDArray[np.uint32]) -> Any:
        self.step()
        written = super().add_block(session_id, index, ids)
        self.step()
        return written

    def finish(
        self, record: SessionRecord, rest: npt.NDArray[np.uint32], delivered: Delivered
    ) -> Any:
        self.step()
        written = super().finish(record, rest, delivered)
        self.step()
        return written

    def get(self, commitment_sha256: bytes) -> SessionRecord:
        self.step()
        return super().get(commitment_sha256)

    @contextmanager
    def exclusive(self, record: SessionRecord) -> Iterator[None]:
        with super().exclusive(record):
            yield
            self.step()
        self.step()


class Life:
    """One life of a provider's process, from its start to its death."""

    provider_class: type[Provider] = Provider

    def __init__(
        self, terms: Terms, store: SessionStore, signer: Signer, keys: KeySetSource, clock: Any
    ) -> None:
        """Start over a store.

        Args:
            terms: What is agreed.
            store: As others have left it.
            signer: Signs statements.
            keys: The key set.
            clock: A `MovedClock`.
        """
        self.provider = self.provider_class(
            name=OWNER,
            signer=signer,
            key_set=keys,
            models=SmallModels(terms.profile),
            verifiers=terms.verifiers,
            store=store,
            clock=clock.steady,
        )
        self.store = store
        self.sessions: dict[str, LiveSession] = {}
        self._loop = asyncio.Runner()
        self._pool = ThreadPoolExecutor(_THREADS)

    def open(self, name: str, request: bytes, client_nonce: bytes) -> None:
        self.sessions[name] = self.provider.session(
            request, client_nonce=client_nonce, model=MODEL, reply=ReplyRef(name)
        )

    def append(
        self, name: str, token_ids: Sequence[int], *, wait: bool
    ) -> Sequence[envelope_pb2.Envelope]:
        session = self.sessions[name]
        checkpoints = session.append(token_ids)
        if wait:
            checkpoints += self._loop.run(session.flush())
        return checkpoints

    def finish(self, name: str, answer: bytes) -> Ended:
        session = self.sessions.pop(name)
        usage = self._usage(session, answer)
        reply = self._loop.run(session.finish(answer, usage))
        return Ended(reply.choice.commitment, reply.checkpoints)

    def abort(
        self, name: str, reason: statements_pb2.AbortReason.ValueType, answer: bytes
    ) -> Ended:
        session = self.sessions.pop(name)
        usage = self._usage(session, answer)
        reply = self._loop.run(session.abort(reason, answer=answer, usage=usage))
        return Ended(reply.choice.commitment, reply.checkpoints)

    def leave(self, name: str) -> None:
        self._loop.run(self.sessions.pop(name).__aexit__(None, None, None))

    def find(self, name: str) -> envelope_pb2.Envelope | None:
        self.settle()
        for reply in self.provider.replies(name, b""):
            if reply.choice is not None:
                return reply.choice.commitment
        return None

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        if isinstance(self.store, SqlStore):
            worker = FingerprintWorker(self.provider, self.store, batch_blocks=2)
            while worker.run_once():
                pass
        else:
            self.provider.wait_ready(commitment_sha256, WAIT_SECONDS)
        return self.provider.manifest(commitment_sha256)

    def answer(
        self, commitment_sha256: bytes, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[envelope_pb2.Envelope | None]:
        def one(challenge: envelope_pb2.Envelope) -> envelope_pb2.Envelope | None:
            whole = challenge.payload_type == envelope.WHOLE_CHALLENGE
            ask = self.provider.answer_whole if whole else self.provider.answer
            try:
                return ask(commitment_sha256, challenge)
            except RefusedChallengeError as refused:
                return refused.signed
            except (ChallengeError, UnknownCommitmentError, Killed):
                return None

        if len(challenges) == 1:
            return [one(challenges[0])]
        return [*self._pool.map(one, challenges)]

    def secret(self, name: str) -> SessionSecret:
        return self.sessions[name]._session.opened.secret

    def settle(self) -> None:
        """Wait until nothing waits for the disk."""
        while isinstance(self.store, SqlStore) and self.store.writer.waiting:
            time.sleep(0.001)

    def recover(self) -> None:
        """Close what those have left open that were here before: they are all dead."""
        store = self.store
        if isinstance(store, SqlStore):
            with writing(store.engine) as connection:
                connection.execute(delete(PROCESS).where(PROCESS.c.process_id != store.process_id))
            recover(self.provider, store)

    def end(self) -> None:
        """Die: what is not on disk yet never comes there."""
        if isinstance(self.store, SqlStore):
            self.store.writer.close(0.0)
            self.store.writer._thread.join()
        self._pool.shutdown()
        self.provider.close()
        self._loop.close()
        if isinstance(self.store, SqlStore):
            self.store.engine.dispose()

    @staticmethod
    def _usage(session: LiveSession, answer: bytes) -> statements_pb2.Usage:
        return usage_for(
            prompt_tokens=PROMPT_TOKENS,
            reasoning_tokens=session.token_count,
            answer_tokens=len(answer),
            counting=INSIDE,
        )


class InProcess:
    """A `ProviderSystem` of one life after the other in this process."""

    keeps_open_replies = True
    life_class: type[Life] = Life

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.clock = MovedClock()
        self.stack = ExitStack()
        self.prepare()
        self.life = self.start()

    def prepare(self) -> None:
        """Make what outlives a process."""
        raise NotImplementedError

    def start(self) -> Life:
        """Start a process."""
        raise NotImplementedError

    @property
    def root(self) -> VerificationKey:
        raise NotImplementedError

    def key_set(self) -> SignedKeySet:
        return self.life.provider.served

    def rotate(self, overlap: timedelta) -> None:
        raise NotImplementedError

    def open(self, name: str, request: bytes, client_nonce: bytes) -> None:
        with _mortal():
            self.life.open(name, request, client_nonce)

    def append(
        self, name: str, token_ids: Sequence[int], *, wait: bool
    ) -> Sequence[envelope_pb2.Envelope]:
        with _mortal():
            return self.life.append(name, token_ids, wait=wait)

    def finish(self, name: str, answer: bytes) -> Ended:
        with _mortal():
            return self.life.finish(name, answer)

    def abort(
        self, name: str, reason: statements_pb2.AbortReason.ValueType, answer: bytes
    ) -> Ended:
        with _mortal():
            return self.life.abort(name, reason, answer)

    def leave(self, name: str) -> None:
        with _mortal():
            self.life.leave(name)

    def find(self, name: str) -> envelope_pb2.Envelope | None:
        with _mortal():
            return self.life.find(name)

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        with _mortal():
            return self.life.manifest(commitment_sha256)

    def answer(
        self, commitment_sha256: bytes, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[envelope_pb2.Envelope | None]:
        return self.life.answer(commitment_sha256, challenges)

    def secret(self, name: str) -> SessionSecret:
        """Tell a session's secret."""
        return self.life.secret(name)

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_time(seconds)

    def set_clock(self, ahead: float) -> None:
        self.clock.set_clock(ahead)

    def die(self, after: int) -> None:
        """Die at a step of the store; one in memory has none."""
        if isinstance(self.life.store, MortalStore):
            self.life.store.steps = after

    def restart(self) -> None:
        self.life.end()
        self.clock.start()
        self.life = self.start()

    def close(self) -> None:
        self.life.end()
        self.stack.close()


class MemoryProvider(InProcess):
    """Over a `MemoryStore`, which outlives the provider; its keys are in memory."""

    keeps_open_replies = False

    def prepare(self) -> None:
        self.keys = RulesKeys(self.clock, valid_for=LONG)
        self.store = MemoryStore()

    def start(self) -> Life:
        signer = FollowingSigner(self.keys)
        return self.life_class(self.terms, self.store, signer, signer, self.clock)

    @property
    def root(self) -> VerificationKey:
        return self.keys.root

    def rotate(self, overlap: timedelta) -> None:
        self.keys.rotate(LONG, overlap)


class SqliteProvider(InProcess):
    """Over SQLite and a folder of keys; what is not on disk is lost with each life."""

    def prepare(self) -> None:
        self.folder = Path(self.stack.enter_context(new_folder()))
        self.keys = FolderKeys(self.clock, self.folder, valid_for=LONG)
        self.stack.callback(self.keys.close)

    def start(self) -> Life:
        return started(self.folder, self.terms, self.keys, self.clock, self.life_class)

    @property
    def root(self) -> VerificationKey:
        return self.keys.root

    def rotate(self, overlap: timedelta) -> None:
        self.keys.rotate(LONG, overlap)

    def restart(self) -> None:
        self.keys.restart()
        super().restart()


def started(
    folder: Path, terms: Terms, keys: FolderKeys, clock: MovedClock, kind: type[Life] = Life
) -> Life:
    """Start a process over a folder, and have it close what others left open."""
    store = MortalStore(
        f"sqlite:///{folder / DATABASE}",
        profile=terms.profile,
        sealer=KeySealer([SEALING_KEY]),
        deadline=WAIT_SECONDS,
        lease_seconds=WAIT_SECONDS,
    )
    life = kind(terms, store, keys.signer, keys.signer, clock)
    life.recover()
    return life


@contextmanager
def _mortal() -> Iterator[None]:
    try:
        yield
    except Killed:
        raise DiedError from None
