"""What a user kept of its own requests: limits, times, and whether an answer came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from coin_protocol.errors import InvalidInputError, LimitError
from verifier_sdk.bill.fields import Fields, UnreadableError
from verifier_sdk.bill.limits import MAX_REQUESTS
from verifier_sdk.bill.line import Line, Terms
from verifier_sdk.bill.replies import answer_empty, finish_of, terms_of
from verifier_sdk.bill.source import Source, Unreadable

N = TypeVar("N", int, float)

SERVED: Final = ("sent_at", "ended_at")
"""When the request was sent and when the reply's last byte came."""

_FAILURES: Final = frozenset({"failed", "failure", "error", "cancelled", "canceled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was kept of one request; attributes as of `Line`."""

    terms: Terms
    answer_empty: bool | None
    failed: str
    finish: str
    seconds: float | None


class Requests:
    """Requests by the id of their reply."""

    def __init__(self, kept: Mapping[str, Kept] | None = None) -> None:
        """Hold what was kept."""
        self._kept = dict(kept or {})

    @classmethod
    def from_file(cls, path: Path) -> Requests:
        """Read a file with one JSON object a request; docs/bill.md has its fields.

        Raises:
            InvalidInputError: It cannot be read; the message names the line.
            LimitError: There are too many.
        """
        kept: dict[str, Kept] = {}
        for reply_id, one in _read(path):
            if len(kept) >= MAX_REQUESTS:
                msg = f"{path} has more than {MAX_REQUESTS} requests; cut bill and requests"
                raise LimitError(msg)
            kept[reply_id] = one
        return cls(kept)

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._kept)

    def complete(self, line: Line) -> Line:
        """Return a line with what was kept of its request; what the user saw comes first."""
        kept = next((self._kept[each] for each in line.ids if each in self._kept), None)
        if kept is None:
            return line
        return replace(
            line,
            terms=Terms(
                max_tokens=_first(kept.terms.max_tokens, line.terms.max_tokens),
                reasoning_budget=_first(kept.terms.reasoning_budget, line.terms.reasoning_budget),
                choices=max(kept.terms.choices, line.terms.choices),
            ),
            answer_empty=line.answer_empty if kept.answer_empty is None else kept.answer_empty,
            failed=kept.failed or line.failed,
            finish=kept.finish or line.finish,
            seconds=_first(kept.seconds, line.seconds),
        )


def failed_state(status: str) -> str:
    """Return a state if it is one of failure or cancellation, else nothing."""
    return status if status.lower() in _FAILURES else ""


def _first(own: N | None, other: N | None) -> N | None:
    return other if own is None else own


def _read(path: Path) -> Iterator[tuple[str, Kept]]:
    source = Source(path)
    for row in source.rows():
        where = f"{path}, {source.unit} {row.number}"
        if isinstance(row, Unreadable):
            msg = f"{where}: {row.reason}"
            raise InvalidInputError(msg)
        try:
            yield _one(row)
        except UnreadableError as error:
            msg = f"{where}: {error}"
            raise InvalidInputError(msg) from error


def _one(fields: Fields) -> tuple[str, Kept]:
    reply = fields.group("response")
    reply_id = fields.text("response_id") or fields.text("id") or str(reply.get("id") or "")
    if not reply_id:
        msg = "neither `response_id` nor `id` is stated, by which the reply could be known"
        raise UnreadableError(msg)
    answer = fields.values.get("answer")
    empty = not answer if isinstance(answer, str) else answer_empty(reply)
    return reply_id, Kept(
        terms=terms_of(fields.group("request") or fields.values),
        answer_empty=empty,
        failed=failed_state(fields.text("status")),
        finish=fields.text("finish_reason") or finish_of(reply),
        seconds=fields.seconds(*SERVED),
    )
