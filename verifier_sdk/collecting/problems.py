"""Why a receipt was not kept, told once for each kind and never to whoever reads the reply."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

_LOG = logging.getLogger("verifier_sdk.collecting")


class ProblemKind(StrEnum):
    """What kept a receipt from being kept, or makes one that was kept worth less."""

    REQUEST = "request"
    """The request's body cannot be kept."""
    REPLY = "reply"
    """The reply cannot be read, or is larger than a receipt may be."""
    DELIVERY = "delivery"
    """What the server sent as receipt cannot be read."""
    MISSING = "missing"
    """The server says that it has none, and why."""
    INCOMPLETE = "incomplete"
    """The reply ended before its receipt came."""
    NONCE = "nonce"
    """The receipt is kept, but carries another nonce than the request: its check will fail."""
    WRITE = "write"
    """The receipt cannot be written."""
    INTERNAL = "internal"
    """A bug of ours."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One receipt that was not kept, or not whole. Holds nothing of the conversation.

    Attributes:
        kind: For a metric's label.
        message: A sentence for people.
        response_id: Of the reply, as the server names it; empty where that is unknown.
    """

    kind: ProblemKind
    message: str
    response_id: str = ""


class Reporter:
    """Tells of problems: each to a callback, the first of its kind to the log."""

    def __init__(self, on_problem: Callable[[Problem], object] | None = None) -> None:
        """Hold the callback, which is called on a thread of ours and may raise what it likes."""
        self._on_problem = on_problem
        self._logged: set[ProblemKind] = set()

    def report(self, problem: Problem) -> None:
        """Tell of a problem. Never raises."""
        if problem.kind not in self._logged:
            self._logged.add(problem.kind)
            _LOG.warning(
                "%s (%s; further ones of this kind are not logged)", problem.message, problem.kind
            )
        if self._on_problem is None:
            return
        try:
            self._on_problem(problem)
        except Exception as error:  # noqa: BLE001 - it is the user's, and the reply flows on
            _LOG.warning("the callback for problems failed: %s", type(error).__name__)
