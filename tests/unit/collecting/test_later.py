"""What was missed is asked for again, of servers that have receipts, and not for ever."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import httpx2
import pytest

from coin_protocol.delivery import NONCE_HEADER
from coin_protocol.v1 import delivery_pb2
from tests.support.gateways import ID, json_of
from tests.unit.collecting.house import ASKED, JSON, LIBRARIES, STREAM, URL, House
from verifier_sdk.collecting import ProblemKind
from verifier_sdk.collecting import later as asking
from verifier_sdk.collecting.later import Origin, Pending
from verifier_sdk.collecting.reply import Endpoint

LATE = delivery_pb2.MISSING_REASON_STORE_UNAVAILABLE


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_WAITS", (0.0, 0.0, 0.0))


class Slow(House):
    """A gateway whose replies come without their receipt; it is had later.

    Attributes:
        statuses: Of what is answered to who asks again, but for the last, which is 200.
        asked: Where that went, and as whom.
    """

    statuses: list[int]
    asked: list[tuple[str, dict[str, str]]]
    late: bool = False

    def answer(self, request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        if request.method == "GET":
            self.asked.append((str(request.url), dict(request.headers)))
            status = self.statuses.pop(0) if self.statuses else 200
            nonce = self.gateway.nonces[-1]
            found = json.dumps(json_of(self.gateway.delivery(self.gateway.signed, nonce)))
            return {**JSON, "status": str(status)}, [found.encode() if status == 200 else b"no"]
        nonce = bytes.fromhex(request.headers[NONCE_HEADER])
        return dict(STREAM), self._without_receipt(request.content, nonce)

    def _without_receipt(self, request: bytes, nonce: bytes) -> Iterator[bytes]:
        for event in self.gateway.stream(request, nonce):
            if event.startswith(b": coin.receipt"):
                missing = delivery_pb2.DeliveredChoice(choice=0, missing=LATE)
                found = self.gateway.delivery([], nonce)
                found.choices.append(missing)
                if self.late:
                    yield b": coin.receipt " + json.dumps(json_of(found)).encode() + b"\n\n"
                    continue
                return
            yield event


@pytest.fixture
def slow(house: House) -> Slow:
    house.__class__ = Slow
    assert isinstance(house, Slow)
    house.statuses, house.asked = [], []
    return house


def _read_and_leave(client: Any, pieces: int) -> None:
    headers = {"authorization": "Bearer sk-1", "x-other": "y", "x-api-key": "k"}
    asked = {**ASKED, "stream": True}
    with client.stream("POST", URL, json=asked, headers=headers) as reply:
        for number, _ in enumerate(reply.iter_raw(), 1):
            if number == pieces:
                break


@pytest.mark.parametrize("library", LIBRARIES)
def test_who_hangs_up_gets_the_receipt_later_with_the_credentials_of_the_request(
    slow: Slow, library: Any
) -> None:
    slow.statuses = [404, 202]
    with slow.client(library) as client:
        _read_and_leave(client, pieces=10**6)
        (receipt,) = slow.receipts
    assert slow.failed(receipt) == ""
    assert len(receipt.checkpoints) == 5
    assert [url for url, _ in slow.asked] == [f"https://llm.example/coin/v1/receipts/{ID}"] * 3
    headers = slow.asked[-1][1]
    assert headers["authorization"] == "Bearer sk-1"
    assert headers["x-api-key"] == "k"
    assert "x-other" not in headers
    assert slow.problems == []


async def test_an_async_client_gets_it_on_its_own_loop(slow: Slow) -> None:
    slow.statuses = [202]
    async with slow.async_client() as client:
        async with client.stream("POST", URL, json={**ASKED, "stream": True}) as reply:
            async for _ in reply.aiter_raw():
                pass
        assert await asyncio.to_thread(slow.collector.flush, 20)
    (receipt,) = slow.receipts
    assert slow.failed(receipt) == ""
    assert len(slow.asked) == 2


def test_a_loop_that_is_closed_by_then_is_told_of() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    found: list[object] = []
    origin = Origin.of(httpx2.Request("POST", URL), Endpoint.CHAT)
    asking.ask_on_loop(httpx2.AsyncClient(), loop, {}, origin, "a", found.append)
    assert found == [None]


def test_a_loop_that_ends_before_it_asks_leaves_no_coroutine_behind() -> None:
    loop = asyncio.new_event_loop()
    pending: Pending = {}
    found: list[object] = []
    origin = Origin.of(httpx2.Request("POST", URL), Endpoint.CHAT)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asking.ask_on_loop(httpx2.AsyncClient(), loop, pending, origin, "a", found.append)
        assert len(pending) == 1
        loop.close()
        assert asking.settled(pending, 5)
        gc.collect()
    assert found == [None]
    assert [str(warning.message) for warning in told] == []


def test_a_receipt_whose_disk_was_slow_is_had_later(slow: Slow) -> None:
    slow.late = True
    with slow.client() as client:
        _read_and_leave(client, pieces=10**6)
        assert [slow.failed(receipt) for receipt in slow.receipts] == [""]
    assert slow.problems == []


@pytest.mark.parametrize(
    ("statuses", "asked"), [([404] * 9, 3), ([202] * 9, 3), ([500], 1), ([401], 1)]
)
def test_what_is_not_to_be_had_is_told_of(slow: Slow, statuses: list[int], asked: int) -> None:
    slow.statuses = statuses
    with slow.client() as client:
        _read_and_leave(client, pieces=10**6)
        assert slow.kinds() == [ProblemKind.INCOMPLETE]
    assert len(slow.asked) == asked
    assert list(slow.to.iterdir()) == []


def test_a_client_that_is_closed_by_then_is_told_of(slow: Slow) -> None:
    with slow.client() as client:
        asking_later = slow.collector.flush
        _read_and_leave(client, pieces=10**6)
        client.close()
    assert asking_later(20)
    assert set(slow.kinds()) <= {ProblemKind.INCOMPLETE}


def test_a_server_that_never_spoke_of_receipts_is_not_asked(slow: Slow) -> None:
    with slow.client() as client:
        _read_and_leave(client, pieces=1)
        assert slow.kinds() == []
    assert slow.asked == []


def test_one_that_has_spoken_of_them_is_asked(slow: Slow) -> None:
    with slow.client() as client:
        _read_and_leave(client, pieces=3)
        slow.statuses = [500]
        assert slow.collector.flush(20)
        before = len(slow.asked)
        _read_and_leave(client, pieces=1)
        assert slow.collector.flush(20)
    assert len(slow.asked) == before + 1


def test_a_commitment_to_more_than_was_read_is_no_receipt_of_it(slow: Slow) -> None:
    with slow.client() as client:
        _read_and_leave(client, pieces=8)
        assert slow.kinds() == [ProblemKind.INCOMPLETE]
    assert "left before the reply's end" in slow.problems[0].message
    assert list(slow.to.iterdir()) == []


def test_an_answer_past_the_limit_is_refused(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_MESSAGE_BYTES", 50)
    monkeypatch.setattr("coin_protocol.delivery.MAX_MESSAGE_BYTES", 50)
    with slow.client() as client:
        _read_and_leave(client, pieces=10**6)
        assert ProblemKind.INCOMPLETE in slow.kinds()


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ("/v1/chat/completions", "/coin/v1/receipts/a%2Fb%3F"),
        ("/v1/chat/completions?x=/v1/", "/coin/v1/receipts/a%2Fb%3F"),
        ("/acme%20x/v1/chat/completions/", "/acme%20x/coin/v1/receipts/a%2Fb%3F"),
        ("/chat/completions", "/coin/v1/receipts/a%2Fb%3F"),
    ],
)
def test_deliveries_lie_beside_what_was_asked(library: Any, asked: str, where: str) -> None:
    request = library.Request("POST", f"https://llm.example:8443{asked}")
    origin = Origin.of(request, Endpoint.CHAT)
    assert origin.of_reply("a/b?") == f"https://llm.example:8443{where}"


def test_credentials_are_in_no_repr() -> None:
    request = httpx2.Request("POST", URL, headers={"authorization": "Bearer sk-1"})
    assert "sk-1" not in repr(Origin.of(request, Endpoint.CHAT))
