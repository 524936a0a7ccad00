"""Deliveries as JSON, and what is remembered of replies that lack one."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format

from coin_protocol.delivery import DELIVERY_FORMAT
from coin_protocol.v1 import delivery_pb2 as pb
from provider_sdk.gateway.delivery import (
    Deliveries,
    as_json,
    delivered_checkpoint,
    delivery,
    missing_choice,
)
from provider_sdk.gateway.usage import rewritten
from provider_sdk.provider import Provider
from tests.support.parties import REQUEST, run_session

CALLER = b"c" * 32


def _missing(provider: Provider, name: str) -> pb.Delivery:
    return delivery(
        provider,
        response_id=name,
        client_nonce=b"n" * 16,
        nonce_from_client=True,
        choices=[missing_choice(0, pb.MISSING_REASON_SIGNING_FAILED)],
        reported=None,
    )


def test_json_is_protobufs_own_and_on_one_line(provider: Provider) -> None:
    found = _missing(provider, "chatcmpl-1\n\u2028")
    raw = as_json(found)
    assert b"\n" not in raw
    assert json_format.Parse(raw, pb.Delivery()) == found
    assert json.loads(raw)["format"] == DELIVERY_FORMAT
    signed = run_session(provider).receipt.checkpoints[0].checkpoint
    checkpoint = delivered_checkpoint(3, signed)
    assert json_format.Parse(as_json(checkpoint), pb.DeliveredCheckpoint()) == checkpoint


def test_choices_are_in_order(provider: Provider) -> None:
    choices = [missing_choice(i, pb.MISSING_REASON_NO_TOKEN_IDS) for i in (2, 0, 1)]
    found = delivery(
        provider,
        response_id="a",
        client_nonce=b"",
        nonce_from_client=False,
        choices=choices,
        reported=None,
    )
    assert [choice.choice for choice in found.choices] == [0, 1, 2]


def test_only_the_newest_are_remembered_and_only_for_their_caller(provider: Provider) -> None:
    deliveries = Deliveries(provider, keep=2)
    for name in ("a", "b", "c"):
        deliveries.remember(CALLER, _missing(provider, name))
    assert deliveries.find("a", CALLER) is None
    assert deliveries.find("c", b"") is None
    kept = deliveries.find("c", CALLER)
    assert kept == _missing(provider, "c")


def test_an_id_is_claimed_once_by_each_caller(provider: Provider) -> None:
    deliveries = Deliveries(provider, keep=2)
    assert deliveries.claim("a", CALLER)
    assert not deliveries.claim("a", CALLER)
    assert deliveries.claim("a", b"")


async def test_what_was_late_to_disk_is_found_later(provider: Provider) -> None:
    from coin_protocol.usage import INSIDE, usage_for
    from provider_sdk.record import ReplyRef

    deliveries = Deliveries(provider, keep=2)
    late = _missing(provider, "a")
    late.choices[0].missing = pb.MISSING_REASON_STORE_UNAVAILABLE
    deliveries.remember(CALLER, late)
    assert deliveries.find("a", CALLER) == late
    usage = usage_for(prompt_tokens=0, reasoning_tokens=0, answer_tokens=1, counting=INSIDE)
    ref = ReplyRef("a", 0, CALLER)
    async with provider.session(REQUEST, client_nonce=b"n" * 16, model="m", reply=ref) as session:
        await session.finish(b"x", usage)
    found = deliveries.find("a", CALLER)
    assert found is not None
    assert found.choices[0].HasField("commitment")
    assert not found.choices[0].missing


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 2, "completion_tokens": 7, "total_tokens": 9},
        {"completion_tokens": 7, "completion_tokens_details": None},
        {"input_tokens": 2, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}},
        {"prompt_tokens": None, "completion_tokens": 7, "reasoning_tokens": 3},
    ],
)
def test_usage_that_says_the_same_is_left_byte_for_byte(usage: dict[str, object]) -> None:
    data = json.dumps({"usage": usage}, indent=1).encode()
    assert rewritten(data, 3, 4) is data


@pytest.mark.parametrize("told", [0, 4, [3], {}, "3"])
def test_another_count_of_reasoning_is_rewritten(told: object) -> None:
    usage = {"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": told}}
    found = json.loads(rewritten(json.dumps({"usage": usage}).encode(), 3, 4))["usage"]
    assert found["completion_tokens_details"] == {"reasoning_tokens": 3}


def test_usage_is_rewritten_in_every_form() -> None:
    chat = rewritten(
        b'{"usage": {"prompt_tokens": 2, "completion_tokens": 9, "reasoning_tokens": 1,'
        b' "completion_tokens_details": {"audio_tokens": 0}}}',
        3,
        4,
    )
    assert json.loads(chat)["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 7,
        "total_tokens": 9,
        "reasoning_tokens": 3,
        "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 3},
    }
    response = rewritten(b'{"response": {"usage": {"input_tokens": 2, "output_tokens": 9}}}', 3, 4)
    assert json.loads(response)["response"]["usage"] == {
        "input_tokens": 2,
        "output_tokens": 7,
        "total_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    assert rewritten(b'{"usage": null}', 3, 4) == b'{"usage": null}'
