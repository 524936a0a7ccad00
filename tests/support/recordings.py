"""Serving stacks that do not install here, as their packages document and write themselves down.

Each class names the release whose source was read. They are recordings of interfaces and not the
packages: what passes here can still fail there, and docs/integrations says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from provider_sdk.gateway.asgi import Receive, Scope, Send
from tests.support.upstreams import Style, Upstream

EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
JSON = (b"content-type", b"application/json")


class RecordedServer:
    """vLLM 0.33's OpenAI server as an ASGI application, from the source of its wheel.

    The same fields as over HTTP (`tests.support.upstreams`); streams end as Starlette ends them:
    a task listens for the client to hang up and cancels the one that generates.
    """

    def __init__(self, upstream: Upstream | None = None) -> None:
        """Say what the upstream would say; its style applies, but for broken sockets."""
        self.upstream = Upstream() if upstream is None else upstream
        self.scopes: list[Scope] = []
        self.lifespan: list[str] = []
        self.produced = 0
        self.cancelled = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4000})
            return
        raw = b""
        while True:
            message = await receive()
            raw += message["body"]
            if not message["more_body"]:
                break
        style = self.upstream.style
        if scope["path"].endswith("/boom"):
            msg = "the engine is dead"
            raise RuntimeError(msg)
        if not scope["path"].startswith(scope.get("root_path", "") + "/v1/"):
            await _answer(send, 200, json.dumps({"echo": raw.decode()}).encode())
            return
        body: dict[str, Any] = json.loads(raw)
        self.upstream.requests.append(body)
        streamed_chat = _chats(scope) and body.get("stream")
        if style.refuses_ids and streamed_chat and body.get("return_token_ids"):
            await _answer(send, 400, b'{"error": {"message": "return_token_ids is not supported"}}')
        elif style.status != 200:
            await _answer(send, style.status, json.dumps(style.error).encode())
        elif body.get("stream"):
            await self._stream(body, receive, send, chats=_chats(scope))
        else:
            await self._plain(body, send, chats=_chats(scope))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            self.lifespan.append(kind)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _plain(self, body: dict[str, Any], send: Send, *, chats: bool) -> None:
        # As much of aiohttp's request as the upstream reads.
        request: Any = _Request(json.dumps(body).encode())
        refuses, self.upstream.style.refuses_ids = self.upstream.style.refuses_ids, False
        say = self.upstream._chat if chats else self.upstream._completions
        reply: Any = await say(request)
        self.upstream.style.refuses_ids = refuses
        await _answer(send, 200, bytes(reply.body))

    async def _stream(
        self, body: dict[str, Any], receive: Receive, send: Send, *, chats: bool
    ) -> None:
        scripts = self.upstream.scripts(body)
        ids = self.upstream.style.ids and bool(body.get("return_token_ids"))
        if chats:
            head = self.upstream._head("chatcmpl", "chat.completion.chunk", body)
            events = self.upstream._chat_events(head, scripts, ids=ids)
        else:
            head = self.upstream._head("cmpl", "text_completion", body)
            events = self.upstream._completion_events(head, scripts, ids=ids)
        include = (body.get("stream_options") or {}).get("include_usage")
        generating = asyncio.create_task(self._generate(events, send, include=bool(include)))
        listening = asyncio.create_task(_until_hung_up(receive))
        await asyncio.wait({generating, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if not generating.done():
            generating.cancel()
            self.cancelled.set()
        await asyncio.gather(generating, listening, return_exceptions=True)
        if not generating.cancelled():
            generating.result()

    async def _generate(
        self, events: Iterator[dict[str, Any]], send: Send, *, include: bool
    ) -> None:
        style = self.upstream.style
        await send({"type": "http.response.start", "status": 200, "headers": [EVENT_STREAM]})
        for number, event in enumerate(events):
            if event.get("usage") and not include:
                continue
            if number == style.breaks_after:
                msg = "the engine is dead"
                raise RuntimeError(msg)
            if number == style.stalls_after:
                await asyncio.Event().wait()
            if style.pause:
                await asyncio.sleep(style.pause)
            raw = f"data: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": raw, "more_body": True})
            self.produced += len(raw)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def sglang(**style: Any) -> RecordedServer:
    """Return SGLang 0.5.23's OpenAI server: streamed chats refuse ids, and a parser is on."""
    known: dict[str, Any] = {"refuses_ids": True, "parser": "reasoning_content"}
    return RecordedServer(Upstream(style=Style(**(known | style))))


@dataclass
class _Request:
    """As much of a request as an upstream reads."""

    raw: bytes
    headers: MutableMapping[str, str] = field(default_factory=dict)

    async def read(self) -> bytes:
        return self.raw


def _chats(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.endswith("/chat/completions")


async def _until_hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@dataclass(frozen=True)
class PostProcessorHookChunk:
    """TensorRT-LLM 1.x, tensorrt_llm/executor/postprocessor_hook.py, as its guide describes it.

    Prototypes called it `PostProcChunk`, without `streaming`.
    """

    request_id: int
    output_index: int
    text_diff: str
    text: str
    token_ids_diff: list[int]
    is_final: bool
    aborted: bool = False
    streaming: bool = True
