"""Upstreams that talk nonsense, and requests that are very long: each has its outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from coin_protocol.encoding import digest
from coin_protocol.v1 import delivery_pb2
from tests.integration.gateway.standing import QUESTION, asked, commitment, parsed, standing
from tests.support.parties import Parties
from tests.support.upstreams import CLOSE, OPEN, Script, Style

MALFORMED = delivery_pb2.MISSING_REASON_MALFORMED_UPSTREAM
REASONING = delivery_pb2.MISSING_REASON_MALFORMED_REASONING
NO_IDS = delivery_pb2.MISSING_REASON_NO_TOKEN_IDS


def _at(number: int, change: Callable[[bytes], bytes]) -> Callable[[int, bytes], bytes]:
    return lambda index, raw: change(raw) if index == number else raw


def _with_ids(ids: Any) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        event = json.loads(raw.removeprefix(b"data: "))
        event["choices"][0]["token_ids"] = ids
        return b"data: " + json.dumps(event).encode() + b"\n\n"

    return change


CASES: dict[str, tuple[Style, Script, int]] = {
    "an event that is no JSON": (
        Style(garbles=_at(30, lambda _: b'data: {"choices": [\n\n')),
        Script(),
        MALFORMED,
    ),
    "an event that is no object": (
        Style(garbles=_at(30, lambda _: b"data: [1]\n\n")),
        Script(),
        MALFORMED,
    ),
    "choices that are no list": (
        Style(garbles=_at(30, lambda _: b'data: {"object": "x", "choices": 3}\n\n')),
        Script(),
        MALFORMED,
    ),
    "bytes that are no UTF-8": (
        Style(garbles=_at(30, lambda _: b"data: {\xff\xfe}\n\n")),
        Script(),
        MALFORMED,
    ),
    "ids that are no numbers": (Style(garbles=_at(30, _with_ids(["a"]))), Script(), MALFORMED),
    "ids outside the vocabulary": (Style(garbles=_at(30, _with_ids([999]))), Script(), MALFORMED),
    "ids of another text": (
        Style(parser="reasoning", garbles=_at(30, _with_ids([ord("Z")]))),
        Script(),
        NO_IDS,
    ),
    "a marker that never closes": (
        Style(),
        Script(reasoning=None, answer=f"{OPEN}so it goes on"),
        REASONING,
    ),
    "a marker that comes twice": (
        Style(),
        Script(reasoning=f"so {OPEN}it goes"),
        REASONING,
    ),
    "reasoning that opens again": (
        Style(),
        Script(answer=f"blue {OPEN}or so{CLOSE} it is"),
        REASONING,
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_cannot_be_committed_to_says_why_and_flows_on(
    parties: Parties, name: str
) -> None:
    style, script, reason = CASES[name]
    async with standing(parties, style=style, scripts=[script]) as stands:
        seen = await asked(stands)
        after = await asked(stands, stream=False)
    assert seen.status == 200
    assert not seen.broken
    assert seen.events_raw[-1] == b"[DONE]"
    (choice,) = seen.delivery.choices
    assert choice.missing == reason, choice.notes
    assert not choice.HasField("commitment")
    assert choice.notes
    assert after.status == 200, "the next request is none the worse"


async def test_reasoning_cut_off_by_the_length_limit_is_committed_to(parties: Parties) -> None:
    script = Script(reasoning=None, answer=f"{OPEN}so it goes on", finish="length")
    async with standing(parties, scripts=[script]) as stands:
        seen = await asked(stands)
    found = commitment(seen.delivery)
    assert found.reasoning_tokens > 0
    assert found.reasoning_tokens + found.answer_tokens == len(script.ids)
    assert "so it" not in seen.text


async def test_an_event_without_end_is_half_a_stream(parties: Parties) -> None:
    style = Style(garbles=_at(40, lambda _: b'data: {"half'), breaks_after=41)
    async with standing(parties, style=style) as stands:
        seen = await asked(stands)
    assert seen.broken


@pytest.mark.parametrize("reasoning", ["hide", "pass"])
async def test_half_an_event_at_the_end_shows_no_hidden_reasoning(
    parties: Parties, reasoning: str
) -> None:
    half = b'data: {"choices": [{"index": 0, "delta": {"reasoning": "secret'
    style = Style(garbles=lambda at, raw: raw if at < 40 else half * (at == 40), done=False)
    async with standing(parties, style=style, reasoning=reasoning) as stands:
        seen = await asked(stands)
    assert seen.broken
    assert (b"secret" in seen.raw) is (reasoning == "pass")


@pytest.mark.parametrize("end", [b"data: [DONE]\n", b"data: [DONE]", b"\n", b": bye\n", b""])
async def test_a_last_event_without_its_blank_line_ends_a_stream(
    parties: Parties, end: bytes
) -> None:
    style = Style(garbles=lambda _, raw: end if b"[DONE]" in raw else raw)
    async with standing(parties, style=style) as stands:
        seen = await asked(stands)
        client = stands.client()
        stream = await client.chat.completions.create(
            model="acme-1", messages=QUESTION, stream=True
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert not seen.broken
    assert seen.raw.endswith(end)
    assert not commitment(seen.delivery).abort_reason
    assert text == Script().answer


async def test_a_last_chunk_without_its_blank_line_is_read(parties: Parties) -> None:
    def end(_: int, raw: bytes) -> bytes:
        return raw[:-1] if b'"usage"' in raw else raw

    for headers in ({}, {"coin-delivery": "chunk"}):
        async with standing(parties, style=Style(garbles=end, done=False)) as stands:
            options = {"include_usage": True}
            seen = await asked(stands, headers=headers, stream_options=options)
        assert not seen.broken
        assert [each for each in seen.events if each.get("usage")]


async def test_an_event_past_the_limit_is_malformed_and_costs_no_memory(parties: Parties) -> None:
    huge = b"data: " + b"x" * 3_000_000 + b"\n\n"
    style = Style(garbles=_at(40, lambda _: huge))
    async with standing(parties, style=style, max_event_bytes=65_536) as stands:
        seen = await asked(stands)
    assert seen.delivery.choices[0].missing == MALFORMED
    assert seen.events_raw[-1] == b"[DONE]"


async def test_a_plain_reply_that_is_no_json_is_passed_on(parties: Parties) -> None:
    async with standing(parties, style=Style(garbles=lambda _, __: b"<html>")) as stands:
        seen = await asked(stands, stream=False)
    assert seen.status == 200
    assert seen.raw == b"<html>"


async def test_a_plain_reply_past_the_limit_is_a_bad_gateway(parties: Parties) -> None:
    style = Style(garbles=lambda _, raw: raw + b" " * 100_000)
    async with standing(parties, style=style, max_reply_bytes=65_536) as stands:
        seen = await asked(stands, stream=False)
    assert seen.status == 502
    assert json.loads(seen.raw)["error"]["code"] == "upstream_too_large"


async def test_ten_megabytes_of_prompt_are_committed_to_exactly(parties: Parties) -> None:
    prompt = "why is the sky blue? " * 500_000
    async with standing(parties) as stands:
        seen = await asked(stands, messages=[{"role": "user", "content": prompt}])
    assert stands.upstream.requests[0]["messages"][0]["content"] == prompt
    body = {
        "model": "acme-1",
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
    }
    # As the HTTP client of the tests writes JSON.
    sent = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    assert len(sent) > 10_000_000
    assert commitment(seen.delivery).request_sha256 == digest(sent)


async def test_a_request_above_the_protocols_limit_is_answered_without_receipt(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provider_sdk.gateway.commits.MAX_TEXT_BYTES", 1000)
    async with standing(parties) as stands:
        for stream in (True, False):
            seen = await asked(stands, user="x" * 1000, stream=stream)
            delivery = seen.delivery if stream else parsed(json.loads(seen.raw)["coin"])
            (choice,) = delivery.choices
            assert choice.missing == delivery_pb2.MISSING_REASON_REQUEST_TOO_LARGE
            assert b"waves" not in seen.raw
