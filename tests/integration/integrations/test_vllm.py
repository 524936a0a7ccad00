"""The middleware in a recording of vLLM 0.33's server: its package needs CUDA and is not run here.

What is recorded: how it adds a class given as `--middleware`, its chunks with `token_ids`, and how
Starlette ends a stream whose client hangs up.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from hashlib import sha256

import httpx
import openai
import pytest

from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.gateway.asgi import Receive, Scope, Send
from provider_sdk.integrations.vllm import CoinMiddleware
from tests.integration.gateway.standing import KEY, QUESTION, commitment, parsed
from tests.integration.integrations.embedded import (
    Embedded,
    asked,
    embedded,
    fetched,
    port_of,
    serving_app,
)
from tests.support.hosts import Hosts
from tests.support.parties import Parties
from tests.support.recordings import RecordedServer
from tests.support.upstreams import Script, Style, Upstream


@pytest.fixture
def parties() -> Parties:
    return Parties()


def test_vllm_finds_a_class_under_the_documented_path() -> None:
    path = "provider_sdk.integrations.vllm.CoinMiddleware"
    module, _, name = path.rpartition(".")
    found: object = getattr(importlib.import_module(module), name)
    # Functions are taken for Starlette's slow kind; a class is called with the application alone.
    assert inspect.isclass(found)
    assert found is CoinMiddleware
    assert CoinMiddleware(RecordedServer())


async def test_a_stream_commits_to_the_ids_that_the_engine_sampled(parties: Parties) -> None:
    script = Script()
    async with embedded(parties) as stands:
        seen = await asked(stands.url)
        found = commitment(seen.delivery)
        assert stands.app.upstream.requests[0]["return_token_ids"] is True
    assert seen.text == script.answer
    assert "short waves" not in seen.raw.decode()
    assert found.reasoning_tokens == len(script.reasoning_ids)
    assert found.id_source == statements_pb2.ID_SOURCE_SAMPLED
    assert len(seen.checkpoints) == len(script.reasoning_ids) // parties.profile.block_size


async def test_a_plain_reply_carries_its_delivery(parties: Parties) -> None:
    async with embedded(parties) as stands:
        seen = await asked(stands.url, stream=False)
        document = json.loads(seen.raw)
        assert commitment(parsed(document["coin"])).reasoning_tokens == len(Script().reasoning_ids)
        again = await fetched(stands.url, document["id"])
        foreign = await fetched(stands.url, document["id"], key="sk-of-another")
    assert parsed(again.json()) == parsed(document["coin"])
    assert foreign.status_code == 404


async def test_the_openai_client_works_unchanged(parties: Parties) -> None:
    async with (
        embedded(parties) as stands,
        openai.AsyncOpenAI(base_url=f"{stands.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(
            model="acme-1", messages=QUESTION, stream=True
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        plain = await client.chat.completions.create(model="acme-1", messages=QUESTION, n=2)
    assert text == Script().answer
    assert [choice.message.content for choice in plain.choices] == [Script().answer] * 2


async def test_parallel_streams_each_get_their_own_receipt(parties: Parties) -> None:
    def say(request: dict[str, object]) -> list[Script]:
        return [Script(reasoning=f"because of {request['user']} it is so")]

    recorded = RecordedServer(Upstream(say))
    async with embedded(parties, recorded) as stands:
        users = [f"user {number}" for number in range(12)]
        all_seen = await asyncio.gather(*(asked(stands.url, user=user) for user in users))
    for user, seen in zip(users, all_seen, strict=True):
        wanted = len(Script(reasoning=f"because of {user} it is so").reasoning_ids)
        assert commitment(seen.delivery).reasoning_tokens == wanted


async def test_what_is_not_committed_to_reaches_the_application_untouched(parties: Parties) -> None:
    async with embedded(parties) as stands, httpx.AsyncClient() as client:
        reply = await client.post(f"{stands.url}/tokenize", content=b'{"a": 1}')
        scope = stands.app.scopes[0]
    assert reply.json() == {"echo": '{"a": 1}'}
    assert scope["asgi"]["spec_version"] != ""
    assert (b"content-length", b"8") in scope["headers"]


async def test_the_application_sees_its_own_request(parties: Parties) -> None:
    async with embedded(parties) as stands:
        await asked(stands.url, {"x-trace": "7", "coin-nonce": "00" * 16})
        (scope,) = stands.app.scopes
        port = stands.port
    headers = dict(scope["headers"])
    assert headers[b"host"] == f"127.0.0.1:{port}".encode()
    assert headers[b"x-trace"] == b"7"
    assert headers[b"authorization"] == f"Bearer {KEY}".encode()
    assert b"coin-nonce" not in headers
    assert scope["path"] == "/v1/chat/completions"
    assert scope["client"][0] == "127.0.0.1"


async def test_the_nonce_and_the_request_are_the_clients(parties: Parties) -> None:
    async with embedded(parties) as stands, httpx.AsyncClient() as client:
        raw = b'{"messages" : [], "model":"acme-1"}'
        reply = await client.post(
            f"{stands.url}/v1/chat/completions", content=raw, headers={"coin-nonce": "ab" * 16}
        )
    found = commitment(parsed(reply.json()["coin"]))
    assert found.client_nonce == bytes.fromhex("ab" * 16)
    assert found.request_sha256 == sha256(raw).digest()


async def test_an_error_of_the_application_passes_as_it_is(parties: Parties) -> None:
    recorded = RecordedServer(Upstream(style=Style(status=422)))
    async with embedded(parties, recorded) as stands:
        seen = await asked(stands.url)
    assert seen.status == 422
    assert json.loads(seen.raw) == recorded.upstream.style.error


async def test_a_client_that_hangs_up_stops_the_engine(parties: Parties) -> None:
    recorded = RecordedServer(Upstream(style=Style(stalls_after=20)))
    async with embedded(parties, recorded) as stands:
        async with (
            httpx.AsyncClient(timeout=20) as client,
            client.stream(
                "POST",
                f"{stands.url}/v1/chat/completions",
                json={"model": "acme-1", "messages": QUESTION, "stream": True},
                headers={"authorization": f"Bearer {KEY}"},
            ) as reply,
        ):
            lines = reply.aiter_lines()
            first = json.loads((await anext(lines)).removeprefix("data: "))
        async with asyncio.timeout(20):
            await recorded.cancelled.wait()
        found = await _aborted(stands, first["id"])
    assert found.abort_reason == statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED
    assert 0 < found.reasoning_tokens < len(Script().reasoning_ids)


async def _aborted(stands: Embedded, response_id: str) -> statements_pb2.Commitment:
    async with asyncio.timeout(20):
        while True:
            again = await fetched(stands.url, response_id)
            if again.status_code == 200:
                return commitment(parsed(again.json()))
            await asyncio.sleep(0.01)


async def test_an_engine_that_dies_breaks_the_stream_and_signs_the_part(parties: Parties) -> None:
    recorded = RecordedServer(Upstream(style=Style(breaks_after=30)))
    async with embedded(parties, recorded) as stands:
        seen = await asked(stands.url)
    assert seen.broken
    found = commitment(seen.delivery)
    assert found.abort_reason == statements_pb2.ABORT_REASON_UPSTREAM_ERROR
    assert found.reasoning_tokens > 0


async def test_missing_ids_leave_a_receipt_that_says_so(parties: Parties) -> None:
    recorded = RecordedServer(Upstream(style=Style(ids=False)))
    async with embedded(parties, recorded) as stands:
        seen = await asked(stands.url)
    assert commitment(seen.delivery).id_source == statements_pb2.ID_SOURCE_RETOKENIZED


async def test_a_root_path_is_taken_off(parties: Parties) -> None:
    hosts = Hosts(parties)
    inner = RecordedServer()
    wrapped = CoinMiddleware(inner, hosts)

    async def under(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": "/models"}
        await wrapped(scope, receive, send)

    async with serving_app(under) as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        seen = await asked(url, path="/models/v1/chat/completions")
        assert inner.scopes[0]["path"] == "/models/v1/chat/completions"
    assert seen.delivery.choices[0].missing == delivery_pb2.MISSING_REASON_UNSPECIFIED


async def test_a_server_whose_settings_are_wrong_does_not_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COIN_CONFIG", "/nowhere/provider.toml")
    inner = RecordedServer()
    with pytest.raises(SystemExit):
        async with serving_app(CoinMiddleware(inner)):
            pass
    assert "/nowhere/provider.toml" in caplog.text
    assert inner.lifespan == []


async def test_the_provider_lives_as_long_as_the_server(parties: Parties) -> None:
    async with embedded(parties) as stands:
        assert not stands.provider.closed
        inner, hosts = stands.app, stands.hosts
    assert hosts.provider is None
    assert inner.lifespan == ["lifespan.startup", "lifespan.shutdown"]
