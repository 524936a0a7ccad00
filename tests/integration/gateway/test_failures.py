"""Upstreams that fail, clients that leave, disks and signers that do not answer."""

from __future__ import annotations

import asyncio
import json
import socket
from concurrent.futures import Future
from typing import Any

import openai
import pytest

from coin_protocol.errors import ConfigurationError
from coin_protocol.signer import KeySigner
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.record import MemoryStore
from tests.integration.gateway.standing import (
    KEY,
    QUESTION,
    Standing,
    asked,
    commitment,
    fetched,
    gateway_settings,
    parsed,
    standing,
    until,
)
from tests.support.parties import MODEL, Parties
from tests.support.upstreams import Script, Style


async def test_errors_of_the_upstream_pass_as_they_are(parties: Parties) -> None:
    async with standing(parties, style=Style(status=429)) as stands:
        for stream in (True, False):
            with pytest.raises(openai.RateLimitError) as direct:
                await _ask(stands, stands.upstream.url, stream=stream)
            with pytest.raises(openai.RateLimitError) as through:
                await _ask(stands, stands.url, stream=stream)
            assert through.value.body == direct.value.body
            assert through.value.response.headers["retry-after"] == "7"


async def _ask(stands: Standing, url: str, *, stream: bool) -> Any:
    client = stands.client(url)
    return await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=stream)


async def test_an_upstream_that_is_not_there_is_a_bad_gateway(parties: Parties) -> None:
    settings = {"upstream": f"http://127.0.0.1:{_free_port()}"}
    async with standing(parties, instead=settings) as stands:
        seen = await asked(stands)
        passed = await asked(stands, "/v1/embeddings")
    for each in (seen, passed):
        assert each.status == 502
        assert json.loads(each.raw)["error"]["code"] == "upstream_connect"


async def test_an_upstream_that_is_silent_is_a_gateway_timeout(parties: Parties) -> None:
    style = Style(pause=5)
    async with standing(parties, style=style, first_byte_seconds=0.2) as stands:
        plain = await asked(stands, stream=False, slow=True)
        assert plain.status in {200, 504}
        seen = await asked(stands)
    assert seen.broken
    assert stands.count("coin_gateway_upstream_failures_total", kind="timeout") == 1


@pytest.mark.parametrize("after", [3, 40, 85])
async def test_half_a_stream_passes_as_half_and_is_committed_to_as_aborted(
    parties: Parties, after: int
) -> None:
    async with standing(parties, style=Style(breaks_after=after)) as stands:
        seen = await asked(stands)
    assert seen.broken, "nobody takes it for the whole"
    assert "[DONE]" not in seen.events
    found = commitment(seen.delivery)
    assert found.abort_reason == statements_pb2.ABORT_REASON_UPSTREAM_ERROR
    sampled = after - 1  # the first chunk brings no token
    assert sampled - 8 <= found.reasoning_tokens + found.answer_tokens <= sampled
    assert found.usage.completion_tokens == found.reasoning_tokens + found.answer_tokens


async def test_a_stream_that_ends_early_without_done_is_aborted(parties: Parties) -> None:
    def end(number: int, raw: bytes) -> bytes:
        return raw if number < 40 else b""

    async with standing(parties, style=Style(garbles=end, done=False)) as stands:
        seen = await asked(stands)
    assert not seen.broken, "it ended cleanly, and so it is passed on"
    assert commitment(seen.delivery).abort_reason == statements_pb2.ABORT_REASON_UPSTREAM_ERROR


async def test_a_finished_stream_without_done_is_whole(parties: Parties) -> None:
    async with standing(parties, style=Style(done=False)) as stands:
        seen = await asked(stands)
    assert not commitment(seen.delivery).abort_reason


async def test_a_client_that_hangs_up_stops_the_upstream(parties: Parties) -> None:
    style = Style(pause=0.01, response_id="chatcmpl-left")
    async with standing(parties, style=style, scripts=[Script(reasoning="on " * 500)]) as stands:
        client = stands.client()
        stream = await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        async for _ in stream:
            break
        await until(lambda: stands.upstream.sent >= 30)
        await stream.close()
        await client.close()
        async with asyncio.timeout(10):
            await stands.upstream.hung_up.wait()
            found = await _settled(stands, "chatcmpl-left")
    assert commitment(found).abort_reason == statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED
    assert commitment(found).reasoning_tokens > 10
    counted = stands.count("coin_gateway_requests_total", path="/v1/chat/completions", status="499")
    assert counted == 1


# As a client asks: again and again.
async def _settled(stands: Standing, response_id: str) -> delivery_pb2.Delivery:
    while (reply := await fetched(stands, response_id)).status_code != 200:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return parsed(reply.json())


async def test_a_client_that_stops_reading_holds_the_upstream_back_and_is_dropped(
    parties: Parties,
) -> None:
    padding = b": " + b"x" * 200_000 + b"\n\n"
    style = Style(response_id="chatcmpl-flood", garbles=lambda _, raw: raw + padding)
    flood = Script(reasoning="all the waves " * 100)
    async with standing(
        parties, style=style, scripts=[flood], client_stall_seconds=0.5, read_buffer_bytes=4096
    ) as stands:
        body = json.dumps({"model": MODEL, "messages": QUESTION, "stream": True}).encode()
        raw = socket.create_connection(("127.0.0.1", stands.server.port))
        with raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
                + KEY.encode()
                + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
                + body
            )
            async with asyncio.timeout(20):
                found = await _settled(stands, "chatcmpl-flood")
            sent = stands.upstream.sent
    assert sent < len(flood.ids), "the upstream was held back"
    assert commitment(found).abort_reason == statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED


