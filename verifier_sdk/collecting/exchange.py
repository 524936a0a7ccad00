"""One request and its reply: what passes is noted, with the time at which it came.

exchange = Exchange(Asked(endpoint, request))                # when the request is sent
exchange.begin(kind="text/event-stream", coding="")
for chunk in body:
    exchange.feed(chunk, exchange.now())
exchange.end(End.WHOLE)
settled = settle(exchange)                                   # on another thread: it parses

Nothing here raises into the reply that is read: what fails is noted in `problems`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from coin_protocol.clock import SteadyClock
from coin_protocol.decoding import Decoder
from coin_protocol.delivery import CHECKPOINT, FIELD, comments
from coin_protocol.errors import CoinError, InvalidInputError
from coin_protocol.limits import MAX_CHECKPOINTS, MAX_MESSAGE_BYTES
from coin_protocol.sse import SseEvent, SseParser
from verifier_sdk.collecting.problems import Problem, ProblemKind
from verifier_sdk.collecting.reply import Endpoint, Json, Reply

VENDOR: Final = "openai-compatible"
"""The convention of every server that keeps to OpenAI's format."""

_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        endpoint: What kind of reply is asked for.
        request: Its exact bytes.
        client_nonce: As its header carries it; 32 random bytes by default.
        vendor: By whose convention the usage of its reply is read.
    """

    endpoint: Endpoint
    request: bytes = field(repr=False)
    client_nonce: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    vendor: str = VENDOR


class End(Enum):
    """How a reply ends."""

    WHOLE = "whole"
    """Its last byte came."""
    BROKEN = "broken"
    """The connection broke."""
    LEFT = "left"
    """The client closed it; OpenAI's does so after `[DONE]`, too."""


class Exchange:
    """Notes one reply. Made when its request is sent.

    Attributes:
        asked: The request.
        now: The client's clock, in nanoseconds since 1970.
        sent_at: When the request was sent, by that clock.
        last_at: When the last bytes came.
        reply: What the client was given.
        checkpoints: JSON of each that came, and when; not read yet.
        delivery: JSON of the last that came, not read yet; None where none did.
        problems: Why there will be no receipt.
        over: The whole reply came.
        left: The client hung up before.
    """

    def __init__(self, asked: Asked, *, clock: Callable[[], int] | None = None) -> None:
        """Note the time of sending.

        Args:
            asked: The request.
            clock: Nanoseconds since 1970, by the client's own clock; by default one that never
                runs backwards.
        """
        self.asked = asked
        self.now = SteadyClock().nanoseconds if clock is None else clock
        self.sent_at = self.last_at = self.now()
        self.reply = Reply(asked.endpoint)
        self.checkpoints: list[tuple[int, object]] = []
        self.delivery: object = None
        self.problems: list[Problem] = []
        self.over = self.left = False
        self._parser: SseParser | None = None
        self._decoder: Decoder | None = None
        self._body = bytearray()
        self._held = 0
        self._ended = False

    def begin(self, *, kind: str, coding: str) -> None:
        """Take the headers of the reply.

        Args:
            kind: Its content type, without parameters.
            coding: Its content encoding; empty where there is none.
        """
        self.last_at = self.now()
        stream = kind == _STREAM or (kind != _JSON and self._asks_for_stream())
        self._parser = SseParser() if stream else None
        try:
            self._decoder = Decoder(coding.strip().lower().encode(), limit=MAX_MESSAGE_BYTES)
        except InvalidInputError as error:
            self._give_up(str(error))

    def feed(self, chunk: bytes, at: int) -> None:
        """Take bytes of the reply that came at `at`, as they came: compressed, where they are."""
        self.last_at = at
        if self._decoder is None or self._ended:
            return
        try:
            data = self._decoder.feed(chunk) if self._decoder.changes else chunk
            if self._parser is not None:
                for event in self._parser.feed(data):
                    self._event(event, at)
            elif len(self._body) + len(data) > MAX_MESSAGE_BYTES:
                self._give_up(f"the reply has more than {MAX_MESSAGE_BYTES} bytes")
            else:
                self._body += data
        except CoinError as error:
            self._give_up(str(error))
        except Exception as error:  # noqa: BLE001 - a bug of ours is none of the reader's
            self._bug(error)

    def end(self, how: End) -> bool:
        """Take the end of the reply; say whether it is the first that was told of."""
        if self._ended:
            return False
        try:
            last = self._parser.last() if self._parser is not None else None
            if last is not None and how is End.WHOLE and self._decoder is not None:
                self._event(last, self.last_at)
        except Exception as error:  # noqa: BLE001 - as above
            self._bug(error)
        self.over = self.over or how is End.WHOLE
        self.left = how is End.LEFT and not self.over
        self._ended = True
        return True

    def read(self) -> None:
        """Read a plain reply, once it has ended. Takes milliseconds where it is large."""
        raw, self._body = bytes(self._body), bytearray()
        if not raw or self._decoder is None:
            return
        document = _parsed(raw)
        if document is None:
            # Half a reply, or none: an error page, say.
            self.reply.problem = "the reply is no JSON object"
            return
        self._field(document, len(raw), self.last_at)
        self.reply.body(document, self.last_at)

    def _event(self, event: SseEvent, at: int) -> None:
        if event.malformed:
            self._give_up("an event of the stream is larger than any that is read")
            return
        raw, data = event.raw, event.data
        if data is None or raw[:1] == b":" or b"\n:" in raw:
            for name, told in comments(raw):
                self._told(told, len(told), at, checkpoint=name == CHECKPOINT)
            if data is None:
                return
        if event.done:
            self.over = True
            return
        document = _parsed(data)
        if document is None:
            self.reply.problem = self.reply.problem or "an event of the stream is no JSON object"
            return
        if FIELD in document:
            self._field(document, len(raw), at)
        self.reply.event(document, at)
        self.over = self.over or self.reply.over

    def _field(self, document: Json, size: int, at: int) -> None:
        """Keep what is handed over in a field, if it is ours: others may have one of this name."""
        told = document.get(FIELD)
        if isinstance(told, dict) and ("checkpoint" in told or "format" in told):
            self._told(told, size, at, checkpoint="checkpoint" in told)

    def _told(self, document: object, size: int, at: int, *, checkpoint: bool) -> None:
        """Keep what was handed over, unread: reading it takes long."""
        self._held += size
        if self._held > MAX_MESSAGE_BYTES or len(self.checkpoints) >= MAX_CHECKPOINTS:
            self._give_up("the server hands over more than a receipt may hold")
        elif checkpoint:
            self.checkpoints.append((at, document))
        else:
            # A second delivery takes the first back.
            self.delivery = document

    def _asks_for_stream(self) -> bool:
        document = _parsed(self.asked.request)
        return document is not None and document.get("stream") is True

    def _bug(self, error: Exception) -> None:
        self._give_up(f"a bug of ours ({type(error).__name__})", ProblemKind.INTERNAL)

    def _give_up(self, why: str, kind: ProblemKind = ProblemKind.REPLY) -> None:
        """Keep nothing more of the reply, which flows on."""
        message = f"no receipt is kept: {why}"
        self.problems.append(Problem(kind, message, self.reply.response_id))
        self._decoder = None
        self._body.clear()
        self.checkpoints.clear()
        self.delivery = None


def _parsed(raw: bytes) -> Json | None:
    """Return the JSON object that bytes hold, None where they hold none."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document if type(document) is dict else None
