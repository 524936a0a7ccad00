"""Every metric of a witness, by name. docs/witness.md says what each one means."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector

from coin_protocol.ops.bounded import Label, Maker
from coin_protocol.ops.certificates import certificate_end
from coin_protocol.transport.observe import Unobserved
from verifier_sdk.witness.rules import Refusal
from verifier_sdk.witness.store import WitnessStore

COSIGNED: Final = "cosigned"
TOO_LARGE: Final = "too_large"
TOO_MANY: Final = "too_many"
SLOW: Final = "slow"
UNAVAILABLE: Final = "unavailable"
FAILED: Final = "failed"

OUTCOMES: Final = (COSIGNED, TOO_LARGE, TOO_MANY, SLOW, UNAVAILABLE, FAILED, *Refusal)


class Metrics(Unobserved):
    """The metrics of one process, in a registry of their own; told of TLS files that changed."""

    def __init__(self, origins: Iterable[str]) -> None:
        """Make them for the logs that are followed."""
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        make = Maker(self.registry)
        self._origins = frozenset(origins)
        # Those that are followed, and no other: strangers cannot add to them.
        origin = Label("origin", self._origins)
        self.requests: Final = make.counters(
            "coin_witness_requests_total",
            "Requests for a cosignature, by what came of them.",
            Label("outcome", OUTCOMES),
        )
        self.head_size: Final = make.gauges(
            "coin_witness_head_size", "Leaves of the latest head that was cosigned.", origin
        )
        self.cosigned_at: Final = make.gauges(
            "coin_witness_cosigned_timestamp_seconds", "When a head was last cosigned.", origin
        )
        self.evidence: Final = make.gauges(
            "coin_witness_evidence_files", "Files that show two heads of one size.", origin
        )
        self.certificate_ends: Final = make.gauge(
            "coin_witness_certificate_ends_timestamp_seconds",
            "When the TLS certificate ends; 0 without one.",
        )
        self.reloads: Final = make.counters(
            "coin_witness_reloads_total",
            "TLS files that changed on disk, and whether they are in use.",
            Label("outcome", ("used", "refused")),
        )

    def show(self, store: WitnessStore) -> None:
        """Start from what a store remembers.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        for origin, head in store.heads().items():
            if origin in self._origins:
                self.cosigned(origin, head.size, head.cosigned_at)
        self.count_evidence(store)

    def cosigned(self, origin: str, size: int, at: int) -> None:
        """Note a cosignature."""
        self.head_size.labels(origin=origin).set(size)
        self.cosigned_at.labels(origin=origin).set(at)

    def count_evidence(self, store: WitnessStore) -> None:
        """Note how many files there are.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        for origin, count in store.evidence_counts().items():
            if origin in self._origins:
                self.evidence.labels(origin=origin).set(count)

    def reloaded(self, what: str, *, ok: bool) -> None:
        """Note that the TLS files changed."""
        del what
        self.reloads.labels(outcome="used" if ok else "refused").inc()

    def watch(self, certificate: Path) -> None:
        """Tell when a certificate ends, as its file has it at the time of asking."""
        self.certificate_ends.set_function(lambda: certificate_end(certificate))
