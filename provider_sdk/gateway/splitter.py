"""Split reasoning from answer: on token ids, or on text where there are no ids.

splitter = Splitter(marks, opened=None)
for ids in chunks:
    for run in splitter.feed(ids):
        ...                               # run.side, run.ids
last = splitter.finish()

All runs' ids, joined, are all ids in their order, and how they were cut into chunks changes
nothing but where runs end. Marks count as answer (protocol, section 5), and so does an ordinary
id that shares some bytes with a mark.

What is malformed is split all the same, and flagged:

* reasoning that never closes is reasoning to the end (`UNCLOSED`);
* a second section is reasoning too, so that nothing hidden comes to light (`REOPENED`, unless the
  markers repeat);
* an opening mark inside of reasoning counts as a mark and changes nothing (`NESTED`), and so does
  a closing one outside (`STRAY_CLOSE`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from provider_sdk.gateway.markers import MarkerIds, Markers

_FRESH: Final = 2
# An opening mark within so many ids of a start that the prompt was only taken to have opened:
# the template left it to the model after all.


class Side(Enum):
    """What an id or a piece of text is."""

    ANSWER = 0
    REASONING = 1
    MARK = 2

    __hash__ = object.__hash__


class Flag(Enum):
    """What is wrong with a reply; `missing_reason` in `dialects` says what comes of it."""

    UNCLOSED = "reasoning was opened and never closed"
    REOPENED = "a second section of reasoning was opened"
    NESTED = "reasoning was opened inside of reasoning"
    STRAY_CLOSE = "reasoning was closed where none was open"
    TEXT_MISMATCH = "token ids do not spell the text that came with them"
    SOME_IDS = "token ids came for a part of the text only"
    BAD_IDS = "token ids are outside the vocabulary, or no integers"


class Run(NamedTuple):
    """Consecutive ids of one side.

    Attributes:
        side: What they are.
        ids: In order; empty in a run that gives text alone.
        text: For marks, what the ids spell, by side: an ordinary id can hold text around a mark.
    """

    side: Side
    ids: list[int]
    text: tuple[tuple[Side, bytes], ...] | None = None


class Splitter:
    """Splits the ids of one choice of a reply.

    Attributes:
        side: Of the next id, unless it is a mark.
        count: Ids given out so far; where text is split, characters.
        sections: Of reasoning, opened so far.
        marked: A mark was seen, in prompt or reply: from then on fields decide nothing.
        flags: What is wrong so far.
    """

    __slots__ = (
        "_fresh",
        "_held",
        "_marks",
        "_pieces",
        "_triggers",
        "count",
        "flags",
        "marked",
        "sections",
        "side",
    )

    def __init__(self, marks: MarkerIds, *, opened: bool | None) -> None:
        """Start before the first id.

        Args:
            marks: The model's.
            opened: Whether the prompt opened reasoning, by its ids; None where they are unknown
                and the markers say what templates do.
        """
        self._marks = marks
        self._triggers = marks.triggers
        self.flags: set[Flag] = set()
        self.marked = bool(opened)
        self._fresh = opened if opened is not None else marks.markers.prompt_opens
        self.side = Side.REASONING if self._fresh else Side.ANSWER
        self.sections = int(self._fresh)
        self.count = 0
        self._held: list[int] = []
        self._pieces: list[str] = []

    @property
    def holding(self) -> bool:
        """Whether ids are held back that may be the beginning of a mark."""
        return bool(self._held)

    def told(self, side: Side) -> None:
        """Take an upstream's own word for the side of what comes next, if no mark showed."""
        if not self.marked:
            self.side = side
            self._fresh = False

    def feed(self, ids: list[int]) -> list[Run]:
        """Return what is known of these ids and of those held back before.

        Raises:
            InvalidInputError: An id is outside the vocabulary.
        """
        if not self._held and self._triggers.isdisjoint(ids):
            self.count += len(ids)
            return [Run(self.side, ids)]
        runs: list[Run] = []
        for token_id in ids:
            if not self._held and token_id not in self._triggers:
                self.count += 1
                _extend(runs, self.side, [token_id])
            else:
                self._held.append(token_id)
                self._pieces.append(self._marks.piece(token_id))
                self._match(runs)
        return runs

    def finish(self) -> list[Run]:
        """Return the ids still held back; the reply is over."""
        runs: list[Run] = []
        if self._held:
            _extend(runs, self.side, self._held)
            self.count += len(self._held)
        self._held, self._pieces = [], []
        if self.side is Side.REASONING and self.sections and self.count:
            self.flags.add(Flag.UNCLOSED)
        return runs

    def _match(self, runs: list[Run]) -> None:
        opening, closing = self.active(self._marks.open, self._marks.close)
        text = "".join(self._pieces)
        found = find_mark(text, opening, closing)
        if found is None:
            self._release(runs, len(text) - held_back(text, (*opening, *closing)))
            return
        start, end, opens = found
        self._release(runs, start)
        # What is left begins with the first id that the mark touches.
        rest = "".join(self._pieces)
        gone = len(text) - len(rest)
        before = self.side
        self.turn(opens=opens)
        spelled = self._marks.spelled
        around = (
            (before, spelled(rest[: start - gone])),
            (Side.MARK, spelled(rest[start - gone : end - gone])),
            (self.side, spelled(rest[end - gone :])),
        )
        runs.append(Run(Side.MARK, self._held, around))
        self.count += len(self._held)
        self._held, self._pieces = [], []

    def active(
        self, opening: tuple[str, ...], closing: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the marks that mean something where the reply stands now."""
        if self._marks.markers.lone_close and self.side is not Side.REASONING:
            return opening, ()
        return opening, closing

    def turn(self, *, opens: bool) -> None:
        """Take note of a mark."""
        markers = self._marks.markers
        inside = self.side is Side.REASONING
        if opens and inside:
            if not (self._fresh and self.count <= _FRESH):
                self.flags.add(Flag.NESTED)
        elif opens:
            if self.sections and not markers.repeats:
                self.flags.add(Flag.REOPENED)
            self.sections += 1
            self.side = Side.REASONING
        elif inside:
            self.side = Side.ANSWER
        else:
            self.flags.add(Flag.STRAY_CLOSE)
        self.marked, self._fresh = True, False

    def _release(self, runs: list[Run], chars: int) -> None:
        """Give out the held ids that end within the first `chars` characters."""
        count, at = 0, 0
        for piece in self._pieces:
            if at + len(piece) > chars:
                break
            at += len(piece)
            count += 1
        if count:
            _extend(runs, self.side, self._held[:count])
            self.count += count
            del self._held[:count], self._pieces[:count]


def _extend(runs: list[Run], side: Side, ids: list[int]) -> None:
    if runs and runs[-1].side is side and runs[-1].text is None:
        runs[-1].ids.extend(ids)
    else:
        runs.append(Run(side, list(ids)))


def find_mark(
    text: str, opening: Iterable[str], closing: Iterable[str]
) -> tuple[int, int, bool] | None:
    """Return start, end and kind (opens) of the mark that ends first, the longest of those."""
    found: tuple[int, int, bool] | None = None
    for opens, marks in ((True, opening), (False, closing)):
        for mark in marks:
            start = text.find(mark)
            if start < 0:
                continue
            end = start + len(mark)
            if found is None or (end, start) < (found[1], found[0]):
                found = (start, end, opens)
    return found


def held_back(text: str, marks: Sequence[str]) -> int:
    """Return how many characters at the end of `text` can be the beginning of a mark."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest


class TextSplitter:
    """Splits text by its marks, where the upstream gives no ids."""

    __slots__ = ("_held", "_markers", "_turns")

    def __init__(self, turns: Splitter, markers: Markers) -> None:
        """Start before the first character.

        Args:
            turns: Keeps the side and the flags, and is fed no ids.
            markers: The same model's.
        """
        self._turns = turns
        self._markers = markers
        self._held = ""

    def feed(self, text: str) -> list[tuple[Side, str]]:
        """Return what is known of this text and of what was held back."""
        turns, parts = self._turns, list[tuple[Side, str]]()
        pending = self._held + text
        while True:
            opening, closing = turns.active(self._markers.open, self._markers.close)
            found = find_mark(pending, opening, closing)
            if found is None:
                break
            start, end, opens = found
            if start:
                parts.append((turns.side, pending[:start]))
            turns.count += start
            parts.append((Side.MARK, pending[start:end]))
            turns.turn(opens=opens)
            turns.count += end - start
            pending = pending[end:]
        keep = held_back(pending, (*opening, *closing))
        known, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        if known:
            parts.append((turns.side, known))
            turns.count += len(known)
        return parts

    def finish(self) -> list[tuple[Side, str]]:
        """Return the text still held back; the reply is over."""
        held, self._held = self._held, ""
        parts = [(self._turns.side, held)] if held else []
        self._turns.count += len(held)
        self._turns.finish()
        return parts
