"""What a gateway hands over is read within limits, or refused in a sentence."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.delivery import (
    CHECKPOINT,
    DELIVERY_FORMAT,
    RECEIPT,
    comments,
    read_checkpoint,
    read_delivery,
    read_nonce_header,
)
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.limits import MAX_CHOICES, MAX_MESSAGE_BYTES, NONCE_MAX_BYTES
from coin_protocol.sse import comment
from coin_protocol.v1 import delivery_pb2 as pb
from coin_protocol.v1 import envelope_pb2

ENVELOPE = envelope_pb2.Envelope(payload_type="type", payload=b"payload")
DELIVERY = pb.Delivery(
    format=DELIVERY_FORMAT,
    response_id="chatcmpl-1",
    client_nonce=b"n" * 32,
    choices=[pb.DeliveredChoice(choice=1, commitment=ENVELOPE)],
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
NAMES = st.sampled_from(["format", "choices", "client_nonce", "key_set", "checkpoint", "choice"])


def as_json(message: pb.Delivery | pb.DeliveredCheckpoint) -> bytes:
    document = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(document).encode()


def test_a_delivery_is_read_from_bytes_and_from_values() -> None:
    raw = as_json(DELIVERY)
    assert read_delivery(raw) == read_delivery(json.loads(raw)) == DELIVERY


def test_a_checkpoint_is_read_from_bytes_and_from_values() -> None:
    found = pb.DeliveredCheckpoint(choice=2, checkpoint=ENVELOPE)
    raw = as_json(found)
    assert read_checkpoint(raw) == read_checkpoint(json.loads(raw)) == found


def test_fields_of_a_later_gateway_are_left_alone() -> None:
    document = json.loads(as_json(DELIVERY)) | {"later": {"a": [1]}}
    assert read_delivery(document) == DELIVERY


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "does not parse"),
        (b"[]", "is a JSON list; wanted an object"),
        (b"\xff", "does not parse"),
        (b"{}", "wanted 'coin.delivery.v1'"),
        (b'{"format": "coin.delivery.v9"}', "found delivery format 'coin.delivery.v9'"),
        (b'{"format": "coin.delivery.v1", "choices": {"a": 1}}', "does not parse"),
        (b'{"format": "coin.delivery.v1", "client_nonce": 5}', "does not parse"),
        (b'{"choices": ' + b"[" * 90 + b"]" * 90 + b"}", "does not parse"),
        (None, "is a JSON NoneType"),
    ],
)
def test_what_is_no_delivery_is_refused(document: object, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        read_delivery(document)


@pytest.mark.parametrize("document", [b"{}", b'{"choice": 1}', b'{"checkpoint": 5}', b"null"])
def test_what_is_no_checkpoint_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_checkpoint(document)


def test_limits_are_checked() -> None:
    large = pb.Delivery(format=DELIVERY_FORMAT)
    large.choices.extend([pb.DeliveredChoice()] * (MAX_CHOICES + 1))
    with pytest.raises(LimitError, match="choices has length 1025"):
        read_delivery(as_json(large))
    nonce = pb.Delivery(format=DELIVERY_FORMAT, client_nonce=bytes(NONCE_MAX_BYTES + 1))
    with pytest.raises(LimitError, match="client_nonce has length 65"):
        read_delivery(as_json(nonce))
    name = pb.Delivery(format=DELIVERY_FORMAT, response_id="x" * 257)
    with pytest.raises(LimitError, match="response_id has length 257"):
        read_delivery(as_json(name))
    with pytest.raises(LimitError, match="at most"):
        read_delivery(b" " * (MAX_MESSAGE_BYTES + 1))


@given(st.one_of(st.binary(max_size=200), JSON, st.dictionaries(NAMES, JSON, max_size=4)))
def test_whatever_comes_is_read_or_refused(document: object) -> None:
    for read in (read_delivery, read_checkpoint):
        with suppress(InvalidInputError):
            assert isinstance(read(document), pb.Delivery | pb.DeliveredCheckpoint)


def test_comments_are_found_among_other_lines() -> None:
    raw = comment(CHECKPOINT, b'{"a":1}') + comment(RECEIPT, b"{}") + comment("coin.other", b"{}")
    assert list(comments(raw)) == [(CHECKPOINT, b'{"a":1}'), (RECEIPT, b"{}")]
    mixed = b': ping\r\n: coin.receipt {"b":2}\r\ndata: : coin.receipt {}\r\n\r\n'
    assert list(comments(mixed)) == [(RECEIPT, b'{"b":2}')]
    assert list(comments(b"data: : coin.receipt {}\n\n: coin.receipts {}\n\n")) == []


@pytest.mark.parametrize(
    ("text", "nonce"),
    [
        (b"ab" * 16, b"\xab" * 16),
        (b" " + b"AB" * 64 + b" ", b"\xab" * 64),
        (b"____" * 6, b"\xff" * 18),
        (b"____" * 5 + b"_w", b"\xff" * 16),
        (b"____" * 5 + b"_w==", b"\xff" * 16),
        (b"////" * 6, None),
        (b"ab" * 15, None),
        (b"ab" * 65, None),
        (b"not a nonce!", None),
        (b"", None),
    ],
)
def test_nonces_are_hex_or_base64url_of_16_to_64_bytes(text: bytes, nonce: bytes | None) -> None:
    assert read_nonce_header(text) == nonce
