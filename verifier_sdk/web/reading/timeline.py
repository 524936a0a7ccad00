"""When the tokens came: by the client's clock, and by the provider's own word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.errors import CoinError
from coin_protocol.keys import read_time
from coin_protocol.statements import read_checkpoint
from coin_protocol.v1 import receipt_pb2, statements_pb2

MOST_POINTS: Final = 400
"""Checkpoints on the plot; of more, as many are left out between them."""


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint.

    Attributes:
        tokens: Committed to until then.
        seen: Seconds from the request until the client saw it, by the client's clock.
        dated: Seconds from the provider's start until its date, by the provider's clock.
        rate: Tokens a second since the point before, as the client saw them; None for the
            first, and where no time passed.
    """

    tokens: int
    seen: float
    dated: float
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """One reply over time. Seconds count from `sent_at`, by the client's clock.

    Attributes:
        sent_at: When the client sent the request, seconds since 1970.
        answer_first: Until the answer's first text; None where the receipt does not say.
        answer_last: Until its last.
        points: The checkpoints, in the order seen.
        checkpoints: How many there are, those left out counted.
        unread: How many could not be read.
        rate: Tokens a second between the first and the last checkpoint that the client saw.
        dated_rate: The same by the provider's dates.
        answer_rate: Tokens a second of the answer.
    """

    sent_at: float
    answer_first: float | None
    answer_last: float | None
    points: Sequence[Point]
    checkpoints: int
    unread: int
    rate: float | None
    dated_rate: float | None
    answer_rate: float | None


def timeline(
    receipt: receipt_pb2.Receipt, commitment: statements_pb2.Commitment | None
) -> Timeline:
    """Return a reply over time.

    Args:
        receipt: Whose times were checked to be times.
        commitment: None where it cannot be read.
    """
    sent = _seconds(receipt.sent_at)
    began = sent if commitment is None else _seconds(commitment.started_at)
    points, unread = _points(receipt, sent, began)
    first = _since(receipt.answer_first_at, sent) if receipt.HasField("answer_first_at") else None
    last = _since(receipt.answer_last_at, sent) if receipt.HasField("answer_last_at") else None
    answer_rate = None
    if commitment is not None and first is not None and last is not None:
        answer_rate = _rate(commitment.answer_tokens, last - first)
    return Timeline(
        sent_at=sent,
        answer_first=first,
        answer_last=last,
        points=points,
        checkpoints=len(receipt.checkpoints),
        unread=unread,
        rate=_over_all([(point.tokens, point.seen) for point in points]),
        dated_rate=_over_all([(point.tokens, point.dated) for point in points]),
        answer_rate=answer_rate,
    )


def _points(receipt: receipt_pb2.Receipt, sent: float, began: float) -> tuple[list[Point], int]:
    seen = receipt.checkpoints
    step = max(1, -(-len(seen) // MOST_POINTS))
    kept = sorted({*range(0, len(seen), step), *([len(seen) - 1] if seen else [])})
    points: list[Point] = []
    unread = 0
    for at in kept:
        try:
            checkpoint = read_checkpoint(seen[at].checkpoint.payload)
        except CoinError:
            unread += 1
            continue
        points.append(
            Point(
                tokens=checkpoint.token_count,
                seen=_since(seen[at].seen_at, sent),
                dated=_since(checkpoint.provider_time, began),
            )
        )
    rated = [
        Point(
            tokens=later.tokens,
            seen=later.seen,
            dated=later.dated,
            rate=_rate(later.tokens - earlier.tokens, later.seen - earlier.seen),
        )
        for earlier, later in pairwise(points)
    ]
    return points[:1] + rated, unread


def _over_all(points: Sequence[tuple[int, float]]) -> float | None:
    if len(points) < 2:
        return None
    (tokens, start), (more, end) = points[0], points[-1]
    return _rate(more - tokens, end - start)


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 else None


def _since(stamp: Timestamp, start: float) -> float:
    return _seconds(stamp) - start


def _seconds(stamp: Timestamp) -> float:
    return read_time(stamp).timestamp()
