"""One request to a committed path: ask the upstream, and hand its reply to who relays it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from coin_protocol.decoding import Decoder
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.limits import MAX_TEXT_BYTES
from provider_sdk.gateway import problems
from provider_sdk.gateway.asgi import Client, Scope
from provider_sdk.gateway.commits import Commits, Issuer
from provider_sdk.gateway.config import Settings, TokenIds
from provider_sdk.gateway.dialects import Endpoint, Prepared, Rules, prepare, reader
from provider_sdk.gateway.headers import (
    RequestFacts,
    client_headers,
    read_facts,
    upstream_headers,
)
from provider_sdk.gateway.passing import OWN_HEADERS, pass_reply, target_of
from provider_sdk.gateway.plain import PlainManner, answer, relay_plain
from provider_sdk.gateway.problems import Problem
from provider_sdk.gateway.spans import describe, operation_of
from provider_sdk.gateway.stream import Manner, StreamRelay
from provider_sdk.gateway.upstream import Reply, Upstream
from provider_sdk.ops.metrics import Metrics
from provider_sdk.ops.tracing import ReplySpan, reply_span
from provider_sdk.record import Received

_STREAM: Final = b"text/event-stream"
_JSON: Final = b"application/json"
_REQUEST_ID: Final = b"x-request-id"
_LARGE: Final = 64 * 1024
"""From so many bytes on a digest takes longer than another thread."""
_REFUSALS: Final = frozenset({400, 422})
"""What upstreams answer to a field that they do not know, or do not give."""
# What describes bytes that the gateway changes.
_OF_THE_BODY: Final = (
    b"content-length",
    b"content-encoding",
    b"content-md5",
    b"content-digest",
    b"digest",
    b"etag",
)


@dataclass(frozen=True)
class House:
    """What all requests share.

    Attributes:
        rules: Of a model that has its own.
        default_rules: Of every other.
        refuses_ids: Endpoint and streaming for which the upstream refuses to give ids.
        gives_ids: Those for which it was asked for them, and answered.
    """

    settings: Settings
    issuer: Issuer
    upstream: Upstream
    rules: Callable[[str], Rules | None]
    default_rules: Rules
    caller_key: bytes = field(repr=False)
    metrics: Metrics
    refuses_ids: set[tuple[Endpoint, bool]] = field(default_factory=set)
    gives_ids: set[tuple[Endpoint, bool]] = field(default_factory=set)


class Exchange:
    """One request and its reply."""

    def __init__(self, house: House, client: Client, scope: Scope, endpoint: Endpoint) -> None:
        """Hold a request whose body is not read yet."""
        self._house = house
        self._client = client
        self._scope = scope
        self._endpoint = endpoint
        self._asked_at = asyncio.get_running_loop().time()
        self._came_at = house.issuer.provider.clock.now()
        self._trace: dict[str, str] = {}

    async def run(self) -> None:
        """Answer.

        Raises:
            UpstreamError: The upstream failed before the client saw anything.
            LimitError: The upstream's plain reply is larger than the limit.
            ClientGoneError: The client hung up before the end of its request.
        """
        house, client, settings = self._house, self._client, self._house.settings
        try:
            facts = read_facts(self._scope["headers"], house.caller_key)
        except InvalidInputError as error:
            await answer(client, Problem(400, problems.BAD_NONCE, str(error)))
            return
        if facts.encoded:
            await answer(client, problems.ENCODED)
            return
        try:
            request = await client.body(settings.max_request_bytes)
        except LimitError as error:
            await answer(client, Problem(413, problems.TOO_LARGE, str(error)))
            return
        if settings.require_receipt and len(request) > MAX_TEXT_BYTES:
            message = (
                f"the reply would have no receipt: the request has {len(request)} bytes, and "
                f"at most {MAX_TEXT_BYTES} are committed to"
            )
            await answer(client, Problem(502, problems.NO_RECEIPT, message))
            return
        client.watch()
        try:
            ask = settings.token_ids is not TokenIds.NEVER
            first = self._prepared(request, facts, ask=ask)
        except InvalidInputError:
            # Not handed on: what the upstream makes of it could not be read as a reply to it.
            await answer(client, problems.NO_JSON)
            return
        named = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._scope["headers"]
        }
        operation, path = operation_of(self._endpoint), self._endpoint.value
        with (
            house.metrics.gateway.upstream_seconds.labels(path=path).time(),
            reply_span(
                operation=operation,
                model=first.model,
                by=house.issuer.provider.name,
                headers=named,
            ) as span,
        ):
            span.forward(self._trace)
            received = await self._received(request)
            prepared, reply = await self._ask(first, request, facts)
            try:
                await self._relay(prepared, reply, facts, received, span)
            finally:
                reply.close()

    async def _ask(
        self, first: Prepared, request: bytes, facts: RequestFacts
    ) -> tuple[Prepared, Reply]:
        """Send the request on, asking for ids where the upstream gives them."""
        house, mode = self._house, self._house.settings.token_ids
        kind = (self._endpoint, first.stream)
        if mode is not TokenIds.AUTO:
            return first, await self._send(first)
        if kind in house.refuses_ids:
            first = self._prepared(request, facts, ask=False)
            return first, await self._send(first)
        reply = await self._send(first)
        if reply.status not in _REFUSALS:
            if reply.status == 200:
                house.gives_ids.add(kind)
            return first, reply
        reply.close()
        again = self._prepared(request, facts, ask=False)
        second = await self._send(again)
        if second.status == 200 and kind not in house.gives_ids:
            # Where it ever went well, one odd request must not end it for all others.
            house.refuses_ids.add(kind)
        return again, second

    async def _received(self, request: bytes) -> Received:
        """Digest the request; before it is sent on, so that no byte of the reply waits for it."""
        if len(request) < _LARGE:
            return Received.of(request, self._came_at)
        return await asyncio.to_thread(Received.of, request, self._came_at)

    def _prepared(self, request: bytes, facts: RequestFacts, *, ask: bool) -> Prepared:
        return prepare(self._endpoint, request, ask_token_ids=ask, keep_usage=facts.in_chunks)

    async def _send(self, prepared: Prepared) -> Reply:
        drop = (*OWN_HEADERS, b"accept-encoding", *(name.encode() for name in self._trace))
        headers = upstream_headers(self._scope["headers"], drop=drop)
        headers += [("accept-encoding", "identity"), *self._trace.items()]
        target = target_of(self._scope)
        return await self._house.upstream.request("POST", target, headers, prepared.body)

    async def _relay(
        self,
        prepared: Prepared,
        reply: Reply,
        facts: RequestFacts,
        received: Received,
        span: ReplySpan,
    ) -> None:
        """Pass the reply on: an error as it is, a reply with what is committed to it."""
        house, client, settings = self._house, self._client, self._house.settings
        kind = reply.header(b"content-type")
        if kind not in {_STREAM, _JSON}:
            # Named wrongly, or not at all: it is what was asked for, or malformed.
            kind = _STREAM if prepared.stream else _JSON
        if reply.status != 200:
            if reply.status >= 400:
                house.metrics.gateway.upstream_failures.labels(kind="status").inc()
                span.failed(str(reply.status))
            await pass_reply(client, reply, house.metrics)
            return
        limit = settings.max_event_bytes if kind == _STREAM else settings.max_reply_bytes
        decoder = Decoder(reply.header(b"content-encoding"), limit=limit)
        found = reader(prepared, house.rules(prepared.model) or house.default_rules)
        commits = Commits(house.issuer, found, facts, received, model=prepared.model)
        headers = self._headers(reply)
        try:
            if kind == _JSON:
                plain = PlainManner(
                    settings.require_receipt, settings.rewrite_usage, settings.max_reply_bytes
                )
                await relay_plain(client, reply, found, commits, plain, decoder, headers)
                return
            manner = Manner(
                endpoint=self._endpoint,
                choices=prepared.choices,
                in_chunks=facts.in_chunks,
                require_receipt=settings.require_receipt,
                rewrite_usage=settings.rewrite_usage,
                max_event_bytes=settings.max_event_bytes,
            )
            await client.start(reply.status, headers)
            with house.metrics.gateway.open_streams.track_inprogress():
                relay = StreamRelay(client, reply, found, commits, manner, house.metrics)
                await relay.run(decoder, asked_at=self._asked_at)
            if relay.first_after is not None:
                span.first_token(relay.first_after)
            if relay.broke_off:
                span.failed("upstream_broke_off")
        finally:
            await commits.discard()
            if commits.delivered is not None:
                describe(span, commits.delivered)

    def _headers(self, reply: Reply) -> list[tuple[bytes, bytes]]:
        """Return the reply's headers but for those of bytes that change."""
        headers = client_headers(reply.headers, drop=_OF_THE_BODY)
        asked = dict(self._scope["headers"]).get(_REQUEST_ID)
        if asked is not None and not reply.header(_REQUEST_ID):
            headers.append((_REQUEST_ID, asked))
        return headers
