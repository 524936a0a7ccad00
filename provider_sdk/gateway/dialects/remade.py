"""Ids of a choice whose upstream gives text alone."""

from __future__ import annotations

from collections.abc import Iterable

from coin_protocol.answer import ToolCall
from provider_sdk.gateway.dialects.request import Rules
from provider_sdk.gateway.retokenize import Retokenizer
from provider_sdk.gateway.splitter import Side, Splitter, TextSplitter


class RemadeIds:
    """Splits text by marks, and tokenizes reasoning and answer again, each for itself."""

    __slots__ = ("_answer", "_encode", "_reasoning", "texts")

    def __init__(self, rules: Rules, turns: Splitter) -> None:
        """Start before the first character.

        Args:
            rules: The model's.
            turns: Keeps the side.
        """
        self._encode = rules.tokenizer.encode
        self._reasoning = Retokenizer(rules.tokenizer, local=rules.cuts_words)
        self._answer = Retokenizer(rules.tokenizer, local=rules.cuts_words)
        self.texts = TextSplitter(turns, rules.markers.markers)

    @property
    def pending(self) -> int:
        """Characters of reasoning whose ids `finish` will make."""
        return self._reasoning.pending

    def feed(self, parts: Iterable[tuple[Side, str]]) -> tuple[list[int], int]:
        """Return ids of reasoning that nothing can change any more, and how many of answer."""
        released, answered = list[int](), 0
        for side, text in parts:
            if side is Side.REASONING:
                released += self._reasoning.feed(text)
            else:
                answered += len(self._answer.feed(text))
        return released, answered

    def finish(self, calls: Iterable[ToolCall]) -> tuple[list[int], int]:
        """Return the other ids of reasoning, and how many more the answer and its calls have."""
        answered = len(self._answer.finish())
        for call in calls:
            answered += len(self._encode(call.name)) + len(self._encode(call.arguments))
        return self._reasoning.finish(), answered
