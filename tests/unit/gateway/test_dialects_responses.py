"""The Responses API: reasoning items lose their content, everything else keeps its place."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.answer import ToolCall
from coin_protocol.sse import SseParser
from coin_protocol.v1 import delivery_pb2 as pb
from provider_sdk.gateway.dialects import Endpoint, Reader, Step
from tests.support.marked import a_reader, committed, cut, cuttings, ids, rules, seen

WORDS = st.text(st.sampled_from("ab <>/é漢"), max_size=16)
TEXT = {"output_index": 1, "content_index": 0, "item_id": "m"}
WHY = {"output_index": 0, "content_index": 0, "item_id": "r"}


def a_response(*, hide: bool = True, name: str = "none", **body: Any) -> Reader:
    return a_reader(rules(name, hide=hide), Endpoint.RESPONSES, **body)


def event(kind: str, **fields: Any) -> bytes:
    return orjson.dumps({"type": f"response.{kind}", "sequence_number": 1, **fields})


def response(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m", "status": status, **more} | {
        "output": list(output)
    }


def message(text: str) -> dict[str, Any]:
    return {"type": "message", "id": "m", "content": [{"type": "output_text", "text": text}]}


def reasoning(text: str = "", **more: Any) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {"type": "reasoning", "id": "r", "summary": [], "content": content, **more}


def stream(why: list[str], so: list[str], *more: dict[str, Any]) -> list[bytes]:
    """What vLLM sends for one item of reasoning and one message."""
    whole, text = "".join(why), "".join(so)
    return [
        event("created", response=response(status="in_progress")),
        event("output_item.added", output_index=0, item=reasoning()),
        event("reasoning_part.added", **WHY, part={"type": "reasoning_text", "text": ""}),
        *(event("reasoning_text.delta", **WHY, delta=part) for part in why),
        event("reasoning_text.done", **WHY, text=whole),
        event("reasoning_part.done", **WHY, part={"type": "reasoning_text", "text": whole}),
        event("output_item.done", output_index=0, item=reasoning(whole)),
        event("output_item.added", output_index=1, item=message("")),
        event("content_part.added", **TEXT, part={"type": "output_text", "text": ""}),
        *(event("output_text.delta", **TEXT, delta=part, logprobs=[]) for part in so),
        event("output_text.done", **TEXT, text=text, logprobs=[]),
        event("content_part.done", **TEXT, part={"type": "output_text", "text": text}),
        event("output_item.done", output_index=1, item=message(text)),
        event(
            "completed",
            response=response(reasoning(whole), message(text), *more, usage={"output_tokens": 5}),
        ),
    ]


def sent(steps: list[Step]) -> list[dict[str, Any]]:
    """All that a client parses."""
    found: list[dict[str, Any]] = []
    for step in steps:
        found += [orjson.loads(each.data or b"") for each in SseParser().feed(step.before)]
        found += [document for document in [seen(step)] if document is not None]
    return found


def deltas(documents: list[dict[str, Any]]) -> str:
    return "".join(
        each["delta"] for each in documents if each["type"] == "response.output_text.delta"
    )


@given(why=st.lists(WORDS, max_size=6), so=st.lists(WORDS, max_size=6))
def test_reasoning_is_committed_to_and_hidden_and_the_rest_is_untouched(
    why: list[str], so: list[str]
) -> None:
    reply = a_response()
    raw = stream(why, so)
    steps = [reply.event(each) for each in raw]
    assert committed(steps, reply) == ids("".join(why))
    assert reply.choices[0].content == "".join(so) == deltas(sent(steps))
    assert (reply.response_id, reply.model, reply.usage) == ("resp_1", "m", {"output_tokens": 5})
    assert reply.choices[0].finish_reason == "stop"
    assert reply.missing(0) is None
    last = sent(steps)[-1]["response"]
    assert last["output"] == [reasoning(), message("".join(so))]
    # No kind of event but those of reasoning is missing, and none is in another place.
    kept = [orjson.loads(each)["type"] for each in raw if b"reasoning_" not in each[:40]]
    assert [each["type"] for each in sent(steps)] == kept


@given(st.data())
def test_raw_text_is_hidden_wherever_it_stands(data: st.DataObject) -> None:
    why, so = data.draw(WORDS.filter(lambda w: "<" not in w)), data.draw(WORDS)
    text = f"<think>{why}</think>{so}"
    results = []
    for ends in ([len(text)], data.draw(cuttings(len(text)))):
        reply = a_response(name="think")
        steps = [reply.event(each) for each in stream([], cut(text, ends))]
        assert committed(steps, reply) == ids(why)
        documents = sent(steps)
        assert deltas(documents) == so == reply.choices[0].content
        for document in documents:
            if document["type"] in ("response.output_text.done", "response.content_part.done"):
                assert document.get("part", document)["text"] == so
        assert documents[-1]["response"]["output"][1] == message(so)
        results.append(reply.choices[0].answer_tokens)
    assert results[0] == results[1]


def test_where_nothing_is_hidden_every_byte_is_the_upstreams() -> None:
    reply = a_response(hide=False)
    for raw in stream(["why"], ["<think>so"]):
        step = reply.event(raw)
        assert (step.same, step.data, step.before) == (True, raw, b"")
    assert reply.choices[0].content == "<think>so"


def test_summaries_are_seen_and_kept() -> None:
    part = {"type": "summary_text", "text": "in short"}
    raw = event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="in short")
    reply = a_response()
    assert reply.event(raw).same
    reply.event(event("completed", response=response(reasoning(summary=[part]))))
    assert reply.choices[0].summary == b"in short"
    whole = a_response(stream=False)
    step = whole.body(orjson.dumps(response(reasoning("secret", summary=[part]), message("so"))))
    assert whole.choices[0].summary == b"in short"
    assert seen(step)["output"] == [reasoning(summary=[part]), message("so")]


def test_no_summary_is_none() -> None:
    reply = a_response(stream=False)
    reply.body(orjson.dumps(response(message("so"))))
    assert reply.choices[0].summary is None


def test_what_carries_reasoning_for_the_next_turn_is_taken_out() -> None:
    reply = a_response(stream=False)
    item = reasoning("why", encrypted_content="c2VjcmV0")
    step = reply.body(orjson.dumps(response(item, message("so"))))
    assert seen(step)["output"][0] == reasoning(encrypted_content=None)


CALL = {"type": "function_call", "id": "f", "name": "f", "arguments": "{}", "call_id": "c"}


def test_calls_of_functions_are_counted_once() -> None:
    reply = a_response()
    steps = [
        reply.event(event("output_item.added", output_index=2, item={**CALL, "arguments": ""})),
        reply.event(event("function_call_arguments.delta", output_index=2, delta="{}")),
        reply.event(event("output_item.done", output_index=2, item=CALL)),
    ]
    assert all(step.same for step in steps)
    for raw in stream(["why"], ["so"], CALL)[1:]:
        reply.event(raw)
    reply.finish()
    assert reply.choices[0].tool_calls == [ToolCall("f", "{}")]
    whole = a_response(stream=False)
    whole.body(orjson.dumps(response(reasoning("why"), CALL)))
    assert whole.choices[0].tool_calls == [ToolCall("f", "{}")]


def raw_messages(*texts: str) -> dict[str, Any]:
    tokens = {"type": "raw_message_tokens", "message": "", "tokens": ids(*texts)}
    prompt = {"type": "raw_message_tokens", "message": "", "tokens": ids("q", "<think>")}
    return {"output_messages": [tokens], "input_messages": [prompt]}


@pytest.mark.parametrize("parsed", [True, False])
def test_sampled_ids_of_a_plain_response_are_taken(*, parsed: bool) -> None:
    output = [reasoning("why"), message("so")] if parsed else [message("why</think>so")]
    more = raw_messages("why", "</think>", "so", "<|im_end|>")
    reply = a_response(name="think", stream=False)
    step = reply.body(orjson.dumps(response(*output, **more)))
    assert committed([step], reply) == ids("why")
    assert not reply.choices[0].retokenized
    assert reply.choices[0].answer_tokens == 4
    assert reply.missing(0) is None
    assert seen(step) == response(*([reasoning()] if parsed else []), message("so"))


def test_raw_messages_are_given_to_those_who_asked_but_for_reasoning() -> None:
    document = orjson.dumps(response(message("so"), **raw_messages("so")))
    asked: dict[str, Any] = {"stream": False, "enable_response_messages": True}
    shown = seen(a_response(**asked).body(document))
    assert "input_messages" in shown
    assert "output_messages" not in shown
    assert a_response(hide=False, **asked).body(document).same
    # The input of one that goes on from another holds the other's reasoning.
    after = seen(a_response(previous_response_id="resp_0", **asked).body(document))
    assert "input_messages" not in after


def test_ids_that_events_carry_are_taken() -> None:
    reply = a_response()
    steps = [
        reply.event(event("reasoning_text.delta", **WHY, delta="why", token_ids=ids("why"))),
        reply.event(event("output_text.delta", **TEXT, delta="so", token_ids=ids("so"))),
    ]
    assert committed(steps, reply) == ids("why")
    assert not reply.choices[0].retokenized
    assert b"token_ids" not in (steps[1].data or b"")


def test_reasoning_that_comes_whole_at_an_items_end_is_committed_to_once() -> None:
    reply = a_response()
    whole = [raw for raw in stream(["why"], ["so"]) if b'reasoning_text.delta"' not in raw]
    steps = [reply.event(raw) for raw in whole]
    assert committed(steps, reply) == ids("why")


def test_a_message_that_comes_whole_at_the_end_is_hidden_there() -> None:
    reply = a_response(name="think")
    step = reply.event(event("completed", response=response(message("<think>why</think>so<"))))
    assert committed([step], reply) == ids("why")
    assert seen(step)["response"]["output"] == [message("so<")]
    assert reply.choices[0].content == "so<"


@pytest.mark.parametrize(
    ("kind", "fields", "finish", "failed"),
    [
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, "length", False),
        (
            "incomplete",
            {"incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            False,
        ),
        ("failed", {"error": {"code": "server_error"}}, "error", True),
    ],
)
def test_other_ends_are_told(
    *, kind: str, fields: dict[str, Any], finish: str, failed: bool
) -> None:
    reply = a_response()
    step = reply.event(event(kind, response=response(status=kind, **fields)))
    assert step.same
    assert reply.choices[0].finish_reason == finish
    assert reply.failed is failed


def test_errors_are_passed_on_as_they_came() -> None:
    reply = a_response()
    assert reply.event(b'{"type":"error","message":"no"}').same
    assert (reply.failed, reply.problem) == (True, None)
    whole = a_response(stream=False)
    assert whole.body(b'{"error":{"message":"no"}}').same
    assert (whole.failed, whole.problem) == (True, None)


def test_what_is_no_response_has_no_receipt() -> None:
    reply = a_response(stream=False)
    assert reply.body(b'{"id":"resp_1"}').same
    missing = reply.missing(0)
    assert missing is not None
    assert missing[0] == pb.MISSING_REASON_MALFORMED_UPSTREAM


LOGPROBS = [{"token": "secret", "bytes": [*b"secret"]}, {"token": "so", "bytes": [*b"so"]}]


@pytest.mark.parametrize("hide", [True, False])
def test_log_probabilities_of_hidden_tokens_are_hidden_wherever_they_stand(*, hide: bool) -> None:
    """vLLM gives those of all tokens with the text."""
    part = {"type": "output_text", "text": "so", "logprobs": LOGPROBS}
    item = {"type": "message", "content": [part]}
    streamed = (
        event("output_text.delta", **TEXT, delta="so", logprobs=LOGPROBS),
        event("output_text.delta", **TEXT, delta="", logprobs=LOGPROBS),
        event("output_text.done", **TEXT, text="so", logprobs=LOGPROBS),
        event("content_part.done", **TEXT, part=part),
        event("output_item.done", output_index=1, item=item),
        event("completed", response=response(item)),
    )
    reply = a_response(hide=hide)
    for raw in streamed:
        assert (b"secret" in (reply.event(raw).data or b"")) is not hide
    whole = orjson.dumps(response(item))
    assert (b"secret" in (a_response(hide=hide).body(whole).data or b"")) is not hide
    own = event("output_text.delta", **TEXT, delta="so", logprobs=LOGPROBS[1:])
    assert a_response(hide=hide).event(own).same


def test_text_that_is_repeated_beside_the_items_is_hidden_there_too() -> None:
    reply = a_response(name="think")
    text = "<think>secret</think>so"
    step = reply.body(orjson.dumps({**response(message(text)), "output_text": text}))
    assert seen(step)["output_text"] == "so"
    whole = orjson.dumps({**response(message("so")), "output_text": "so"})
    assert a_response(name="think").body(whole).same


def test_the_last_event_waits_for_the_receipt_with_usage_or_without() -> None:
    for raw in (event("completed", response=response(message("so"))), stream([], ["so"])[-1]):
        assert a_response().event(raw).usage
