"""Chats and completions: what is committed to, and what the client still sees."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.answer import ToolCall
from coin_protocol.testing.small import VOCABULARY
from coin_protocol.tokenizer import text_of
from provider_sdk.gateway.dialects import Endpoint
from tests.support.marked import (
    PLAIN,
    TOKENIZER,
    a_reader,
    chunk,
    committed,
    content_of,
    cut,
    cuttings,
    ids,
    rules,
    run,
    seen,
    usage_chunk,
)

WORDS = st.text(st.sampled_from("ab <>/é漢"), max_size=16)


def raw_chunks(reply: list[int], ends: list[int], *, text: bool = False) -> list[bytes]:
    """A reply that no parser of the upstream touched, cut into chunks of whole characters."""
    chunks, late = [], b""
    for part in cut(reply, ends):
        late += b"".join(map(TOKENIZER.token_bytes, part))
        whole = late.decode(errors="ignore")
        # What is cut off at the end is said in the next chunk.
        late = late[len(whole.encode()) :]
        chunks.append(chunk(whole if text else {"content": whole}, part))
    return [*chunks, chunk("" if text else {}, [], finish="stop")]


@given(st.data())
def test_raw_text_is_hidden_and_committed_to_alike_however_it_is_cut(data: st.DataObject) -> None:
    why, so = data.draw(WORDS), data.draw(WORDS)
    special, completion = data.draw(st.booleans()), data.draw(st.booleans())
    texts = ("<think>", why, "</think>", so)
    whole = ids(*texts) if special else PLAIN.encode("".join(texts))
    endpoint = Endpoint.COMPLETIONS if completion else Endpoint.CHAT
    model = rules(special=special)
    found = []
    for ends in ([len(whole)], data.draw(cuttings(len(whole)))):
        reply = a_reader(model, endpoint)
        steps = run(reply, raw_chunks(whole, ends, text=completion))
        ids_found = committed(steps, reply)
        choice = reply.choices[0]
        assert content_of(steps) == choice.content
        assert choice.reasoning_tokens == len(ids_found)
        assert choice.reasoning_tokens + choice.answer_tokens == len(whole)
        found.append((choice.content, ids_found, choice.flags))
    assert found[0] == found[1]
    if special:
        assert found[0] == (so, TOKENIZER.encode(why), frozenset())


@given(st.data())
def test_text_alone_is_tokenized_again_alike_however_it_is_cut(data: st.DataObject) -> None:
    why, so = data.draw(WORDS), data.draw(WORDS)
    text = f"<think>{why}</think>{so}"
    found = []
    for ends in ([len(text)], data.draw(cuttings(len(text)))):
        reply = a_reader(rules())
        chunks = [chunk({"content": part}) for part in cut(text, ends)]
        steps = run(reply, [*chunks, chunk({}, finish="stop")])
        ids_found = committed(steps, reply)
        assert content_of(steps) == reply.choices[0].content
        found.append((reply.choices[0].content, ids_found, reply.choices[0].answer_tokens))
        assert reply.choices[0].retokenized
    assert found[0] == found[1]
    if "</think>" not in why and "<think>" not in why + so:
        assert found[0][:2] == (so, PLAIN.encode(why))


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("marked", [True, False])
@given(data=st.data())
def test_an_upstream_that_parses_is_followed(
    *, field: str, marked: bool, data: st.DataObject
) -> None:
    why, so = data.draw(WORDS.filter(bool)), data.draw(WORDS.filter(bool))
    chunks = [chunk({"role": "assistant", "content": ""})]
    if marked:
        chunks.append(chunk({}, ids("<think>")))
    chunks += [chunk({field: char}, TOKENIZER.encode(char)) for char in why]
    if marked:
        chunks.append(chunk({}, ids("</think>")))
    chunks += [chunk({"content": char}, TOKENIZER.encode(char)) for char in so]
    reply = a_reader(rules("think" if marked else "none"))
    steps = run(reply, [*chunks, chunk({"content": ""}, ids("<|im_end|>"), finish="stop")])
    assert text_of(TOKENIZER, committed(steps, reply)) == why
    assert content_of(steps) == so == reply.choices[0].content
    assert reply.missing(0) is None
    for step in steps:
        assert step.data is None or field.encode() not in step.data


def test_a_chunk_across_a_border_without_marks_is_cut_by_the_reasonings_length() -> None:
    reply = a_reader(rules("none"))
    first = chunk({"reasoning": "wh"}, [*b"wh"])
    step = reply.event(chunk({"reasoning": "y", "content": "so"}, [*b"yso"]))
    assert step.pieces[0].reasoning_ids == [*b"yso"][:1]
    assert seen(step)["choices"][0]["delta"] == {"content": "so"}
    assert seen(reply.event(first)) is None


UNTOUCHED: dict[str, Any] = {
    "first": {"role": "assistant", "content": ""},
    "answer": {"content": "so", "unknown": {"a": [1]}},
    "empty": {"content": ""},
    "null": {"content": "so", "reasoning_content": None},
    "call": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]},
    "refusal": {"refusal": "no"},
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_what_has_no_reasoning_is_passed_on_byte_for_byte(name: str) -> None:
    raw = chunk(UNTOUCHED[name], system_fingerprint="fp", logprobs=None)
    step = a_reader(rules()).event(raw)
    assert step.same
    assert step.data is raw


@pytest.mark.parametrize("name", UNTOUCHED)
def test_only_what_we_asked_for_is_taken_out(name: str) -> None:
    delta = UNTOUCHED[name]
    text = delta.get("content") or ""
    step = a_reader(rules()).event(
        chunk(delta, TOKENIZER.encode(text) or ids("<|im_end|>"), usage=None, prompt_token_ids=[1])
    )
    wanted = orjson.loads(chunk(delta))
    assert seen(step) == wanted


@pytest.mark.parametrize("nothing", [[], "ids", 7])
def test_ids_that_are_none_are_taken_out_too(nothing: Any) -> None:
    document = orjson.loads(chunk({"content": "so"}))
    document["choices"][0]["token_ids"] = nothing
    step = a_reader(rules()).event(orjson.dumps(document))
    assert seen(step) == orjson.loads(chunk({"content": "so"}))


def test_chunks_that_came_for_their_ids_alone_are_dropped() -> None:
    assert seen(a_reader(rules()).event(chunk({}, ids("<|im_end|>")))) is None
    asking = a_reader(rules(), return_token_ids=True)
    assert seen(asking.event(chunk({}, ids("<|im_end|>"))))["choices"][0]["token_ids"]


def test_a_client_that_asks_for_ids_gets_those_of_the_answer() -> None:
    reply = a_reader(rules(), return_token_ids=True)
    step = reply.event(chunk({"content": "whyso"}, ids("<think>", "why", "</think>", "so")))
    choice = seen(step)["choices"][0]
    assert choice["token_ids"] == ids("<think>", "</think>", "so")
    assert choice["delta"]["content"] == "so"


def test_where_nothing_is_hidden_all_is_passed_on_but_what_we_asked_for() -> None:
    reply = a_reader(rules(hide=False))
    delta = {"reasoning": "why", "content": None}
    step = reply.event(chunk(delta, ids("<think>", "why"), usage=None))
    assert seen(step) == orjson.loads(chunk(delta))
    assert step.pieces[0].reasoning_ids == ids("why")
    raw = reply.event(chunk({"content": "x</think>so"}, ids("x", "</think>", "so")))
    assert seen(raw)["choices"][0]["delta"] == {"content": "x</think>so"}
    assert reply.choices[0].content == "x</think>so"


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "secret"},
        {"reasoning_content": "secret"},
        {"reasoning": "secret", "reasoning_content": "secret"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "secret"}]},
        {"thinking": "secret"},
        {"reasoning": "secret", "provider_specific_fields": {"reasoning_content": "secret"}},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "secret"}]}]},
        {"content": [{"type": "thinking", "thinking": "secret"}]},
        {"content": [{"type": "reasoning_text", "text": "secret"}]},
    ],
)
@pytest.mark.parametrize("with_ids", [True, False])
def test_no_field_of_reasoning_reaches_the_client(*, delta: dict[str, Any], with_ids: bool) -> None:
    reply = a_reader(rules("none"))
    step = reply.event(chunk({"role": "assistant", **delta}, ids("secret") if with_ids else None))
    assert step.data is not None
    assert b"secret" not in step.data
    assert committed([step], reply) == ids("secret")
    assert reply.missing(0) is None


CHAT_LOGPROBS = {"content": [{"token": t} for t in ("T", "w", "E", "s")], "refusal": None}
HALVES = {
    "content": [
        {"token": "<0xE6>", "bytes": [0xE6]},
        {"token": "", "bytes": [0xBC, 0xA2]},
        {"token": "<|im_end|>"},
    ]
}
PARTS = {"tokens": ["<s>", "a", "\ufffd", "\ufffd", "b"], "token_logprobs": [None, 1, 2, 3, 4]}
WAITING = {"content": [{"token": t} for t in ("b", *"<think>", "secret", "<")]}
TEXT_LOGPROBS = {"tokens": ["T", "w", "E", "s"], "token_logprobs": [1, 2, 3, 4]}


def test_log_probabilities_of_hidden_tokens_are_hidden() -> None:
    reply_ids = ids("<think>", "w", "</think>", "s")
    step = a_reader(rules()).event(chunk({"content": "ws"}, reply_ids, logprobs=CHAT_LOGPROBS))
    assert seen(step)["choices"][0]["logprobs"] == {"content": [{"token": "s"}], "refusal": None}
    step = a_reader(rules(), Endpoint.COMPLETIONS).event(
        chunk("ws", reply_ids, logprobs=TEXT_LOGPROBS)
    )
    assert seen(step)["choices"][0]["logprobs"] == {"tokens": ["s"], "token_logprobs": [4]}


def test_log_probabilities_that_cannot_be_told_apart_are_all_hidden() -> None:
    reply = a_reader(rules())
    step = reply.event(chunk({"content": "<think>w</think>s"}, logprobs=CHAT_LOGPROBS))
    assert seen(step)["choices"][0]["logprobs"] is None
    # Of the answer alone there is nothing to hide.
    step = reply.event(chunk({"content": "TwEs"}, logprobs=CHAT_LOGPROBS))
    assert seen(step)["choices"][0]["logprobs"] == CHAT_LOGPROBS


@pytest.mark.parametrize("whole", [True, False])
def test_without_ids_log_probabilities_are_shown_where_they_spell_the_text(*, whole: bool) -> None:
    for text, endpoint, logprobs, wanted in (
        ("TwEs", Endpoint.CHAT, CHAT_LOGPROBS, CHAT_LOGPROBS),
        ("TwEs", Endpoint.COMPLETIONS, TEXT_LOGPROBS, TEXT_LOGPROBS),
        ("s", Endpoint.CHAT, CHAT_LOGPROBS, None),
        ("s", Endpoint.COMPLETIONS, TEXT_LOGPROBS, None),
        ("", Endpoint.CHAT, CHAT_LOGPROBS, None),
        ("", Endpoint.CHAT, {"content": [], "refusal": None}, {"content": [], "refusal": None}),
        ("\u6f22", Endpoint.CHAT, HALVES, HALVES),
        ("a\u6f22b", Endpoint.COMPLETIONS, PARTS, PARTS),
        ("ab", Endpoint.COMPLETIONS, {"tokens": ["\ufffd", "\u6f22", "ab"]}, None),
        ("ab", Endpoint.COMPLETIONS, {"tokens": ["\ufffd", "w", "ab"]}, None),
        ("x", Endpoint.CHAT, {"content": [{"token": "x", "bytes": [999]}]}, None),
        ("x", Endpoint.CHAT, {"content": "x"}, None),
    ):
        reply = a_reader(rules("none"), endpoint, stream=not whole)
        chat = endpoint is Endpoint.CHAT
        said = {"message" if whole else "delta": {"content": text}} if chat else {"text": text}
        more: dict[str, Any] = {"logprobs": logprobs, "finish_reason": "stop"}
        entry: dict[str, Any] = {"index": 0, **said, **more}
        raw = orjson.dumps({"choices": [entry]})
        step = reply.body(raw) if whole else reply.event(raw)
        assert seen(step)["choices"][0]["logprobs"] == wanted


def test_log_probabilities_of_ids_that_wait_are_hidden() -> None:
    reply = a_reader(rules(special=False))
    reply.event(chunk({"content": "<"}, PLAIN.encode("<")))
    shown = chunk({"content": "b<think>"}, PLAIN.encode("b<think>w<"), logprobs=WAITING)
    assert b"secret" not in (reply.event(shown).data or b"")


@pytest.mark.parametrize("held", ["", "</"])
def test_a_later_section_that_the_upstreams_parser_left_in_the_answer_is_hidden(held: str) -> None:
    """The parser of a stack may set only the first section apart."""
    texts = ("<think>", "why", "</think>", "so", "<think>", f"{held}secret", "</think>", "it is")
    events = [
        chunk({}, ids("<think>")),
        chunk({"reasoning": "why"}, ids("why")),
        chunk({}, ids("</think>")),
        *(chunk({"content": text}, ids(text)) for text in ("so", "<think>")),
        *(chunk({"content": char}, ids(char)) for char in f"{held}secret"),
        *(chunk({"content": text}, ids(text)) for text in ("</think>", "it is")),
        chunk({}, [], finish="stop"),
    ]
    for model in (rules(), rules("think-interleaved")):
        streamed = a_reader(model)
        steps = run(streamed, events)
        assert content_of(steps) == "soit is" == streamed.choices[0].content
        assert committed(steps, streamed) == ids("why", f"{held}secret")
        message = {"reasoning": "why", "content": "".join(texts[3:])}
        entry = {"index": 0, "message": message, "token_ids": ids(*texts), "finish_reason": "stop"}
        plain = a_reader(model, stream=False)
        step = plain.body(orjson.dumps({"choices": [entry]}))
        assert seen(step)["choices"][0]["message"] == {"content": "soit is"}


def test_a_later_section_that_the_parser_sets_apart_leaves_the_answer_alone() -> None:
    reply = a_reader(rules("think-interleaved"))
    events = []
    for _ in range(2):
        events += [
            chunk({}, ids("<think>")),
            chunk({"reasoning": "why."}, ids("why.")),
            chunk({"content": "."}, ids("</think>", ".")),
        ]
    steps = run(reply, [*events, chunk({}, [], finish="stop")])
    assert content_of(steps) == ".."
    assert committed(steps, reply) == ids("why.", "why.")
    assert reply.missing(0) is None


def test_what_is_said_twice_is_read_once_and_hidden_in_both() -> None:
    both = {"delta": {"content": "x"}, "message": {"content": "<think>secret</think>x"}}
    for whole, said in ((False, both), (True, both), (False, {"message": both["message"]})):
        reply = a_reader(rules(), stream=not whole)
        raw = orjson.dumps({"choices": [{"index": 0, "finish_reason": "stop", **said}]})
        step = reply.body(raw) if whole else reply.event(raw)
        assert b"secret" not in (step.data or b"")
        assert reply.choices[0].content == "x"


def test_reasoning_beside_the_text_of_a_completion_is_hidden_and_committed_to() -> None:
    for whole in (True, False):
        reply = a_reader(rules("none"), Endpoint.COMPLETIONS, stream=not whole)
        raw = chunk("so", reasoning="secret", finish="stop")
        step = reply.body(raw) if whole else reply.event(raw)
        assert b"secret" not in (step.data or b"")
        assert committed([step], reply) == ids("secret")


STOP = "x" * 60


@pytest.mark.parametrize("lag", [0, 5, 59])
@pytest.mark.parametrize("how", ["echo", "ids", "gpt-oss", "call"])
def test_text_that_a_stop_string_holds_back_is_hidden_all_the_same(how: str, lag: int) -> None:
    """A long stop string must not move reasoning to where the answer's ids are."""
    why, so = "the secret thought of it all", "so it is, and there is more of it to come in time"
    completion: dict[str, Any] = {"stop": [STOP]}
    endpoint = Endpoint.CHAT if how == "call" else Endpoint.COMPLETIONS
    begin, texts = "", ["<think>", why, "</think>", so]
    if how == "echo":
        begin = "why?"
        completion |= {"echo": True, "prompt": begin}
    elif how == "ids":
        # Whose text is unknown here.
        begin = "why?"
        completion |= {"echo": True, "prompt": [1, 2]}
    elif how == "gpt-oss":
        texts = ["<|channel|>", "analysis", "<|message|>", why, "<|end|>", so]
    model = rules("gpt-oss" if how == "gpt-oss" else "think")
    reply = a_reader(model, endpoint, **completion)
    text, told = begin, 0
    events = []
    for token_id in ids(*texts):
        raw = TOKENIZER.token_bytes(token_id)
        text += raw.decode() if token_id < VOCABULARY else ""
        part = text[told : max(told, len(begin), len(text) - lag)]
        told += len(part)
        events.append(chunk({"content": part} if how == "call" else part, [token_id]))
        if how == "call" and len(events) == 4:
            calls = [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]
            events.append(chunk({"tool_calls": calls}, []))
    last = text[told:]
    events.append(chunk({"content": last} if how == "call" else last, [], finish="stop"))
    steps = run(reply, events)
    assert committed(steps, reply) == ids(why)
    # A prompt whose text is unknown goes with the mark that it came with.
    assert content_of(steps) == (so if how == "ids" else begin + so)


