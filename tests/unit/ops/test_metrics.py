from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.parser import text_string_to_metric_families

import provider_sdk
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.ops.bounded import MAX_OPEN_VALUES, OTHER, HttpStatus, Label
from coin_protocol.ops.certificates import certificate_end
from coin_protocol.ops.exposition import exposition, serve_metrics
from coin_protocol.v1 import delivery_pb2, statements_pb2
from provider_sdk.ops.metrics import (
    Metrics,
    abort_label,
    id_source_label,
    missing_label,
)
from provider_sdk.ops.observers import ServerObserver, StoreCounter
from tests.support.certificates import Certificates


def families(metrics: Metrics) -> Iterator[Metric]:
    _, body = exposition(metrics.registry)
    yield from text_string_to_metric_families(body.decode())


def own_metrics() -> list[Metric]:
    return [*Metrics(CollectorRegistry()).registry.collect()]


@pytest.mark.parametrize("metric", own_metrics(), ids=lambda metric: metric.name)
def test_names_follow_the_conventions_of_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"coin_[a-z0-9_]+", metric.name)
    assert metric.documentation.endswith(".")
    if metric.type == "histogram":
        assert metric.name.endswith("_seconds")
    # The library takes `_total` off a counter's name and puts it back on its sample.
    assert not metric.name.endswith("_total")


def test_processes_of_a_test_do_not_share_their_counts() -> None:
    first, second = Metrics(), Metrics()
    first.sessions.opened.inc()
    assert first.registry.get_sample_value("coin_sessions_opened_total") == 1
    assert second.registry.get_sample_value("coin_sessions_opened_total") == 0


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("coin_receipts_missing_total", {"reason": "signing_failed"}),
        ("coin_reloads_total", {"what": "certificate", "outcome": "refused"}),
        ("coin_sessions_finished_total", {"outcome": "aborted", "reason": "crashed"}),
    ],
)
def test_counters_of_closed_labels_start_at_zero_so_that_the_first_event_is_an_increase(
    name: str, labels: dict[str, str]
) -> None:
    assert Metrics().registry.get_sample_value(name, labels) == 0


@given(st.lists(st.text(), max_size=200))
def test_an_open_label_has_room_for_so_many_values_and_no_more(values: list[str]) -> None:
    label = Label("verifier")
    found = {label.bound(value) for value in values}
    assert len(found) <= MAX_OPEN_VALUES + 1
    assert found <= {*values, OTHER}


def test_an_open_label_is_full_after_so_many_values() -> None:
    label = Label("verifier")
    names = [f"v{number}" for number in range(MAX_OPEN_VALUES + 10)]
    found = [label.bound(name) for name in names]
    assert found == [*names[:MAX_OPEN_VALUES], *[OTHER] * 10]
    assert label.bound("v0") == "v0"


@given(st.text())
def test_a_closed_label_says_what_it_knows_or_other(value: str) -> None:
    assert Label("kind", ("a", "b")).bound(value) in {"a", "b", OTHER}
    assert HttpStatus().bound(value) in {OTHER, value}


def test_statuses_are_numbers_that_http_knows() -> None:
    found = [HttpStatus().bound(value) for value in ("200", "499", "600", "20", "२००", "")]
    assert found == ["200", "499", OTHER, OTHER, OTHER, OTHER]


@pytest.mark.parametrize("labels", [{}, {"kind": "x"}, {"reason": "a", "more": "b"}])
def test_labels_that_are_not_the_metrics_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="wanted reason"):
        Metrics().sessions.receipts_missing.labels(**labels)


def test_every_value_of_an_enum_has_a_label() -> None:
    assert abort_label(statements_pb2.ABORT_REASON_CRASHED) == "crashed"
    assert abort_label(statements_pb2.ABORT_REASON_UNSPECIFIED) == "none"
    assert missing_label(delivery_pb2.MISSING_REASON_NO_TOKEN_IDS) == "no_token_ids"
    assert id_source_label(statements_pb2.ID_SOURCE_RETOKENIZED) == "retokenized"
    metrics = Metrics()
    for abort in statements_pb2.AbortReason.values():
        metrics.sessions.finished.labels(outcome="aborted", reason=abort_label(abort)).inc()
    for missing in delivery_pb2.MissingReason.values()[1:]:
        metrics.sessions.receipts_missing.labels(reason=missing_label(missing)).inc()
    for family in ("coin_sessions_finished_total", "coin_receipts_missing_total"):
        labels = {"outcome": "aborted", "reason": OTHER} if "sessions" in family else {}
        assert not metrics.registry.get_sample_value(family, labels or {"reason": OTHER})


