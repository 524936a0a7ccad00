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

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Final, Literal, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coin_protocol.errors import MissingDependencyError
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


def configure_tracing(environment: Mapping[str, str] | None = None) -> Callable[[], None]:
    """Send spans to where the environment says, if it says so.

    Args:
        environment: By default the process's. `OTEL_TRACES_EXPORTER` names the exporter (`otlp`,
            `console`, `none`); it is `otlp` where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, and
            `none` otherwise. `OTEL_SDK_DISABLED=true` turns all off. The exporter reads the
            rest of the standard variables from the process's environment.

    Returns:
        What to call before the process ends, so that no span is left behind.

    Raises:
        MissingDependencyError: An exporter is named, and it or the SDK is not installed.
    """
    name = _exporter_name(os.environ if environment is None else environment)
    if name == "none":
        return _nothing
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

        # Without the package, `found` is empty; its own packages may be missing too.
        exporter = cast("type[SpanExporter]", found[0].load())()
    except (ImportError, IndexError) as error:
        msg = (
            f"the trace exporter {name!r} is asked for and not installed: install "
            "coin-audit[tracing], or set OTEL_TRACES_EXPORTER=none"
        )
        raise MissingDependencyError(msg) from error
    own = Resource({"service.name": "coin"})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _exporter_name(environment: Mapping[str, str]) -> str:
    """Return the name of the exporter's entry point, or `none`."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    default = "otlp" if any(environment.get(name) for name in endpoints) else "none"
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or default
    if name != "otlp":
        return name
    protocol = (
        environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    return "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"


def _nothing() -> None:
    pass


def _short(name: str) -> str:
    return name[:_MAX_NAME_CHARACTERS]
