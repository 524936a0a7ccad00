"""The middleware in a real FastAPI application, added as vLLM and SGLang add theirs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from coin_protocol.v1 import statements_pb2
from provider_sdk.integrations.vllm import CoinMiddleware
from tests.integration.gateway.standing import KEY, QUESTION, commitment, parsed
from tests.integration.integrations.embedded import asked, fetched, port_of, serving_app
from tests.support.hosts import Hosts
from tests.support.parties import Parties
from tests.support.upstreams import Script, Style, Upstream

fastapi: Any = pytest.importorskip("fastapi", reason="FastAPI comes with litellm[proxy]")


class Engine:
    """A FastAPI server of the sort that serving stacks are."""

    def __init__(self, style: Style | None = None) -> None:
        from fastapi.responses import StreamingResponse
        from starlette.middleware.cors import CORSMiddleware

        self.upstream = Upstream(style=style)
        self.stopped = asyncio.Event()
        self.states: list[Any] = []
        self.app = fastapi.FastAPI(lifespan=self._lifespan)
        self.app.add_middleware(CORSMiddleware, allow_origins=["*"])

        async def chat(request: fastapi.Request) -> Any:
            body = await request.json()
            self.states.append(request.state.engine)
            return StreamingResponse(self._events(body), media_type="text/event-stream")

        # FastAPI reads the annotations, and finds no names of a function in them.
        chat.__annotations__ = {"request": fastapi.Request}
        self.app.post("/v1/chat/completions")(chat)

        async def broken() -> None:
            msg = "the engine is dead"
            raise RuntimeError(msg)

        self.app.post("/v1/completions")(broken)

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        upstream = self.upstream
        head = upstream._head("chatcmpl", "chat.completion.chunk", body)
        ids = bool(body.get("return_token_ids"))
        try:
            for number, event in enumerate(
                upstream._chat_events(head, upstream.scripts(body), ids=ids)
            ):
                if number == upstream.style.stalls_after:
                    await asyncio.Event().wait()
                yield f"data: {json.dumps(event)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.stopped.set()

    @asynccontextmanager
    async def _lifespan(self, app: object) -> AsyncIterator[dict[str, str]]:
        del app
        yield {"engine": "alive"}


def served(engine: Engine, hosts: Callable[..., Any]) -> Any:
    # As `vllm serve --middleware` does, but for the settings' source.
    engine.app.add_middleware(partial(CoinMiddleware, host=hosts))
    return serving_app(engine.app)


async def test_a_stream_has_its_receipt_and_the_application_its_state() -> None:
    engine = Engine()
    async with served(engine, Hosts(Parties())) as server:
        seen = await asked(f"http://127.0.0.1:{port_of(server)}", {"origin": "http://a"})
    found = commitment(seen.delivery)
    assert found.reasoning_tokens == len(Script().reasoning_ids)
    assert found.id_source == statements_pb2.ID_SOURCE_SAMPLED
    assert engine.states == ["alive"]
    assert seen.headers["access-control-allow-origin"] == "*"


async def test_a_client_that_hangs_up_stops_the_engine() -> None:
    engine = Engine(Style(stalls_after=20))
    async with served(engine, Hosts(Parties())) as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        async with (
            httpx.AsyncClient(timeout=20) as client,
            client.stream(
                "POST",
                f"{url}/v1/chat/completions",
                json={"model": "acme-1", "messages": QUESTION, "stream": True},
                headers={"authorization": f"Bearer {KEY}"},
            ) as reply,
        ):
            first = json.loads((await anext(reply.aiter_lines())).removeprefix("data: "))
        async with asyncio.timeout(20):
            await engine.stopped.wait()
            while True:
                again = await fetched(url, first["id"])
                if again.status_code == 200:
                    break
                await asyncio.sleep(0.01)
    found = commitment(parsed(again.json()))
    assert found.abort_reason == statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED


async def test_an_application_that_fails_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine()
    async with served(engine, Hosts(Parties())) as server:
        url = f"http://127.0.0.1:{port_of(server)}"
        seen = await asked(url, path="/v1/completions", prompt="why?")
    assert seen.status == 502
    assert json.loads(seen.raw)["error"]["code"] == "upstream_half_stream"
    assert "the engine is dead" in caplog.text
