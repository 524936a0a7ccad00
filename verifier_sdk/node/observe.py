"""What a worker tells of itself, for metrics and logs."""

from __future__ import annotations

from typing import Protocol

from coin_protocol.v1 import receipt_pb2


class NodeObserver(Protocol):
    """Told what happens; must return at once and raise nothing."""

    def decided(self, provider: str, verdict: receipt_pb2.Verdict, seconds: float) -> None:
        """Learn that an audit has its verdict, and how long its last attempt took."""

    def failed(self, provider: str, error: str, *, final: bool) -> None:
        """Learn that an attempt failed, by the name of the error, and whether it was the last."""


def outcome_of(verdict: receipt_pb2.Verdict) -> str:
    """Return an outcome as metrics and logs name it: "pass", "fail", "inconclusive"."""
    return receipt_pb2.Outcome.Name(verdict.outcome).removeprefix("OUTCOME_").lower()


def failed_check(verdict: receipt_pb2.Verdict) -> str | None:
    """Return the code of the check that failed, if one did."""
    failed = receipt_pb2.CHECK_STATUS_FAILED
    return next((one.code for one in verdict.checks if one.status == failed), None)
