"""Replies that are not as they should be: each has its outcome, and none makes a reader fail."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.v1 import delivery_pb2 as pb
from provider_sdk.gateway.dialects import Endpoint, Flag
from tests.support.marked import (
    a_reader,
    chunk,
    committed,
    content_of,
    ids,
    prepared,
    rules,
    run,
    seen,
    usage_chunk,
)


def test_usage_before_the_end_is_told_and_the_last_one_counts() -> None:
    reply = a_reader(rules())
    early = []
    last = chunk({}, [], finish="stop", usage={"completion_tokens": 3})
    for raw in (usage_chunk(), chunk({"content": "so"}, ids("so")), last):
        reply.event(raw)
        early.append(reply.usage_early)
    assert early == [False, True, False]
    assert reply.usage == {"completion_tokens": 3}


@pytest.mark.parametrize(
    ("chunks", "reason", "flag"),
    [
        (
            [chunk({"content": "x"}, ids("<think>", "x"), finish="stop")],
            pb.MISSING_REASON_MALFORMED_REASONING,
            Flag.UNCLOSED,
        ),
        (
            [chunk({"content": "x"}, ids("x", "</think>"), finish="stop")],
            pb.MISSING_REASON_MALFORMED_REASONING,
            Flag.STRAY_CLOSE,
        ),
        (
            [chunk({"content": "hello"}, ids("other"))],
            pb.MISSING_REASON_NO_TOKEN_IDS,
            Flag.TEXT_MISMATCH,
        ),
        (
            [chunk({"content": "a"}, ids("a")), chunk({"content": "b"})],
            pb.MISSING_REASON_NO_TOKEN_IDS,
            Flag.TEXT_MISMATCH,
        ),
        (
            [chunk({"content": "a"}), chunk({"content": "b"}, ids("b"))],
            pb.MISSING_REASON_NO_TOKEN_IDS,
            Flag.SOME_IDS,
        ),
        ([chunk({"content": "a"}, [99999])], pb.MISSING_REASON_MALFORMED_UPSTREAM, Flag.BAD_IDS),
        ([chunk({"content": "a"}, [-1])], pb.MISSING_REASON_MALFORMED_UPSTREAM, Flag.BAD_IDS),
        (
            [orjson.dumps({"choices": [{"index": 0, "token_ids": ["a", None, 1.5]}]})],
            pb.MISSING_REASON_MALFORMED_UPSTREAM,
            Flag.BAD_IDS,
        ),
        (
            [orjson.dumps({"choices": [{"index": 0, "token_ids": "abc", "delta": {}}]})],
            pb.MISSING_REASON_MALFORMED_UPSTREAM,
            Flag.BAD_IDS,
        ),
        (
            [chunk({"reasoning": "why"}, ids("oho")), chunk({"reasoning": "why"}, ids("why"))],
            pb.MISSING_REASON_NO_TOKEN_IDS,
            Flag.TEXT_MISMATCH,
        ),
    ],
)
def test_what_is_malformed_has_its_outcome(chunks: list[bytes], reason: int, flag: Flag) -> None:
    reply = a_reader(rules())
    run(reply, chunks)
    reply.finish()
    assert reply.choices[0].flags == {flag}
    missing = reply.missing(0)
    assert missing is not None
    assert missing[0] == reason


def test_reasoning_that_the_length_cut_off_is_committed_to_with_a_note() -> None:
    reply = a_reader(rules())
    step = reply.event(chunk({"content": "x"}, ids("<think>", "x"), finish="length"))
    assert committed([step], reply) == ids("x")
    assert reply.missing(0) is None
    assert reply.choices[0].notes() == ["the reply ended before its reasoning did"]


def test_reasoning_that_a_stop_string_cut_off_is_committed_to() -> None:
    stops: list[dict[str, Any]] = [{"stop_reason": "x"}, {"matched_stop": "x"}]
    for more in stops:
        reply = a_reader(rules())
        step = reply.event(chunk({"content": "x"}, ids("<think>", "x"), finish="stop", **more))
        assert committed([step], reply) == ids("x")
        assert reply.missing(0) is None


def test_bad_ids_leave_the_text_to_be_split() -> None:
    reply = a_reader(rules())
    steps = run(reply, [chunk({"content": "<think>why</think>so"}, [99999], finish="stop")])
    assert content_of(steps) == "so"


def test_reasoning_that_is_billed_and_never_shown_has_no_receipt() -> None:
    reply = a_reader(rules())
    usage = {"completion_tokens_details": {"reasoning_tokens": 7}}
    run(reply, [chunk({"content": "so"}), chunk({}, finish="stop", usage=usage)])
    reply.finish()
    missing = reply.missing(0)
    assert missing is not None
    assert missing[0] == pb.MISSING_REASON_NO_TOKEN_IDS


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"choices": [{]}', b"\xff"])
def test_what_is_no_event_is_passed_on_and_there_is_no_receipt(raw: bytes) -> None:
    reply = a_reader(rules())
    assert reply.event(raw).same
    assert seen(reply.event(chunk({"content": "so"}, ids("so")))) is not None
    missing = reply.missing(0)
    assert missing is not None
    assert missing[0] == pb.MISSING_REASON_MALFORMED_UPSTREAM


@pytest.mark.parametrize("raw", [b"", b"not JSON", b"[]", b'{"object": "chat.completion"}'])
def test_what_is_no_reply_is_passed_on_and_there_is_no_receipt(raw: bytes) -> None:
    reply = a_reader(rules(), stream=False)
    assert reply.body(raw).data is raw
    missing = reply.missing(0)
    assert missing is not None
    assert missing[0] == pb.MISSING_REASON_MALFORMED_UPSTREAM


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 400) | st.text("ab<think>", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("choices", "delta", "message", "content", "reasoning", "token_ids", "index"),
                    *(
                        "usage",
                        "finish_reason",
                        "logprobs",
                        "tool_calls",
                        "function",
                        "name",
                        "text",
                    ),
                    *(
                        "prompt_token_ids",
                        "sglext",
                        "nvext",
                        "output_ids",
                        "error",
                        "object",
                        "type",
                    ),
                    *("response", "output", "item", "part", "summary", "arguments", "thinking"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("endpoint", Endpoint)
@given(
    documents=st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "usage",
                    "id",
                    "type",
                    "response",
                    "output",
                    "item",
                    "part",
                    "error",
                    "delta",
                ]
            ),
            JSON,
        ),
        max_size=4,
    ),
    hide=st.booleans(),
)
def test_no_json_makes_a_reader_fail(
    *, endpoint: Endpoint, documents: list[dict[str, Any]], hide: bool
) -> None:
    streamed = a_reader(rules("think-in-prompt", hide=hide), endpoint)
    for document in documents:
        streamed.event(orjson.dumps(document))
        whole = a_reader(rules("think-in-prompt", hide=hide), endpoint, stream=False)
        whole.body(orjson.dumps(document))
        whole.finish()
    streamed.finish()
    for index in streamed.choices:
        streamed.missing(index)


def test_a_choice_without_a_number_is_malformed_and_still_hides() -> None:
    for index in (-1, 1024, "0", None, True):
        reply = a_reader(rules("none"))
        step = reply.event(chunk({"reasoning": "secret"}, ids("secret"), index=index))  # type: ignore[arg-type]  # on purpose
        assert reply.problem is not None
        assert b"secret" not in (step.data or b"")
        assert b"token_ids" not in (step.data or b"")
        for said in ({"content": "<think>secret"}, "<think>secret"):
            more = chunk(said, logprobs={"tokens": ["secret"]}, reasoning="secret", index=index)  # type: ignore[arg-type]  # on purpose
            assert b"secret" not in (reply.event(more).data or b"")


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_numbers_that_python_alone_writes_show_no_hidden_reasoning(number: str) -> None:
    """As log probabilities of tokens that could not be: clients in Python read them."""
    for whole in (True, False):
        said = {"message" if whole else "delta": {"content": "<think>secret</think>so"}}
        entry = {"index": 0, **said, "finish_reason": "stop", "was": 0.125}
        raw = orjson.dumps({"choices": [entry]}).replace(b"0.125", number.encode())
        reply = a_reader(rules(), stream=not whole)
        step = reply.body(raw) if whole else reply.event(raw)
        assert committed([step], reply) == ids("secret")
        assert reply.missing(0) is None
        shown = seen(step)["choices"][0]
        assert shown["message" if whole else "delta"] == {"content": "so"}
        assert shown["was"] is None
    for raw in (b'{"choices": [{"text": "\\ud800"}]}', b"[" * 10_000, b'{"a": 1' + b"0" * 5000):
        for step_of in (a_reader(rules()).event, a_reader(rules(), stream=False).body):
            assert step_of(raw).data == raw


@pytest.mark.parametrize("special", [True, False])
def test_text_of_other_ids_is_split_by_its_marks(*, special: bool) -> None:
    for texts in (
        ["<think>secret</think>so it <", " is <"],
        ["<thi", "nk>sec", "ret</thi", "nk>so", " it <", " is <"],
    ):
        reply = a_reader(rules(special=special))
        chunks = [chunk({"content": text}, ids("zz")) for text in texts]
        steps = run(reply, [*chunks, chunk({}, [], finish="stop")])
        assert content_of(steps) == "so it < is <" == reply.choices[0].content
        reply.finish()
        missing = reply.missing(0)
        assert missing is not None
        assert missing[0] == pb.MISSING_REASON_NO_TOKEN_IDS


def test_a_choice_that_never_came_has_no_receipt() -> None:
    missing = a_reader(rules(), n=2).missing(1)
    assert missing is not None
    assert missing[0] == pb.MISSING_REASON_MALFORMED_UPSTREAM
    assert prepared(n=2).choices == 2