def test_every_metric_can_be_counted_with() -> None:
    metrics = Metrics()
    for group in vars(metrics).values():
        for metric in vars(group).values():
            if isinstance(metric, Counter):
                metric.inc()
            elif isinstance(metric, Gauge):
                metric.set(1)
            elif isinstance(metric, Histogram):
                metric.observe(1)
    silent = [family.name for family in families(metrics) if not family.samples]
    # Those whose labels are open have nothing to say before their first event.
    assert {*silent} < {family.name for family in own_metrics()}
    assert "coin_store_write_queue_length" not in silent


def test_the_services_calls_are_counted_by_method_verifier_and_code() -> None:
    metrics = Metrics()
    observer = ServerObserver(metrics)
    observer.observed("coin_protocol.v1.ProviderService/AnswerChallenge", "lab", "OK", 0.01)
    observer.observed("grpc.health.v1.Health/Check", "", "UNIMAGINABLE", 0.01)
    observer.reloaded("certificate", ok=False)
    read = metrics.registry.get_sample_value
    known = {"method": "AnswerChallenge", "verifier": "lab", "code": "OK"}
    assert read("coin_challenges_total", known) == 1
    unknown = {"method": OTHER, "verifier": "unknown", "code": OTHER}
    assert read("coin_challenges_total", unknown) == 1
    assert read("coin_challenge_seconds_count", {"method": "AnswerChallenge"}) == 1
    assert read("coin_reloads_total", {"what": "certificate", "outcome": "refused"}) == 1


def test_batches_of_the_store_are_counted() -> None:
    metrics = Metrics()
    StoreCounter(metrics).written(7, 0.5)
    read = metrics.registry.get_sample_value
    assert read("coin_store_operations_total") == 7
    assert read("coin_store_write_batches_total") == 1
    assert read("coin_store_write_batch_seconds_sum") == 0.5


def test_sessions_are_counted_by_how_they_end() -> None:
    metrics = Metrics()
    counter = StoreCounter(metrics)
    for reason in (
        statements_pb2.ABORT_REASON_UNSPECIFIED,
        statements_pb2.ABORT_REASON_CRASHED,
    ):
        counter.opened()
        counter.block()
        counter.ended(statements_pb2.Commitment(reasoning_tokens=5, abort_reason=reason))
    read = metrics.registry.get_sample_value
    assert read("coin_sessions_opened_total") == read("coin_checkpoints_total") == 2
    assert read("coin_reasoning_tokens_committed_total") == 10
    whole = {"outcome": "committed", "reason": "none"}
    part = {"outcome": "aborted", "reason": "crashed"}
    assert read("coin_sessions_finished_total", whole) == 1
    assert read("coin_sessions_finished_total", part) == 1


def test_every_metric_is_counted_somewhere() -> None:
    """A metric that nothing sets would read as all is well."""
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in Path(provider_sdk.__file__).parent.rglob("*.py")
        if path.name != "metrics.py"
    )
    groups = (
        value
        for value in vars(Metrics()).values()
        if type(value).__module__.endswith("ops.metrics")
    )
    names = [name for group in groups for name in vars(group)]
    assert len(names) > 20
    assert [name for name in names if not re.search(rf"\.{name}\b", source)] == []


def test_the_end_of_a_certificate_is_read_again_each_time(
    certificates: Certificates, tmp_path: Path
) -> None:
    path = tmp_path / "certificate.pem"
    assert certificate_end(path) == 0.0
    path.write_bytes(certificates.server.certificate.read_bytes())
    assert certificate_end(path) > time.time()
    path.write_bytes(b"no certificate")
    assert certificate_end(path) == 0.0


def test_metrics_are_served_until_closed() -> None:
    metrics = Metrics()
    metrics.store.purged.inc(3)
    with serve_metrics(metrics.registry, "127.0.0.1:0") as server:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            body = answer.read().decode()
        with pytest.raises(ConfigurationError, match="cannot serve metrics"):
            serve_metrics(metrics.registry, f"127.0.0.1:{server.port}")
    assert "coin_store_sessions_purged_total 3.0" in body
    # The port is free again.
    serve_metrics(metrics.registry, f"127.0.0.1:{server.port}").close()


@pytest.mark.parametrize("address", ["", "9464", "host:", "host:65536", "a b:1", "[::1]", "::1:80"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="wanted HOST:PORT"):
        serve_metrics(Metrics().registry, address)
