from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind, StatusCode

from coin_protocol.errors import MissingDependencyError
from coin_protocol.ops.tracing import configure_tracing
from coin_protocol.usage import usage_for
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.ops.tracing import CHAT, TEXT_COMPLETION, reply_span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Collector:
    """A tracer provider, and the spans that came out of it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def only(self) -> ReadableSpan:
        (span,) = self._exporter.get_finished_spans()
        return span


@pytest.fixture
def collector() -> Collector:
    return Collector()


def usage(counting: statements_pb2.ReasoningCounting.ValueType) -> statements_pb2.Usage:
    return usage_for(prompt_tokens=5, reasoning_tokens=30, answer_tokens=10, counting=counting)


def test_a_reply_is_one_span_with_the_conventions_names(collector: Collector) -> None:
    with reply_span(
        operation=CHAT, model="acme-1", by="acme", headers={}, provider=collector.provider
    ) as span:
        span.response("chatcmpl-1")
        span.first_token(0.25)
        span.usage(usage(statements_pb2.REASONING_COUNTING_INSIDE_COMPLETION))
        span.committed(
            bytes(32),
            session_id=bytes(16),
            blocks=3,
            id_source=statements_pb2.ID_SOURCE_SAMPLED,
        )
    found = collector.only()
    assert found.name == "chat acme-1"
    assert found.kind is SpanKind.SERVER
    assert found.attributes == {
        gen_ai_attributes.GEN_AI_OPERATION_NAME: "chat",
        "gen_ai.provider.name": "acme",
        gen_ai_attributes.GEN_AI_REQUEST_MODEL: "acme-1",
        gen_ai_attributes.GEN_AI_RESPONSE_ID: "chatcmpl-1",
        "gen_ai.response.time_to_first_chunk": 0.25,
        gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS: 5,
        gen_ai_attributes.GEN_AI_USAGE_OUTPUT_TOKENS: 40,
        "gen_ai.usage.reasoning.output_tokens": 30,
        "coin.commitment.sha256": "00" * 32,
        "coin.session.id": "00" * 16,
        "coin.blocks": 3,
        "coin.id_source": "sampled",
    }


def test_operations_are_those_of_the_conventions() -> None:
    values = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    assert {CHAT, TEXT_COMPLETION} <= values


@pytest.mark.parametrize(
    "counting",
    [
        statements_pb2.REASONING_COUNTING_INSIDE_COMPLETION,
        statements_pb2.REASONING_COUNTING_BESIDE_COMPLETION,
    ],
)
def test_output_tokens_contain_reasoning_once_however_the_vendor_counts(
    collector: Collector, counting: statements_pb2.ReasoningCounting.ValueType
) -> None:
    with reply_span(
        operation=CHAT, model="m", by="acme", headers={}, provider=collector.provider
    ) as span:
        span.usage(usage(counting))
    attributes = collector.only().attributes
    assert attributes is not None
    assert attributes["gen_ai.usage.output_tokens"] == 40


def test_every_choice_after_the_first_is_an_event(collector: Collector) -> None:
    with reply_span(
        operation=CHAT, model="m", by="acme", headers={}, provider=collector.provider
    ) as span:
        for choice in range(3):
            span.committed(
                bytes([choice]) * 32,
                session_id=bytes(16),
                blocks=0,
                id_source=statements_pb2.ID_SOURCE_RETOKENIZED,
                abort_reason=statements_pb2.ABORT_REASON_CANCELLED,
                choice=choice,
            )
    found = collector.only()
    assert found.attributes is not None
    assert found.attributes["coin.commitment.sha256"] == "00" * 32
    assert found.attributes["coin.abort.reason"] == "cancelled"
    choices = [dict(event.attributes or {})["coin.choice"] for event in found.events]
    assert choices == [1, 2]


def test_the_clients_trace_is_continued_and_passed_on(collector: Collector) -> None:
    upstream: dict[str, str] = {}
    headers = {"traceparent": TRACEPARENT, "tracestate": "a=b", "baggage": "prompt=secret"}
    with reply_span(
        operation=CHAT, model="m", by="acme", headers=headers, provider=collector.provider
    ) as span:
        span.forward(upstream)
    found = collector.only()
    assert found.parent is not None
    assert found.context is not None
    assert f"{found.context.trace_id:032x}" == TRACE
    span_id = f"{found.context.span_id:016x}"
    assert upstream == {"traceparent": f"00-{TRACE}-{span_id}-01", "tracestate": "a=b"}


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + "-0-01", "é" * 99])
def test_a_malformed_traceparent_starts_a_new_trace(collector: Collector, traceparent: str) -> None:
    with reply_span(
        operation=CHAT,
        model="m",
        by="acme",
        headers={"traceparent": traceparent},
        provider=collector.provider,
    ):
        pass
    assert collector.only().parent is None


def test_an_error_is_marked_by_its_kind_and_its_message_left_out(collector: Collector) -> None:
    with (
        pytest.raises(ValueError, match="text of the reasoning"),
        reply_span(operation=CHAT, model="m", by="acme", headers={}, provider=collector.provider),
    ):
        raise ValueError("text of the reasoning")  # noqa: EM101, TRY003 - a secret, for once
    found = collector.only()
    assert found.status.status_code is StatusCode.ERROR
    assert found.attributes is not None
    assert found.attributes[error_attributes.ERROR_TYPE] == "ValueError"
    assert "reasoning" not in found.to_json()


def test_a_missing_receipt_says_its_reason(collector: Collector) -> None:
    with reply_span(
        operation=CHAT, model="m", by="acme", headers={}, provider=collector.provider
    ) as span:
        span.missing(delivery_pb2.MISSING_REASON_SIGNING_FAILED)
    attributes = collector.only().attributes
    assert attributes is not None
    assert attributes["coin.receipt.missing"] == "signing_failed"


def test_names_of_a_client_are_cut(collector: Collector) -> None:
    with reply_span(
        operation=CHAT, model="m" * 10_000, by="acme", headers={}, provider=collector.provider
    ) as span:
        span.response("r" * 10_000)
    assert len(collector.only().to_json()) < 3000


def test_without_an_sdk_the_clients_trace_is_still_passed_on() -> None:
    upstream: dict[str, str] = {}
    with reply_span(
        operation=CHAT, model="m", by="acme", headers={"traceparent": TRACEPARENT}
    ) as span:
        span.forward(upstream)
    assert upstream == {"traceparent": TRACEPARENT}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_nothing_is_set_up_where_the_environment_does_not_ask(environment: dict[str, str]) -> None:
    before = trace.get_tracer_provider()
    configure_tracing(environment)()
    assert trace.get_tracer_provider() is before


def test_an_exporter_that_is_not_installed_is_named() -> None:
    with pytest.raises(MissingDependencyError, match="'nowhere' is asked for"):
        configure_tracing({"OTEL_TRACES_EXPORTER": "nowhere"})


def test_the_environment_chooses_the_exporter_and_no_span_is_left_behind() -> None:
    # The process's tracer provider can be set once only, so this takes a process of its own.
    script = (
        "from coin_protocol.ops.tracing import configure_tracing\n"
        "from provider_sdk.ops.tracing import CHAT, reply_span\n"
        "stop = configure_tracing()\n"
        "with reply_span(operation=CHAT, model='acme-1', by='acme', headers={}): pass\n"
        "stop()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "named"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert "chat acme-1" in found.stdout
    assert '"service.name": "named"' in found.stdout
