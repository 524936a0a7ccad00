"""What cannot be kept is told of, once, and never to whoever reads the reply."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coin_protocol.delivery import NONCE_HEADER
from coin_protocol.errors import InvalidInputError
from coin_protocol.v1 import delivery_pb2, receipt_pb2
from provider_sdk.provider import Provider
from tests.support.gateways import ID
from tests.support.parties import Parties
from tests.unit.collecting.house import ASKED, JSON, STREAM, URL, House
from verifier_sdk.collecting import Collector, ProblemKind


def test_a_server_without_receipts_leaves_nothing_and_no_problem(house: House) -> None:
    def answer(_: Any) -> tuple[dict[str, str], Iterable[Any]]:
        return dict(JSON), [b'{"id": "a", "model": "m", "choices": [], "usage": {}}']

    with house.client(answer=answer) as client:
        client.post(URL, json=ASKED)
    assert house.collector.flush(20)
    assert list(house.to.iterdir()) == []
    assert house.problems == []


def test_what_a_server_without_receipts_asserts_is_noted_where_that_is_asked_for(
    lines: House,
) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 9}
    chunks = [
        {"id": "a", "model": "m", "choices": [{"index": 0, "delta": {"content": "x"}}]},
        {"id": "a", "model": "m", "choices": [{"index": 0, "delta": {"content": "y"}}]},
        {"id": "a", "model": "m", "choices": [], "usage": usage},
    ]

    def pieces() -> Iterator[bytes]:
        for chunk in chunks:
            lines.clock.advance(1.0)
            yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    asked = {**ASKED, "stream": True, "max_tokens": 90, "max_completion_tokens": True, "n": 1}
    start = lines.clock.nanoseconds
    with lines.client(answer=lambda _: (dict(STREAM), pieces())) as client:
        client.post(URL, json=asked)
    assert lines.collector.flush(20)
    (note,) = [json.loads(line) for line in lines.to.read_text().splitlines()]
    times = {
        name: note.pop(name) for name in ("sent_at", "first_at", "last_at", "ended_at", "time")
    }
    assert note == {
        "response_id": "a",
        "id": "a",
        "model": "m",
        "usage": usage,
        "whole": True,
        "max_tokens": 90,
        "n": 1,
    }
    stamps = {name: receipt_pb2.SeenCheckpoint() for name in times}
    for name, stamp in stamps.items():
        stamp.seen_at.FromJsonString(times[name])
    since = {name: (stamp.seen_at.ToNanoseconds() - start) / 1e9 for name, stamp in stamps.items()}
    assert since == {"sent_at": 0.0, "first_at": 1.0, "last_at": 2.0, "ended_at": 3.0, "time": 3.0}
    assert lines.problems == []


def test_notes_of_a_folder_have_a_file_of_their_own(
    parties: Parties, provider: Provider, tmp_path: Path
) -> None:
    house = House(parties, provider, tmp_path / "receipts", asserted=True)
    body = b'{"id": "a", "model": "m", "choices": [], "usage": {"completion_tokens": 5}}'
    with house.client(answer=lambda _: (dict(JSON), [body])) as client:
        client.post(URL, json=ASKED)
    assert house.receipts == []
    note = json.loads((house.to / "asserted.jsonl").read_text())
    assert note["usage"] == {"completion_tokens": 5}
    assert stat.S_IMODE((house.to / "asserted.jsonl").stat().st_mode) == 0o600


def _without(reason: delivery_pb2.MissingReason.ValueType) -> Callable[[Any], None]:
    def edit(delivery: delivery_pb2.Delivery) -> None:
        delivery.choices[0].ClearField("commitment")
        delivery.choices[0].missing = reason

    return edit


def test_why_the_server_has_no_receipt_is_told_and_each_kind_logged_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.gateway.edit = _without(delivery_pb2.MISSING_REASON_SIGNING_FAILED)
    with caplog.at_level(logging.WARNING), house.client() as client:
        for _ in range(3):
            client.post(URL, json=ASKED)
        assert house.kinds() == [ProblemKind.MISSING] * 3
    assert house.problems[0].response_id == ID
    assert "SIGNING_FAILED" in house.problems[0].message
    assert len([each for each in caplog.records if "SIGNING_FAILED" in each.message]) == 1


def test_a_delivery_that_cannot_be_read_is_told_of(house: House) -> None:
    house.gateway.edit = lambda delivery: setattr(delivery, "format", "coin.delivery.v9")
    with house.client() as client:
        client.post(URL, json=ASKED)
    assert house.kinds() == [ProblemKind.DELIVERY]


def test_a_nonce_that_got_lost_is_told_of_and_the_receipt_is_kept(house: House) -> None:
    house.gateway.edit = lambda delivery: setattr(delivery, "client_nonce", b"n" * 32)
    with house.client() as client:
        client.post(URL, json=ASKED)
    assert house.kinds() == [ProblemKind.NONCE]
    assert len(house.receipts) == 1


def test_a_nonce_of_the_callers_own_is_sent_and_kept(house: House) -> None:
    with house.client() as client:
        client.post(URL, json=ASKED, headers={NONCE_HEADER: "ab" * 16})
    (receipt,) = house.receipts
    assert receipt.client_nonce == b"\xab" * 16 == house.gateway.nonces[0]


def test_a_malformed_nonce_goes_out_as_it_is_and_nothing_is_kept(house: House) -> None:
    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        assert request.headers[NONCE_HEADER] == "zz"
        return {"status": "400"}, [b"no"]

    with house.client(answer=answer) as client:
        assert client.post(URL, json=ASKED, headers={NONCE_HEADER: "zz"}).status_code == 400
    assert house.kinds() == []


def test_other_requests_pass_untouched(house: House) -> None:
    seen = []

    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        seen.append(request)
        return dict(JSON), [b"{}"]

    with house.client(answer=answer) as client:
        client.get(URL)
        client.post("https://llm.example/v1/embeddings", json={})
    assert not any(NONCE_HEADER in request.headers for request in seen)


@pytest.mark.parametrize("status", ["400", "429", "500"])
def test_errors_of_the_server_leave_nothing(house: House, status: str) -> None:
    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        headers, pieces = house.answer(request)
        return {**headers, "status": status}, pieces

    with house.client(answer=answer) as client:
        assert client.post(URL, json=ASKED).status_code == int(status)
    assert house.kinds() == []
    assert list(house.to.iterdir()) == []


def test_a_redirect_keeps_the_request_and_its_nonce(house: House) -> None:
    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        if request.url.host == "llm.example":
            return {"status": "307", "location": "https://other.example/v1/chat/completions"}, []
        return house.answer(request)

    with house.client(answer=answer) as client:
        client.post(URL, json=ASKED, follow_redirects=True)
    (receipt,) = house.receipts
    assert house.failed(receipt) == ""


def test_a_body_that_is_a_stream_goes_out_and_is_told_of(house: House) -> None:
    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        request.read()
        return dict(JSON), [b"{}"]

    with house.client(answer=answer) as client:
        client.post(URL, content=iter([b"{}"]))
    assert house.kinds() == [ProblemKind.REQUEST]


def test_a_request_past_the_limit_goes_out_and_is_told_of(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier_sdk.collecting.hooks.MAX_TEXT_BYTES", 10)
    with house.client(answer=lambda _: (dict(JSON), [b"{}"])) as client:
        assert client.post(URL, json=ASKED).content == b"{}"
    assert house.kinds() == [ProblemKind.REQUEST]
    assert "at most 10" in house.problems[0].message


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_past_the_limit_flows_and_is_told_of(
    house: House, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    monkeypatch.setattr("verifier_sdk.collecting.reply.MAX_TEXT_BYTES", 20)
    with house.client() as client:
        reply = client.post(URL, json={**ASKED, "stream": stream})
    assert len(reply.content) > 20
    assert house.kinds() == [ProblemKind.REPLY]


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_past_the_limit_flows_and_is_told_of(
    house: House, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    monkeypatch.setattr("verifier_sdk.collecting.exchange.MAX_MESSAGE_BYTES", 900)
    with house.client() as client:
        reply = client.post(URL, json={**ASKED, "stream": stream})
    assert len(reply.content) > 900
    assert house.kinds() == [ProblemKind.REPLY]


def test_a_disk_that_fails_is_told_of_and_the_reply_flows(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        msg = "cannot write: no space left"
        raise InvalidInputError(msg)

    monkeypatch.setattr("verifier_sdk.collecting.keeping.write_file", full)
    with house.client() as client:
        assert client.post(URL, json=ASKED).json()["id"] == ID
    assert house.kinds() == [ProblemKind.WRITE]


@pytest.mark.parametrize("place", ["settling.Recorder", "exchange.comments", "hooks.Asked"])
def test_a_bug_of_ours_is_told_of_and_shows_nothing_of_the_reply(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "secret text"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(f"verifier_sdk.collecting.{place}", broken)
    with house.client() as client:
        headers = {NONCE_HEADER: "ab" * 16}
        reply = client.post(URL, json={**ASKED, "stream": True}, headers=headers)
        assert reply.content.endswith(b"data: [DONE]\n\n")
    assert house.kinds() == [ProblemKind.INTERNAL]
    assert "secret text" not in caplog.text + str(house.problems)


def test_a_callback_that_fails_is_the_callbacks_own_affair(
    parties: Parties, provider: Provider, tmp_path: Path
) -> None:
    house = House(parties, provider, tmp_path)
    house.collector = Collector(tmp_path, on_problem=lambda _: 1 / 0)
    with house.client(answer=lambda _: (dict(JSON), [b'{"coin": {"format": 1}}'])) as client:
        assert client.post(URL, json=ASKED).status_code == 200
    assert house.collector.flush(20)
