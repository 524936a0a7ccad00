"""Serving stacks on sockets of this machine, in vLLM's and SGLang's formats, well and badly.

What they "generate" is scripted, or comes from a function; the token ids are those of the small
tokenizer, and real in that the text is spelled by them.
"""

from __future__ import annotations

import asyncio
import codecs
import gzip
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from coin_protocol.testing.small import SmallTokenizer

OPEN, CLOSE = "<think>", "</think>"
EOS = 0
"""The stop token of these models: sampled, and no text."""

MODEL = "acme-1"
_TOKENIZER = SmallTokenizer()
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Script:
    """What a model says for one choice."""

    reasoning: str | None = "the air sends the short waves around, so it is the sky that is blue"
    answer: str = "the sky is blue"
    calls: Sequence[Call] = ()
    finish: str = "stop"

    @property
    def raw(self) -> str:
        """The text as sampled."""
        if self.reasoning is None:
            return self.answer
        return f"{OPEN}{self.reasoning}{CLOSE}{self.answer}"

    @property
    def ids(self) -> list[int]:
        """The ids as sampled: marks are tokens of bytes, like all else."""
        return [*_TOKENIZER.encode(self.raw), EOS]

    @property
    def reasoning_ids(self) -> list[int]:
        """Those of the reasoning, without its marks."""
        whole = _TOKENIZER.encode(self.raw)
        before = len(_TOKENIZER.encode(OPEN))
        after = len(_TOKENIZER.encode(CLOSE + self.answer))
        return [] if self.reasoning is None else whole[before : len(whole) - after]


@dataclass
class Style:
    """How an upstream behaves.

    Attributes:
        ids: It gives token ids where it is asked to.
        refuses_ids: It answers `refusal` where it is asked to, as SGLang does for streamed chats.
        refusal: The status that says so.
        kind: Content type of its replies; empty for the right one.
        parser: It sets reasoning apart itself: the field's name, `reasoning` or
            `reasoning_content`.
        chunk: Tokens in one chunk.
        pause: Seconds between chunks.
        usage: When the usage block comes in a stream.
        reports: Edits the usage block.
        done: It ends its streams with `[DONE]`.
        response_id: Of every reply; None for one that counts up, "" for none.
        breaks_after: Chunks, after which the connection breaks.
        stalls_after: Chunks, after which nothing more comes.
        garbles: Edits the bytes of each event.
        status: Of every reply; others than 200 come with `error`.
        gzips: It compresses although nobody asked.
    """

    ids: bool = True
    refuses_ids: bool = False
    refusal: int = 400
    kind: str = ""
    parser: str = ""
    chunk: int = 1
    pause: float = 0.0
    usage: Literal["end", "early", "never"] = "end"
    reports: Callable[[dict[str, Any]], None] = lambda _: None
    done: bool = True
    response_id: str | None = None
    breaks_after: int | None = None
    stalls_after: int | None = None
    garbles: Callable[[int, bytes], bytes] = lambda _, event: event
    status: int = 200
    error: dict[str, Any] = field(
        default_factory=lambda: {"error": {"message": "no", "type": "BadRequest", "code": 400}}
    )
    gzips: bool = False


@dataclass(frozen=True)
class Part:
    """What one chunk brings of one choice."""

    ids: list[int]
    content: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[int, Call]] = ()
    finish: str | None = None


