"""A reply being generated, written down as it goes: what a serving stack holds in its hands.

async with provider.session(request, client_nonce=nonce, model="acme-1") as session:
    async for chunk in engine:
        for checkpoint in session.append(chunk.token_ids):
            await send(checkpoint)
    reply = await session.finish(answer, usage)

Nothing here blocks the event loop, and nothing is handed over before it is on disk. A key in
memory signs at once, in microseconds; one that may have to be waited for signs on a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

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

_LAST_SIGNATURES_SECONDS: Final = 1.0
"""A reply whose commitment is signed waits so long for checkpoints that were begun before it."""
_Signed = envelope_pb2.Envelope | Future[envelope_pb2.Envelope] | None
"""A checkpoint, signed or being signed; none where the signer failed."""


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
        self._signs_at_once = provider.signs_at_once
        self._ending = False
        self._kept = 0
        self._pending: deque[tuple[Future[None], _Signed]] = deque()
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
        if self.finished:
            return
        stopped = kind is None or issubclass(kind, (asyncio.CancelledError, GeneratorExit))
        reason = (
            statements_pb2.ABORT_REASON_CANCELLED
            if stopped
            else statements_pb2.ABORT_REASON_UPSTREAM_ERROR
        )
        try:
            # Not waited for: whoever cancels a task does not want to wait for its disk, or an HSM.
            arguments = reason, b"", self._usage_so_far(), None
            if self._signs_at_once:
                self._end(*arguments)
            else:
                self._ending = True
                self._provider.sign_later(self._end_or_say, *arguments)
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
        return self._session.finished or self._ending

    def append(
        self, token_ids: Sequence[int] | npt.NDArray[np.integer]
    ) -> list[envelope_pb2.Envelope]:
        """Commit to reasoning token ids, and return the checkpoints that are on disk by now.

        Raises:
            InvalidInputError: An id is outside the vocabulary, or the session is finished;
                nothing was taken.
            StoreUnavailableError: The store is closed.
        """
        session, provider = self._session, self._provider
        self._require_not_ending()
        signed: list[_Signed]
        if self._signs_at_once:
            signed = [*session.append(token_ids)]
        else:
            due = session.take(token_ids)
            signed = [provider.sign_later(session.checkpoint, prefix) for prefix in due]
        if signed:
            first = session.block_count - len(signed)
            self._keep_blocks(dict(enumerate(signed, first)))
        elif not self._pending:
            return []
        return self.due()

    def due(self) -> list[envelope_pb2.Envelope]:
        """Return the checkpoints that have come to disk since the last call."""
        found: list[envelope_pb2.Envelope] = []
        while self._pending and self._pending[0][0].done():
            written, signed = self._pending[0]
            if written.exception() is not None:
                return found  # it and all that follow it speak of a block that is not there
            if isinstance(signed, Future):
                if not signed.done():
                    return found
                signed = self._of(signed)
            self._pending.popleft()
            if signed is not None:
                found.append(signed)
        return found

    async def flush(self) -> list[envelope_pb2.Envelope]:
        """Wait until the checkpoints under way are on disk, and return them.

        To wait no longer than some time, put it into `asyncio.timeout`: nothing is lost by it.
        """
        await self._over()
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
        end = partial(
            self._end,
            reason,
            answer,
            usage,
            answer_tokens,
            summary=summary,
            id_source=id_source,
            delivered=delivered,
        )
        choice = end() if self._signs_at_once else await self._end_elsewhere(end)
        deadline = self._provider.store.deadline
        if not await _settled(self._written, deadline):
            msg = f"the commitment was not on disk within {deadline:g} s; it is still being written"
            raise StoreUnavailableError(msg)
        self._written.result()
        if not self._signs_at_once:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_SIGNATURES_SECONDS):
                    await self._over()
        return CommittedReply(choice, self.due())

    async def _over(self) -> None:
        """Wait until the checkpoints under way are written and signed, or never will be."""
        for pair in [*self._pending]:
            for under_way in pair:
                if isinstance(under_way, Future):
                    await _settled(under_way, None)

    async def _end_elsewhere(
        self, end: Callable[[], delivery_pb2.DeliveredChoice]
    ) -> delivery_pb2.DeliveredChoice:
        """End the session on a thread, which goes on where this is cancelled."""
        self._require_not_ending()
        self._ending = True
        try:
            ending = asyncio.wrap_future(self._provider.sign_later(end))
            return await asyncio.shield(ending)
        except InvalidInputError:
            self._ending = False  # nothing was ended
            raise

    def _end_or_say(
        self,
        reason: statements_pb2.AbortReason.ValueType,
        answer: bytes,
        usage: statements_pb2.Usage,
        answer_tokens: int | None,
    ) -> None:
        try:
            self._end(reason, answer, usage, answer_tokens)
        except Exception:  # noqa: BLE001 - or it would be lost on the thread
            _LOG.exception("session %s could not be closed", self.session_id.hex())

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
        session = self._session
        if not session.finished:
            self._keep_blocks({})
        rest = session.block(session.block_count)
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

    def _of(self, signed: Future[envelope_pb2.Envelope]) -> envelope_pb2.Envelope | None:
        """Return a checkpoint; none where the signer failed: the next one says more."""
        error = signed.exception()
        if error is None:
            return signed.result()
        kind = type(error).__name__  # its text may be a signer's
        _LOG.warning("a checkpoint of session %s was not signed: %s", self.session_id.hex(), kind)
        return None

    def _require_not_ending(self) -> None:
        if self._ending:
            msg = "the session is finished: open another for the next reply"
            raise InvalidInputError(msg)

    def _keep_blocks(self, checkpoints: Mapping[int, _Signed]) -> None:
        """Have the full blocks written that are not under way yet, with their checkpoints.

        That may be more than the last `append` filled: one whose signer failed took ids as well.
        """
        session, store = self._session, self._provider.store
        while self._kept < session.block_count:
            index = self._kept
            written = store.add_block(session.session_id, index, session.block(index))
            self._kept += 1
            self._pending.append((written, checkpoints.get(index)))

    def _usage_so_far(self) -> statements_pb2.Usage:
        return usage_for(
            prompt_tokens=0, reasoning_tokens=self.token_count, answer_tokens=0, counting=INSIDE
        )


async def _settled(future: Future[Any], seconds: float | None) -> bool:
    """Wait for a write, whatever comes of it; return whether it is over."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: Future[Any]) -> None:
        waiter.get_loop().call_soon_threadsafe(_set, waiter)

    if not future.done():
        future.add_done_callback(wake)
        # Not `wrap_future`: who stops waiting must not cancel the write.
        await asyncio.wait([waiter], timeout=seconds)
    return future.done()


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
