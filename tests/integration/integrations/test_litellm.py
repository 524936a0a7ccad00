"""The hook in a real LiteLLM proxy, asked by OpenAI's client, before an upstream on a socket."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from coin_protocol.errors import ConfigurationError
from coin_protocol.v1 import statements_pb2
from provider_sdk.integrations.documents import REQUEST_NOTE
from tests.integration.gateway.standing import QUESTION, Seen, commitment, parsed
from tests.support.hosts import Hosts
from tests.support.parties import Parties
from tests.support.upstreams import Script, Style, Upstream, running

pytestmark = pytest.mark.skipif(
    find_spec("litellm") is None or find_spec("fastapi") is None,
    reason="litellm[proxy] is not installed: pip install 'coin-audit[litellm]'",
)

KEY = "sk-of-the-client-0123456789abcdef"
CONFIG = """
model_list:
  - model_name: acme-1
    litellm_params: {{model: hosted_vllm/acme-1, api_base: {url}/v1, api_key: sk-upstream}}
litellm_settings:
  callbacks: tests.support.litellm_callback.handler
  telemetry: false
general_settings:
  master_key: {key}
"""
ROOT = Path(__file__).parents[3]


def say(request: dict[str, Any]) -> list[Script]:
    """Say more where the question asks for it."""
    if "at length" in str(request.get("messages")):
        return [Script(reasoning="the air sends the short waves around " * 50)]
    return [Script()] * (request.get("n") or 1)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    made = Upstream(say, Style(chunk=8))
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with running(made):
            ready.set()
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    yield made
    loop.call_soon_threadsafe(stop.set)
    thread.join()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def receipts() -> str:
    """Return where a gateway over the proxy's store will be."""
    return f"http://127.0.0.1:{_free_port()}"


