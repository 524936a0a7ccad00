"""The sessions of one reply, one for each choice, from its first ids to its delivery.

Whatever fails here fails for one choice: the reply flows on, and its delivery says what is
missing and why.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coin_protocol.errors import InvalidInputError, StoreUnavailableError
from coin_protocol.limits import MAX_TEXT_BYTES
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import delivery_pb2, envelope_pb2, statements_pb2
from coin_protocol.vendors import DifferenceCode, UsageError, compare, read_usage
from coin_protocol.vendors.reported import Reported
from provider_sdk.gateway.delivery import NONCE_NOTE, Deliveries, delivery, missing_choice
from provider_sdk.gateway.dialects import Piece, Reader
from provider_sdk.gateway.headers import RequestFacts
from provider_sdk.live import LiveSession
from provider_sdk.ops.metrics import Metrics, id_source_label, missing_label
from provider_sdk.provider import Provider
from provider_sdk.record import MAX_RESPONSE_ID, Delivered, Received, ReplyRef

_LOG = logging.getLogger(__name__)

Due = tuple[int, envelope_pb2.Envelope]
"""A choice and a checkpoint of it that is on disk."""

_NONE_DUE: Final[list[Due]] = []
_NO_ID: Final = "coin-"
_UNKNOWN_MODEL: Final = "unknown"

Missing = tuple[delivery_pb2.MissingReason.ValueType, str]


@dataclass(frozen=True)
class Issuer:
    """What every reply's commitments are made with."""

    provider: Provider
    deliveries: Deliveries
    metrics: Metrics
    vendor: str


@dataclass(frozen=True)
class Ended:
    """What is handed over at the end of a reply.

    Attributes:
        delivery: None where there is nothing to tell of: no choice ever began.
        checkpoints: That were not handed over yet; they go out before the delivery.
    """

    delivery: delivery_pb2.Delivery | None
    checkpoints: list[Due] = field(default_factory=list)

    @property
    def missing(self) -> list[delivery_pb2.DeliveredChoice]:
        """The choices without a commitment."""
        return [] if self.delivery is None else [c for c in self.delivery.choices if c.missing]


@dataclass(slots=True)
class _Live:
    """A session, and ids that wait until there are `room` of them, which fill a block."""

    session: LiveSession
    room: int
    blocks: int = 0
    waiting: list[int] = field(default_factory=list)