def test_reasoning_that_is_never_shown_takes_nothing_of_the_answer() -> None:
    """Not even where a stop string could have held it back."""
    reply = a_reader(rules("gpt-oss"), Endpoint.COMPLETIONS, stop="\n\n")
    events = [
        chunk("", ids("<|channel|>", "analysis", "<|message|>")),
        *(chunk("", [each]) for each in ids("a thought that is longer than any stop")),
        chunk("", ids("<|end|>")),
        chunk("so", ids("so"), finish="stop"),
    ]
    assert content_of(run(reply, events)) == "so"


def test_choices_are_read_apart() -> None:
    reply = a_reader(rules(), n=2)
    steps = run(
        reply,
        [
            chunk({"content": ""}, ids("<think>", "a"), index=1),
            chunk({"content": "b"}, ids("b"), index=0),
            chunk({"content": "<think>a</think>c"}, ids("</think>", "c"), index=1),
            chunk({}, [], index=1, finish="stop"),
        ],
    )
    pieces = [(piece.choice, piece.reasoning_ids) for step in steps for piece in step.pieces]
    assert pieces == [(1, ids("a"))]
    assert {index: each.content for index, each in reply.choices.items()} == {0: "b", 1: "c"}
    assert [each.finished for _, each in sorted(reply.choices.items())] == [False, True]


