"""Commit to a chat's reply that comes as documents instead of bytes: for hooks behind a parser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.errors import CoinError
from coin_protocol.sse import comment, data_event
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.gateway.app import all_rules
from provider_sdk.gateway.commits import Commits, Due, Ended, Issuer
from provider_sdk.gateway.config import TokenIds
from provider_sdk.gateway.delivery import Deliveries, as_document, as_json, delivered_checkpoint
from provider_sdk.gateway.dialects import Endpoint, Step, prepare, reader
from provider_sdk.gateway.headers import RequestFacts, read_facts
from provider_sdk.gateway.stream import finished, no_receipt
from provider_sdk.integrations.host import Host
from provider_sdk.record import Received

Json = dict[str, Any]


class ReceiptMissingError(CoinError):
    """A reply has no receipt, and the settings demand one."""


REQUEST_NOTE: Final = (
    "The request was written anew from its JSON: "
    "the exact bytes that the client sent are not known."
)

Written = Callable[[object], str]

# How clients write JSON, by how many of them do: OpenAI's own and browsers, `requests`, and those
# that escape all but ASCII.
_FORMS: Final[tuple[Written, ...]] = (
    lambda body: json.dumps(body, ensure_ascii=False, separators=(",", ":")),
    json.dumps,
    lambda body: json.dumps(body, separators=(",", ":")),
    lambda body: json.dumps(body, ensure_ascii=False),
)


@dataclass(frozen=True)
class Request:
    """A client's request, as far as a hook is told of it.

    Attributes:
        raw: What is committed to.
        known: Whether it has as many bytes as the client sent.
        facts: Of its headers.
        came_at: By the provider's clock.
    """

    raw: bytes
    known: bool
    facts: RequestFacts
    came_at: Timestamp


@dataclass(frozen=True)
class Shown:
    """What a client sees of one event.

    Attributes:
        document: None where nothing is left.
        same: It is what came.
        due: Server-sent events to write before it.
    """

    document: Json | None
    same: bool
    due: list[bytes]


class Committer:
    """Commits to replies. One for a process."""

    def __init__(self, host: Host) -> None:
        """Resolve the models' markers.

        Raises:
            ConfigurationError: Markers are unknown, or are no tokens of the tokenizer.
        """
        settings, provider = host.settings, host.provider
        self.settings = settings
        self._rules = all_rules(settings, provider)
        self._issuer = Issuer(
            provider, Deliveries(provider, settings.keep_missing), host.metrics, settings.vendor
        )
        secret = settings.caller_key
        self._caller_key = b"" if secret is None else secret.get_secret_value().encode()

    @property
    def signs(self) -> bool:
        """Whether anything is committed to; else every reply passes as it is."""
        return self.settings.sign

    @property
    def asks_for_ids(self) -> bool:
        """Whether the backends are asked for ids: only if told so, as others answer 400 to it."""
        return self.settings.token_ids is TokenIds.ASK

    def request(self, headers: Mapping[str, str], body: Json) -> Request:
        """Return what is committed to of a request.

        Args:
            headers: As the client sent them.
            body: Its JSON, in the order in which it was read.

        Raises:
            InvalidInputError: The nonce is malformed.
        """
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        facts = read_facts(raw, self._caller_key)
        length = dict(raw).get(b"content-length", b"")
        written = (form(body).encode("utf-8", "surrogatepass") for form in _FORMS)
        fitting = next((each for each in written if b"%d" % len(each) == length), None)
        came_at = self._issuer.provider.clock.now()
        if fitting is None:
            guess = _FORMS[0](body).encode("utf-8", "surrogatepass")
            return Request(guess, known=False, facts=facts, came_at=came_at)
        return Request(fitting, known=True, facts=facts, came_at=came_at)

    def reply(self, request: Request) -> DocumentReply:
        """Return what commits to the reply of a request."""
        return DocumentReply(self, request)


class DocumentReply:
    """One reply, plain or streamed."""

    def __init__(self, committer: Committer, request: Request) -> None:
        """Read the request; `Committer.reply` is the way to make one."""
        self._settings = committer.settings
        self._request = request
        prepared = prepare(Endpoint.CHAT, request.raw, ask_token_ids=False, keep_usage=True)
        self.client_token_ids = prepared.client_token_ids
        rules = committer._rules  # noqa: SLF001 - its other half
        found = rules.get(prepared.model) or rules[""]
        self._reader = reader(prepared, found)
        self._commits = Commits(
            committer._issuer,  # noqa: SLF001 - as above
            self._reader,
            request.facts,
            Received.of(request.raw, request.came_at),
            model=prepared.model,
        )

    def event(self, document: Json) -> Shown:
        """Commit to what one event of a stream brings."""
        step = self._reader.event(orjson.dumps(document))
        self._commits.begin()
        due = [*self._commits.take(step.pieces), *self._commits.due()]
        return self._shown(step, [self._checkpoint(each) for each in due])

    async def end(self, reason: statements_pb2.AbortReason.ValueType) -> list[bytes]:
        """End a stream, and return the events to write after it.

        Args:
            reason: Why choices that did not finish are a part only.
        """
        ended = await finished(self._commits.end(reason))
        out = [self._checkpoint(each) for each in ended.checkpoints]
        found = self._noted(ended)
        if found is not None and self._refuses(ended):
            out.append(data_event(no_receipt(ended).json(coin=as_document(found))))
        elif found is not None:
            out.append(self._event("coin.receipt", found))
        return out

    async def plain(self, document: Json) -> tuple[Shown, Json | None]:
        """Commit to a plain reply; return what the client sees of it, and its delivery.

        Raises:
            ReceiptMissingError: There is none, and the settings demand one.
        """
        step = self._reader.body(orjson.dumps(document))
        self._commits.begin()
        self._commits.take(step.pieces)
        ended = await finished(self._commits.end(statements_pb2.ABORT_REASON_UPSTREAM_ERROR))
        found = self._noted(ended)
        if self._refuses(ended) or (found is None and self._settings.require_receipt):
            raise ReceiptMissingError(no_receipt(ended).message)
        return self._shown(step, []), None if found is None else as_document(found)

    def _shown(self, step: Step, due: list[bytes]) -> Shown:
        document = None if step.data is None else orjson.loads(step.data)
        return Shown(document, step.same, due)

    def _refuses(self, ended: Ended) -> bool:
        return self._settings.require_receipt and bool(ended.missing)

    def _noted(self, ended: Ended) -> delivery_pb2.Delivery | None:
        if ended.delivery is not None and not self._request.known:
            for choice in ended.delivery.choices:
                choice.notes.append(REQUEST_NOTE)
        return ended.delivery

    def _checkpoint(self, due: Due) -> bytes:
        return self._event("coin.checkpoint", delivered_checkpoint(*due))

    def _event(
        self,
        kind: Literal["coin.checkpoint", "coin.receipt"],
        found: delivery_pb2.DeliveredCheckpoint | delivery_pb2.Delivery,
    ) -> bytes:
        if not self._request.facts.in_chunks:
            return comment(kind, as_json(found))
        chunk = {
            "id": self._reader.response_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._reader.model,
            "choices": [],
            "coin": as_document(found),
        }
        return data_event(orjson.dumps(chunk))
