"""A reply being generated, written down as it goes: what a serving stack holds in its hands.

async with provider.session(request, client_nonce=nonce, model="acme-1") as session:
    async for chunk in engine:
        for checkpoint in session.append(chunk.token_ids):
            await send(checkpoint)
    reply = await session.finish(answer, usage)

Nothing here blocks the event loop, and nothing is handed over before it is on disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import CoinError, InvalidInputError, StoreUnavailableError
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import delivery_pb2, envelope_pb2, statements_pb2
from provider_sdk.record import Delivered, ReplyRef, delivered_choice
from provider_sdk.session import Session

if TYPE_CHECKING:
    from provider_sdk.provider import Provider

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommittedReply:
    """What ends a session, all of it on disk.

    Attributes:
        choice: The commitment and its notes, as they are handed over.
        checkpoints: Those that were not handed over yet.
    """

    choice: delivery_pb2.DeliveredChoice
    checkpoints: list[envelope_pb2.Envelope]


class LiveSession:
    """Commits to the reasoning of one reply. For one task; `append` may be called from a thread.

    Left without `finish` or `abort`, it is closed as aborted: cancelled, or an upstream's error
    where an exception ends it.
    """

    def __init__(self, provider: Provider, session: Session, reply: ReplyRef | None) -> None:
        """Note that a session begins; `Provider.session` is the public way."""
        self._provider = provider
        self._session = session
        self._reply = reply
        self._pending: deque[tuple[Future[None], envelope_pb2.Envelope]] = deque()
        self._written = provider.store.open(session.belongs_to(reply))

    async def __aenter__(self) -> Self:
        """Return the session."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close a session that nothing has ended yet, as aborted."""
        if self._session.finished:
            return
        stopped = kind is None or issubclass(kind, (asyncio.CancelledError, GeneratorExit))
        reason = (
            statements_pb2.ABORT_REASON_CANCELLED
            if stopped
            else statements_pb2.ABORT_REASON_UPSTREAM_ERROR
        )
        try:
            # Not waited for: whoever cancels a task does not want to wait for its disk.
            self._end(reason, b"", self._usage_so_far(), None)
        except CoinError:
            _LOG.exception("session %s could not be closed", self.session_id.hex())

    @property
    def session_id(self) -> bytes:
        """The session's public id, 16 bytes."""
        return self._session.session_id

    @property
    def token_count(self) -> int:
        """Reasoning tokens so far."""
        return self._session.token_count

    @property
    def finished(self) -> bool:
        """Whether it was ended, one way or the other."""
        return self._session.finished

    def append(
        self, token_ids: Sequence[int] | npt.NDArray[np.integer]
    ) -> list[envelope_pb2.Envelope]:
        """Commit to reasoning token ids, and return the checkpoints that are on disk by now.

        Raises:
            InvalidInputError: An id is outside the vocabulary, or the session is finished;
                nothing was taken.
        """
        session = self._session
        before = session.block_count
        signed = session.append(token_ids)
        if signed:
            store, session_id = self._provider.store, session.session_id
            for index, checkpoint in enumerate(signed, before):
                written = store.add_block(session_id, index, session.block(index))
                self._pending.append((written, checkpoint))
        elif not self._pending:
            return signed
        return self.due()

    def due(self) -> list[envelope_pb2.Envelope]:
        """Return the checkpoints that have come to disk since the last call."""
        found = []
        while self._pending and self._pending[0][0].done():
            written, checkpoint = self._pending.popleft()
            if written.exception() is None:
                found.append(checkpoint)
        return found

    async def flush(self) -> list[envelope_pb2.Envelope]:
        """Wait until the checkpoints under way are on disk, and return them.

        To wait no longer than some time, put it into `asyncio.timeout`: nothing is lost by it.
        """
        if self._pending:
            await _settled(self._pending[-1][0], None)
        return self.due()

    async def finish(
        self,
        answer: bytes,
        usage: statements_pb2.Usage,
        *,
        answer_tokens: int | None = None,
        summary: bytes | None = None,
        id_source: statements_pb2.IdSource.ValueType = statements_pb2.ID_SOURCE_SAMPLED,
        delivered: Delivered | None = None,
    ) -> CommittedReply:
        """Sign the commitment, wait until it is on disk, and return it. Call once.

        Args:
            answer: Exact bytes of the visible answer (`coin_protocol.answer`).
            usage: As billed.
            answer_tokens: Every generated token that is not reasoning; by default what the
                usage says.
            summary: Exact bytes of the visible reasoning summary, where there is one.
            id_source: Whether the ids were sampled, or the text tokenized again.
            delivered: What is kept beside the commitment and handed over with it.

        Raises:
            InvalidInputError: The session is finished already, or a number is out of its limits.
            StatementError: A number is out of the protocol's limits.
            StoreUnavailableError: It did not come to disk in time (`SessionStore.deadline`).
                Writing goes on, and the commitment can be had by its reply later.
        """
        return await self._ended(
            statements_pb2.ABORT_REASON_UNSPECIFIED,
            answer,
            usage,
            answer_tokens,
            summary=summary,
            id_source=id_source,
            delivered=delivered,
        )

    async def abort(
        self,
        reason: statements_pb2.AbortReason.ValueType,
        *,
        answer: bytes = b"",
        usage: statements_pb2.Usage | None = None,
        answer_tokens: int | None = None,
        summary: bytes | None = None,
        id_source: statements_pb2.IdSource.ValueType = statements_pb2.ID_SOURCE_SAMPLED,
        delivered: Delivered | None = None,
    ) -> CommittedReply:
        """Sign a commitment to what was generated so far, and why there is no more.

        Arguments and errors as `finish`; the usage is by default that of the reasoning alone.
        """
        if reason == statements_pb2.ABORT_REASON_UNSPECIFIED:
            msg = "an aborted session needs its reason"
            raise InvalidInputError(msg)
        return await self._ended(
            reason,
            answer,
            self._usage_so_far() if usage is None else usage,
            answer_tokens,
            summary=summary,
            id_source=id_source,
            delivered=delivered,
        )

    async def _ended(
        self,
        reason: statements_pb2.AbortReason.ValueType,
        answer: bytes,
        usage: statements_pb2.Usage,
        answer_tokens: int | None,
        *,
        summary: bytes | None,
        id_source: statements_pb2.IdSource.ValueType,
        delivered: Delivered | None,
    ) -> CommittedReply:
        choice = self._end(
            reason,
            answer,
            usage,
            answer_tokens,
            summary=summary,
            id_source=id_source,
            delivered=Delivered() if delivered is None else delivered,
        )
        deadline = self._provider.store.deadline
        if not await _settled(self._written, deadline):
            msg = f"the commitment was not on disk within {deadline:g} s; it is still being written"
            raise StoreUnavailableError(msg)
        self._written.result()
        return CommittedReply(choice, self.due())

    def _end(
        self,
        reason: statements_pb2.AbortReason.ValueType,
        answer: bytes,
        usage: statements_pb2.Usage,
        answer_tokens: int | None,
        *,
        summary: bytes | None = None,
        id_source: statements_pb2.IdSource.ValueType = statements_pb2.ID_SOURCE_SAMPLED,
        delivered: Delivered | None = None,
    ) -> delivery_pb2.DeliveredChoice:
        """Sign, and hand to the store what there is to be written."""
        if answer_tokens is None:
            inside = usage.reasoning_tokens if usage.reasoning_counting == INSIDE else 0
            answer_tokens = usage.completion_tokens - inside
        session, full = self._session, self._session.block_count
        rest = session.block(full)
        kept = Delivered() if delivered is None else delivered
        try:
            record = session.close(
                answer=answer,
                answer_tokens=answer_tokens,
                usage=usage,
                summary=summary,
                id_source=id_source,
                abort_reason=reason,
            )
        except Exception:
            if session.finished:  # what is on disk is closed by whoever finds it
                self._provider.store.give_up(session.session_id)
            raise
        windows = session.block_windows(record.tree, answer)
        self._written = self._provider.keep(record, windows, kept, rest)
        ref = self._reply or ReplyRef(response_id="")
        return delivered_choice(ref, record.commitment, kept.notes)

    def _usage_so_far(self) -> statements_pb2.Usage:
        return usage_for(
            prompt_tokens=0, reasoning_tokens=self.token_count, answer_tokens=0, counting=INSIDE
        )


async def _settled(future: Future[None], seconds: float | None) -> bool:
    """Wait for a write, whatever comes of it; return whether it is over."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: Future[None]) -> None:
        waiter.get_loop().call_soon_threadsafe(_set, waiter)

    if not future.done():
        future.add_done_callback(wake)
        # Not `wrap_future`: who stops waiting must not cancel the write.
        await asyncio.wait([waiter], timeout=seconds)
    return future.done()


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