def test_an_event_of_several_choices_loses_only_what_is_hidden() -> None:
    event = orjson.dumps(
        {
            "choices": [
                {"index": 0, "delta": {"reasoning": "why"}, "token_ids": ids("why")},
                {"index": 1, "delta": {"content": "so"}, "token_ids": ids("so")},
            ]
        }
    )
    step = a_reader(rules("none"), n=2).event(event)
    assert seen(step) == {"choices": [{"index": 1, "delta": {"content": "so"}}]}


@pytest.mark.parametrize("per_choice", [True, False])
def test_the_prompts_ids_tell_whether_it_opened_reasoning(*, per_choice: bool) -> None:
    for prompt, wanted in ((("q", "<think>", "\n"), "why"), (("q", "<think>", "</think>"), "")):
        reply = a_reader(rules("think-in-prompt"))
        document = orjson.loads(chunk({"role": "assistant", "content": ""}))
        (document["choices"][0] if per_choice else document)["prompt_token_ids"] = ids(*prompt)
        steps = run(reply, [orjson.dumps(document), chunk({"content": "why"}, ids("why"))])
        assert text_of(TOKENIZER, committed(steps, reply)) == wanted
        assert b"prompt_token_ids" not in (steps[0].data or b"")


def test_calls_of_tools_are_put_together() -> None:
    reply = a_reader(rules())
    parts = [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"x"'}}],
        [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
    ]
    steps = run(reply, [chunk({"tool_calls": part}, ids("z")) for part in parts])
    assert all(step.data is not None for step in steps)
    reply.finish()
    assert reply.choices[0].tool_calls == [ToolCall("f", '{"x":1}'), ToolCall("g", "{}")]
    assert reply.missing(0) is None
    assert b'"name":"f"' in reply.choices[0].answer()


def test_usage_is_passed_on_to_those_who_asked() -> None:
    step = a_reader(rules()).event(usage_chunk())
    assert (step.data, step.usage) == (None, True)
    step = a_reader(rules(), stream_options={"include_usage": True}).event(usage_chunk())
    assert (step.same, step.usage) == (True, True)
    assert orjson.loads(step.with_field("coin", {"a": 1}))["coin"] == {"a": 1}
    # Beside choices it is the upstream's own habit.
    step = a_reader(rules()).event(chunk({}, finish="stop", usage={"completion_tokens": 2}))
    assert (step.same, step.usage) == (True, True)


@pytest.mark.parametrize("field", ["reasoning", "content"])
def test_text_that_comes_after_its_ids_is_no_mismatch(field: str) -> None:
    reply = a_reader(rules())
    chunks = [chunk({field: "w"}, ids("<think>", "why")), chunk({field: "hy"})]
    chunks += [chunk({}, ids("</think>", "so")), chunk({"content": "so"}, [], finish="stop")]
    steps = run(reply, chunks)
    assert committed(steps, reply) == ids("why")
    assert content_of(steps) == "so"
    assert reply.missing(0) is None


def test_a_long_text_that_waits_for_its_end_is_said_to_be_slow() -> None:
    reply = a_reader(rules("none"))
    slow = []
    for _ in range(3):
        reply.event(chunk({"reasoning": "\u6f22" * 8192}))
        slow.append(reply.slow_finish)
    assert slow == [False, False, True]


def body(message: dict[str, Any], token_ids: list[int] | None = None, **more: Any) -> bytes:
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    if token_ids is not None:
        choice["token_ids"] = token_ids
    return orjson.dumps({"id": "r-1", "object": "chat.completion", "choices": [choice], **more})


def test_a_plain_reply_is_read_like_a_stream() -> None:
    whole = ids("<think>", "why", "</think>", "so", "<|im_end|>")
    for message in ({"content": "<think>why</think>so"}, {"reasoning": "why", "content": "so"}):
        reply = a_reader(rules(), stream=False)
        step = reply.body(body({"role": "assistant", **message}, whole, usage={"a": 1}))
        assert seen(step) == orjson.loads(
            body({"role": "assistant", "content": "so"}, usage={"a": 1})
        )
        assert committed([step], reply) == ids("why")
        assert reply.choices[0].answer_tokens == len(whole) - len(ids("why"))
        assert (reply.response_id, reply.usage, reply.missing(0)) == ("r-1", {"a": 1}, None)


def test_raw_reasoning_before_a_call_in_a_plain_reply_is_hidden() -> None:
    reply = a_reader(rules(), stream=False)
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    whole = ids("<think>", "why", "</think>", "so", '{"name": "f"}')
    step = reply.body(body({"content": "<think>why</think>so", "tool_calls": [call]}, whole))
    assert seen(step)["choices"][0]["message"] == {"content": "so", "tool_calls": [call]}
    assert committed([step], reply) == ids("why")
    assert reply.missing(0) is None


def test_a_plain_reply_of_text_is_tokenized_again() -> None:
    reply = a_reader(rules(), stream=False)
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    step = reply.body(body({"reasoning": "why", "content": None, "tool_calls": [call]}))
    assert seen(step)["choices"][0]["message"] == {"content": None, "tool_calls": [call]}
    assert committed([step], reply) == ids("why")
    assert reply.choices[0].tool_calls == [ToolCall("f", "{}")]


@pytest.mark.parametrize(
    "beside",
    [{"sglext": {"output_ids": [ids("why")]}}, {"nvext": {"completion_token_ids": ids("why")}}],
)
def test_ids_beside_the_choices_are_taken(beside: dict[str, Any]) -> None:
    reply = a_reader(rules("none"), stream=False)
    step = reply.body(body({"reasoning": "why", "content": None}, **beside))
    assert committed([step], reply) == ids("why")
    assert not reply.choices[0].retokenized
    assert b"_ids" not in (step.data or b"")
    streamed = a_reader(rules("none"))
    step = streamed.event(orjson.dumps({"choices": [], **beside}))
    assert b"_ids" not in (step.data or b"")


def test_an_error_is_passed_on_as_it_came() -> None:
    raw = b'{"error": {"message": "no"}}'
    for step_of in (a_reader(rules()).event, a_reader(rules(), stream=False).body):
        assert step_of(raw).data is raw
    reply = a_reader(rules())
    reply.event(raw)
    assert (reply.failed, reply.problem) == (True, None)


@pytest.mark.parametrize("text", ["once upon", "upon"])
@pytest.mark.parametrize("prompt", ["once", ["never", "once"], [1, 2]])
def test_text_that_repeats_the_prompt_is_compared_from_there_on(text: str, prompt: Any) -> None:
    index = 1 if prompt == ["never", "once"] else 0
    reply = a_reader(rules(), Endpoint.COMPLETIONS, echo=True, prompt=prompt)
    step = reply.event(chunk(text, ids(" upon"), finish="stop", index=index))
    reply.finish()
    assert seen(step)["choices"][0]["text"] == text == reply.choices[index].content
    assert reply.missing(index) is None


def test_ids_of_another_text_than_the_one_after_the_prompt_are_told() -> None:
    reply = a_reader(rules(), Endpoint.COMPLETIONS, echo=True, prompt="once")
    reply.event(chunk("once upon", ids(" above"), finish="stop"))
    reply.finish()
    assert reply.missing(0) is not None


def test_the_prompts_text_tells_whether_it_opened_reasoning() -> None:
    for echo in (True, False):
        prompt = "why?<think>\n"
        reply = a_reader(rules(), Endpoint.COMPLETIONS, prompt=prompt, echo=echo)
        begin = prompt if echo else ""
        events = [chunk(f"{begin}sec"), chunk("ret</think>"), chunk("so", finish="stop")]
        steps = run(reply, events)
        assert content_of(steps) == f"{begin}so"
        assert committed(steps, reply) == ids("secret")
        assert reply.missing(0) is None


def test_gpt_oss_is_read_as_vllm_gives_it() -> None:
    """Reasoning and content are parsed; ids are those of the raw channels."""
    chunks = [
        chunk({"role": "assistant", "content": ""}),
        chunk({}, ids("<|channel|>")),
        chunk({}, ids("analysis")),
        chunk({}, ids("<|message|>")),
        chunk({"reasoning": "why"}, ids("why")),
        chunk({}, ids("<|end|>", "<|start|>", "assistant", "<|channel|>", "final", "<|message|>")),
        chunk({"content": "so"}, ids("so")),
        chunk({}, ids("<|return|>"), finish="stop"),
    ]
    reply = a_reader(rules("gpt-oss"))
    steps = run(reply, chunks)
    assert committed(steps, reply) == ids("why")
    assert content_of(steps) == "so"
    assert reply.missing(0) is None
    assert [step.data is None for step in steps] == [
        False,
        True,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_gpt_oss_without_reasoning_is_no_mismatch() -> None:
    reply = a_reader(rules("gpt-oss"))
    run(
        reply,
        [
            chunk({}, ids("<|channel|>", "final", "<|message|>")),
            chunk({"content": "so"}, ids("so"), finish="stop"),
        ],
    )
    assert reply.finish() == []
    assert reply.missing(0) is None
    assert reply.choices[0].content == "so"


@pytest.mark.parametrize("why", ["", "w", "\nwhy\n", "a thought that is longer than others"])
@pytest.mark.parametrize("whole", [True, False])
def test_reasoning_that_the_upstream_keeps_to_itself_costs_no_answer(
    *, why: str, whole: bool
) -> None:
    """As vLLM does for `include_reasoning: false`: its ids come, and its text does not."""
    texts, so = ("<think>", why, "</think>", "\n\n", "so it is"), "\n\nso it is"
    reply = a_reader(rules(), stream=not whole)
    if whole:
        entry = {"index": 0, "message": {"content": so}, "token_ids": ids(*texts)}
        steps = [reply.body(orjson.dumps({"choices": [{**entry, "finish_reason": "stop"}]}))]
        shown = seen(steps[0])["choices"][0]["message"]["content"]
    else:
        hidden = [chunk({}, [each]) for each in ids(*texts[:3])]
        said = [chunk({"content": text}, ids(text)) for text in ("\n\n", *"so it is")]
        steps = run(reply, [*hidden, *said, chunk({}, [], finish="stop")])
        shown = content_of(steps)
    assert shown.strip() == so.strip()
    assert committed(steps, reply) == ids(why)
    assert reply.missing(0) is None
