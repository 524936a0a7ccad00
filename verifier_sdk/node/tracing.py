"""OpenTelemetry spans of audits: one a span, with names, digests and outcomes, never text.

Only the API is used: without `opentelemetry-sdk` every call here does nothing. With it,
`coin_protocol.ops.tracing.configure_tracing` sends spans where the standard environment says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from coin_protocol.v1 import receipt_pb2
from verifier_sdk.store.claims import Claim

_SCOPE: Final = "coin"
_MAX_CHARACTERS: Final = 256


class AuditSpan:
    """The span of one attempt at an audit, and what may be said on it."""

    def __init__(self, span: Span) -> None:
        """Hold a span."""
        self._span = span

    def decided(self, verdict: receipt_pb2.Verdict) -> None:
        """Say what the verdict is."""
        self._span.set_attribute("coin.outcome", receipt_pb2.Outcome.Name(verdict.outcome))
        self._span.set_attribute("coin.tier", receipt_pb2.Tier.Name(verdict.tier))
        self._span.set_attribute("coin.commitment.sha256", verdict.commitment_sha256.hex())

    def failed(self, error: str) -> None:
        """Say by the kind of which error the attempt ended without a verdict."""
        self._span.set_attribute("error.type", error)
        self._span.set_status(Status(StatusCode.ERROR))


@contextmanager
def audit_span(claim: Claim) -> Iterator[AuditSpan]:
    """Give the span of an attempt, ended with the block."""
    # Events of exceptions would carry their messages, so the kind alone is set.
    with trace.get_tracer(_SCOPE).start_as_current_span(
        "audit",
        kind=SpanKind.CONSUMER,
        attributes={
            "coin.audit.id": claim.audit_id.hex(),
            "coin.audit.attempt": claim.attempts,
            "gen_ai.provider.name": claim.provider[:_MAX_CHARACTERS],
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        attempt = AuditSpan(span)
        try:
            yield attempt
        except Exception as error:
            attempt.failed(type(error).__name__)
            raise
