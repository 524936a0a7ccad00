"""An upstream that streams at a steady rate: `python -m benchmarks._gateway.upstream`.

The first token takes 50 ms, which is little for a model; later ones come at the rate. Chunks are
those of a server that sets reasoning apart by itself and gives the ids that it sampled. The model's
name says how: TOKENS-PER_CHUNK-PER_SECOND, as `1000-1-50`, or with other milliseconds to the first
token, TOKENS-PER_CHUNK-PER_SECOND-FIRST.
"""

from __future__ import annotations

import asyncio
import json
from functools import cache

from aiohttp import web

from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.tokenizer import Tokenizer

_FIRST = 50
_WORDS = (" the", " air", " sends", " waves", " of", " light", " around", " so")


def _event(choice: dict[str, object], **more: object) -> bytes:
    document = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [choice],
        **more,
    }
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def _delta(field: str, text: str, ids: list[int], finish: str | None = None) -> bytes:
    delta = {field: text}
    return _event({"index": 0, "delta": delta, "finish_reason": finish, "token_ids": ids})


@cache
def _tokenizer() -> Tokenizer:
    return Models(Profile.shipped("default")).tokenizer


@cache
def _chunks(tokens: int, per_chunk: int) -> list[bytes]:
    words = [(word, _tokenizer().encode(word)) for word in _WORDS]
    chunks = []
    for at in range(0, tokens, per_chunk):
        picked = [words[(at + i) % len(words)] for i in range(min(per_chunk, tokens - at))]
        text = "".join(word for word, _ in picked)
        chunks.append(_delta("reasoning", text, [i for _, ids in picked for i in ids]))
    return chunks


async def _chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    tokens, per_chunk, rate, *given = (int(part) for part in body["model"].split("-"))
    chunks = _chunks(tokens, per_chunk)
    reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await reply.prepare(request)
    loop = asyncio.get_running_loop()
    start = loop.time() + (given or [_FIRST])[0] / 1e3
    for number, chunk in enumerate(chunks):
        await asyncio.sleep(max(0.0, start + number * per_chunk / rate - loop.time()))
        await reply.write(chunk)
    await reply.write(_delta("content", " yes", _tokenizer().encode(" yes"), "stop"))
    await reply.write(b"data: [DONE]\n\n")
    return reply


def main() -> None:
    """Serve on a free port, and print it."""
    _tokenizer()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", _chat)

    async def serve() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        print(json.dumps({"port": port}), flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
