"""OpenTelemetry spans of replies, under the names of the GenAI semantic conventions.

Only the API is used: without `opentelemetry-sdk` every call here does nothing. With it,
`configure_tracing()` sets it up from the standard environment (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …). A span is one reply; it holds counts, names and
digests, never text, ids or headers, and costs nothing by the token.

    with reply_span(operation=CHAT, model=model, by="acme", headers=headers) as span:
        span.forward(upstream_headers)
        …
        span.usage(usage)
        span.committed(commitment_sha256, session_id=…, blocks=…, id_source=…)

The names are those of OpenTelemetry's GenAI conventions, which are still in development.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Final, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.ops.metrics import abort_label, id_source_label, missing_label

CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
Operation = Literal["chat", "text_completion"]
"""`chat` for chat completions and responses, `text_completion` for completions."""

_SCOPE: Final = "coin"
_MAX_NAME_CHARACTERS: Final = 256
# Baggage is not passed on: it would carry whatever a client puts in it.
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_INSIDE: Final = statements_pb2.REASONING_COUNTING_INSIDE_COMPLETION


class ReplySpan:
    """The span of one reply, and what may be said on it."""

    def __init__(self, span: Span) -> None:
        """Hold a span."""
        self._span = span

    def forward(self, headers: MutableMapping[str, str]) -> None:
        """Add `traceparent` (and `tracestate`) to the headers of the upstream's request."""
        _PROPAGATOR.inject(headers, set_span_in_context(self._span))

    def response(self, response_id: str) -> None:
        """Name the reply as the client sees it."""
        self._span.set_attribute("gen_ai.response.id", _short(response_id))

    def first_token(self, seconds: float) -> None:
        """Say after how many seconds the first token went to the client."""
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def usage(self, usage: statements_pb2.Usage) -> None:
        """Say what is billed; by the conventions output tokens contain reasoning tokens."""
        output = usage.completion_tokens
        if usage.reasoning_counting != _INSIDE:
            output += usage.reasoning_tokens
        self._span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
        self._span.set_attribute("gen_ai.usage.output_tokens", output)
        self._span.set_attribute("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens)

    def committed(
        self,
        commitment_sha256: bytes,
        *,
        session_id: bytes,
        blocks: int,
        id_source: statements_pb2.IdSource.ValueType,
        abort_reason: statements_pb2.AbortReason.ValueType = (
            statements_pb2.ABORT_REASON_UNSPECIFIED
        ),
        choice: int = 0,
    ) -> None:
        """Say what a choice is committed to by: the first on the span, others as events of it."""
        said: dict[str, str | int] = {
            "coin.commitment.sha256": commitment_sha256.hex(),
            "coin.session.id": session_id.hex(),
            "coin.blocks": blocks,
            "coin.id_source": id_source_label(id_source),
        }
        if abort_reason:
            said["coin.abort.reason"] = abort_label(abort_reason)
        if choice == 0:
            self._span.set_attributes(said)
        else:
            self._span.add_event("coin.commitment", {"coin.choice": choice, **said})

    def missing(self, reason: delivery_pb2.MissingReason.ValueType) -> None:
        """Say why the reply has no commitment."""
        self._span.set_attribute("coin.receipt.missing", missing_label(reason))

    def failed(self, kind: str) -> None:
        """Mark the reply as failed; `kind` is a word for it, such as `timeout`, no message."""
        self._span.set_attribute("error.type", _short(kind))
        self._span.set_status(Status(StatusCode.ERROR))


@contextmanager
def reply_span(
    *,
    operation: Operation,
    model: str,
    by: str,
    headers: Mapping[str, str],
    provider: trace.TracerProvider | None = None,
) -> Iterator[ReplySpan]:
    """Give the span of a reply, ended with the block.

    Args:
        operation: What was asked for.
        model: As the request names it.
        by: The provider's name.
        headers: Of the client's request, names in lower case; `traceparent` is continued.
        provider: Where spans go; by default the process's.
    """
    tracer = trace.get_tracer(_SCOPE, tracer_provider=provider)
    name = _short(model)
    # Events of exceptions would carry their messages, so the kind alone is set below.
    with tracer.start_as_current_span(
        f"{operation} {name}",
        context=_PROPAGATOR.extract(headers, context=Context()),
        kind=SpanKind.SERVER,
        attributes={
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _short(by),
            "gen_ai.request.model": name,
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        reply = ReplySpan(span)
        try:
            yield reply
        except BaseException as error:
            reply.failed(type(error).__name__)
            raise


def _short(name: str) -> str:
    return name[:_MAX_NAME_CHARACTERS]
