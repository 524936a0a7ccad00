"""Spans of audits: names, digests and outcomes, and no text of any error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from coin_protocol.errors import PeerUnavailableError
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.node.tracing import audit_span
from verifier_sdk.store.claims import Claim

CLAIM = Claim(1, bytes(32), "acme" * 100, 2, b"receipt", None)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def test_a_verdict_is_told_by_its_outcome(spans: InMemorySpanExporter) -> None:
    verdict = receipt_pb2.Verdict(
        outcome=receipt_pb2.OUTCOME_PASS,
        tier=receipt_pb2.TIER_OPENED,
        commitment_sha256=b"\1" * 32,
        reasons=["what somebody wrote"],
    )
    with audit_span(CLAIM) as span:
        span.decided(verdict)
    (found,) = spans.get_finished_spans()
    assert dict(found.attributes or {}) == {
        "coin.audit.id": "00" * 32,
        "coin.audit.attempt": 2,
        "gen_ai.provider.name": ("acme" * 100)[:256],
        "coin.outcome": "OUTCOME_PASS",
        "coin.tier": "TIER_OPENED",
        "coin.commitment.sha256": "01" * 32,
    }
    assert found.status.status_code is StatusCode.UNSET


def test_an_error_is_told_by_its_kind_alone(spans: InMemorySpanExporter) -> None:
    with pytest.raises(PeerUnavailableError), audit_span(CLAIM):
        raise PeerUnavailableError("secret")  # noqa: EM101 - what must not be told
    (found,) = spans.get_finished_spans()
    assert (found.attributes or {})["error.type"] == "PeerUnavailableError"
    assert found.status.status_code is StatusCode.ERROR
    assert "secret" not in found.to_json()
