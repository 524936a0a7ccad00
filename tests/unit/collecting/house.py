"""A gateway over a transport that is no network, and a collector that listens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from coin_protocol.checks import Case, run_checks
from coin_protocol.collection import collected
from coin_protocol.delivery import NONCE_HEADER
from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from tests.support.gateways import SmallGateway, mocked
from tests.support.parties import Clock, Parties
from verifier_sdk.collecting import Collector, Problem, ProblemKind

URL = "https://llm.example/v1/chat/completions"
STREAM = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}
ASKED = {"model": "acme-1", "messages": [{"role": "user", "content": "why?"}]}
LIBRARIES = [pytest.param(httpx, id="httpx"), pytest.param(httpx2, id="httpx2")]


class House:
    """A collector, a gateway that answers, and what came of it."""

    def __init__(self, parties: Parties, provider: Provider, to: Path, **options: Any) -> None:
        self.parties = parties
        self.clock = Clock()
        self.gateway = SmallGateway(provider, self.clock)
        self.problems: list[Problem] = []
        self.to = to
        self.collector = Collector(to, clock=self.clock, on_problem=self.problems.append, **options)
        self.sent: list[Any] = []
        self.headers: dict[str, str] = {}
        self.chunks: Callable[[bytes], Iterable[bytes]] = lambda raw: [raw]

    def answer(self, request: Any) -> tuple[dict[str, str], Iterable[Any]]:
        self.sent.append(request)
        nonce = bytes.fromhex(request.headers[NONCE_HEADER])
        if json.loads(request.content).get("stream"):
            return {**STREAM, **self.headers}, self.gateway.stream(request.content, nonce)
        raw = self.gateway.plain(request.content, nonce)
        return {**JSON, **self.headers}, self.chunks(raw)

    def client(self, library: Any = httpx2, answer: Any = None) -> Any:
        return self.collector.attach(
            library.Client(transport=mocked(library, answer or self.answer))
        )

    def async_client(self, library: Any = httpx2, answer: Any = None) -> Any:
        return self.collector.attach(
            library.AsyncClient(transport=mocked(library, answer or self.answer))
        )

    @property
    def receipts(self) -> list[receipt_pb2.Receipt]:
        assert self.collector.flush(20)
        return [found.receipt for found in collected([self.to]) if found.receipt is not None]

    def kinds(self) -> list[ProblemKind]:
        assert self.collector.flush(20)
        return [problem.kind for problem in self.problems]

    def failed(self, receipt: receipt_pb2.Receipt) -> str:
        parties = self.parties
        case = Case(receipt, parties.trust, parties.profile, parties.policy)
        report = run_checks(case)
        return report.failed.code if report.failed else ""
