"""Prometheus metrics whose labels cannot grow without end, whatever a caller puts in them."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from itertools import product
from math import prod
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from coin_protocol.errors import InvalidInputError

OTHER: Final = "other"
"""What every value becomes that a label does not know, or has no room for."""

MAX_OPEN_VALUES: Final = 64
"""Values of an open label: verifiers, vendors and codes that a provider meets; more is abuse."""

_MAX_VALUE_CHARACTERS: Final = 64
_MAX_STARTED_SERIES: Final = 64
_HTTP_STATUS: Final = re.compile(r"[1-5][0-9]{2}")

M = TypeVar("M", Counter, Gauge, Histogram)


class Label:
    """One label, and the values that it lets through."""

    def __init__(self, name: str, values: Collection[str] | None = None) -> None:
        """Hold a label.

        Args:
            name: Its name in Prometheus.
            values: All that it may say, besides `other`; None lets the first 64 through.
        """
        self.name = name
        self.values = None if values is None else frozenset(values) | {OTHER}
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def bound(self, value: str) -> str:
        """Return `value`, or `other` where the label has no place for it."""
        if self.values is not None:
            return value if value in self.values else OTHER
        if value in self._seen:
            return value
        with self._lock:
            full = len(self._seen) >= MAX_OPEN_VALUES
            if full or not value or len(value) > _MAX_VALUE_CHARACTERS or not value.isprintable():
                return OTHER
            self._seen.add(value)
        return value


class HttpStatus(Label):
    """A label that holds three digits from 100 to 599."""

    def __init__(self) -> None:
        """Name the label `status`."""
        super().__init__("status")

    def bound(self, value: str) -> str:
        """Return `value`, or `other` where it is no HTTP status."""
        return value if _HTTP_STATUS.fullmatch(value) else OTHER


class Family(Generic[M]):
    """A metric with bounded labels: `labels(…)` gives the Prometheus metric to count with."""

    def __init__(self, metric: M, labels: tuple[Label, ...]) -> None:
        """Hold a metric whose label names are those of `labels`, in their order."""
        self._metric: M = metric
        self._labels = labels
        self._children: dict[tuple[str, ...], M] = {}
        closed = [sorted(label.values) for label in labels if label.values is not None]
        if len(closed) == len(labels) and prod(map(len, closed)) <= _MAX_STARTED_SERIES:
            # A series that starts at its first event hides that event from `increase()`.
            for values in product(*closed):
                self.labels(**dict(zip((label.name for label in labels), values, strict=True)))

    def labels(self, **values: str) -> M:
        """Return the metric of these label values; what a label does not know is `other`.

        Raises:
            InvalidInputError: A label is missing, or is none of this metric.
        """
        try:
            bounded = tuple(label.bound(values[label.name]) for label in self._labels)
        except KeyError as error:
            bounded = ()
            missing: KeyError | None = error
        else:
            missing = None
        if missing is not None or len(values) != len(self._labels):
            wanted = ", ".join(label.name for label in self._labels)
            msg = f"found the labels {', '.join(values) or 'none'}; wanted {wanted}"
            raise InvalidInputError(msg) from missing
        child = self._children.get(bounded)
        if child is None:
            # Two threads may both come here; Prometheus gives both the same child.
            child = self._children[bounded] = self._metric.labels(*bounded)
        return child


class Maker:
    """Makes the metrics of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make them in `registry`."""
        self._registry = registry

    def counter(self, name: str, text: str) -> Counter:
        """Return a counter without labels; `name` ends in `_total`."""
        return Counter(name, text, registry=self._registry)

    def counters(self, name: str, text: str, *labels: Label) -> Family[Counter]:
        """Return a counter with labels; `name` ends in `_total`."""
        names = [label.name for label in labels]
        return Family(Counter(name, text, names, registry=self._registry), labels)

    def gauge(self, name: str, text: str) -> Gauge:
        """Return a gauge without labels."""
        return Gauge(name, text, registry=self._registry)

    def gauges(self, name: str, text: str, *labels: Label) -> Family[Gauge]:
        """Return a gauge with labels."""
        names = [label.name for label in labels]
        return Family(Gauge(name, text, names, registry=self._registry), labels)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        """Return a histogram without labels."""
        return Histogram(name, text, buckets=buckets, registry=self._registry)

    def histograms(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: Label
    ) -> Family[Histogram]:
        """Return a histogram with labels."""
        names = [label.name for label in labels]
        return Family(
            Histogram(name, text, names, buckets=buckets, registry=self._registry), labels
        )
