"""What keeping receipts costs a client: CPU a streamed chunk, next to httpx's own, and a thread's.

A server in a process of its own sends each chunk of a chat by itself, as a gateway passes them on:
4,000 of them, a signed checkpoint after every 256th and the receipt at the end. CPU is that of the
client's whole process, the thread that writes receipts included; what compares is read in turns.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from benchmarks._common import UnembeddedProvider, least_seconds, open_provider, report, skip
from coin_protocol.delivery import CHECKPOINT, DELIVERY_FORMAT, NONCE_HEADER, RECEIPT
from coin_protocol.sse import comment, data_event
from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import delivery_pb2
from verifier_sdk.collecting import Collector

_CHUNKS = 4_000
_ROUNDS = 7
_NONCE = bytes(range(32))
_WORDS = (" the", " air", " sends", " waves", " of", " light", " around", " so")
_ASKED = {"model": "bench", "messages": [{"role": "user", "content": "why?"}], "stream": True}


def _json(message: Any) -> bytes:  # noqa: ANN401 - any message
    document = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(document, separators=(",", ":")).encode()


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    document = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return data_event(json.dumps(document, separators=(",", ":")).encode())


def _events(request: bytes) -> list[bytes]:
    """Return a stream, event by event, signed under a fixed nonce."""
    with open_provider(UnembeddedProvider) as provider:
        session = provider.open_session(model="bench", request=request, client_nonce=_NONCE)
        size = provider.profile.block_size
        events, answer = [_chunk({"role": "assistant", "content": ""})], ""
        for number in range(1, _CHUNKS + 1):
            answer += _WORDS[number % len(_WORDS)]
            events.append(_chunk({"content": _WORDS[number % len(_WORDS)]}))
            if number % size == 0:
                for signed in session.append(range(size)):
                    found = delivery_pb2.DeliveredCheckpoint(checkpoint=signed)
                    events.append(comment(CHECKPOINT, _json(found)))
        usage = usage_for(
            prompt_tokens=9,
            reasoning_tokens=session.token_count,
            answer_tokens=_CHUNKS,
            counting=INSIDE,
        )
        commitment = session.finish(answer=answer.encode(), answer_tokens=_CHUNKS, usage=usage)
        delivery = delivery_pb2.Delivery(
            format=DELIVERY_FORMAT,
            response_id="chatcmpl-bench",
            client_nonce=_NONCE,
            nonce_from_client=True,
            key_set=provider.key_set,
            choices=[delivery_pb2.DeliveredChoice(commitment=commitment)],
        )
    done = [comment(RECEIPT, _json(delivery)), b"data: [DONE]\n\n"]
    return [*events, _chunk({}, "stop"), *done]


def _serve(events: list[bytes], port: Connection) -> None:
    """Send the events to whoever asks, each as a chunk of HTTP of its own."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Until the client is done with the connection.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while header := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.partition(b":")[2])
                    for line in header.lower().splitlines()
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                writer.write(head)
                for event in events:
                    writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        writer.close()

    async def serve() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port.send(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    asyncio.run(serve())


def _reads(client: Any, url: str, request: bytes) -> Callable[[], object]:  # noqa: ANN401 - of openai's library
    headers = {NONCE_HEADER: _NONCE.hex(), "content-type": "application/json"}

    def read() -> None:
        with client.stream(
            "POST", f"{url}/chat/completions", content=request, headers=headers
        ) as r:
            for _ in r.iter_bytes():
                pass

    return read


def _asks(client: Any, url: str) -> Callable[[], object]:  # noqa: ANN401 - as above
    import openai

    asking: Any = openai.OpenAI(base_url=url, api_key="bench", http_client=client)

    def ask() -> None:
        headers = {NONCE_HEADER: _NONCE.hex()}
        for _ in asking.chat.completions.create(extra_headers=headers, **_ASKED):
            pass

    return ask


def main() -> None:
    """Read the same stream with and without a collector, in turns."""
    try:
        import openai
    except ImportError:
        skip("collecting_cost.cpu_per_chunk_added", "no client: pip install openai")
        return
    request = json.dumps(_ASKED).encode()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(_events(request), theirs), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}/v1"
        with tempfile.TemporaryDirectory() as name, openai.DefaultHttpxClient() as plain:
            collector = Collector(Path(name) / "receipts.jsonl")

            def kept(read: Callable[[], object]) -> Callable[[], object]:
                def to_the_disk() -> None:
                    read()
                    collector.flush()

                return to_the_disk

            with collector.client() as collecting:
                bare, listened, asked, asked_listened = least_seconds(
                    _reads(plain, url, request),
                    kept(_reads(collecting, url, request)),
                    _asks(plain, url),
                    kept(_asks(collecting, url)),
                    rounds=_ROUNDS,
                    clock=time.process_time,
                )
            written = (Path(name) / "receipts.jsonl").read_text(encoding="ascii").count("\n")
    finally:
        server.terminate()
        server.join()
    if written != 2 * (_ROUNDS + 1):
        sys.exit(f"{written} receipts were kept of {2 * (_ROUNDS + 1)}")
    added = (listened - bare) / _CHUNKS * 1e6
    report("collecting_cost.cpu_per_chunk_added", added, unit="us", better="lower", limit=20)
    report("collecting_cost.cpu_per_chunk_plain", bare / _CHUNKS * 1e6, unit="us", better="lower")
    report("collecting_cost.to_plain_httpx", listened / bare, unit="ratio", better="lower")
    ratio = asked_listened / asked
    report("collecting_cost.to_plain_openai", ratio, unit="ratio", better="lower", limit=1.5)


if __name__ == "__main__":
    main()
