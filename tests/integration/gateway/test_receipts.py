"""What the gateway answers itself: receipts, keys, health, metrics, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from coin_protocol import envelope
from coin_protocol.statements import read_key_set
from coin_protocol.v1 import provider_service_pb2
from tests.integration.gateway.standing import (
    KEY,
    asked,
    commitment,
    fetched,
    parsed,
    standing,
)
from tests.support.parties import PROVIDER, WAIT_SECONDS, Parties
from tests.support.upstreams import Script, Style


async def test_a_receipt_is_had_again_by_the_caller_that_made_the_reply(parties: Parties) -> None:
    async with standing(parties) as stands:
        for stream in (True, False):
            seen = await asked(stands, stream=stream)
            delivery = (
                seen.delivery
                if stream
                else parsed(httpx.Response(200, content=seen.raw).json()["coin"])
            )
            again = await fetched(stands, delivery.response_id)
            other = await fetched(stands, delivery.response_id, key="sk-of-another")
            unknown = await fetched(stands, "chatcmpl-unknown")
            assert again.status_code == 200
            assert parsed(again.json()) == delivery
            assert other.status_code == unknown.status_code == 404
            assert other.content == unknown.content, "nothing tells foreign from unknown"


async def test_a_receipt_of_an_open_reply_is_asked_for_again_later(parties: Parties) -> None:
    style = Style(stalls_after=30, response_id="chatcmpl-slow")
    async with standing(parties, style=style) as stands:
        asking = asyncio.create_task(asked(stands))
        async with asyncio.timeout(10):
            # As a client asks: again and again.
            while (reply := await fetched(stands, "chatcmpl-slow")).status_code == 404:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert reply.status_code == 202
    assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize("given", ["", "chatcmpl-always-the-same"])
async def test_replies_without_an_id_of_their_own_are_given_one(
    parties: Parties, given: str
) -> None:
    async with standing(parties, style=Style(response_id=given)) as stands:
        deliveries = [(await asked(stands)).delivery for _ in range(3)]
        again = [parsed((await fetched(stands, each.response_id)).json()) for each in deliveries]
    assert len({each.response_id for each in deliveries}) == 3
    assert again == deliveries


async def test_what_is_missing_is_said_again(parties: Parties) -> None:
    style = Style(garbles=lambda number, raw: b"data: {broken\n\n" if number == 5 else raw)
    async with standing(parties, style=style) as stands:
        seen = await asked(stands)
        again = await fetched(stands, seen.delivery.response_id)
    assert parsed(again.json()) == seen.delivery
    assert seen.delivery.choices[0].missing


async def test_the_key_set_is_served_as_a_file_and_as_json(parties: Parties) -> None:
    async with standing(parties) as stands, httpx.AsyncClient(base_url=stands.url) as client:
        raw = await client.get("/coin/v1/keys")
        as_json = await client.get("/coin/v1/keys", headers={"accept": "application/json"})
    found = provider_service_pb2.GetKeySetResponse.FromString(raw.content)
    payload = envelope.verify_with_key(found.key_set, envelope.KEY_SET, parties.root.public)
    assert read_key_set(payload).owner == PROVIDER
    assert base64.b64decode(as_json.json()["key_set"]["payload"]) == payload


async def test_health_readiness_and_metrics(parties: Parties) -> None:
    async with (
        standing(parties, metrics_path="/metrics") as stands,
        httpx.AsyncClient(base_url=stands.url) as client,
    ):
        await asked(stands)
        health = await client.get("/healthz")
        ready = await client.get("/readyz")
        metrics = await client.get("/metrics")
        posted = await client.post("/readyz")
        stands.provider.closed = True
        closed = await client.get("/readyz")
        stands.provider.closed = False
    assert health.status_code == ready.status_code == 200
    assert posted.status_code == 405
    assert closed.status_code == 503
    assert (
        'coin_gateway_requests_total{path="/v1/chat/completions",status="200"} 1.0' in metrics.text
    )
    assert KEY not in metrics.text


async def test_metrics_are_the_upstreams_unless_they_are_configured(parties: Parties) -> None:
    async with (
        standing(parties, pass_prefixes=("/metrics",)) as stands,
        httpx.AsyncClient(base_url=stands.url) as client,
    ):
        found = await client.get("/metrics")
    assert found.content == b"GET /metrics "


async def test_other_paths_pass_both_ways_untouched(parties: Parties) -> None:
    async with (
        standing(parties, pass_prefixes=("/",)) as stands,
        httpx.AsyncClient(base_url=stands.url) as client,
    ):
        body = bytes(range(256)) * 4096
        found = await client.put("/a%20b/c?d=e%2Ff&d=g", content=body)
        none = await client.delete("/v1/files/1")
    assert found.status_code == 207
    assert found.headers["x-other"] == "yes"
    assert found.content == b"PUT /a%20b/c?d=e%2Ff&d=g " + body
    assert none.content == b"DELETE /v1/files/1 "


async def test_paths_that_could_show_reasoning_are_closed_unless_they_are_opened(
    parties: Parties,
) -> None:
    async with standing(parties) as stands, httpx.AsyncClient(base_url=stands.url) as client:
        assert (await client.get("/v1/models")).status_code == 207
        for method, path in (
            ("POST", "/generate"),
            ("POST", "/v1/messages"),
            ("GET", "/v1/responses"),
            ("GET", "/v1/responses/resp-1"),
            ("GET", "/v1/chat/completions"),
            ("GET", "/v1/models/%2e%2e/responses/resp-1"),
        ):
            found = await client.request(method, path)
            assert found.status_code == 404, path
            assert "pass_prefixes" in found.text


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"headers": {"coin-nonce": "zz"}}, 400, "invalid_nonce"),
        ({"headers": {"coin-nonce": "00" * 15}}, 400, "invalid_nonce"),
        ({"headers": {"content-encoding": "gzip"}}, 415, "unsupported_encoding"),
        ({"content": b"[1]"}, 400, "invalid_json"),
        ({"content": b'{"model": NaN}'}, 400, "invalid_json"),
        ({"content": b"x" * 2000}, 413, "request_too_large"),
    ],
)
async def test_what_cannot_be_committed_to_is_refused_in_openais_form(
    parties: Parties, change: dict[str, Any], status: int, code: str
) -> None:
    async with (
        standing(parties, max_request_bytes=1024) as stands,
        httpx.AsyncClient(base_url=stands.url) as client,
    ):
        found = await client.post("/v1/chat/completions", **({"content": b"{}"} | change))
    assert found.status_code == status
    assert found.json()["error"]["code"] == code
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert not stands.upstream.requests


async def test_headers_pass_and_ours_do_not(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with standing(parties) as stands:
        seen = await asked(
            stands,
            headers={
                "x-request-id": "from-client",
                "x-own": "1",
                "coin-nonce": "ab" * 16,
                "connection": "x-hop",
                "x-hop": "1",
                "accept-encoding": "gzip, br",
            },
        )
    (sent,) = stands.upstream.headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["x-request-id"] == "from-client"
    assert sent["x-own"] == "1"
    assert sent["accept-encoding"] == "identity"
    assert not {"coin-nonce", "x-hop"} & set(sent)
    assert sent["host"] in stands.upstream.url
    assert seen.headers["x-request-id"] == "from-upstream"
    assert KEY not in caplog.text
    assert not any("coin" in name for name in seen.headers)


async def test_a_compressed_reply_is_read_and_passed_on_plain(parties: Parties) -> None:
    async with standing(parties, style=Style(gzips=True)) as stands:
        seen = await asked(stands, stream=False)
    assert "content-encoding" not in seen.headers
    delivery = parsed(httpx.Response(200, content=seen.raw).json()["coin"])
    assert commitment(delivery).reasoning_tokens == len(Script().reasoning_ids)


@contextmanager
def collected() -> Iterator[InMemorySpanExporter]:
    """Collect the spans of this process."""
    exporter, tracing = InMemorySpanExporter(), TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = tracing
    try:
        yield exporter
    finally:
        trace._TRACER_PROVIDER = before


async def test_a_trace_goes_on_to_the_upstream_and_names_the_commitment(parties: Parties) -> None:
    with collected() as exporter:
        async with standing(parties) as stands:
            traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
            seen = await asked(stands, headers={"traceparent": traceparent})
    (span,) = exporter.get_finished_spans()
    (sent,) = stands.upstream.headers
    assert sent["traceparent"].split("-")[1] == "ab" * 16
    assert sent["traceparent"] != traceparent
    said = dict(span.attributes or {})
    assert said["gen_ai.response.id"] == seen.delivery.response_id
    assert said["gen_ai.provider.name"] == PROVIDER
    assert said["gen_ai.usage.reasoning.output_tokens"] == len(Script().reasoning_ids)
    first = said["gen_ai.response.time_to_first_chunk"]
    assert isinstance(first, float)
    assert 0 < first < WAIT_SECONDS
    assert "error.type" not in said
    assert "waves" not in str(said)


@pytest.mark.parametrize(
    ("style", "kind"),
    [(Style(status=429), "429"), (Style(breaks_after=3), "upstream_broke_off")],
)
async def test_a_trace_says_how_the_upstream_failed(
    parties: Parties, style: Style, kind: str
) -> None:
    with collected() as exporter:
        async with standing(parties, style=style) as stands:
            with suppress(httpx.HTTPError, AssertionError):
                await asked(stands)
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == kind
    assert not span.status.is_ok
