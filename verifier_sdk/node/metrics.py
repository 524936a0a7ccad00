"""Every metric of a node, by name. docs/verifier.md says what each one means."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector

from coin_protocol.checks import CHECKS
from coin_protocol.ops.bounded import Label, Maker
from coin_protocol.ops.build import add_build_info
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.node.observe import failed_check, outcome_of
from verifier_sdk.store.reading import Backlog

OUTCOMES: Final = ("pass", "fail", "inconclusive")
METHODS: Final = ("SubmitReceipt", "RunAudit", "GetAudit", "WatchAudit", "ListAudits")
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_NOT_CHECKED: Final = "none"


class NodeMetrics:
    """All metrics of one process of a node. A `NodeObserver` and a `transport.Observer`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Make them in `registry`; by default in one of their own, with the process's figures."""
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry = registry
        make = Maker(registry)
        provider = Label("provider")
        self.receipts = make.counter("coin_receipts_kept_total", "Receipts that are on disk.")
        self.audits = make.counters(
            "coin_audits_total",
            "Verdicts; `check` is the one that failed, or none.",
            provider,
            Label("outcome", OUTCOMES),
            Label("check", (_NOT_CHECKED, *(check.code for check in CHECKS))),
        )
        self.failures = make.counters(
            "coin_audit_failures_total",
            "Attempts at an audit that ended without a verdict; `final` ones are given up.",
            provider,
            Label("error"),
            Label("final", ("yes", "no")),
        )
        self.audit_seconds = make.histogram(
            "coin_audit_seconds", "Time of the attempt that decided an audit.", _SECONDS
        )
        self.queued = make.gauge("coin_audits_queued", "Audits that wait.")
        self.later = make.gauge(
            "coin_audits_later",
            "Of these, such as are not due yet: after a pause, or with the budget of another day.",
        )
        self.running = make.gauge("coin_audits_running", "Audits under way, on any machine.")
        self.oldest = make.gauge(
            "coin_audit_oldest_waiting_seconds",
            "For how long the audit that is due for longest has been due.",
        )
        self.workers = make.gauge("coin_workers", "Workers that showed a sign of life just now.")
        self.calls = make.counters(
            "coin_verifier_calls_total",
            "gRPC calls answered. `client` is an authenticated name, or unknown.",
            Label("method", METHODS),
            Label("client"),
            Label("code"),
        )
        self.call_seconds = make.histograms(
            "coin_verifier_call_seconds",
            "Time to answer a gRPC call.",
            _SHORT,
            Label("method", METHODS),
        )
        self.reloads = make.counters(
            "coin_reloads_total",
            "Files of the service that changed on disk; refused ones leave the old ones in use.",
            Label("what", ("certificate", "tokens")),
            Label("outcome", ("used", "refused")),
        )
        self.certificate_ends = make.gauge(
            "coin_certificate_ends_timestamp_seconds",
            "Unix time at which the TLS certificate ends.",
        )
        self.log_size = make.gauge("coin_log_size", "Entries under the newest signed head.")
        self.log_waiting = make.gauge("coin_log_waiting", "Entries without a place in the tree.")
        self.log_head = make.gauge(
            "coin_log_head_timestamp_seconds", "Unix time at which the newest head was signed."
        )
        self.log_quorum_missing = make.gauge(
            "coin_log_quorum_missing",
            "1 where too few witnesses cosigned the newest head that they were shown.",
        )
        self.log_errors = make.counter(
            "coin_log_errors_total",
            "Times that the log stopped, as its tree does not bear out what it signed, or that a "
            "witness held so.",
        )
        self.evidence = make.gauge("coin_evidence", "Evidence objects that are kept.")
        add_build_info(registry)

    def kept(self, receipts: int) -> None:
        """Count receipts."""
        self.receipts.inc(receipts)

    def decided(self, provider: str, verdict: receipt_pb2.Verdict, seconds: float) -> None:
        """Count a verdict."""
        check = failed_check(verdict) or _NOT_CHECKED
        self.audits.labels(provider=provider, outcome=outcome_of(verdict), check=check).inc()
        self.audit_seconds.observe(seconds)

    def failed(self, provider: str, error: str, *, final: bool) -> None:
        """Count a failed attempt."""
        ended = "yes" if final else "no"
        self.failures.labels(provider=provider, error=error, final=ended).inc()

    def observed(self, method: str, verifier: str, code: str, seconds: float) -> None:
        """Count a gRPC call; `verifier` is whoever called."""
        name = method.rpartition("/")[2]
        self.calls.labels(method=name, client=verifier or "unknown", code=code).inc()
        self.call_seconds.labels(method=name).observe(seconds)

    def reloaded(self, what: str, *, ok: bool) -> None:
        """Count that a file changed on disk."""
        self.reloads.labels(what=what, outcome="used" if ok else "refused").inc()

    def behind(self, backlog: Backlog) -> None:
        """Set what waits."""
        self.queued.set(backlog.queued)
        self.later.set(backlog.later)
        self.running.set(backlog.running)
        self.oldest.set(backlog.oldest_seconds)
        self.workers.set(backlog.workers)
        self.evidence.set(backlog.evidence)
        self.log_waiting.set(backlog.entries)