@pytest.fixture(scope="module")
def proxy(
    upstream: Upstream, receipts: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Give the URL of a proxy that runs in a process of its own."""
    folder = tmp_path_factory.mktemp("litellm")
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(url=upstream.url, key=KEY))
    port = _free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COIN_TEST_TOKEN_IDS": "ask",
        "COIN_TEST_PORT": receipts.rpartition(":")[2],
        # No price list over the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(process, url, folder / "log")
        yield url
    finally:
        process.terminate()
        # It ends by itself: the hook's threads are told that the process is over.
        assert process.wait(timeout=60) is not None


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/liveliness").status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"the proxy did not start:\n{log.read_text(errors='replace')[-4000:]}")


def asked(url: str, headers: dict[str, str] | None = None, **body: Any) -> Seen:
    """Ask over a plain HTTP client, and note every byte."""
    default: dict[str, Any] = {"model": "acme-1", "messages": QUESTION, "stream": True}
    sent = {"authorization": f"Bearer {KEY}", **(headers or {})}
    with httpx.Client(timeout=30) as client:
        reply = client.post(f"{url}/v1/chat/completions", json=default | body, headers=sent)
    return Seen(reply.status_code, dict(reply.headers), reply.content)


def test_a_plain_reply_commits_to_the_ids_that_were_sampled(proxy: str) -> None:
    seen = asked(proxy, stream=False)
    document = httpx.Response(200, content=seen.raw).json()
    found = commitment(parsed(document["coin"]))
    assert found.id_source == statements_pb2.ID_SOURCE_SAMPLED
    assert found.reasoning_tokens == len(Script().reasoning_ids)
    assert document["choices"][0]["message"]["content"] == Script().answer
    assert "short waves" not in seen.raw.decode()
    assert "token_ids" not in seen.raw.decode()


def test_a_stream_is_tokenized_again_and_says_so(proxy: str, upstream: Upstream) -> None:
    seen = asked(proxy)
    found = commitment(seen.delivery)
    assert found.id_source == statements_pb2.ID_SOURCE_RETOKENIZED
    assert found.reasoning_tokens == len(Script().reasoning_ids)
    assert found.answer_sha256 == sha256(Script().answer.encode()).digest()
    assert seen.text == Script().answer
    assert "short waves" not in seen.raw.decode()
    assert seen.checkpoints
    assert seen.events[-1] == "[DONE]"
    # Streams lose their ids in LiteLLM, so that they are not asked for.
    assert "return_token_ids" not in upstream.requests[-1]


def test_every_choice_has_its_own_commitment(proxy: str) -> None:
    plain = httpx.Response(200, content=asked(proxy, stream=False, n=2).raw).json()
    streamed = asked(proxy, n=2).delivery
    for delivery in (parsed(plain["coin"]), streamed):
        assert [choice.choice for choice in delivery.choices] == [0, 1]
        assert {commitment(delivery, 0).session_id} != {commitment(delivery, 1).session_id}


def test_the_nonce_and_the_request_are_the_clients(proxy: str) -> None:
    sent = (
        b'{"model":"acme-1","messages":[{"role":"user","content":"why \xc3\xa9?"}],"stream":true}'
    )
    with httpx.Client(timeout=30) as client:
        reply = client.post(
            f"{proxy}/v1/chat/completions",
            content=sent,
            headers={"authorization": f"Bearer {KEY}", "coin-nonce": "ab" * 16}
            | {"content-type": "application/json"},
        )
    delivery = Seen(200, {}, reply.content).delivery
    found = commitment(delivery)
    assert found.client_nonce == bytes.fromhex("ab" * 16)
    assert found.request_sha256 == sha256(sent).digest()
    assert REQUEST_NOTE not in delivery.choices[0].notes


def test_a_request_whose_bytes_are_lost_is_noted(proxy: str) -> None:
    sent = b'{ "model" :"acme-1", "messages":[{"role":"user","content":"why?"}], "stream":true}'
    with httpx.Client(timeout=30) as client:
        reply = client.post(
            f"{proxy}/v1/chat/completions",
            content=sent,
            headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        )
    assert REQUEST_NOTE in Seen(200, {}, reply.content).delivery.choices[0].notes


def test_a_malformed_nonce_is_refused(proxy: str) -> None:
    assert asked(proxy, {"coin-nonce": "short"}).status == 400


def test_the_delivery_comes_in_a_chunk_where_that_is_asked_for(proxy: str) -> None:
    seen = asked(proxy, {"coin-delivery": "chunk"})
    coins = [each["coin"] for each in seen.events if each != "[DONE]" and "coin" in each]
    assert b": coin." not in seen.raw
    assert commitment(parsed(coins[-1])).reasoning_tokens == len(Script().reasoning_ids)


def test_the_openai_client_works_unchanged(proxy: str) -> None:
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key=KEY, max_retries=0) as client:
        plain = client.chat.completions.create(model="acme-1", messages=QUESTION)
        stream = client.chat.completions.create(
            model="acme-1", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert plain.choices[0].message.content == Script().answer
    assert plain.model_extra is not None
    assert commitment(parsed(plain.model_extra["coin"])).reasoning_tokens > 0
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == Script().answer
    assert any(chunk.usage is not None for chunk in chunks)


def test_checkpoints_come_while_the_model_reasons(proxy: str) -> None:
    long = [{"role": "user", "content": "why is the sky blue, at length?"}]
    seen = asked(proxy, messages=long)
    lines = seen.raw.split(b"\n\n")
    first = next(place for place, line in enumerate(lines) if line.startswith(b": coin.checkpoint"))
    answer = next(place for place, line in enumerate(lines) if b'"content":"the' in line)
    assert first < answer


@pytest.mark.parametrize("stream", [False, True])
def test_a_receipt_is_handed_over_later_to_the_credentials_that_asked_and_no_others(
    proxy: str, receipts: str, *, stream: bool
) -> None:
    seen = asked(proxy, stream=stream)
    delivery = (
        seen.delivery if stream else parsed(httpx.Response(200, content=seen.raw).json()["coin"])
    )
    url = f"{receipts}/coin/v1/receipts/{delivery.response_id}"
    theirs = httpx.get(url, headers={"authorization": f"Bearer {KEY}"})
    assert commitment(parsed(theirs.json())) == commitment(delivery)
    for headers in ({}, {"authorization": "Bearer sk-of-another"}):
        assert httpx.get(url, headers=headers).status_code == 404


def test_credentials_that_only_litellm_knows_make_a_receipt_nobodys(
    proxy: str, receipts: str
) -> None:
    with httpx.Client(timeout=30) as client:
        reply = client.post(
            f"{proxy}/v1/chat/completions",
            json={"model": "acme-1", "messages": QUESTION},
            headers={"x-litellm-api-key": f"Bearer {KEY}"},
        )
    delivery = parsed(reply.json()["coin"])
    assert commitment(delivery).reasoning_tokens > 0
    assert httpx.get(f"{receipts}/coin/v1/receipts/{delivery.response_id}").status_code == 404


def test_other_endpoints_pass_without_a_receipt(proxy: str) -> None:
    with httpx.Client(timeout=30) as client:
        reply = client.post(
            f"{proxy}/v1/completions",
            json={"model": "acme-1", "prompt": "why?"},
            headers={"authorization": f"Bearer {KEY}"},
        )
    assert reply.status_code == 200
    assert "coin" not in reply.json()


def _chat(reasoning: str | None, answer: str) -> dict[str, Any]:
    """Return what LiteLLM tells of a request, and a plain reply's choice."""
    body = {"model": "acme-1", "messages": QUESTION, "metadata": {"headers": object()}}
    sent = {"url": "http://here/v1/chat/completions", "headers": {}, "body": body}
    message = {"role": "assistant", "content": answer, "reasoning_content": reasoning}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"request": {"proxy_server_request": sent, "litellm_logging_obj": None}, "say": choice}


