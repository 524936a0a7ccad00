"""Every metric of the provider's side, by name. See docs/operations.md for what each one means.

metrics = Metrics()
metrics.sessions.opened.inc()
metrics.sessions.finished.labels(outcome="aborted", reason=abort_label(reason)).inc()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector

from coin_protocol.ops.bounded import OTHER, HttpStatus, Label, Maker
from coin_protocol.ops.build import add_build_info
from coin_protocol.v1 import delivery_pb2, statements_pb2

NO_REASON: Final = "none"
"""The reason of a reply that ended as it should."""

GATEWAY_PATHS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/coin/v1/receipts",
)
"""What the label `path` may say; a path with an id in it is named without."""

UPSTREAM_FAILURES: Final = ("connect", "timeout", "status", "half_stream", "malformed", "too_large")
CHALLENGE_METHODS: Final = (
    "GetKeySet",
    "GetManifest",
    "AnswerChallenge",
    "AnswerWholeBlockChallenge",
)
GRPC_CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

# Seconds. A reply takes from a blink to the quarter of an hour of a long chain of thought.
_REPLY: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_FIRST_TOKEN: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# The bound to watch is 20 ms for a receipt, and some ms for a batch on a good disk.
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def _labels(items: Iterable[tuple[str, int]], prefix: str) -> dict[int, str]:
    """Return the label of each value of a protobuf enum but the unspecified one."""
    return {number: name.removeprefix(prefix).lower() for name, number in items if number != 0}


_ABORTS: Final = _labels(statements_pb2.AbortReason.items(), "ABORT_REASON_")
_MISSING: Final = _labels(delivery_pb2.MissingReason.items(), "MISSING_REASON_")
_ID_SOURCES: Final = _labels(statements_pb2.IdSource.items(), "ID_SOURCE_")


def abort_label(reason: statements_pb2.AbortReason.ValueType) -> str:
    """Return the label of why a reply ended early; `none` where it did not."""
    return _ABORTS.get(reason, OTHER) if reason else NO_REASON


def missing_label(reason: delivery_pb2.MissingReason.ValueType) -> str:
    """Return the label of why a reply has no commitment."""
    return _MISSING.get(reason, OTHER)


def id_source_label(source: statements_pb2.IdSource.ValueType) -> str:
    """Return the label of where token ids came from."""
    return _ID_SOURCES.get(source, OTHER)


class SessionMetrics:
    """Sessions and what they commit to."""

    def __init__(self, make: Maker) -> None:
        """Make them."""
        self.opened = make.counter("coin_sessions_opened_total", "Sessions opened.")
        self.finished = make.counters(
            "coin_sessions_finished_total",
            "Sessions ended: committed whole, or aborted (signed as a part).",
            Label("outcome", ("committed", "aborted")),
            Label("reason", (NO_REASON, *_ABORTS.values())),
        )
        self.reasoning_tokens = make.counter(
            "coin_reasoning_tokens_committed_total", "Reasoning tokens committed to."
        )
        self.checkpoints = make.counter("coin_checkpoints_total", "Checkpoints signed.")
        self.receipts = make.counters(
            "coin_receipts_total",
            "Commitments handed over, by where their token ids came from.",
            Label("id_source", tuple(_ID_SOURCES.values())),
        )
        self.receipts_missing = make.counters(
            "coin_receipts_missing_total",
            "Replies handed over without a commitment.",
            Label("reason", tuple(_MISSING.values())),
        )


class UsageMetrics:
    """What the upstream reported, beside what was committed to."""

    def __init__(self, make: Maker) -> None:
        """Make them."""
        vendor = Label("vendor")
        self.differences = make.counters(
            "coin_usage_differences_total",
            "Replies whose reported usage does not agree with the committed count.",
            vendor,
            Label("code"),
        )
        self.reported_tokens = make.counters(
            "coin_usage_reported_reasoning_tokens_total",
            "Reasoning tokens that the upstream reported.",
            vendor,
        )
        self.committed_tokens = make.counters(
            "coin_usage_committed_reasoning_tokens_total",
            "Reasoning tokens committed to, of replies whose upstream reported a count.",
            vendor,
        )


class GatewayMetrics:
    """The reverse proxy."""

    def __init__(self, make: Maker) -> None:
        """Make them."""
        path = Label("path", GATEWAY_PATHS)
        self.requests = make.counters(
            "coin_gateway_requests_total",
            "Requests answered; 499 is a client that hung up.",
            path,
            HttpStatus(),
        )
        self.upstream_seconds = make.histograms(
            "coin_gateway_upstream_seconds",
            "From request to the upstream's last byte.",
            _REPLY,
            path,
        )
        self.first_token_seconds = make.histograms(
            "coin_gateway_first_token_seconds",
            "From request to the first token sent to the client.",
            _FIRST_TOKEN,
            path,
        )
        self.receipt_seconds = make.histogram(
            "coin_gateway_receipt_seconds", "From the last token to the receipt.", _SHORT
        )
        self.open_streams = make.gauge("coin_gateway_open_streams", "Streams open now.")
        self.upstream_failures = make.counters(
            "coin_gateway_upstream_failures_total",
            "Replies that the upstream broke or refused.",
            Label("kind", UPSTREAM_FAILURES),
        )


class StoreMetrics:
    """The database."""

    def __init__(self, make: Maker) -> None:
        """Make them."""
        self.batches = make.counter("coin_store_write_batches_total", "Batches written.")
        self.operations = make.counter(
            "coin_store_operations_total", "Operations written: opened, block, ended."
        )
        self.batch_seconds = make.histogram(
            "coin_store_write_batch_seconds", "Time to write a batch, with its commit.", _SHORT
        )
        self.queue_length = make.gauge("coin_store_write_queue_length", "Writes that wait now.")
        self.write_retries = make.counter(
            "coin_store_write_retries_total", "Attempts at a batch that failed and are made again."
        )
        self.recovered = make.counters(
            "coin_store_sessions_recovered_total",
            "Sessions of a process that died, closed as crashed.",
            Label("outcome", ("crashed",)),
        )
        self.purged = make.counter(
            "coin_store_sessions_purged_total", "Sessions whose secrets were deleted."
        )
        self.last_purge = make.gauge(
            "coin_store_last_purge_timestamp_seconds",
            "Unix time of the last purge that ended well.",
        )


class FingerprintMetrics:
    """Embedding in the background."""

    def __init__(self, make: Maker) -> None:
        """Make them."""
        self.lag_blocks = make.gauge(
            "coin_fingerprint_lag_blocks", "Blocks committed to and not yet embedded."
        )
        self.oldest_waiting_seconds = make.gauge(
            "coin_fingerprint_oldest_waiting_seconds",
            "Age of the oldest session without fingerprints; 0 where none waits.",
        )
        self.blocks = make.counter("coin_fingerprint_blocks_total", "Blocks embedded.")
        self.failures = make.counter(
            "coin_fingerprint_failures_total", "Attempts at a session that failed."
        )
        self.given_up = make.gauge(
            "coin_fingerprint_sessions_given_up",
            "Sessions that no worker tries any more: no challenge to them can be answered.",
        )


class ChallengeMetrics:
    """The gRPC service that verifiers call."""

    def __init__(self, make: Maker) -> None:
        """Make them."""
        method = Label("method", CHALLENGE_METHODS)
        verifier = Label("verifier")
        self.calls = make.counters(
            "coin_challenges_total",
            "Calls answered. `verifier` is a configured name, or unknown.",
            method,
            verifier,
            Label("code", GRPC_CODES),
        )
        self.seconds = make.histograms(
            "coin_challenge_seconds", "Time to answer a call.", _SHORT, method
        )


class KeyMetrics:
    """Signing keys and certificates."""

    def __init__(self, make: Maker) -> None:
        """Make them."""
        self.signing_key_ends = make.gauge(
            "coin_signing_key_ends_timestamp_seconds",
            "Unix time at which the window of the signing key in use ends.",
        )
        self.rotations = make.counter(
            "coin_signing_key_rotations_total", "Changes of the signing key taken up."
        )
        self.certificate_ends = make.gauge(
            "coin_certificate_ends_timestamp_seconds",
            "Unix time at which the TLS certificate ends.",
        )
        self.reloads = make.counters(
            "coin_reloads_total",
            "Files of the service that changed on disk; refused ones leave the old ones in use.",
            Label("what", ("certificate", "tokens")),
            Label("outcome", ("used", "refused")),
        )


class Metrics:
    """All metrics of one process, in one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Make them in `registry`; by default in one of their own, with the process's figures."""
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry = registry
        make = Maker(registry)
        self.sessions = SessionMetrics(make)
        self.usage = UsageMetrics(make)
        self.gateway = GatewayMetrics(make)
        self.store = StoreMetrics(make)
        self.fingerprints = FingerprintMetrics(make)
        self.challenges = ChallengeMetrics(make)
        self.keys = KeyMetrics(make)
        add_build_info(registry)
