"""What a node's HTTP interface answers to each of the project's errors."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from coin_protocol.errors import (
    CoinError,
    ConfigurationError,
    InvalidInputError,
    StoreUnavailableError,
)
from coin_protocol.transport import PastDeadlineError
from verifier_sdk.node.http import with_problems
from verifier_sdk.node.intake import CommitmentFullError, QuotaSpentError


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (InvalidInputError("x"), 400, None),
        (CommitmentFullError("x"), 409, None),
        (QuotaSpentError("x", seconds=30.5), 429, "31"),
        (StoreUnavailableError("x"), 503, "1"),
        (PastDeadlineError("x"), 503, "1"),
        (ConfigurationError("x"), 500, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CoinError) else None,
)
def test_an_error_is_a_problem_with_the_time_to_come_again(
    error: CoinError, status: int, again: str | None
) -> None:
    def fail(_: Request) -> Response:
        raise error

    client = TestClient(with_problems(Starlette(routes=[Route("/", fail)])))
    reply = client.get("/")
    assert reply.status_code == reply.json()["status"] == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers.get("retry-after") == again
