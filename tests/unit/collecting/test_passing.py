"""Every reply flows byte for byte as it came, whatever is kept of it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.marked import cut, cuttings
from tests.unit.collecting.house import ASKED, JSON, LIBRARIES, STREAM, URL, House
from verifier_sdk.collecting import ProblemKind

CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "identity": bytes}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("stream", [True, False])
def test_compressed_replies_are_read_and_passed_on_as_they_came(
    house: House, coding: str, *, stream: bool
) -> None:
    raw: list[bytes] = []

    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        headers, pieces = house.answer(request)
        plain = b"".join(pieces)
        raw.append(CODINGS[coding](plain))
        size = 7
        cut = [raw[0][at : at + size] for at in range(0, len(raw[0]), size)]
        return {**headers, "content-encoding": coding}, cut

    passed = []
    with (
        house.client(answer=answer) as client,
        client.stream("POST", URL, json={**ASKED, "stream": stream}) as reply,
    ):
        passed += list(reply.iter_raw())
    assert b"".join(passed) == raw[0]
    (receipt,) = house.receipts
    assert receipt.answer.decode() == house.gateway.said


def test_compressions_that_are_not_undone_here_are_not_asked_for(house: House) -> None:
    found = []

    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        found.append(request.headers["accept-encoding"])
        return dict(JSON), [b"{}"]

    with house.client(answer=answer) as client:
        for sent in ("gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.5", "br", "identity"):
            client.post(URL, json=ASKED, headers={"accept-encoding": sent})
        client.get("https://llm.example/v1/models", headers={"accept-encoding": "br"})
    assert found == ["gzip, deflate", "gzip;q=0.5", "identity", "identity", "br"]


def test_a_reply_compressed_otherwise_flows_and_is_told_of(house: House) -> None:
    def answer(_: Any) -> tuple[dict[str, str], Iterable[Any]]:
        return {**JSON, "content-encoding": "br"}, [b"\x0b\x02\x80{}\x03"]

    with (
        house.client(answer=answer) as client,
        client.stream("POST", URL, json=ASKED) as reply,
    ):
        assert b"".join(reply.iter_raw()) == b"\x0b\x02\x80{}\x03"
    assert house.kinds() == [ProblemKind.REPLY]


# Byte for byte

BODIES = st.one_of(
    st.binary(max_size=400),
    st.lists(
        st.sampled_from(
            [
                b'data: {"id": "a", "choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n',
                b'data: {"choices": [{"index": 9999, "delta": {}}], "usage": {"a": 1}}\n\n',
                b': coin.checkpoint {"choice": 0}\n\n',
                b': coin.receipt {"format": "coin.delivery.v1"}\n\n',
                b": coin.receipt [[[\n\n",
                b"data: [1, 2]\n\n",
                b'data: {"choices": [1, {"delta": {"content": [{"type": []}]}}]}\n\n',
                b'data: {"choices": [{"delta": {"tool_calls": [{"function": {"name": 1}}]}}]}\n\n',
                b'data: {"type": "response.completed", "response": {"output": [[]]}}\n\n',
                b'data: {"coin": {"checkpoint": 5}}\r\n\r\n',
                b"data: [DONE]\n\n",
                b"\xff\n\n",
            ]
        ),
        max_size=12,
    ).map(b"".join),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_every_byte_passes_as_it_came_however_it_is_cut(house: House, data: st.DataObject) -> None:
    body = data.draw(BODIES)
    pieces = cut(body, data.draw(cuttings(len(body))))
    library = data.draw(st.sampled_from([httpx, httpx2]))
    headers: dict[str, str] = data.draw(
        st.sampled_from([STREAM, JSON, {}, {**STREAM, "content-encoding": "gzip"}])
    )
    path = data.draw(st.sampled_from(["/v1/chat/completions", "/v1/responses", "/v1/completions"]))

    def answer(_: Any) -> tuple[dict[str, str], Iterable[Any]]:
        return dict(headers), pieces

    with (
        house.client(library, answer) as client,
        client.stream("POST", f"https://llm.example{path}", json=ASKED) as reply,
    ):
        assert list(reply.iter_raw()) == [piece for piece in pieces if piece]
    assert ProblemKind.INTERNAL not in house.kinds()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_every_awaited_byte_passes_as_it_came(house: House, data: st.DataObject) -> None:
    body = data.draw(BODIES)
    pieces = cut(body, data.draw(cuttings(len(body))))
    stop = data.draw(st.integers(0, len(pieces)))

    def answer(_: Any) -> tuple[dict[str, str], Iterable[Any]]:
        return dict(STREAM), pieces

    async def read() -> list[bytes]:
        passed: list[bytes] = []
        async with (
            house.async_client(answer=answer) as client,
            client.stream("POST", URL, json=ASKED) as reply,
        ):
            async for piece in reply.aiter_raw():
                passed.append(piece)
                if len(passed) == stop:
                    break
        return passed

    wanted = [piece for piece in pieces if piece]
    assert asyncio.run(read()) == (wanted[:stop] if 0 < stop <= len(wanted) else wanted)
    assert ProblemKind.INTERNAL not in house.kinds()


def test_pieces_come_one_by_one_and_none_waits_for_the_next(house: House) -> None:
    given_out: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            given_out.append(number)
            yield b"data: {}\n\n"

    with (
        house.client(answer=lambda _: (dict(STREAM), pieces())) as client,
        client.stream("POST", URL, json=ASKED) as reply,
    ):
        for number, _ in enumerate(reply.iter_raw()):
            assert given_out == list(range(number + 1))


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_error_of_the_connection_is_the_readers_own(house: House, library: Any) -> None:
    def answer(request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        headers, pieces = house.answer(request)
        return headers, [*list(pieces)[:-1], library.ReadError("reset")]

    with (
        house.client(library, answer) as client,
        client.stream("POST", URL, json={**ASKED, "stream": True}) as reply,
        pytest.raises(library.ReadError, match="reset"),
    ):
        list(reply.iter_raw())
    (receipt,) = house.receipts
    assert house.failed(receipt) == "", "what was handed over before it broke is kept"
