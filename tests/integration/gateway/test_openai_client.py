"""OpenAI's own client, unchanged, sees through the gateway what it sees directly but reasoning."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.integration.gateway.standing import KEY, QUESTION, Standing, commitment, parsed, standing
from tests.support.parties import MODEL, Parties
from tests.support.upstreams import Call, Script, Style

_HIDDEN = ("reasoning", "reasoning_content")
_OWN = ("id", "coin")


def _plain(found: Any) -> Any:
    """Return a reply without what differs on purpose: its id, reasoning, and our field."""
    document = found.model_dump(exclude_unset=True)
    for name in _OWN:
        document.pop(name, None)
    for choice in document.get("choices", ()):
        message = choice.get("message") or choice.get("delta") or {}
        for name in _HIDDEN:
            message.pop(name, None)
    if "output" in document:
        document["output"] = [item for item in document["output"] if item["type"] != "reasoning"]
    return document


def _said(chunks: list[Any]) -> dict[int, dict[str, Any]]:
    """Return what a stream of chat chunks says of each choice."""
    said: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            found = said.setdefault(choice.index, {"content": "", "calls": {}, "finish": None})
            found["content"] += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                found["calls"][call.index] = (call.function.name, call.function.arguments)
            found["finish"] = choice.finish_reason or found["finish"]
    return said


TOOLS = Script(answer="", calls=[Call("weather", '{"city": "Paris"}'), Call("time", "{}")])
BARE = Script(reasoning=None)


@pytest.mark.parametrize("script", [Script(), TOOLS, BARE], ids=["reasoning", "tools", "bare"])
async def test_a_plain_chat_is_the_same(parties: Parties, script: Script) -> None:
    style = Style(parser="reasoning")
    async with standing(parties, scripts=[script], style=style) as stands:
        ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION}
        direct = await stands.client(stands.upstream.url).chat.completions.create(**ask)
        through = await stands.client().chat.completions.create(**ask)
    assert _plain(through) == _plain(direct)
    found = commitment(parsed(through.model_extra["coin"] if through.model_extra else {}))
    assert found.reasoning_tokens == len(script.reasoning_ids)
    assert found.reasoning_tokens + found.answer_tokens == len(script.ids)
    text = through.model_dump_json()
    assert script.reasoning is None or script.reasoning not in text


@pytest.mark.parametrize("script", [Script(), TOOLS, BARE], ids=["reasoning", "tools", "bare"])
@pytest.mark.parametrize("chunk", [1, 5])
async def test_a_streamed_chat_says_the_same(parties: Parties, script: Script, chunk: int) -> None:
    style = Style(parser="reasoning_content", chunk=chunk)
    async with standing(parties, scripts=[script], style=style) as stands:
        ask: dict[str, Any] = {
            "model": MODEL,
            "messages": QUESTION,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        direct = [
            c async for c in await stands.client(stands.upstream.url).chat.completions.create(**ask)
        ]
        through = [c async for c in await stands.client().chat.completions.create(**ask)]
    assert _said(through) == _said(direct)
    assert through[-1].usage == direct[-1].usage
    assert {chunk.id for chunk in through} != {chunk.id for chunk in direct}
    assert not any("coin" in (chunk.model_extra or {}) for chunk in through)


async def test_two_choices_stay_apart(parties: Parties) -> None:
    scripts = [Script(answer="the sky is blue"), Script(reasoning="other " * 9, answer="so it is")]
    async with standing(parties, scripts=scripts) as stands:
        ask: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "n": 2}
        plain = await stands.client().chat.completions.create(**ask)
        chunks = [
            chunk
            async for chunk in await stands.client().chat.completions.create(**ask, stream=True)
        ]
    assert [choice.message.content for choice in plain.choices] == [s.answer for s in scripts]
    assert [said["content"] for _, said in sorted(_said(chunks).items())] == [
        script.answer for script in scripts
    ]
    delivery = parsed((plain.model_extra or {})["coin"])
    found = [commitment(delivery, index) for index in (0, 1)]
    assert [each.reasoning_tokens for each in found] == [len(s.reasoning_ids) for s in scripts]
    assert len({each.session_id for each in found}) == 2
    assert [each.usage.prompt_tokens for each in found] == [3, 0], "the prompt is billed once"


async def test_completions_are_the_same(parties: Parties) -> None:
    async with standing(parties, style=Style(chunk=2)) as stands:
        ask: dict[str, Any] = {"model": MODEL, "prompt": ["why?", "how?"], "max_tokens": 99}
        client = stands.client()
        plain = await client.completions.create(**ask)
        texts = ["", ""]
        async for chunk in await client.completions.create(**ask, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    assert [choice.text for choice in plain.choices] == [Script().answer] * 2
    assert texts == [Script().answer] * 2


async def test_responses_are_the_same(parties: Parties) -> None:
    async with standing(parties) as stands:
        ask: dict[str, Any] = {"model": MODEL, "input": "why is the sky blue?"}
        direct = await stands.client(stands.upstream.url).responses.create(**ask)
        through = await stands.client().responses.create(**ask)
        kinds, text = [], ""
        async for event in await stands.client().responses.create(**ask, stream=True):
            kinds.append(event.type)
            text += event.delta if event.type == "response.output_text.delta" else ""
    assert through.output_text == direct.output_text == text
    assert through.usage == direct.usage
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert not any("reasoning_text" in kind for kind in kinds)
    assert commitment(parsed((through.model_extra or {})["coin"])).reasoning_tokens


def _ask_in_sync(stands: Standing) -> tuple[str, str]:
    with openai.OpenAI(base_url=f"{stands.url}/v1", api_key=KEY, max_retries=0) as client:
        plain = client.chat.completions.create(model=MODEL, messages=QUESTION)
        streamed = ""
        for chunk in client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
            for choice in chunk.choices:
                streamed += choice.delta.content or ""
    return plain.choices[0].message.content or "", streamed


async def test_the_sync_client_works(parties: Parties) -> None:
    async with standing(parties) as stands:
        plain, streamed = await asyncio.to_thread(_ask_in_sync, stands)
    assert plain == streamed == Script().answer


async def test_models_are_listed_by_the_upstream(parties: Parties) -> None:
    async with standing(parties) as stands:
        reply = await stands.client().models.with_raw_response.list()
    assert reply.status_code == 207
    assert reply.content == b"GET /v1/models "


@pytest.mark.parametrize("hidden", [True, False])
async def test_reasoning_is_seen_only_where_it_is_passed(parties: Parties, *, hidden: bool) -> None:
    settings: dict[str, Any] = {"reasoning": "hide" if hidden else "pass"}
    for style in (Style(), Style(parser="reasoning")):
        async with standing(parties, style=style, **settings) as stands:
            reply = await stands.client().chat.completions.create(model=MODEL, messages=QUESTION)
            shown = Script().reasoning in reply.model_dump_json()  # type: ignore[operator]
            assert shown is not hidden
            found = commitment(parsed((reply.model_extra or {})["coin"]))
            assert found.reasoning_tokens == len(Script().reasoning_ids)
