"""How a check fails."""

from __future__ import annotations

from coin_protocol.errors import VerificationError
from coin_protocol.v1 import receipt_pb2


class CheckFailure(VerificationError):  # noqa: N818 - it is the failure of a check
    """A deterministic check failed; `fault`, `outcome` and `advice` override the table's."""

    def __init__(
        self,
        message: str,
        *,
        fault: receipt_pb2.Fault.ValueType | None = None,
        outcome: receipt_pb2.Outcome.ValueType | None = None,
        advice: str | None = None,
    ) -> None:
        """Say what was found and what was wanted."""
        super().__init__(message)
        self.fault = fault
        self.outcome = outcome
        self.advice = advice
