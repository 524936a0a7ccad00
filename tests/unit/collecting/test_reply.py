"""What a client reads as the answer is what a gateway committed to as the answer."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.limits import MAX_CHOICES
from provider_sdk.gateway import dialects
from tests.support.marked import a_reader, chunk, cut, cuttings, ids, rules
from verifier_sdk.collecting.reply import Endpoint, Reply

WORDS = st.text(alphabet='ab <>é\u0301😀\n"\\', max_size=12)
REASONING = st.sampled_from(["reasoning", "reasoning_content", "thinking"])


def read(endpoint: Endpoint, *documents: Any, whole: bool = False) -> Reply:
    reply = Reply(endpoint)
    for at, document in enumerate(documents):
        (reply.body if whole else reply.event)(document, at)
    return reply


def through(gateway: dialects.Reader, raw: list[bytes], endpoint: Endpoint) -> Reply:
    """Return what a client reads of what a gateway makes of an upstream's events."""
    reply = Reply(endpoint)
    for event in raw:
        step = gateway.event(event)
        for line in step.before.splitlines():
            if line.startswith(b"data: "):
                reply.event(json.loads(line[6:]), 0)
        if step.data is not None:
            reply.event(json.loads(step.data), 0)
    gateway.finish()
    return reply


def assert_same(client: Reply, gateway: dialects.Reader) -> None:
    for index, choice in gateway.choices.items():
        said = client.choices.get(index)
        assert (b"" if said is None else said.answer) == choice.answer()
        if said is not None:
            assert said.summary == choice.summary


@st.composite
def events(draw: st.DrawFn) -> list[bytes]:
    """Chunks of a chat of up to three choices, as upstreams of several kinds send them."""
    raw: list[list[bytes]] = []
    for index in range(draw(st.integers(1, 3))):
        thought, answer = draw(WORDS.filter(lambda text: "<" not in text)), draw(WORDS)
        parses, with_ids = draw(st.booleans()), draw(st.booleans())
        field = draw(REASONING)
        text = answer if parses else f"<think>{thought}</think>{answer}"
        own = [
            chunk({"content": part}, ids(part) if with_ids and not parses else None, index=index)
            for part in cut(text, draw(cuttings(len(text))))
        ]
        if parses:
            own = [chunk({field: thought}, index=index), *own]
        if draw(st.booleans()):
            content = [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "y"}]
            own.append(chunk({"content": content}, index=index))
        for place, name in enumerate(draw(st.lists(st.sampled_from(["f", "g"]), max_size=2))):
            for function in ({"name": name, "arguments": "{"}, {"arguments": '"é"}'}):
                call = {"index": place, "function": function}
                own.append(chunk({"tool_calls": [call]}, index=index))
        raw.append([*own, chunk({}, finish="stop", index=index)])
    order = draw(st.permutations([index for index, own in enumerate(raw) for _ in own]))
    return [raw[index].pop(0) for index in order]


@given(raw=events(), hide=st.booleans())
def test_a_chat_is_read_as_the_gateway_commits_to_it(raw: list[bytes], *, hide: bool) -> None:
    gateway = a_reader(rules(hide=hide))
    assert_same(through(gateway, raw, Endpoint.CHAT), gateway)


@given(data=st.data(), hide=st.booleans())
def test_a_completion_is_read_as_the_gateway_commits_to_it(
    data: st.DataObject, *, hide: bool
) -> None:
    text = f"<think>{data.draw(st.text('ab ', max_size=9))}</think>{data.draw(WORDS)}"
    raw = [chunk(part) for part in cut(text, data.draw(cuttings(len(text))))]
    gateway = a_reader(rules(hide=hide), dialects.Endpoint.COMPLETIONS, prompt="p")
    raw.append(chunk("", finish="stop"))
    assert_same(through(gateway, raw, Endpoint.COMPLETIONS), gateway)


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m", "output": list(output), **more}


def message(*texts: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "output_text", "text": text} for text in texts]
    return {"type": "message", "content": [{"type": "refusal", "refusal": "no"}, *parts]}


CALL = {"type": "function_call", "name": "f", "arguments": '{"a": "é"}'}
SUMMARY = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "in short"}]}


