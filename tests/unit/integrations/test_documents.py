"""Replies that come as documents: in the forms that LiteLLM 1.106.2 hands them over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from coin_protocol.errors import InvalidInputError
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.integrations.documents import (
    REQUEST_NOTE,
    Committer,
    DocumentReply,
    Json,
    ReceiptMissingError,
)
from tests.integration.gateway.standing import commitment, parsed
from tests.support.hosts import Hosts
from tests.support.parties import Parties
from tests.support.upstreams import Script

BODY: Json = {"model": "acme-1", "messages": [{"role": "user", "content": "why é?"}]}
DISCONNECTED = statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED
UPSTREAM = statements_pb2.ABORT_REASON_UPSTREAM_ERROR


@pytest.fixture
def committer() -> Iterator[Committer]:
    with Hosts(Parties())() as host:
        yield Committer(host)


def begun(committer: Committer, **headers: str) -> DocumentReply:
    return committer.reply(committer.request(headers, BODY))


def chunk(content: str = "", finish: str | None = None, **delta: Any) -> Json:
    """A `ModelResponseStream` of LiteLLM, dumped without its nulls."""
    choice: Json = {"index": 0, "delta": {**({"content": content} if content else {}), **delta}}
    if finish:
        choice["finish_reason"] = finish
    return {
        "id": "chatcmpl-1",
        "created": 1_700_000_000,
        "model": "acme-1",
        "object": "chat.completion.chunk",
        "choices": [choice],
    }


def plain(script: Script, *, ids: bool) -> Json:
    """A `ModelResponse` of LiteLLM, whose ids the hook has put back into their choice."""
    message = {
        "role": "assistant",
        "content": script.answer,
        "reasoning_content": script.reasoning,
        "provider_specific_fields": {"reasoning_content": script.reasoning},
    }
    choice: Json = {"index": 0, "finish_reason": "stop", "message": message}
    if ids:
        choice["token_ids"] = script.ids
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "acme-1", "choices": [choice]}


def receipt(events: list[bytes]) -> delivery_pb2.Delivery:
    (found,) = [event for event in events if event.startswith(b": coin.receipt ")]
    return parsed(json.loads(found.removeprefix(b": coin.receipt ")))


@pytest.mark.parametrize("parsed_apart", [False, True])
async def test_a_stream_shows_the_answer_alone(committer: Committer, *, parsed_apart: bool) -> None:
    reply, script = begun(committer), Script()
    said = [f"<think>{script.reasoning}", "</think>the sky", " is blue"]
    events = [chunk(each) for each in said]
    if parsed_apart:
        events = [chunk(reasoning_content=script.reasoning), chunk("the sky"), chunk(" is blue")]
    shown = [reply.event(each) for each in [*events, chunk(finish="stop")]]
    last = await reply.end(UPSTREAM)
    text = "".join(
        choice["delta"].get("content") or ""
        for each in shown
        if each.document is not None
        for choice in each.document["choices"]
    )
    assert text == script.answer
    assert "short waves" not in json.dumps([each.document for each in shown])
    found = commitment(receipt(last))
    assert found.reasoning_tokens == len(script.reasoning_ids)
    assert found.id_source == statements_pb2.ID_SOURCE_RETOKENIZED


@pytest.mark.parametrize("ids", [False, True])
async def test_a_plain_reply_says_where_its_ids_are_from(
    committer: Committer, *, ids: bool
) -> None:
    shown, coin = await begun(committer).plain(plain(Script(), ids=ids))
    found = commitment(parsed(coin))
    sampled, remade = statements_pb2.ID_SOURCE_SAMPLED, statements_pb2.ID_SOURCE_RETOKENIZED
    assert found.id_source == (sampled if ids else remade)
    assert found.reasoning_tokens == len(Script().reasoning_ids)
    assert "short waves" not in json.dumps(shown.document)


async def test_a_client_that_hangs_up_leaves_a_signed_part(committer: Committer) -> None:
    reply = begun(committer)
    reply.event(chunk("<think>the air sends the short waves around "))
    found = commitment(receipt(await reply.end(DISCONNECTED)))
    assert found.abort_reason == DISCONNECTED


async def test_a_required_receipt_that_is_missing_is_an_error() -> None:
    nested = f"<think><think>{Script().reasoning}</think>the sky"
    with Hosts(Parties(), require_receipt=True)() as host:
        committer = Committer(host)
        with pytest.raises(ReceiptMissingError):
            await begun(committer).plain(plain(Script(reasoning=None, answer=nested), ids=False))
        reply = begun(committer)
        reply.event(chunk(nested))
        reply.event(chunk(finish="stop"))
        *_, last = await reply.end(UPSTREAM)
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "receipt_missing"


@pytest.mark.parametrize(
    "sent",
    [
        json.dumps(BODY, ensure_ascii=False, separators=(",", ":")).encode(),
        json.dumps(BODY).encode(),
        json.dumps(BODY, separators=(",", ":")).encode(),
        json.dumps(BODY, ensure_ascii=False).encode(),
    ],
)
async def test_the_bytes_of_common_clients_are_found_again(
    committer: Committer, sent: bytes
) -> None:
    request = committer.request({"Content-Length": str(len(sent))}, BODY)
    assert (request.raw, request.known) == (sent, True)
    reply = committer.reply(request)
    reply.event(chunk("the sky", finish="stop"))
    delivery = receipt(await reply.end(UPSTREAM))
    assert commitment(delivery).request_sha256 == sha256(sent).digest()
    assert REQUEST_NOTE not in delivery.choices[0].notes


async def test_other_bytes_are_noted_as_lost(committer: Committer) -> None:
    request = committer.request({"content-length": "9999"}, BODY)
    assert not request.known
    reply = committer.reply(request)
    reply.event(chunk("the sky", finish="stop"))
    assert REQUEST_NOTE in receipt(await reply.end(UPSTREAM)).choices[0].notes


def test_a_malformed_nonce_is_refused(committer: Committer) -> None:
    with pytest.raises(InvalidInputError):
        committer.request({"coin-nonce": "short"}, BODY)


async def test_ids_that_a_client_asked_for_itself_are_left_to_it(committer: Committer) -> None:
    body = {**BODY, "return_token_ids": True}
    assert committer.reply(committer.request({}, body)).client_token_ids
    assert not begun(committer).client_token_ids
