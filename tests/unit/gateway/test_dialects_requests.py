"""Requests: what is asked of the upstream beyond what the client asked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from coin_protocol.errors import InvalidInputError
from provider_sdk.gateway.dialects import Endpoint, prepare


def asked(endpoint: Endpoint, body: dict[str, Any], **how: bool) -> dict[str, Any]:
    sent = orjson.loads(prepare(endpoint, orjson.dumps(body), **how).body)
    return {name: value for name, value in sent.items() if body.get(name) != value}


@pytest.mark.parametrize(
    ("endpoint", "body", "added"),
    [
        (Endpoint.CHAT, {}, {"return_token_ids": True}),
        (
            Endpoint.CHAT,
            {"stream": True},
            {"return_token_ids": True, "stream_options": {"include_usage": True}},
        ),
        (
            Endpoint.COMPLETIONS,
            {"stream": True, "stream_options": {"continuous_usage_stats": False}},
            {
                "return_token_ids": True,
                "stream_options": {"continuous_usage_stats": False, "include_usage": True},
            },
        ),
        (Endpoint.RESPONSES, {"stream": True}, {"return_token_ids": True}),
        (Endpoint.RESPONSES, {}, {"return_token_ids": True, "enable_response_messages": True}),
        # What is wrong with it, the upstream says.
        (Endpoint.CHAT, {"stream": True, "stream_options": "all"}, {"return_token_ids": True}),
    ],
)
def test_ids_and_usage_are_asked_for(
    endpoint: Endpoint, body: dict[str, Any], added: dict[str, Any]
) -> None:
    assert asked(endpoint, body) == added


def test_ids_are_not_asked_for_where_that_is_refused() -> None:
    assert asked(Endpoint.CHAT, {"n": 2}, ask_token_ids=False) == {}


@pytest.mark.parametrize("endpoint", Endpoint)
def test_what_needs_nothing_more_stays_as_it_came(endpoint: Endpoint) -> None:
    raw = b"""{ "stream":true, "return_token_ids" : true,
        "stream_options": {"include_usage": true}, "unknown": [1.0, null, "\\u00e9"] }"""
    found = prepare(endpoint, raw)
    assert found.body is raw
    assert found.client_token_ids
    assert found.client_usage


@pytest.mark.parametrize(
    ("endpoint", "body", "choices"),
    [
        (Endpoint.CHAT, {}, 1),
        (Endpoint.CHAT, {"n": 3, "prompt": ["a", "b"]}, 3),
        (Endpoint.CHAT, {"n": "many"}, 1),
        (Endpoint.COMPLETIONS, {"n": 2, "prompt": ["a", "b"]}, 4),
        (Endpoint.COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (Endpoint.COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2),
        (Endpoint.RESPONSES, {"n": 3}, 1),
    ],
)
def test_choices_are_counted(endpoint: Endpoint, body: dict[str, Any], choices: int) -> None:
    assert prepare(endpoint, orjson.dumps(body)).choices == choices


def test_usage_is_kept_where_it_carries_the_receipt() -> None:
    raw = b'{"stream":true}'
    assert not prepare(Endpoint.CHAT, raw).client_usage
    assert prepare(Endpoint.CHAT, raw, keep_usage=True).client_usage


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'"x"'])
def test_what_is_no_request_is_left_to_the_upstream(raw: bytes) -> None:
    with pytest.raises(InvalidInputError, match="object"):
        prepare(Endpoint.CHAT, raw)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", Endpoint.CHAT),
        ("/v1/completions/", Endpoint.COMPLETIONS),
        ("/v1/responses", Endpoint.RESPONSES),
        ("/v1/responses/resp_1", None),
        ("/v1/models", None),
    ],
)
def test_endpoints_are_known_by_path(path: str, endpoint: Endpoint | None) -> None:
    assert Endpoint.of(path) is endpoint
