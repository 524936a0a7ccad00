"""The rounds of an audit: what was asked, and what came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from coin_protocol.errors import CoinError
from coin_protocol.keys import read_time
from coin_protocol.statements import (
    read_challenge,
    read_opening,
    read_refusal,
    read_whole_challenge,
    read_whole_opening,
)
from coin_protocol.v1 import opening_pb2, receipt_pb2
from verifier_sdk.web.reading.blocks import EMBEDDING, RANKS, TOKENS, WHOLE, BlockMap

_REFUSALS: Final = {
    opening_pb2.REFUSAL_REASON_EXPOSURE_CAP: "Refused: answering could pass an exposure cap.",
    opening_pb2.REFUSAL_REASON_FLIPS_USED_UP: "Refused: its chain of coin flips is used up.",
}


@dataclass(frozen=True, slots=True)
class RoundLine:
    """One challenge and what came of it.

    Attributes:
        whole: Whether it asked for whole blocks.
        number: From 1, of its kind.
        asked: What for, in words.
        sent_at: Seconds since 1970, by the verifier's clock.
        received_at: The same of the answer.
        deadline_at: Until when an answer counts; None where the challenge cannot be read.
        answer: What came, in words.
        answered: Whether it was an opening.
        bytes: Size of the answer.
    """

    whole: bool
    number: int
    asked: str
    sent_at: float
    received_at: float
    deadline_at: float | None
    answer: str
    answered: bool
    bytes: int

    @property
    def seconds(self) -> float:
        """From challenge to answer."""
        return self.received_at - self.sent_at


@dataclass
class _Opened:
    """What the rounds opened so far."""

    kinds: dict[int, str] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)

    def note(self, index: int, kind: str, tokens: int = 0) -> None:
        """Note that something of a block was opened."""
        self.kinds[index] = min(self.kinds.get(index, kind), kind, key=RANKS.index)
        if tokens:
            self.tokens[index] = self.tokens.get(index, 0) + tokens


def read_rounds(bundle: receipt_pb2.Bundle, total: int) -> tuple[list[RoundLine], BlockMap]:
    """Return the rounds of a bundle, and what they opened of `total` blocks."""
    opened = _Opened()
    lines = [*_lines(bundle.rounds, opened, whole=False)]
    lines += _lines(bundle.whole_rounds, opened, whole=True)
    lines.sort(key=lambda line: (line.sent_at, line.whole, line.number))
    within = {index: kind for index, kind in opened.kinds.items() if index < total}
    return lines, BlockMap(total, within, opened.tokens)


def _lines(
    rounds: Sequence[receipt_pb2.Round], opened: _Opened, *, whole: bool
) -> Iterator[RoundLine]:
    for number, entry in enumerate(rounds, 1):
        asked, deadline = _asked(entry, whole=whole)
        answer, size = _answer(entry, opened, whole=whole)
        yield RoundLine(
            whole=whole,
            number=number,
            asked=asked,
            sent_at=read_time(entry.sent_at).timestamp(),
            received_at=read_time(entry.received_at).timestamp(),
            deadline_at=deadline,
            answer=answer,
            answered=entry.HasField("opening"),
            bytes=size,
        )


def _asked(entry: receipt_pb2.Round, *, whole: bool) -> tuple[str, float | None]:
    raw = entry.challenge.payload
    try:
        if whole:
            message = read_whole_challenge(raw)
            text = f"{_blocks(message.blocks)} whole"
            return text, read_time(message.deadline).timestamp()
        found = read_challenge(raw)
    except CoinError as error:
        return f"The challenge cannot be read: {error}", None
    parts = []
    if found.blocks:
        parts.append(f"the embeddings of {_blocks(found.blocks)}")
    if found.tokens_per_block:
        also = f" and of {_blocks(found.token_blocks)} more" if found.token_blocks else ""
        parts.append(f"up to {found.tokens_per_block:,} tokens of each{also}")
    text = ", ".join(parts) or "nothing"
    return text[:1].upper() + text[1:], read_time(found.deadline).timestamp()


def _answer(entry: receipt_pb2.Round, opened: _Opened, *, whole: bool) -> tuple[str, int]:
    if entry.HasField("no_answer"):
        return f"No answer: {entry.no_answer}", 0
    if entry.HasField("refusal"):
        return _refusal(entry.refusal.payload), len(entry.refusal.payload)
    raw = entry.opening.payload
    try:
        text = _whole_opening(raw, opened) if whole else _opening(raw, opened)
    except CoinError as error:
        text = f"An opening that cannot be read: {error}"
    return text, len(raw)


def _refusal(raw: bytes) -> str:
    try:
        message = read_refusal(raw)
    except CoinError as error:
        return f"A refusal that cannot be read: {error}"
    shown = len(message.answered)
    return f"{_REFUSALS.get(message.reason, 'Refused.')} It shows {shown:,} answered before."


def _opening(raw: bytes, opened: _Opened) -> str:
    message = read_opening(raw)
    for block in message.blocks:
        opened.note(block.block_index, EMBEDDING, len(block.tokens))
    for entry in message.token_blocks:
        opened.note(entry.block_index, TOKENS, len(entry.tokens))
    if message.HasField("edge"):
        # The last token of all: every opening shows it.
        opened.note(message.edge.block_index, TOKENS)
        opened.tokens.setdefault(message.edge.block_index, 1)
    tokens = sum(len(block.tokens) for block in message.blocks)
    tokens += sum(len(block.tokens) for block in message.token_blocks)
    alone = f", {tokens:,} tokens in {_blocks(len(message.blocks) + len(message.token_blocks))}"
    return f"Opened: embeddings of {_blocks(len(message.blocks))}{alone if tokens else ''}"


def _whole_opening(raw: bytes, opened: _Opened) -> str:
    message = read_whole_opening(raw)
    for block in message.blocks:
        opened.note(block.block_index, WHOLE, len(block.token_ids))
    return f"Opened: {_blocks(len(message.blocks))} whole"


def _blocks(count: int) -> str:
    return f"{count:,} block{'' if count == 1 else 's'}"
