"""Which headers pass, whose credentials they are, and what a nonce looks like."""

from __future__ import annotations

import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError
from provider_sdk.gateway.headers import (
    caller_digest,
    client_headers,
    read_facts,
    read_nonce,
    upstream_headers,
)

KEY = b"k" * 16


@given(st.binary(min_size=16, max_size=64))
def test_a_nonce_comes_as_hex_or_base64url(value: bytes) -> None:
    padded = base64.urlsafe_b64encode(value)
    # What could be both is hex.
    assume(not set(padded.rstrip(b"=")) <= set(b"0123456789abcdefABCDEF"))
    for text in (value.hex().encode(), value.hex().upper().encode(), padded, padded.rstrip(b"=")):
        found = read_nonce({b"coin-nonce": text})
        assert found.value == value
        assert found.from_client


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"00" * 15,
        b"00" * 65,
        b"A" * 20,
        b"g" * 33,
        b"+/" * 12,
        b"00 " * 16,
        b"\xff" * 32,
        b"A" * 22 + b"===",
        b"A" * 23 + b"==",
    ],
)
def test_a_malformed_nonce_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInputError, match="16 to 64 bytes"):
        read_nonce({b"coin-nonce": text})


def test_without_a_nonce_one_is_drawn() -> None:
    first, second = read_nonce({}), read_nonce({})
    assert first.value != second.value
    assert not first.from_client


def test_what_belongs_to_one_connection_stays_there() -> None:
    headers = [
        (b"host", b"a"),
        (b"connection", b"close, X-Hop"),
        (b"x-hop", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"3"),
        (b"authorization", b"Bearer k"),
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"coin-nonce", b"n"),
    ]
    assert upstream_headers(headers, drop=[b"coin-nonce"]) == [
        ("authorization", "Bearer k"),
        ("x-twice", "1"),
        ("x-twice", "2"),
    ]
    back = [(b"Keep-Alive", b"5"), (b"Content-Length", b"3"), (b"Set-Cookie", b"a")]
    assert client_headers(back) == [(b"content-length", b"3"), (b"set-cookie", b"a")]


def test_a_caller_is_known_by_all_its_credentials_and_the_key() -> None:
    bearer, api = (b"authorization", b"Bearer k"), (b"api-key", b"k")
    found = [
        caller_digest([bearer], KEY),
        caller_digest([(b"authorization", b"Bearer l")], KEY),
        caller_digest([(b"x-api-key", b"Bearer k")], KEY),
        caller_digest([bearer, api], KEY),
        caller_digest([bearer], b"l" * 16),
    ]
    assert len(set(found)) == len(found)
    assert all(len(each) == 32 for each in found)
    assert caller_digest([api, bearer], KEY) == found[3]
    assert caller_digest([(b"accept", b"*/*")], KEY) == b""


def test_facts_say_nothing_of_credentials() -> None:
    facts = read_facts([(b"authorization", b"Bearer k"), (b"coin-delivery", b"Chunk")], KEY)
    assert facts.in_chunks
    assert not facts.encoded
    assert facts.caller.hex() not in repr(facts)
    assert repr(facts.caller) not in repr(facts)
