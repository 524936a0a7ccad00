"""Send OpenTelemetry spans to where the standard environment says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import cast

from opentelemetry import trace

from coin_protocol.errors import MissingDependencyError


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
