"""Ask a gateway again for what it has handed over of a reply: a client hung up, a disk was slow.

The rules are here, without any I/O but the two loops at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import quote

from coin_protocol.delivery import RECEIPTS_PATH, read_delivery
from coin_protocol.errors import CoinError, PeerUnavailableError
from coin_protocol.limits import MAX_MESSAGE_BYTES
from coin_protocol.v1 import delivery_pb2
from verifier_sdk.collecting.http import Client, Request
from verifier_sdk.collecting.reply import Endpoint
from verifier_sdk.collecting.worker import Worker

Found = Callable[[delivery_pb2.Delivery | None], object]
"""Takes what came of asking, on whichever thread; None where nothing did."""
Asking = Callable[["Origin", str, Found], None]
"""Has a reply asked for again, and returns at once."""

Pending = dict[Future[delivery_pb2.Delivery], asyncio.AbstractEventLoop]
"""Open questions, and the loop that each is asked on."""

_LOOK_SECONDS: Final = 0.1
_WAITS: Final = (0.1, 0.4, 1.0, 2.0)
"""Seconds before each question: a gateway signs for a reply that was left within the first."""
_SECONDS: Final = 5.0
_CREDENTIALS: Final = ("authorization", "api-key", "x-api-key")
"""By which a gateway knows who made a reply (`docs/gateway.md`)."""
_LATE: Final = delivery_pb2.MISSING_REASON_STORE_UNAVAILABLE
_MAX_WAITING: Final = 100
"""Replies that wait to be asked for, at a few seconds each: more are given up."""
_NOT_YET: Final = frozenset({202, 404, 503})
"""Still open; not begun on disk; the disk does not answer."""


@dataclass(frozen=True)
class Origin:
    """Where a request was sent, and as whom.

    Attributes:
        url: Of the folder of deliveries, with its last slash.
        headers: That say who asks.
    """

    url: str
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, request: Request, endpoint: Endpoint) -> Origin:
        """Return where the deliveries are of replies to requests like this one."""
        path = request.url.raw_path.partition(b"?")[0].rstrip(b"/")
        prefix = path.removesuffix(endpoint.value.encode()).removesuffix(b"/v1")
        found = request.url.copy_with(raw_path=prefix + RECEIPTS_PATH.encode())
        sent = {name: request.headers[name] for name in _CREDENTIALS if name in request.headers}
        return cls(str(found), sent)

    def of_reply(self, response_id: str) -> str:
        """Return where the delivery of a reply is."""
        return self.url + quote(response_id, safe="")


def ask(client: Client, origin: Origin, response_id: str) -> delivery_pb2.Delivery:
    """Return the delivery of a reply, asking for it a few times.

    Raises:
        CoinError: It is not to be had.
    """
    url, question = origin.of_reply(response_id), _Question()
    for seconds in _WAITS:
        time.sleep(seconds)
        with client.stream("GET", url, headers=origin.headers, timeout=_SECONDS) as reply:
            body = bytearray()
            for part in reply.iter_bytes():
                if not question.takes(body, part):
                    break
        found = question.answered(reply.status_code, bytes(body))
        if found is not None:
            return found
    raise question.unanswered


async def ask_async(client: Client, origin: Origin, response_id: str) -> delivery_pb2.Delivery:
    """Return the same, over a client that is awaited."""
    url, question = origin.of_reply(response_id), _Question()
    for seconds in _WAITS:
        await asyncio.sleep(seconds)
        sent = client.stream("GET", url, headers=origin.headers, timeout=_SECONDS)
        async with sent as reply:
            body = bytearray()
            async for part in reply.aiter_bytes():
                if not question.takes(body, part):
                    break
        found = question.answered(reply.status_code, bytes(body))
        if found is not None:
            return found
    raise question.unanswered


def ask_on_thread(
    client: Client, worker: Worker, origin: Origin, response_id: str, found: Found
) -> None:
    """Have a reply asked for on a thread of ours; httpx's clients may be shared by threads."""

    def question() -> None:
        try:
            found(ask(client, origin, response_id))
        except Exception:  # noqa: BLE001 - of the library, or the client is closed by now
            found(None)

    if worker.waiting() >= _MAX_WAITING:
        found(None)
        return
    worker.start()
    worker.put(question)


def ask_on_loop(
    client: Client,
    loop: asyncio.AbstractEventLoop,
    pending: Pending,
    origin: Origin,
    response_id: str,
    found: Found,
) -> None:
    """Have a reply asked for on the loop that the client belongs to, from another thread.

    Args:
        client: To ask with.
        loop: The client's.
        pending: Holds the question while it is open.
        origin: Whom to ask.
        response_id: For what.
        found: Takes the answer.
    """
    question: Future[delivery_pb2.Delivery] = Future()
    kept: list[asyncio.Task[delivery_pb2.Delivery]] = []

    def begin() -> None:
        # Not before the loop runs this: a loop that ends first would leave a coroutine unawaited.
        task = loop.create_task(ask_async(client, origin, response_id))
        kept.append(task)
        task.add_done_callback(partial(_pass_on, question))

    def answered(question: Future[delivery_pb2.Delivery]) -> None:
        pending.pop(question, None)
        kept.clear()
        failed = question.cancelled() or question.exception() is not None
        found(None if failed else question.result())

    pending[question] = loop
    question.add_done_callback(answered)
    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:
        # The loop is closed.
        question.cancel()


def _pass_on(
    question: Future[delivery_pb2.Delivery], task: asyncio.Task[delivery_pb2.Delivery]
) -> None:
    """Answer a question with what came of asking."""
    if task.cancelled():
        question.cancel()
    elif (failed := task.exception()) is not None:
        question.set_exception(failed)
    else:
        question.set_result(task.result())


def settled(pending: Pending, seconds: float) -> bool:
    """Wait until all open questions are answered; say whether they are.

    A loop that was closed meanwhile answers none: its questions end without an answer.
    """
    end = time.monotonic() + seconds
    while True:
        for question, loop in list(pending.items()):
            if loop.is_closed():
                question.cancel()
        if not pending:
            return True
        left = end - time.monotonic()
        if left <= 0:
            return False
        wait(list(pending), min(left, _LOOK_SECONDS))


class _Question:
    """What to make of each answer."""

    def __init__(self) -> None:
        self.unanswered: CoinError = PeerUnavailableError("the server did not answer")

    def takes(self, body: bytearray, part: bytes) -> bool:
        """Keep a part of an answer; say whether more is read."""
        body += part
        return len(body) <= MAX_MESSAGE_BYTES

    def answered(self, status: int, body: bytes) -> delivery_pb2.Delivery | None:
        """Return the delivery that an answer holds; None where it is to be asked for again.

        Raises:
            PeerUnavailableError: Asking again is of no use.
            InvalidInputError: It is no delivery.
        """
        if status in _NOT_YET:
            msg = f"the server has no receipt of the reply yet (status {status})"
            self.unanswered = PeerUnavailableError(msg)
            return None
        if status != 200:
            msg = f"the server gives no receipt of the reply (status {status})"
            raise PeerUnavailableError(msg)
        found = read_delivery(body)
        if any(choice.missing == _LATE for choice in found.choices):
            self.unanswered = PeerUnavailableError("the server's disk is still late")
            return None
        return found