@given(data=st.data(), hide=st.booleans())
def test_a_response_is_read_as_the_gateway_commits_to_it(
    data: st.DataObject, *, hide: bool
) -> None:
    draw = data.draw
    text = draw(st.sampled_from(["<think>why</think>", ""])) + draw(WORDS)
    items = [
        *([SUMMARY] if draw(st.booleans()) else []),
        message(text),
        *([CALL] if draw(st.booleans()) else []),
    ]
    documents: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(status="in_progress")}
    ]
    for place, item in enumerate(items):
        if item is SUMMARY and draw(st.booleans()):
            documents.append({"type": "response.reasoning_summary_text.delta", "delta": "in short"})
        if item["type"] == "message" and draw(st.booleans()):
            where = {"output_index": place, "content_index": 1}
            documents += [
                {"type": "response.output_text.delta", **where, "delta": part}
                for part in cut(text, draw(cuttings(len(text))))
            ]
            documents.append({"type": "response.output_text.done", **where, "text": text})
        if draw(st.booleans()):
            documents.append(
                {"type": "response.output_item.done", "output_index": place, "item": item}
            )
    kind = draw(st.sampled_from(["completed", "incomplete", "failed"]))
    last = response(*items, status=kind, usage={"output_tokens": 5})
    documents.append({"type": f"response.{kind}", "response": last})
    gateway = a_reader(rules(hide=hide), dialects.Endpoint.RESPONSES)
    client = through(gateway, [orjson.dumps(each) for each in documents], Endpoint.RESPONSES)
    assert_same(client, gateway)
    assert client.over
    assert (client.response_id, client.model) == ("resp_1", "m")
    assert client.usage == {"output_tokens": 5}


@pytest.mark.parametrize("hide", [True, False])
def test_plain_replies_are_read_as_the_gateway_commits_to_them(*, hide: bool) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    chat = {
        "id": "a",
        "model": "m",
        "choices": [
            {"index": 0, "message": {"content": "<think>why</think>so"}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": None, "tool_calls": [call]}},
            {"index": 2, "message": {"content": "x", "function_call": call["function"]}},
        ],
        "usage": {"completion_tokens": 3},
    }
    completion = {"id": "a", "choices": [{"index": 0, "text": "so", "finish_reason": "stop"}]}
    whole = response(SUMMARY, message("a", "b"), CALL, status="completed")
    for document, endpoint, own in (
        (chat, dialects.Endpoint.CHAT, Endpoint.CHAT),
        (completion, dialects.Endpoint.COMPLETIONS, Endpoint.COMPLETIONS),
        (whole, dialects.Endpoint.RESPONSES, Endpoint.RESPONSES),
    ):
        gateway = a_reader(rules(hide=hide), endpoint)
        step = gateway.body(orjson.dumps(document))
        gateway.finish()
        assert step.data is not None
        client = read(own, json.loads(step.data), whole=True)
        assert_same(client, gateway)
        assert client.choices


def test_times_are_those_of_the_first_and_last_piece_of_each_choice() -> None:
    reply = read(
        Endpoint.CHAT,
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"reasoning": "why"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}}]},
        {"choices": [{"index": 1, "delta": {"tool_calls": [{"function": {"name": "f"}}]}}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )
    assert (reply.choices[0].first_at, reply.choices[0].last_at) == (2, 4)
    assert (reply.choices[1].first_at, reply.choices[1].last_at) == (3, 3)


def test_a_name_longer_than_any_is_none() -> None:
    reply = read(Endpoint.CHAT, {"id": "x" * 257, "model": "m" * 256, "choices": []})
    assert (reply.response_id, len(reply.model)) == ("", 256)


def test_what_is_no_text_is_no_answer() -> None:
    reply = read(
        Endpoint.CHAT,
        {"choices": [{"index": 0, "delta": {"content": 5, "refusal": "no"}}]},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": "none", "usage": []},
        {"error": {"message": "no"}},
    )
    assert reply.choices[0].answer == b""
    assert reply.choices[0].first_at is None
    assert reply.problem == ""
    assert reply.usage is None


@pytest.mark.parametrize("index", [-1, MAX_CHOICES, "0", True, None, 1.0])
def test_a_choice_without_a_number_is_a_problem(index: object) -> None:
    reply = read(Endpoint.CHAT, {"choices": [{"index": index, "delta": {"content": "a"}}]})
    assert "no index" in reply.problem
    assert reply.choices == {}


def test_text_is_kept_up_to_its_limit_and_calls_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier_sdk.collecting.reply.MAX_TEXT_BYTES", 10)
    call = {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {}}]}}]}
    for document in ({"choices": [{"index": 0, "delta": {"content": "12345"}}]}, call):
        reply = read(Endpoint.CHAT, document, document, document)
        assert "more than 10 bytes" in reply.problem
        assert len(reply.choices[0].answer) < 100


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", Endpoint.CHAT),
        ("/v1/completions/", Endpoint.COMPLETIONS),
        ("/openai/deployments/gpt/chat/completions", Endpoint.CHAT),
        ("/v1/responses", Endpoint.RESPONSES),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/embeddings", None),
        ("/", None),
    ],
)
def test_endpoints_are_told_by_the_end_of_their_path(path: str, endpoint: Endpoint | None) -> None:
    assert Endpoint.of(path) is endpoint
