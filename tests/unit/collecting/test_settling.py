"""What comes of an exchange whose parts are not as they should be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google.protobuf import json_format

from coin_protocol.delivery import CHECKPOINT, RECEIPT
from coin_protocol.errors import InvalidInputError, MissingDependencyError
from coin_protocol.sse import SseParser, comment
from coin_protocol.v1 import delivery_pb2
from provider_sdk.provider import Provider
from tests.support.gateways import SmallGateway, json_of
from tests.support.parties import Clock
from verifier_sdk.collecting import Collector, ProblemKind, collecting
from verifier_sdk.collecting.exchange import Asked, End, Exchange
from verifier_sdk.collecting.keeping import Lines
from verifier_sdk.collecting.later import ask_on_thread
from verifier_sdk.collecting.reply import Endpoint
from verifier_sdk.collecting.settling import Settled, settle
from verifier_sdk.collecting.worker import Worker

REQUEST = b'{"stream": true, "model": "m"}'


def heard(*events: bytes, how: End = End.WHOLE, kind: str = "text/event-stream") -> Settled:
    exchange = Exchange(Asked(Endpoint.CHAT, REQUEST, b"n" * 32))
    exchange.begin(kind=kind, coding="")
    for event in events:
        exchange.feed(event, exchange.now())
    assert exchange.end(how)
    assert not exchange.end(End.LEFT), "the first end counts"
    exchange.feed(b"data: late\n\n", exchange.now())
    return settle(exchange)


def kinds(settled: Settled) -> list[ProblemKind]:
    return [problem.kind for problem in settled.problems]


@pytest.fixture
def events(provider: Provider) -> list[bytes]:
    return list(SmallGateway(provider, Clock()).stream(REQUEST, b"n" * 32))


def edited(events: list[bytes], edit: Callable[[delivery_pb2.Delivery], object]) -> list[bytes]:
    """Return a stream with another delivery."""
    found = delivery_pb2.Delivery()
    kept = [event for event in events if not event.startswith(b": coin.receipt")]
    (told,) = [event for event in events if event.startswith(b": coin.receipt")]
    json_format.Parse(told.partition(b"receipt ")[2], found)
    edit(found)
    return [*kept, comment(RECEIPT, json.dumps(json_of(found)).encode())]


def test_a_stream_is_heard_whole(events: list[bytes]) -> None:
    settled = heard(*events)
    assert len(settled.receipts) == 1
    assert (kinds(settled), settled.served, settled.late, settled.note) == ([], True, False, None)


def test_a_last_event_may_lack_its_blank_line(events: list[bytes]) -> None:
    *rest, last = [event for event in events if event != b"data: [DONE]\n\n"]
    assert last.startswith(b": coin.receipt")
    assert len(heard(*rest, last.rstrip(b"\n")).receipts) == 1
    assert heard(*rest, last.rstrip(b"\n"), how=End.BROKEN).receipts == []


def test_the_kind_that_was_asked_for_is_read_where_the_server_names_none(
    events: list[bytes],
) -> None:
    for kind in ("", "text/plain"):
        assert len(heard(*events, kind=kind).receipts) == 1


def test_a_second_delivery_takes_the_first_back(events: list[bytes]) -> None:
    def take_back(delivery: delivery_pb2.Delivery) -> None:
        delivery.choices[0].ClearField("commitment")
        delivery.choices[0].missing = delivery_pb2.MISSING_REASON_MALFORMED_UPSTREAM

    settled = heard(*events[:-1], edited(events, take_back)[-1])
    assert settled.receipts == []
    assert kinds(settled) == [ProblemKind.MISSING]
    assert settled.note is not None


def test_a_reason_that_this_reader_has_no_name_for_is_told_as_a_number(
    events: list[bytes],
) -> None:
    def unheard_of(delivery: delivery_pb2.Delivery) -> None:
        delivery.choices[0].ClearField("commitment")
        delivery.choices[0].missing = 99  # type: ignore[assignment]

    (problem,) = heard(*edited(events, unheard_of)).problems
    assert problem.message.endswith(": 99")


def test_a_checkpoint_that_cannot_be_read_costs_only_itself(events: list[bytes]) -> None:
    settled = heard(comment(CHECKPOINT, b'{"checkpoint": 5}'), *events)
    assert len(settled.receipts) == 1
    assert kinds(settled) == [ProblemKind.DELIVERY]


def test_a_commitment_that_cannot_be_read_is_kept_for_whoever_checks_it(
    events: list[bytes],
) -> None:
    def garbage(delivery: delivery_pb2.Delivery) -> None:
        delivery.choices[0].commitment.payload = b"\xff"

    assert len(heard(*edited(events, garbage), how=End.LEFT).receipts) == 1


def test_a_choice_that_said_nothing_has_an_empty_answer(events: list[bytes]) -> None:
    def other(delivery: delivery_pb2.Delivery) -> None:
        delivery.choices[0].choice = 7

    (kept,) = heard(*edited(events, other)).receipts
    assert (kept.choice, kept.receipt.answer) == (7, b"")
    assert not kept.receipt.HasField("answer_first_at")


@pytest.mark.parametrize(
    "event",
    [
        b"data: no json\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": [5]}\n\n',
        b'data: {"choices": [{"index": 2000}]}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_an_answer_that_was_not_understood_is_no_receipt(events: list[bytes], event: bytes) -> None:
    settled = heard(event, *events)
    assert settled.receipts == []
    assert kinds(settled) == [ProblemKind.REPLY]


def test_an_event_past_the_limit_ends_what_is_kept(
    events: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(SseParser, max_event_bytes=99)
    monkeypatch.setattr("verifier_sdk.collecting.exchange.SseParser", small)
    settled = heard(b"data: " + b"x" * 500, b"x" * 500 + b"\n\n", *events)
    assert settled.receipts == []
    assert kinds(settled)[0] is ProblemKind.REPLY


def test_a_bill_that_does_not_add_up_is_left_out(events: list[bytes]) -> None:
    odd = b'data: {"choices": [], "usage": {"prompt_tokens": -1}}\n\n'
    (kept,) = heard(*events[:-1], odd, events[-1]).receipts
    assert not kept.receipt.HasField("billed")


def test_a_usage_block_without_end_is_no_note() -> None:
    usage = {"prompt_tokens": 1, "more": "x" * 70_000}
    chunk = {"id": "a", "choices": [], "usage": usage}
    note = heard(b"data: " + json.dumps(chunk).encode() + b"\n\n").note
    assert note is not None
    assert note["usage"] is None


def test_what_a_request_is_that_is_no_object_costs_no_note() -> None:
    exchange = Exchange(Asked(Endpoint.CHAT, b"[1"))
    exchange.begin(kind="", coding="")
    exchange.feed(b'{"id": "a"}', exchange.now())
    exchange.end(End.WHOLE)
    note = settle(exchange).note
    assert note is not None
    assert "max_tokens" not in note


@pytest.mark.parametrize(
    ("prompt", "noted"), [('["why?", "how?"]', 2), ("[[1, 2], [3]]", 2), ("[1, 2]", None)]
)
def test_how_many_prompts_a_request_has_is_noted(prompt: str, noted: int | None) -> None:
    """Each may be answered up to the cap."""
    request = f'{{"prompt": {prompt}, "max_tokens": 90}}'.encode()
    exchange = Exchange(Asked(Endpoint.COMPLETIONS, request))
    exchange.begin(kind="", coding="")
    exchange.feed(b'{"id": "a"}', exchange.now())
    exchange.end(End.WHOLE)
    note = settle(exchange).note
    assert note is not None
    assert (note["max_tokens"], note.get("prompts")) == (90, noted)


def test_nothing_of_the_conversation_is_in_a_repr(events: list[bytes]) -> None:
    settled = heard(*events)
    text = repr((settled, settled.receipts[0], Asked(Endpoint.CHAT, b"secret request")))
    assert "secret request" not in text
    assert "blue" not in text


def test_a_note_that_cannot_be_written_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[Any] = []
    collector = Collector(tmp_path / "a.jsonl", asserted=True, on_problem=problems.append)
    answer = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"id": "a"}))

    def full(*_: object) -> None:
        msg = "cannot write"
        raise InvalidInputError(msg)

    monkeypatch.setattr(Lines, "note", full)
    with collector.attach(httpx2.Client(transport=answer)) as client:
        client.post("https://llm.example/v1/responses", json={})
    assert collector.flush(20)
    assert [problem.kind for problem in problems] == [ProblemKind.WRITE]


def test_without_openais_package_what_to_install_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match="package openai: install it"):
        collecting(tmp_path)


def test_no_more_is_asked_again_than_can_be_waited_for() -> None:
    class Full(Worker):
        def waiting(self) -> int:
            return 10**6

    found: list[object] = []
    ask_on_thread(None, Full("test"), None, "a", found.append)  # type: ignore[arg-type]
    assert found == [None]
