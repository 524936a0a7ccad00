"""What is kept of a reply: a receipt for each choice, true to the bytes and times that came."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest

from tests.support.gateways import CALLS, ID
from tests.unit.collecting.house import ASKED, LIBRARIES, URL, House


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_leaves_a_receipt_that_passes_every_check(
    house: House, library: Any, *, stream: bool
) -> None:
    with house.client(library) as client:
        reply = client.post(URL, json={**ASKED, "stream": stream})
    (receipt,) = house.receipts
    assert house.failed(receipt) == ""
    assert receipt.request == house.sent[0].content
    assert receipt.answer.decode() == house.gateway.said
    assert receipt.billed.reasoning_tokens == 40
    assert receipt.client_nonce == house.gateway.nonces[0]
    assert len(receipt.checkpoints) == (5 if stream else 0)
    assert reply.status_code == 200
    assert house.problems == []


@pytest.mark.parametrize("library", LIBRARIES)
async def test_an_async_client_leaves_the_same(house: House, library: Any) -> None:
    async with house.async_client(library) as client:
        await client.post(URL, json={**ASKED, "stream": True})
        await client.post(URL, json=ASKED)
    assert [house.failed(receipt) for receipt in house.receipts] == ["", ""]
    assert len(set(house.gateway.nonces)) == 2, "each request has a nonce of its own"


def test_times_are_those_at_which_pieces_came(house: House) -> None:
    start = house.clock.nanoseconds
    with house.client() as client, client.stream("POST", URL, json={**ASKED, "stream": True}) as r:
        for _ in r.iter_bytes():
            # Whoever reads slowly moves no time of what has come.
            house.clock.advance(1.0)
    (receipt,) = house.receipts
    assert receipt.sent_at.ToNanoseconds() == start
    seen = [entry.seen_at.ToNanoseconds() for entry in receipt.checkpoints]
    assert seen == sorted(set(seen))
    assert seen[0] > start
    assert receipt.answer_first_at.ToNanoseconds() > seen[-1]
    assert receipt.answer_last_at.ToNanoseconds() > receipt.answer_first_at.ToNanoseconds()


@pytest.mark.parametrize("stream", [True, False])
def test_each_choice_has_a_receipt_and_no_bill_of_all(house: House, *, stream: bool) -> None:
    house.gateway.choices = 3
    with house.client() as client:
        client.post(URL, json={**ASKED, "stream": stream})
    receipts = house.receipts
    assert [house.failed(receipt) for receipt in receipts] == [""] * 3
    assert len({receipt.commitment.payload for receipt in receipts}) == 3
    assert not any(receipt.HasField("billed") for receipt in receipts)


@pytest.mark.parametrize("stream", [True, False])
def test_calls_of_tools_are_the_answer(house: House, *, stream: bool) -> None:
    house.gateway.calls = CALLS
    with house.client() as client:
        client.post(URL, json={**ASKED, "stream": stream})
    (receipt,) = house.receipts
    assert house.failed(receipt) == ""
    assert json.loads(receipt.answer)["tool_calls"][0]["name"] == "weather"
    assert receipt.HasField("answer_first_at")


def test_a_file_of_lines_names_each_reply(lines: House) -> None:
    with lines.client() as client:
        client.post(URL, json={**ASKED, "stream": True})
        client.post(URL, json=ASKED)
    assert [lines.failed(receipt) for receipt in lines.receipts] == ["", ""]
    documents = [json.loads(line) for line in lines.to.read_text().splitlines()]
    assert {frozenset(each) for each in documents} == {
        frozenset({"response_id", "model", "choice", "received_at", "receipt"})
    }
    assert documents[0]["response_id"] == ID
    assert documents[0]["model"] == "acme-1"
    assert stat.S_IMODE(lines.to.stat().st_mode) == 0o600


def test_files_are_private(house: House) -> None:
    with house.client() as client:
        client.post(URL, json=ASKED)
    assert house.receipts
    (file,) = house.to.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(house.to.stat().st_mode) == 0o700
    assert ID in file.name
