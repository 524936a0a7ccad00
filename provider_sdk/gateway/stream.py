"""Pass a stream on, event by event, with checkpoints and the delivery in between."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import orjson

from coin_protocol.decoding import Decoder
from coin_protocol.delivery import CHECKPOINT, RECEIPT
from coin_protocol.errors import CoinError
from coin_protocol.sse import SseEvent, SseParser, comment, data_event
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.gateway.asgi import Client
from provider_sdk.gateway.commits import Commits, Due, Ended
from provider_sdk.gateway.delivery import as_document, as_json, delivered_checkpoint
from provider_sdk.gateway.dialects import Endpoint, Reader, Step
from provider_sdk.gateway.problems import NO_RECEIPT, Problem
from provider_sdk.gateway.upstream import Reply, UpstreamError
from provider_sdk.gateway.usage import rewritten
from provider_sdk.ops.metrics import Metrics

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

_DRAIN_SECONDS: Final = 1.0
"""An upstream ends its body right after `[DONE]`, or loses the connection."""

_CHUNK_OBJECTS: Final = {
    Endpoint.CHAT: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}

Outcome = Literal["done", "ended", "broken", "gone", "cancelled"]
_ABORTS: Final[dict[Outcome, statements_pb2.AbortReason.ValueType]] = {
    "done": statements_pb2.ABORT_REASON_UPSTREAM_ERROR,
    "ended": statements_pb2.ABORT_REASON_UPSTREAM_ERROR,
    "broken": statements_pb2.ABORT_REASON_UPSTREAM_ERROR,
    "gone": statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED,
    "cancelled": statements_pb2.ABORT_REASON_CANCELLED,
}


@dataclass(frozen=True)
class Manner:
    """How one stream is handed over.

    Attributes:
        endpoint: What was asked for.
        choices: How many choices the request makes.
        in_chunks: Checkpoints and delivery as chunks with a field `coin`, not as comments.
        require_receipt: A missing receipt is an error.
        rewrite_usage: The usage block carries the committed counts.
        max_event_bytes: A larger event is malformed.
    """

    endpoint: Endpoint
    choices: int
    in_chunks: bool
    require_receipt: bool
    rewrite_usage: bool
    max_event_bytes: int


class StreamRelay:
    """Passes one stream on. Made for one call of `run`.

    Attributes:
        first_after: Seconds from the request to the first bytes for the client; None before.
        broke_off: The upstream ended the stream in its middle, or sent what cannot be read.
    """

    def __init__(
        self,
        client: Client,
        reply: Reply,
        reader: Reader,
        commits: Commits,
        manner: Manner,
        metrics: Metrics,
    ) -> None:
        """Hold both ends; the client has its headers already."""
        self._client = client
        self._reply = reply
        self._reader = reader
        self._commits = commits
        self._manner = manner
        self._metrics = metrics
        self._parser = SseParser(max_event_bytes=manner.max_event_bytes)
        self._ended: Ended | None = None
        self._last_event = b""
        self._begun = 0
        self._waiting: Step | None = None
        self.first_after: float | None = None
        self.broke_off = False

    async def run(self, decoder: Decoder, *, asked_at: float) -> None:
        """Pass the stream on to its end, whatever that is.

        Args:
            decoder: Undoes what the upstream compressed.
            asked_at: When the request came, by the event loop's clock.
        """
        outcome: Outcome
        try:
            outcome = await self._pump(decoder, asked_at)
        except UpstreamError as error:
            self._metrics.gateway.upstream_failures.labels(kind=error.kind).inc()
            outcome = "broken"
        except CoinError as error:
            self._metrics.gateway.upstream_failures.labels(kind="malformed").inc()
            self._reader.malformed_stream(str(error))
            outcome = "broken"
        except asyncio.CancelledError:
            outcome = "gone" if self._client.gone else "cancelled"
        self.broke_off = outcome == "broken"
        if outcome != "done":
            self._reply.close()
        await finished(self._close(outcome))

    async def _pump(self, decoder: Decoder, asked_at: float) -> Outcome:
        """Pass on what comes until `[DONE]` or the end of the body."""
        client, reply, parser = self._client, self._reply, self._parser
        commits = self._commits
        while chunk := await reply.read():
            out: list[bytes] = []
            events = parser.feed(decoder.feed(chunk) if decoder.changes else chunk)
            for event in events:
                if event.done:
                    self._last_event = event.raw
                    await self._write(out)
                    return "done"
                if self._event(event, out):
                    await self._settle_at(event, out)
            for due in commits.due():
                self._put_checkpoint(due, out)
            if out:
                await client.write(out[0] if len(out) == 1 else b"".join(out))
                if self.first_after is None:
                    self.first_after = asyncio.get_running_loop().time() - asked_at
                    self._metrics.gateway.first_token_seconds.labels(
                        path=self._manner.endpoint.value
                    ).observe(self.first_after)
        return await self._unended(parser.last())

    async def _unended(self, event: SseEvent | None) -> Outcome:
        """Take what the body ended with, without a blank line after it.

        It goes out last of all, as it came, for nothing can follow on its line: but for a whole
        event, which gets its blank line, and half of one, which may show reasoning.
        """
        if event is None:
            return "ended"
        if event.data is not None and not event.done:
            if not _is_json(event.data):
                if not self._reader.rules.hide_reasoning:
                    self._last_event = event.raw
                return "broken"
            out: list[bytes] = []
            whole = SseEvent(event.raw + b"\n\n", event.data, event.name)
            if self._event(whole, out):
                await self._settle_at(whole, out)
            await self._write(out)
            return "ended"
        self._last_event = event.raw
        return "done" if event.done else "ended"

    def _event(self, event: SseEvent, out: list[bytes]) -> bool:
        """Pass on one event; say whether it is to wait for the delivery instead."""
        if event.data is None:
            out.append(event.raw)
            if event.malformed:
                self._reader.malformed_stream("an event is larger than the limit")
            return False
        step = self._reader.event(event.data)
        if len(self._reader.choices) != self._begun:
            self._begun = len(self._reader.choices)
            self._commits.begin()
        if step.pieces:
            for due in self._commits.take(step.pieces):
                self._put_checkpoint(due, out)
        if step.before:
            out.append(step.before)
        if step.data is None:
            return False
        if step.usage and self._settles():
            self._waiting = step
            return True
        out.append(event.raw if step.same else event.with_data(step.data))
        return False

    def _settles(self) -> bool:
        """Whether an event with usage waits for the delivery, that it is to carry or to follow."""
        manner, choices = self._manner, self._reader.choices
        if self._ended is not None:
            return manner.rewrite_usage
        wanted = manner.in_chunks or manner.rewrite_usage or manner.endpoint is Endpoint.RESPONSES
        return (
            wanted
            and len(choices) >= manner.choices
            and all(choice.finished for choice in choices.values())
        )

    async def _settle_at(self, event: SseEvent, out: list[bytes]) -> None:
        """Pass on the event that carries the usage, with what it is to carry or to follow."""
        step = self._waiting
        assert step is not None  # noqa: S101 - set by `_event`
        assert step.data is not None  # noqa: S101 - as above
        data = step.data
        if self._ended is None:
            await self._write(out)
            out.clear()
            self._ended = await self._settle("done")
            for due in self._ended.checkpoints:
                self._put_checkpoint(due, out)
            found = self._ended.delivery
            if found is not None and self._manner.in_chunks and not self._refused(self._ended):
                data = step.with_field("coin", as_document(found))
            elif found is not None and not self._refused(self._ended):
                # Clients of responses hang up at this event: the receipt goes before it.
                out.append(comment(RECEIPT, as_json(found)))
        if self._manner.rewrite_usage and (billed := self._commits.billed()) is not None:
            data = rewritten(data, *billed)
        untouched = step.same and data is step.data
        out.append(event.raw if untouched else event.with_data(data))

    async def _close(self, outcome: Outcome) -> None:
        """End the sessions and tell a client that is still there."""
        client = self._client
        if outcome != "gone":
            client.unwatch()
        out = await self._last_words(outcome)
        if client.gone:
            self._reply.close()
            return
        if self._last_event:
            out.append(self._last_event)
        await self._write(out)
        if outcome in {"done", "ended"}:
            await client.end()
        else:
            await client.cut()
        if outcome == "done":
            await self._drain()

    async def _last_words(self, outcome: Outcome) -> list[bytes]:
        """Return what is still to be said of the commitments."""
        out: list[bytes] = []
        before = self._ended
        if before is None:
            ended = await self._settle(outcome)
            for due in ended.checkpoints:
                self._put_checkpoint(due, out)
        elif self._commits.late:
            ended = self._commits.revoke(before)
        else:
            return [self._refusal(before)] if self._refused(before) else []
        if self._refused(ended):
            out.append(self._refusal(ended))
        elif ended.delivery is not None:
            out.append(self._receipt(ended.delivery))
        return out

    async def _settle(self, outcome: Outcome) -> Ended:
        since = time.perf_counter()
        ended = await self._commits.end(_ABORTS[outcome])
        self._metrics.gateway.receipt_seconds.observe(time.perf_counter() - since)
        return ended

    async def _drain(self) -> None:
        """Read to the end of the body, so that the connection can be used again.

        What an upstream says after `[DONE]` is read by no client, and goes nowhere.
        """
        with suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while await self._reply.read():
                    pass
        self._reply.close()

    async def _write(self, out: list[bytes]) -> None:
        if out:
            await self._client.write(b"".join(out))

    def _refused(self, ended: Ended) -> bool:
        return self._manner.require_receipt and bool(ended.missing)

    def _put_checkpoint(self, due: Due, out: list[bytes]) -> None:
        found = delivered_checkpoint(*due)
        if self._manner.in_chunks:
            out.append(self._chunk(CHECKPOINT, as_document(found)))
        else:
            out.append(comment(CHECKPOINT, as_json(found)))

    def _receipt(self, found: delivery_pb2.Delivery) -> bytes:
        if self._manner.in_chunks:
            return self._chunk(RECEIPT, as_document(found))
        return comment(RECEIPT, as_json(found))

    def _chunk(self, kind: str, coin: dict[str, Any]) -> bytes:
        """Return a chunk of its own, of the form that the endpoint streams."""
        kind_of_chunk = _CHUNK_OBJECTS.get(self._manner.endpoint)
        if kind_of_chunk is None:
            return data_event(orjson.dumps({"type": kind, "coin": coin}), name=kind.encode())
        document = {
            "id": self._reader.response_id,
            "object": kind_of_chunk,
            "created": int(time.time()),
            "model": self._reader.model,
            "choices": [],
            "coin": coin,
        }
        return data_event(orjson.dumps(document))

    def _refusal(self, ended: Ended) -> bytes:
        """Return the error event of a stream whose receipt is required and missing."""
        problem = no_receipt(ended)
        coin = None if ended.delivery is None else as_document(ended.delivery)
        if self._manner.endpoint is Endpoint.RESPONSES:
            named = {"type": "error", "code": problem.code, "message": problem.message}
            return data_event(problem.json(coin=coin, **named), name=b"error")
        return data_event(problem.json(coin=coin))


def _is_json(data: bytes) -> bool:
    """Whether an event is whole."""
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def no_receipt(ended: Ended) -> Problem:
    """Return the error of a reply whose receipt is required and missing."""
    names = sorted(
        {
            delivery_pb2.MissingReason.Name(choice.missing).removeprefix("MISSING_REASON_")
            for choice in ended.missing
        }
    )
    return Problem(502, NO_RECEIPT, f"the reply has no receipt: {', '.join(names)}")


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end what must not stop halfway, even where this task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise
        return await task