async def test_shutdown_lets_a_stream_finish_in_its_grace(parties: Parties) -> None:
    async with standing(parties, style=Style(pause=0.005), grace_seconds=10) as stands:
        asking = asyncio.create_task(asked(stands))
        await until(lambda: stands.upstream.sent >= 10)
        await stands.stop()
        seen = await asking
    assert seen.events[-1] == "[DONE]"
    assert not commitment(seen.delivery).abort_reason


async def test_shutdown_cancels_what_lasts_longer_than_its_grace(parties: Parties) -> None:
    async with standing(parties, style=Style(stalls_after=40), grace_seconds=0) as stands:
        asking = asyncio.create_task(asked(stands))
        await until(lambda: stands.upstream.sent >= 40)
        await stands.stop()
        seen = await asking
    assert seen.broken
    assert commitment(seen.delivery).abort_reason == statements_pb2.ABORT_REASON_CANCELLED


class _BrokenSigner(KeySigner):
    """Signs nothing any more."""

    broken = False

    def sign(self, data: bytes) -> bytes:
        """Fail, with a text that nobody should see."""
        if self.broken:
            msg = "the HSM says secret things"
            raise RuntimeError(msg)
        return super().sign(data)


class _FullStore(MemoryStore):
    """Writes nothing any more."""

    deadline = 0.05

    def finish(self, *_: Any) -> Future[None]:
        """Return a future that never comes."""
        return Future()


@pytest.mark.parametrize("kind", ["signer", "store"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_reply_flows_on_where_it_cannot_be_committed_to(
    parties: Parties, kind: str, *, stream: bool
) -> None:
    async with _failing(parties, kind) as stands:
        seen = await asked(stands, stream=stream)
    delivery = seen.delivery if stream else parsed(json.loads(seen.raw)["coin"])
    (choice,) = delivery.choices
    wanted = {
        "signer": delivery_pb2.MISSING_REASON_SIGNING_FAILED,
        "store": delivery_pb2.MISSING_REASON_STORE_UNAVAILABLE,
    }
    assert choice.missing == wanted[kind]
    assert not choice.HasField("commitment")
    assert b"secret things" not in seen.raw
    if stream:
        assert seen.text == Script().answer
        assert seen.events[-1] == "[DONE]"
    else:
        assert json.loads(seen.raw)["choices"][0]["message"]["content"] == Script().answer


@pytest.mark.parametrize("stream", [True, False])
async def test_without_a_commitment_the_usage_is_the_upstreams(
    parties: Parties, *, stream: bool
) -> None:
    def report(usage: dict[str, Any]) -> None:
        usage |= {"completion_tokens": 500, "total_tokens": 503}

    async with _failing(parties, "signer", style=Style(reports=report)) as stands:
        options = {"include_usage": True} if stream else None
        seen = await asked(stands, stream=stream, stream_options=options)
    assert b'"completion_tokens":500' in seen.raw.replace(b" ", b"")


def _failing(parties: Parties, kind: str, **settings: Any) -> Any:
    if kind == "signer":
        signer = _BrokenSigner("acme", parties.signer._key)
        provider = parties.provider(signer=signer)
        signer.broken = True
    else:
        provider = parties.provider(store=_FullStore())
    return standing(parties, provider=provider, **settings)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_missing_receipt_is_an_error_where_it_is_required(
    parties: Parties, *, stream: bool
) -> None:
    async with _failing(parties, "signer", require_receipt=True) as stands:
        client = stands.client()
        with pytest.raises(openai.APIError, match="no receipt: SIGNING_FAILED"):
            await _read(client, stream=stream)
        seen = await asked(stands, stream=stream)
    assert seen.status == (200 if stream else 502)
    assert b": coin.receipt" not in seen.raw


async def _read(client: openai.AsyncOpenAI, *, stream: bool) -> None:
    reply = await client.chat.completions.create(model=MODEL, messages=QUESTION, stream=stream)
    assert isinstance(reply, openai.AsyncStream)
    async for _ in reply:
        pass


async def test_a_required_receipt_that_cannot_be_is_refused_before_the_first_byte(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provider_sdk.gateway.exchange.MAX_TEXT_BYTES", 1000)
    async with standing(parties, require_receipt=True) as stands:
        seen = await asked(stands, user="x" * 1000)
        fine = await asked(stands)
    assert seen.status == 502
    assert json.loads(seen.raw)["error"]["code"] == "receipt_missing"
    assert len(stands.upstream.requests) == 1
    assert commitment(fine.delivery)


async def test_one_failing_choice_leaves_the_other_alone(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    from provider_sdk.live import LiveSession

    append = LiveSession.append

    def fail(self: LiveSession, ids: Any) -> Any:
        if self._reply is not None and self._reply.choice == 0:
            msg = "a bug"
            raise ZeroDivisionError(msg)
        return append(self, ids)

    monkeypatch.setattr(LiveSession, "append", fail)
    async with standing(parties) as stands:
        seen = await asked(stands, n=2)
    first, second = seen.delivery.choices
    assert first.missing == delivery_pb2.MISSING_REASON_SIGNING_FAILED
    assert commitment(seen.delivery, 1).reasoning_tokens == len(Script().reasoning_ids)
    assert not second.missing


async def test_a_taken_port_is_a_configuration_error(parties: Parties) -> None:
    from provider_sdk.gateway.app import Gateway
    from provider_sdk.gateway.server import serve

    async with standing(parties) as stands:
        settings = gateway_settings(stands.upstream, port=stands.server.port)
        other = Gateway(settings, stands.provider)
        with pytest.raises(ConfigurationError, match="cannot listen"):
            await serve(other)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