class Commits:
    """Commits to every choice of one reply."""

    def __init__(
        self, issuer: Issuer, reader: Reader, facts: RequestFacts, request: Received, *, model: str
    ) -> None:
        """Hold what the sessions will need; none is open yet.

        Args:
            issuer: Provider and metrics.
            reader: Reads this reply.
            facts: Of the request's headers.
            request: Its body, as the client sent it, and when.
            model: As the request names it.
        """
        self._issuer = issuer
        self._reader = reader
        self._facts = facts
        self._request = request
        self._model = model
        self._live: dict[int, _Live] = {}
        self._missing: dict[int, Missing] = {}
        self._response_id = ""
        self._on_their_way = 0
        self._ended = False
        self.late = False
        self.delivered: delivery_pb2.Delivery | None = None

    @property
    def response_id(self) -> str:
        """Under which the delivery is found again: the upstream's id, or one of our own."""
        if not self._response_id:
            deliveries, caller = self._issuer.deliveries, self._facts.caller
            found = self._reader.response_id
            while not 0 < len(found) <= MAX_RESPONSE_ID or not deliveries.claim(found, caller):
                found = _NO_ID + secrets.token_hex(16)
            self._response_id = found
        return self._response_id

    def take(self, pieces: Sequence[Piece]) -> list[Due]:
        """Commit to what an event brought, and return the checkpoints that are due.

        Ids wait here until their block is full, the reply ends or its last block is short: a
        crash loses a block that is not full in any case.
        """
        if self._ended:
            # The delivery is out: it does not tell of these.
            self.late = self.late or any(piece.reasoning_ids for piece in pieces)
            return _NONE_DUE
        found = _NONE_DUE
        for choice, ids in pieces:
            live = self._live.get(choice) or self._open(choice)
            if live is None:
                continue
            live.waiting += ids
            if len(live.waiting) >= live.room:
                found = [*found, *self._append(choice, live)]
        return found

    def _append(self, choice: int, live: _Live) -> list[Due]:
        """Hand the ids that wait to their session."""
        ids, live.waiting = live.waiting, []
        if choice in self._missing:
            return _NONE_DUE
        try:
            due = live.session.append(ids)
        except Exception as error:  # noqa: BLE001 - a signer may raise anything; the reply flows on
            self._fail(choice, error)
            return _NONE_DUE
        size = self._issuer.provider.profile.block_size
        blocks, short = divmod(live.session.token_count, size)
        self._on_their_way += blocks - live.blocks - len(due)
        live.blocks, live.room = blocks, size - short
        return [(choice, signed) for signed in due]

    def begin(self) -> None:
        """Open a session for each choice that has shown and has none yet."""
        if not self._ended:
            for choice in self._reader.choices:
                if choice not in self._live:
                    self._open(choice)

    def due(self) -> list[Due]:
        """Return the checkpoints that have come to disk since."""
        if not self._on_their_way:
            return _NONE_DUE
        found = [
            (choice, signed) for choice, live in self._live.items() for signed in live.session.due()
        ]
        self._on_their_way -= len(found)
        return found

    async def end(self, reason: statements_pb2.AbortReason.ValueType) -> Ended:
        """Close every session, and return what is handed over. Once the bytes have ended.

        Args:
            reason: Why choices that did not finish are a part only.
        """
        try:
            return await self._end(reason)
        except Exception:  # noqa: BLE001 - a bug of ours, and no reason to break a reply
            _LOG.exception("a reply could not be committed to")
            failed = delivery_pb2.MISSING_REASON_SIGNING_FAILED
            indices = sorted(self._reader.choices) or [0]
            found = self._delivery([missing_choice(index, failed) for index in indices], None)
            return Ended(found)

    async def _end(self, reason: statements_pb2.AbortReason.ValueType) -> Ended:
        reader = self._reader
        rest = await asyncio.to_thread(reader.finish) if reader.slow_finish else reader.finish()
        due = self.take(rest)
        self.begin()
        for index, live in self._live.items():
            due = [*due, *self._append(index, live)]
        self._ended = True
        if reader.problem is None and not reader.choices:
            return Ended(None)
        indices = sorted(reader.choices) or [0]
        reported, notes = self._compared()
        parts = [
            self._close(index, reason, reported if index == indices[0] else None, notes)
            for index in indices
        ]
        # Each waits for the disk: together, they wait for one batch.
        closed = [await parts[0]] if len(parts) == 1 else await asyncio.gather(*parts)
        found = self._delivery([choice for choice, _ in closed], reported)
        checkpoints = [(choice.choice, signed) for choice, last in closed for signed in last]
        return Ended(found, [*due, *checkpoints])

    def _delivery(
        self, choices: Sequence[delivery_pb2.DeliveredChoice], reported: Reported | None
    ) -> delivery_pb2.Delivery:
        nonce, issuer = self._facts.nonce, self._issuer
        found = delivery(
            issuer.provider,
            response_id=self.response_id,
            client_nonce=nonce.value,
            nonce_from_client=nonce.from_client,
            choices=choices,
            reported=None if reported is None else reported.to_usage(),
        )
        self.delivered = found
        issuer.deliveries.remember(self._facts.caller, found)
        for choice in found.choices:
            if choice.missing:
                reason = missing_label(choice.missing)
                issuer.metrics.sessions.receipts_missing.labels(reason=reason).inc()
        return found

    def revoke(self, ended: Ended) -> Ended:
        """Return a delivery that takes one back: ids came after it was handed over."""
        if ended.delivery is None:
            return ended
        found = delivery_pb2.Delivery()
        found.CopyFrom(ended.delivery)
        reason = delivery_pb2.MISSING_REASON_MALFORMED_UPSTREAM
        sentence = "The upstream sent tokens after it had said that the reply was finished."
        del found.choices[:]
        found.choices.extend(
            missing_choice(choice.choice, reason, sentence) for choice in ended.delivery.choices
        )
        self._issuer.deliveries.remember(self._facts.caller, found)
        return Ended(found)

    def billed(self) -> tuple[int, int] | None:
        """Return what the delivery bills: reasoning and answer tokens, over all choices.

        None where a choice goes without a commitment, or the upstream's own block could not be
        read, so that the prompt is billed as 0: then it is not for us to write over it.
        """
        found = self.delivered
        if found is None or not found.HasField("reported"):
            return None
        return None if any(choice.missing for choice in found.choices) else self.totals()

    def totals(self) -> tuple[int, int]:
        """Return the committed reasoning tokens and the answer tokens, over all choices."""
        choices = self._reader.choices.values()
        reasoning = sum(
            live.session.token_count + len(live.waiting) for live in self._live.values()
        )
        return reasoning, sum(choice.answer_tokens for choice in choices)

    async def discard(self) -> None:
        """Close what is still open, after a failure of our own."""
        self._ended = True
        for live in self._live.values():
            await live.session.__aexit__(None, None, None)

    def _open(self, choice: int) -> _Live | None:
        if choice in self._missing:
            return None
        if self._request.size > MAX_TEXT_BYTES:
            sentence = (
                f"The request has {self._request.size} bytes; "
                f"at most {MAX_TEXT_BYTES} are committed to."
            )
            reason = delivery_pb2.MISSING_REASON_REQUEST_TOO_LARGE
            self._missing[choice] = reason, sentence
            return None
        facts = self._facts
        try:
            session = self._issuer.provider.session(
                self._request,
                client_nonce=facts.nonce.value,
                model=self._reader.model or self._model or _UNKNOWN_MODEL,
                reply=ReplyRef(
                    self.response_id,
                    choice,
                    facts.caller,
                    nonce_from_client=facts.nonce.from_client,
                ),
            )
        except Exception as error:  # noqa: BLE001 - as in `take`
            self._fail(choice, error)
            return None
        live = self._live[choice] = _Live(session, self._issuer.provider.profile.block_size)
        return live

    async def _close(
        self,
        index: int,
        reason: statements_pb2.AbortReason.ValueType,
        reported: Reported | None,
        notes: Sequence[str],
    ) -> tuple[delivery_pb2.DeliveredChoice, list[envelope_pb2.Envelope]]:
        """End one choice; `reported` for the one that carries the prompt's count."""
        choice = self._reader.choices.get(index)
        missing = self._missing.get(index) or self._reader.missing(index)
        session = self._live[index].session if index in self._live else None
        notes = [*notes, *(choice.notes() if choice is not None else ())]
        if choice is None or session is None or missing is not None:
            why = missing or (delivery_pb2.MISSING_REASON_MALFORMED_UPSTREAM, "")
            return await self._without(index, session, why, notes)
        usage = usage_for(
            prompt_tokens=reported.prompt_tokens if reported else 0,
            cached_prompt_tokens=reported.cached_prompt_tokens if reported else 0,
            reasoning_tokens=session.token_count,
            answer_tokens=choice.answer_tokens,
            counting=INSIDE,
        )
        source = (
            statements_pb2.ID_SOURCE_RETOKENIZED
            if choice.retokenized
            else statements_pb2.ID_SOURCE_SAMPLED
        )
        kept = Delivered(tuple(notes), None if reported is None else reported.to_usage())
        try:
            if choice.finished:
                done = await session.finish(
                    choice.answer(),
                    usage,
                    answer_tokens=choice.answer_tokens,
                    summary=choice.summary,
                    id_source=source,
                    delivered=kept,
                )
            else:
                done = await session.abort(
                    reason,
                    answer=choice.answer(),
                    usage=usage,
                    answer_tokens=choice.answer_tokens,
                    summary=choice.summary,
                    id_source=source,
                    delivered=kept,
                )
        except Exception as error:  # noqa: BLE001 - as in `take`
            self._fail(index, error)
            return await self._without(index, session, self._missing[index], notes)
        self._issuer.metrics.sessions.receipts.labels(id_source=id_source_label(source)).inc()
        return done.choice, done.checkpoints

    async def _without(
        self,
        index: int,
        session: LiveSession | None,
        missing: Missing,
        notes: Sequence[str],
    ) -> tuple[delivery_pb2.DeliveredChoice, list[envelope_pb2.Envelope]]:
        """End a choice that gets no commitment; what its session has is signed as a part."""
        reason, sentence = missing
        found = missing_choice(index, reason, sentence, notes)
        if session is not None and not session.finished:
            try:
                await session.abort(
                    statements_pb2.ABORT_REASON_UPSTREAM_ERROR,
                    delivered=Delivered(tuple(found.notes)),
                )
            except Exception as error:  # noqa: BLE001 - as in `take`; it is missing already
                _LOG.warning("choice %d could not be closed: %s", index, type(error).__name__)
        return found, []

    def _fail(self, choice: int, error: Exception) -> None:
        """Note why a choice goes without. The error's own text may be a signer's: it stays here."""
        if isinstance(error, StoreUnavailableError):
            reason = delivery_pb2.MISSING_REASON_STORE_UNAVAILABLE
        elif isinstance(error, InvalidInputError) and choice in self._live:
            reason = delivery_pb2.MISSING_REASON_NO_TOKEN_IDS
        else:
            reason = delivery_pb2.MISSING_REASON_SIGNING_FAILED
        self._missing.setdefault(choice, (reason, ""))
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        _LOG.error("committing to choice %d failed: %s at %s", choice, type(error).__name__, where)

    def _compared(self) -> tuple[Reported | None, list[str]]:
        """Return what the upstream reported, and sentences on how it differs."""
        own = [] if self._facts.nonce.from_client else [NONCE_NOTE]
        block = self._reader.usage
        if block is None:
            return None, own
        metrics, vendor = self._issuer.metrics.usage, self._issuer.vendor
        try:
            reported = read_usage(vendor, block)
        except UsageError as error:
            metrics.differences.labels(vendor=vendor, code=str(error.code)).inc()
            _LOG.warning("the upstream's usage block is refused: %s", error.code)
            return None, [*own, f"{error.code}: {error}"]
        reasoning, answer = self.totals()
        found = compare(reported, committed_reasoning=reasoning, answer_tokens=answer)
        for difference in found:
            metrics.differences.labels(vendor=vendor, code=str(difference.code)).inc()
        wrong = [each.code for each in found if each.code != DifferenceCode.REASONING_NOT_STATED]
        if wrong:
            _LOG.warning("the upstream's usage differs: %s", ", ".join(wrong))
        if reported.reasoning_tokens is not None:
            metrics.reported_tokens.labels(vendor=vendor).inc(reported.reasoning_tokens)
            metrics.committed_tokens.labels(vendor=vendor).inc(reasoning)
        return reported, [*own, *map(str, found)]
