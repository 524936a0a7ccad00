"""An application as the gateway's upstream."""

# ruff: noqa: ARG001 - applications are called with three arguments, whatever they use

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider_sdk.gateway.asgi import Receive, Scope, Send
from provider_sdk.gateway.config import Settings, load_settings
from provider_sdk.gateway.upstream import UpstreamError
from provider_sdk.integrations.inner import OUTER_SCOPE, AsgiReply, AsgiUpstream

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
LIMIT = 4096


def settings(**given: Any) -> Settings:
    return load_settings(
        None, **({"upstream": "http://unused.invalid", "read_buffer_bytes": LIMIT} | given)
    )


async def requested(app: Application, body: Any = b"{}", **given: Any) -> AsgiReply:
    OUTER_SCOPE.set({"type": "http", "path": "/v1/x", "headers": [(b"host", b"there")]})
    upstream = AsgiUpstream(app, settings(**given))
    return await upstream.request("POST", "/v1/x", [("X-A", "b")], body)


async def start(send: Send, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"X-Y", b"Z; q")]})


async def part(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def whole(reply: AsgiReply) -> bytes:
    found = b""
    while chunk := await reply.read():
        found += chunk
    return found


@given(parts=st.lists(st.binary(max_size=200), max_size=30), limit=st.integers(1024, 4096))
def test_every_byte_arrives_in_its_order(parts: list[bytes], limit: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        for each in parts:
            await part(send, each)
        await part(send, b"", more=False)

    async def run() -> bytes:
        return await whole(await requested(app, read_buffer_bytes=limit))

    assert asyncio.run(run()) == b"".join(parts)


async def test_an_application_waits_for_a_reader_that_does_not_read() -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await start(send)
        for _ in range(1000):
            sent += 1000
            await part(send, bytes(1000))
        await part(send, b"", more=False)

    reply = await requested(app)
    for _ in range(100):
        await asyncio.sleep(0)
    assert sent <= LIMIT + 1000
    assert len(await whole(reply)) == 1_000_000


async def test_the_application_sees_headers_body_and_host() -> None:
    seen: list[Any] = []

    async def pieces() -> Any:
        yield b"ab"
        yield b"c"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        seen.extend([scope["headers"], body, scope["method"], scope["path"]])
        await start(send, 201)
        await part(send, b"", more=False)

    reply = await requested(app, b"abc")
    assert (reply.status, reply.header(b"x-y"), await reply.read()) == (201, b"z", b"")
    framed = [(b"X-A", b"b"), (b"host", b"there"), (b"content-length", b"3")]
    assert seen == [framed, b"abc", "POST", "/v1/x"]
    seen.clear()
    await whole(await requested(app, pieces()))
    assert seen[1] == b"abc"


async def test_closing_tells_the_application_that_its_client_is_gone() -> None:
    told = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        await start(send)
        await part(send, b"a")
        assert (await receive())["type"] == "http.disconnect"
        await part(send, b"to nobody")
        told.set()

    reply = await requested(app)
    assert await reply.read() == b"a"
    reply.close()
    async with asyncio.timeout(10):
        await told.wait()


async def test_closing_frees_an_application_that_waits_for_room() -> None:
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await part(send, bytes(2 * LIMIT))
        done.set()

    reply = await requested(app)
    await asyncio.sleep(0)
    assert not done.is_set()
    reply.close()
    async with asyncio.timeout(10):
        await done.wait()


async def test_an_application_that_does_not_listen_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("provider_sdk.integrations.inner._LINGER_SECONDS", 0.01)
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    (await requested(app)).close()
    async with asyncio.timeout(10):
        await cancelled.wait()


async def test_a_request_that_is_cancelled_before_its_reply_lets_go_of_the_application() -> None:
    called, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        called.set()
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    task = asyncio.create_task(requested(app))
    await called.wait()
    task.cancel()
    async with asyncio.timeout(10):
        await told.wait()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_failure_is_an_error_of_the_upstream(
    caplog: pytest.LogCaptureFixture, *, begun: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await start(send)
            await part(send, b"half")
        msg = "the engine is dead"
        raise RuntimeError(msg)

    async def run() -> bytes:
        return await whole(await requested(app))

    with pytest.raises(UpstreamError) as caught:
        await run()
    assert caught.value.kind == "half_stream"
    assert "the engine is dead" not in str(caught.value)
    assert "the application failed" in caplog.text


async def test_what_came_before_a_failure_is_read_first() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        await part(send, b"half")

    reply = await requested(app)
    assert await reply.read() == b"half"
    with pytest.raises(UpstreamError):
        await reply.read()


async def test_silence_is_a_timeout() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    with pytest.raises(UpstreamError) as caught:
        await requested(app, first_byte_seconds=0.05)
    assert caught.value.kind == "timeout"


async def test_closing_the_upstream_cancels_what_is_left() -> None:
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(send)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    OUTER_SCOPE.set({"type": "http", "path": "/v1/x", "headers": []})
    upstream = AsgiUpstream(app, settings())
    reply = await upstream.request("POST", "/v1/x", [], None)
    await upstream.close()
    assert ended.is_set()
    with pytest.raises(UpstreamError):
        await reply.read()
