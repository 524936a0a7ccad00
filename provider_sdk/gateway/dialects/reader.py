"""What all readers of replies have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Final, NamedTuple

import orjson

from coin_protocol.limits import MAX_CHOICES
from coin_protocol.v1 import delivery_pb2 as pb
from provider_sdk.gateway.dialects.choice import Choice
from provider_sdk.gateway.dialects.outcome import missing_reason
from provider_sdk.gateway.dialects.request import Json, Prepared, Rules

# A stream's reasoning that has no ids yet: above this its encoding takes milliseconds.
_SLOW_CHARS: Final = 16_384


class Piece(NamedTuple):
    """Ids to commit to, of one choice."""

    choice: int
    reasoning_ids: list[int]


class Step:
    """What one event, or one plain reply, comes to.

    Attributes:
        data: JSON to pass on; None where the event is dropped.
        same: Nothing was changed: pass on the bytes as they came.
        pieces: What to append to which choice, in order.
        usage: It carries the usage block, or is a response's last, which would.
        before: Whole events to send first: text that was held back. Nearly always empty.
    """

    __slots__ = ("_document", "before", "data", "pieces", "same", "usage")

    def __init__(
        self,
        data: bytes | None,
        document: Json | None,
        pieces: list[Piece],
        *,
        same: bool = False,
        usage: bool = False,
        before: bytes = b"",
    ) -> None:
        """Keep the parts."""
        self.data = data
        self._document = document
        self.pieces = pieces
        self.same = same
        self.usage = usage
        self.before = before

    def with_field(self, name: str, value: object) -> bytes:
        """Return the JSON to pass on with one more field at its top."""
        return orjson.dumps({**(self._document or {}), name: value})


class Reader(ABC):
    """Reads one reply.

    Attributes:
        choices: By index, as they show.
        response_id: As the client sees it; empty until known.
        model: As the upstream names it; empty until known.
        usage: The upstream's own block, the last that came.
        usage_early: Tokens came after it, so that it may not count them.
        problem: What could not be understood; every choice is then without a commitment.
        failed: The upstream reported an error in place of (more of) the reply.
    """

    def __init__(self, prepared: Prepared, rules: Rules) -> None:
        """Start before the first byte."""
        self.prepared = prepared
        self.rules = rules
        self.choices: dict[int, Choice] = {}
        self.response_id = ""
        self.model = ""
        self.usage: Json | None = None
        self.usage_early = False
        self.problem: str | None = None
        self.failed = False
        self._opened: dict[int, bool] = {}
        self._tokens = False
        self._hide = rules.hide_reasoning

    def event(self, data: bytes) -> Step:
        """Read the data of one event of a stream, other than `[DONE]`. Never raises.

        What is no JSON object is passed on as it came.
        """
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document, data = _lenient(data)
        if type(document) is not dict:
            self.malformed_stream(f"an event of {len(data)} bytes is no JSON object")
            return Step(data, None, [], same=True)
        return self._event(document, data)

    def body(self, raw: bytes) -> Step:
        """Read a plain reply. Never raises; what is no JSON object is passed on as it came."""
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError:
            document, raw = _lenient(raw)
        if type(document) is not dict:
            self.malformed_stream(f"a reply of {len(raw)} bytes is no JSON object")
            return Step(raw, None, [], same=True)
        return self._body(document, raw)

    def malformed_stream(self, why: str) -> None:
        """Take note of bytes that could not be understood; the first reason is kept."""
        self.problem = self.problem or why

    @property
    def slow_finish(self) -> bool:
        """Whether `finish` takes milliseconds, and belongs on a thread."""
        return sum(choice.pending for choice in self.choices.values()) > _SLOW_CHARS

    def finish(self) -> list[Piece]:
        """Return ids that were held back, once, when the reply is over or broken off."""
        pieces = [Piece(index, choice.finish()) for index, choice in self.choices.items()]
        return [piece for piece in pieces if piece.reasoning_ids]

    def missing(self, index: int) -> tuple[pb.MissingReason.ValueType, str] | None:
        """Return why a choice can have no commitment, and a sentence; None where it can."""
        if self.problem is not None:
            return pb.MISSING_REASON_MALFORMED_UPSTREAM, self.problem
        choice = self.choices.get(index)
        if choice is None:
            note = f"the upstream sent no choice {index}"
            return pb.MISSING_REASON_MALFORMED_UPSTREAM, note
        return missing_reason(choice, reported_reasoning=_reasoning_count(self.usage))

    def choice(self, index: object) -> Choice | None:
        """Return the choice of this index, None where it is no index or one too many."""
        if type(index) is not int or not 0 <= index < MAX_CHOICES:
            self.malformed_stream("a choice has no index from 0 to 1023")
            return None
        return self._open(index)

    def _open(self, index: int) -> Choice:
        found = self.choices.get(index)
        if found is None:
            # A prompt told without an index is that of all choices.
            opened = self._opened.get(index, self._opened.get(-1))
            prompt, prepared = self.prepared.prompt_of(index), self.prepared
            if opened is None and prompt and self.rules.markers.opens(prompt):
                opened = True
            found = Choice(
                self.rules,
                index,
                opened=opened,
                check=not prepared.echo or bool(prompt),
                echo=prompt if prepared.echo else "",
                held=prepared.held,
            )
            self.choices[index] = found
        return found

    def told_prompt(self, index: int, ids: object) -> None:
        """Take the prompt's ids, of one choice or, with index -1, of all."""
        if not isinstance(ids, list) or index in self.choices:
            return
        vocabulary = self.rules.tokenizer.vocabulary_size
        if all(type(each) is int and 0 <= each < vocabulary for each in ids[-64:]):
            self._opened[index] = self.rules.markers.opened_by(ids)

    def _take_usage(self, document: Json) -> bool:
        usage = document.get("usage")
        if type(usage) is dict:
            self.usage = usage
            self.usage_early = False
            return True
        if self._tokens and self.usage is not None:
            self.usage_early = True
        return False

    def _identify(self, document: Json) -> None:
        if not self.response_id:
            found = document.get("id")
            self.response_id = found if isinstance(found, str) else ""
        if not self.model:
            model = document.get("model")
            self.model = model if isinstance(model, str) else ""

    @abstractmethod
    def _event(self, document: Json, data: bytes) -> Step:
        """Read one event's object."""

    @abstractmethod
    def _body(self, document: Json, raw: bytes) -> Step:
        """Read a plain reply's object."""


def _lenient(data: bytes) -> tuple[object, bytes]:
    """Return what Python's own JSON has and the standard has not, NaN and Infinity, as null.

    Python servers write them as log probabilities, and clients in Python read them.
    """
    try:
        document = json.loads(data, parse_constant=lambda _: None)
        return document, orjson.dumps(document)
    except (ValueError, TypeError, RecursionError):
        return None, data


def _reasoning_count(usage: Json | None) -> int:
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = usage.get(name) if usage else None
        count = details.get("reasoning_tokens") if isinstance(details, dict) else None
        if isinstance(count, int):
            return count
    return 0
