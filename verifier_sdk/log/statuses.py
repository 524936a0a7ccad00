"""What an error means to whoever asks a log, over gRPC or HTTP."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import grpc

from coin_protocol import transport
from coin_protocol.errors import InvalidInputError, StoreUnavailableError, TryLaterError
from verifier_sdk.log.errors import NotLoggedYetError, NotSignedError, UnknownEntryError

RETRY_SECONDS: Final = 1

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends that cannot be answered.

    Attributes:
        code: Over gRPC.
        http: Over HTTP.
        reason: In capitals, for programs.
        detail: For people.
    """

    code: grpc.StatusCode
    http: int
    reason: str
    detail: str

    @property
    def later(self) -> bool:
        """Whether the same call may go through later."""
        return self.code == grpc.StatusCode.UNAVAILABLE


_KINDS: Final[tuple[tuple[type[Exception], grpc.StatusCode, int, str], ...]] = (
    # The first kind that an error is of decides.
    (InvalidInputError, grpc.StatusCode.INVALID_ARGUMENT, 400, "ARGUMENT_INVALID"),
    (UnknownEntryError, grpc.StatusCode.NOT_FOUND, 404, "ENTRY_UNKNOWN"),
    (NotSignedError, grpc.StatusCode.NOT_FOUND, 404, "HEAD_UNKNOWN"),
    (NotLoggedYetError, grpc.StatusCode.UNAVAILABLE, 503, "NOT_LOGGED_YET"),
    (transport.OverloadedError, grpc.StatusCode.UNAVAILABLE, 503, "OVERLOADED"),
    (TryLaterError, grpc.StatusCode.UNAVAILABLE, 503, "TRY_LATER"),
    (transport.PastDeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED, 503, "DEADLINE_PASSED"),
)


def status_of(error: Exception) -> Status:
    """Return how a call ends. What is nobody else's business is logged here, and not told."""
    for kind, code, http, reason in _KINDS:
        if isinstance(error, kind):
            detail = str(error)
            if isinstance(error, StoreUnavailableError):
                _LOG.warning("the log is not answering: %s", error)
                detail = "the log's database does not answer; try again shortly"
            return Status(code, http, reason, detail)
    _LOG.error("a request to the log failed", exc_info=error)
    return Status(grpc.StatusCode.INTERNAL, 500, "INTERNAL", "internal error, see the log")