class Upstream:
    """A serving stack. `requests` are the bodies that it was sent, `headers` theirs."""

    def __init__(
        self,
        scripts: Callable[[dict[str, Any]], Sequence[Script]] | None = None,
        style: Style | None = None,
    ) -> None:
        """Say `scripts(request)`, one script a choice; by default the same for each."""
        self.style = Style() if style is None else style
        self._scripts = scripts
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hung_up = asyncio.Event()
        self.sent = 0
        self.url = ""

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_route("*", "/{path:.*}", self._other)
        return app

    def scripts(self, request: dict[str, Any]) -> Sequence[Script]:
        """Return what is said."""
        if self._scripts is not None:
            return self._scripts(request)
        prompts = request.get("prompt")
        many = len(prompts) if isinstance(prompts, list) else 1
        return [Script()] * (request.get("n") or 1) * many

    async def _asked(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(await request.read())
        self.requests.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        style = self.style
        asks = bool(body.get("return_token_ids"))
        if style.refuses_ids and asks:
            error = {"error": {"message": "return_token_ids is not supported"}}
            raise _Raised(web.json_response(error, status=style.refusal))
        if style.status != 200:
            response = web.json_response(style.error, status=style.status)
            response.headers["retry-after"] = "7"
            raise _Raised(response)
        return body

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._guarded(request)
        if isinstance(body, web.StreamResponse):
            return body
        scripts = self.scripts(body)
        head = self._head(
            "chatcmpl", "chat.completion.chunk" if body.get("stream") else "chat.completion", body
        )
        ids = self.style.ids and bool(body.get("return_token_ids"))
        if body.get("stream"):
            return await self._stream(request, body, self._chat_events(head, scripts, ids=ids))
        choices = []
        for index, script in enumerate(scripts):
            reasoning, content = self._texts(script)
            message: dict[str, Any] = {"role": "assistant", "content": content}
            if self.style.parser:
                message[self.style.parser] = reasoning
            if script.calls:
                message["tool_calls"] = [
                    {
                        "id": f"call_{place}",
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments},
                    }
                    for place, call in enumerate(script.calls)
                ]
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": "tool_calls" if script.calls else script.finish,
                    "stop_reason": None,
                    **({"token_ids": script.ids} if ids else {}),
                }
            )
        more = {"prompt_token_ids": [1, 2, 3]} if ids else {}
        return self._plain({**head, "choices": choices, "usage": self._usage(scripts), **more})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._guarded(request)
        if isinstance(body, web.StreamResponse):
            return body
        scripts = self.scripts(body)
        head = self._head("cmpl", "text_completion", body)
        ids = self.style.ids and bool(body.get("return_token_ids"))
        if body.get("stream"):
            events = self._completion_events(head, scripts, ids=ids)
            return await self._stream(request, body, events)
        choices = [
            {
                "index": index,
                "text": script.raw,
                "logprobs": None,
                "finish_reason": script.finish,
                "stop_reason": None,
                **({"token_ids": script.ids, "prompt_token_ids": [1, 2, 3]} if ids else {}),
            }
            for index, script in enumerate(scripts)
        ]
        return self._plain({**head, "choices": choices, "usage": self._usage(scripts)})

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        body = await self._guarded(request)
        if isinstance(body, web.StreamResponse):
            return body
        (script,) = self.scripts(body)
        found = self._response(body, script, status="completed")
        if body.get("enable_response_messages") and self.style.ids:
            found["input_messages"] = [{"type": "raw_message_tokens", "message": "", "tokens": [1]}]
            found["output_messages"] = [
                {"type": "raw_message_tokens", "message": script.raw, "tokens": script.ids}
            ]
        if not body.get("stream"):
            return self._plain(found)
        response = await self._begin(request)
        for number, event in enumerate(self._response_events(script, found)):
            event["sequence_number"] = number
            kind = event["type"]
            raw = f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode()
            await self._send(response, number, raw)
        await response.write_eof()
        return response

    def _response(self, body: dict[str, Any], script: Script, *, status: str) -> dict[str, Any]:
        usage = self._usage([script])
        output: list[dict[str, Any]] = []
        if script.reasoning is not None:
            content = [{"type": "reasoning_text", "text": script.reasoning}]
            output.append({"id": "rs_1", "type": "reasoning", "summary": [], "content": content})
        text = {"type": "output_text", "text": script.answer, "annotations": []}
        output.append(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        )
        return {
            "id": self._id("resp"),
            "object": "response",
            "created_at": 1_700_000_000,
            "model": body.get("model", MODEL),
            "status": status,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {
                    "reasoning_tokens": sum(len(s.reasoning_ids) for s in [script])
                },
                "total_tokens": usage["total_tokens"],
            },
        }

    def _response_events(self, script: Script, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
        begun = {**found, "status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        place = 0
        for text, kind, item in (
            (script.reasoning, "reasoning_text", "rs_1"),
            (script.answer, "output_text", "msg_1"),
        ):
            if text is None:
                continue
            where = {"item_id": item, "output_index": place, "content_index": 0}
            begins: dict[str, Any] = {**found["output"][place], "content": []}
            yield {"type": "response.output_item.added", "output_index": place, "item": begins}
            for at in range(0, len(text), 4):
                delta = text[at : at + 4]
                event = {"type": f"response.{kind}.delta", **where, "delta": delta}
                if kind == "output_text":
                    event["logprobs"] = []
                yield event
            done: dict[str, Any] = {"type": f"response.{kind}.done", **where, "text": text}
            if kind == "output_text":
                done["logprobs"] = []
            yield done
            yield {
                "type": "response.output_item.done",
                "output_index": place,
                "item": found["output"][place],
            }
            place += 1
        yield {"type": "response.completed", "response": found}

    async def _other(self, request: web.Request) -> web.StreamResponse:
        """Answer with what was sent, in two pieces."""
        raw = await request.read()
        response = web.StreamResponse(status=207, headers={"x-other": "yes"})
        response.headers["content-type"] = "application/octet-stream"
        await response.prepare(request)
        await response.write(f"{request.method} {request.raw_path} ".encode())
        await response.write(raw)
        await response.write_eof()
        return response

    async def _guarded(self, request: web.Request) -> dict[str, Any] | web.StreamResponse:
        try:
            return await self._asked(request)
        except _Raised as raised:
            return raised.response

    def _plain(self, document: dict[str, Any]) -> web.Response:
        raw = json.dumps(document).encode()
        headers = {"x-request-id": "from-upstream"}
        if self.style.gzips:
            raw, headers["content-encoding"] = gzip.compress(raw), "gzip"
        raw = self.style.garbles(0, raw)
        kind = self.style.kind or "application/json"
        return web.Response(body=raw, content_type=kind, headers=headers)

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-request-id": "from-upstream"})
        response.headers["content-type"] = self.style.kind or "text/event-stream; charset=utf-8"
        await response.prepare(request)
        return response

    async def _stream(
        self, request: web.Request, body: dict[str, Any], events: Iterator[dict[str, Any]]
    ) -> web.StreamResponse:
        response = await self._begin(request)
        include = (body.get("stream_options") or {}).get("include_usage")
        number = 0
        for number, event in enumerate(events):
            if event.get("usage") and not include:
                continue
            await self._send(response, number, f"data: {json.dumps(event)}\n\n".encode())
        if self.style.done:
            await response.write(self.style.garbles(number + 1, b"data: [DONE]\n\n"))
        await response.write_eof()
        return response

    async def _send(self, response: web.StreamResponse, number: int, raw: bytes) -> None:
        style = self.style
        if number == style.breaks_after:
            transport = response._req.transport if response._req else None
            assert transport is not None
            transport.close()
            raise asyncio.CancelledError
        try:
            if number == style.stalls_after:
                await asyncio.Event().wait()
            if style.pause:
                await asyncio.sleep(style.pause)
            await response.write(style.garbles(number, raw))
            self.sent += 1
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise

    def _chat_events(
        self, head: dict[str, Any], scripts: Sequence[Script], *, ids: bool
    ) -> Iterator[dict[str, Any]]:
        for index in range(len(scripts)):
            delta: dict[str, Any] = {"role": "assistant", "content": ""}
            first = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            more = {"prompt_token_ids": [1, 2, 3]} if ids else {}
            yield {**head, "choices": [first], **more}
        if self.style.usage == "early":
            yield {**head, "choices": [], "usage": self._usage(scripts)}
        for index, part in _interleaved([list(self._parts(script)) for script in scripts]):
            delta = {}
            if part.content:
                delta["content"] = part.content
            if part.reasoning:
                delta[self.style.parser] = part.reasoning
            if part.calls:
                delta["tool_calls"] = [
                    {
                        "index": place,
                        "id": f"call_{place}",
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments},
                    }
                    for place, call in part.calls
                ]
            choice = {
                "index": index,
                "delta": delta,
                "logprobs": None,
                "finish_reason": part.finish,
                **({"token_ids": part.ids} if ids else {}),
            }
            yield {**head, "choices": [choice]}
        if self.style.usage == "end":
            yield {**head, "choices": [], "usage": self._usage(scripts)}

    def _completion_events(
        self, head: dict[str, Any], scripts: Sequence[Script], *, ids: bool
    ) -> Iterator[dict[str, Any]]:
        if self.style.usage == "early":
            yield {**head, "choices": [], "usage": self._usage(scripts)}
        for index, part in _interleaved([list(self._parts(script)) for script in scripts]):
            choice = {
                "index": index,
                "text": part.content,
                "logprobs": None,
                "finish_reason": part.finish,
                **({"token_ids": part.ids} if ids else {}),
            }
            yield {**head, "choices": [choice]}
        if self.style.usage == "end":
            yield {**head, "choices": [], "usage": self._usage(scripts)}

    def _parts(self, script: Script) -> Iterator[Part]:
        """Cut a script into chunks, text as its ids spell it."""
        ids, size = script.ids, self.style.chunk
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        seen = ""
        for at in range(0, len(ids), size):
            part = ids[at : at + size]
            last = at + size >= len(ids)
            raw = b"".join(_TOKENIZER.token_bytes(i) for i in part if i != EOS)
            text = decode(raw, last)
            finish = ("tool_calls" if script.calls else script.finish) if last else None
            if not self.style.parser:
                calls = list(enumerate(script.calls)) if last else []
                yield Part(part, content=text, calls=calls, finish=finish)
                continue
            before, seen = seen, seen + text
            then_reasoning, then_content = _apart(before)
            reasoning, content = _apart(seen)
            yield Part(
                part,
                content=content[len(then_content) :],
                reasoning=reasoning[len(then_reasoning) :],
                calls=list(enumerate(script.calls)) if last else [],
                finish=finish,
            )

    def _texts(self, script: Script) -> tuple[str | None, str | None]:
        if not self.style.parser:
            return None, script.raw
        return script.reasoning, script.answer or None

    def _usage(self, scripts: Sequence[Script]) -> dict[str, Any]:
        completion = sum(len(script.ids) for script in scripts)
        usage = {
            "prompt_tokens": 3,
            "completion_tokens": completion,
            "total_tokens": 3 + completion,
        }
        self.style.reports(usage)
        return usage

    def _head(self, prefix: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        head = {"id": self._id(prefix), "object": kind, "created": 1_700_000_000}
        head["model"] = body.get("model", MODEL)
        if not head["id"]:
            del head["id"]
        return head

    def _id(self, prefix: str) -> str:
        given = self.style.response_id
        return f"{prefix}-{next(_NUMBERS):08d}" if given is None else given


class _Raised(Exception):  # noqa: N818 - an answer, and no error of this program
    def __init__(self, response: web.Response) -> None:
        super().__init__()
        self.response = response


def _apart(raw: str) -> tuple[str, str]:
    """Return reasoning and answer of raw text so far, as a parser of the stack tells them apart."""
    if not raw.startswith(OPEN):
        return "", "" if OPEN.startswith(raw) else raw
    reasoning, mark, answer = raw.removeprefix(OPEN).partition(CLOSE)
    if mark:
        return reasoning, answer
    for length in range(len(CLOSE) - 1, 0, -1):
        if reasoning.endswith(CLOSE[:length]):
            return reasoning[:-length], ""
    return reasoning, ""


def _interleaved(parts: Sequence[Sequence[Part]]) -> Iterator[tuple[int, Part]]:
    for row in itertools.zip_longest(*parts):
        for index, part in enumerate(row):
            if part is not None:
                yield index, part


@asynccontextmanager
async def running(upstream: Upstream) -> AsyncIterator[Upstream]:
    """Serve an upstream on a free port; its `url` says where."""
    runner = web.AppRunner(
        upstream.application(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        await runner.cleanup()
