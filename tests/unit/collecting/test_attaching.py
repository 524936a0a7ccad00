"""Clients that are made, and clients of the caller's own that are listened to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from coin_protocol.delivery import NONCE_HEADER
from coin_protocol.errors import InvalidInputError
from tests.support.gateways import mocked
from tests.unit.collecting.house import ASKED, JSON, URL, House
from verifier_sdk.collecting import Collector, collecting, collecting_async


def test_hooks_of_the_client_that_were_there_before_still_run(house: House) -> None:
    order: list[str] = []

    def requested(request: Any) -> None:
        order.append(f"request {NONCE_HEADER in request.headers}")

    def responded(response: Any) -> None:
        response.read()
        order.append("response")

    client = httpx2.Client(
        transport=mocked(httpx2, house.answer),
        event_hooks={"request": [requested], "response": [responded]},
    )
    with house.collector.attach(client):
        client.post(URL, json=ASKED)
    assert order == ["request False", "response"]
    assert len(house.receipts) == 1, "a hook that reads the reply reads it through ours"


def test_two_that_listen_to_one_client_each_keep_a_receipt(house: House, lines: House) -> None:
    with lines.collector.attach(house.client()) as client:
        client.post(URL, json={**ASKED, "stream": True})
    for each in (house, lines):
        (receipt,) = each.receipts
        # Both keep times by their own clock, of which this gateway lets one pass alone.
        assert house.failed(receipt) in {"", "ARRIVAL_TIME"}
        assert receipt.answer.decode() == house.gateway.said


def test_a_reply_that_was_read_before_it_came_is_kept(house: House) -> None:
    def handle(request: Any) -> Any:
        _, pieces = house.answer(request)
        return httpx2.Response(200, headers=JSON, content=b"".join(pieces))

    with house.collector.attach(httpx2.Client(transport=httpx2.MockTransport(handle))) as client:
        client.post(URL, json=ASKED)
    assert [house.failed(receipt) for receipt in house.receipts] == [""]


@pytest.mark.parametrize("client", [object(), None, "httpx"])
def test_only_clients_of_httpx_are_listened_to(house: House, client: object) -> None:
    with pytest.raises(InvalidInputError, match="wanted a client of httpx or httpx2"):
        house.collector.attach(client)


@pytest.mark.parametrize("options", [{"form": "yaml"}, {"vendor": "nobody"}])
def test_options_are_checked_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"yaml|nobody"):
        Collector(tmp_path, **options)


def test_a_place_where_nothing_can_be_kept_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    for to in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "folder.jsonl"):
        with pytest.raises(InvalidInputError):
            Collector(to)


def test_the_clients_that_are_made_are_those_of_openais_package(tmp_path: Path) -> None:
    import openai

    with collecting(tmp_path, timeout=7.0) as client:
        assert isinstance(client, openai.DefaultHttpxClient)
        assert client.timeout.read == 7.0
        assert openai.OpenAI(api_key="k", http_client=client)
    made = collecting_async(str(tmp_path), asserted=True)
    assert isinstance(made, openai.DefaultAsyncHttpxClient)
    assert openai.AsyncOpenAI(api_key="k", http_client=made)