async def test_a_proxy_that_is_not_to_sign_changes_nothing() -> None:
    from litellm.types.utils import ModelResponse

    from provider_sdk.integrations.litellm import CoinHandler

    chat = _chat("the air", "the answer")
    response = ModelResponse(id="chatcmpl-1", model="acme-1", choices=[chat["say"]])
    before = response.model_dump_json()
    with Hosts(Parties(), sign=False)() as host:
        handler = CoinHandler(host)
        request = {**chat["request"], "stream": False}
        assert await handler.async_pre_call_hook(None, None, request, "acompletion") == request
        shown = await handler.async_post_call_success_hook(request, None, response)
    assert shown.model_dump_json() == before


async def test_a_request_without_an_object_of_its_own_is_committed_to() -> None:
    from litellm.types.utils import ModelResponse

    from provider_sdk.integrations.litellm import CoinHandler

    chat = _chat(None, "the answer")
    response = ModelResponse(id="chatcmpl-1", model="acme-1", choices=[chat["say"]])
    with Hosts(Parties())() as host:
        handler = CoinHandler(host)
        await handler.async_pre_call_hook(None, None, chat["request"], "acompletion")
        shown = await handler.async_post_call_success_hook(chat["request"], None, response)
    assert commitment(parsed(shown.coin)).reasoning_tokens == 0


async def test_nothing_of_the_reasoning_is_left_wherever_litellm_puts_it() -> None:
    from litellm.types.utils import ModelResponse

    from provider_sdk.integrations.litellm import CoinHandler

    script = Script(answer="the answer")
    thought = script.reasoning or ""
    token = {"token": thought, "logprob": -0.1, "bytes": None, "top_logprobs": []}
    message = {
        "role": "assistant",
        "content": script.answer,
        "reasoning_content": thought,
        "reasoning": thought,
        "thinking_blocks": [{"type": "thinking", "thinking": thought}],
        "provider_specific_fields": {"reasoning_content": thought, "refusal": None},
    }
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": message,
        "logprobs": {"content": [token]},
        "provider_specific_fields": {"token_ids": script.ids},
    }
    response = ModelResponse(id="chatcmpl-1", model="acme-1", choices=[choice])
    sent = {
        "url": "http://here/v1/chat/completions",
        "headers": {},
        "body": {"model": "acme-1", "messages": QUESTION, "metadata": {"headers": object()}},
    }
    with Hosts(Parties())() as host:
        shown = await CoinHandler(host).async_post_call_success_hook(
            {"proxy_server_request": sent}, None, response
        )
    raw = shown.model_dump_json()
    assert "short waves" not in raw
    assert "token_ids" not in raw
    assert shown.choices[0].message.content == script.answer
    assert commitment(parsed(shown.coin)).reasoning_tokens == len(script.reasoning_ids)


def test_the_provider_is_opened_when_the_handler_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from provider_sdk.integrations import litellm as hook

    monkeypatch.setenv("COIN_CONFIG", "/nowhere/provider.toml")
    with pytest.raises(ConfigurationError, match="/nowhere"):
        _ = hook.proxy_handler_instance
    with pytest.raises(AttributeError):
        _ = hook.another
