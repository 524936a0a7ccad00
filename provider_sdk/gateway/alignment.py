"""Which part of the text a run of ids stands for, and whether it is their text at all.

Text and ids of a stream do not keep step: an upstream holds text back while a character is
incomplete or a stop string may be coming, and leaves special tokens out. What the ids spell is
therefore kept until text comes for it. The check is there to find an upstream's mistakes (ids of
another reply, ids that were lost), not lies: it is the provider's own server.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Final

from provider_sdk.gateway.markers import SPECIAL, MarkerIds
from provider_sdk.gateway.splitter import Run, Side, Splitter, TextSplitter

MAX_LAG: Final = 65_536
"""Ids without text, or bytes of text without ids, beyond which the two are not compared."""

_UTF8_BYTES: Final = 4
"""Most bytes of one character."""

_BARE: Final = re.compile(SPECIAL.pattern.encode())
_SPACE: Final = b" \t\r\n"
_REPLACED: Final = "\ufffd".encode()


class Alignment:
    """Deals text out to the sides that its ids are of.

    Attributes:
        mismatch: The ids do not spell the text; from then on text is answer where both the ids
            that came with it and the marks in it say so.
        lost: Nothing is compared any more, and nothing is known to be wrong.
    """

    __slots__ = (
        "_ahead",
        "_expected",
        "_held",
        "_marks",
        "_owed",
        "_texts",
        "_unseen",
        "_voiced",
        "lost",
        "mismatch",
    )

    def __init__(self, marks: MarkerIds, *, held: int = 0) -> None:
        """Start before the first id.

        Args:
            marks: The model's.
            held: Characters of text that the upstream may hold back, as it does where the client
                names stop strings.
        """
        self._marks = marks
        self._held = held
        # Bytes of reasoning whose text is still to come, counted where nothing is compared.
        self._owed = 0
        self._texts: TextSplitter | None = None
        # Side, bytes, whether the text may lack them.
        self._expected: deque[tuple[Side, bytes, bool]] = deque()
        self._ahead = b""
        # Reasoning has come, and it is not known yet whether its text will.
        self._unseen = False
        self._voiced = False
        self.mismatch = False
        self.lost = False

    @property
    def level(self) -> bool:
        """Whether all text so far has its ids and all ids their text."""
        return not (self._expected or self._ahead or self.mismatch or self.lost)

    def spell(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ids."""
        return b"".join(map(self._marks.tokenizer.token_bytes, ids))

    def expect(self, runs: Iterable[Run]) -> None:
        """Take ids whose text is to come."""
        if self.lost or self.mismatch:
            if self._held:
                self._owed += sum(map(self._written, runs))
            return
        spell, silent = self._marks.tokenizer.token_bytes, self._marks.silent
        for run in runs:
            self._unseen = self._unseen or run.side is Side.REASONING
            if run.text is None:
                self._expected.extend((run.side, spell(i), silent(i)) for i in run.ids)
            else:
                lone = len(run.ids) == 1
                self._expected.extend((side, raw, lone) for side, raw in run.text if raw)
        if len(self._expected) > MAX_LAG:
            self.give_up()

    def forget(self, keep: Side | None = None) -> None:
        """Drop what was expected but for one side, where the upstream parses the text itself."""
        self._ahead = b""
        self._expected = deque(entry for entry in self._expected if entry[0] is keep)

    def voice(self) -> None:
        """Take note that the upstream shows text for what has come so far."""
        self._voiced = True

    def give_up(self) -> None:
        """Compare nothing any more: the upstream makes something else of the text."""
        self.lost = True
        self._drop()
        self._ahead = b""

    def _drop(self) -> None:
        """Expect nothing any more; what of it is reasoning can still come."""
        if self._held:
            self._owed += sum(len(raw) for side, raw, _ in self._expected if side is Side.REASONING)
        self._expected.clear()

    def _written(self, run: Run) -> int:
        """Return how many bytes of text a run of reasoning or a mark is, without special tokens."""
        if run.side is Side.ANSWER:
            return 0
        raw = self.spell(run.ids)
        return len(raw) if run.side is Side.REASONING else len(_BARE.sub(b"", raw))

    def text(self, text: str, side: Side, *, reasoned: bool = False) -> list[tuple[Side, str]]:
        """Return `text` by side.

        Args:
            text: What came.
            side: Of the ids that came with it; where nothing better is known.
            reasoned: There was reasoning among those ids.
        """
        if self.lost or self.mismatch:
            return self._guess(text, side, reasoned=reasoned)
        raw = self._ahead + text.encode()
        if side is Side.ANSWER and self._unseen and not self._voiced:
            self._pass_over(raw)
        skip, self._ahead = len(self._ahead), b""
        parts: list[tuple[Side, bytearray]] = []
        at = 0
        while at < len(raw) and self._expected:
            taken, given = self._next(raw, at)
            if taken < 0:
                return self._lost_track(parts, raw, at, skip, side)
            if given is Side.REASONING and not self._voiced:
                self._voiced = bool(raw[at : at + taken].strip(_SPACE))
            _add(parts, given, raw[max(at, skip) : max(at + taken, skip)])
            at += taken
        if at < len(raw):
            # Text whose ids are yet to come.
            self._ahead = raw[at:]
            _add(parts, side, raw[max(at, skip) :])
            if len(self._ahead) > MAX_LAG:
                self.mismatch = True
        return [(where, part.decode(errors="replace")) for where, part in parts]

    def finish(self) -> None:
        """Text that no ids came for is a mismatch; ids without text may be a stop string."""
        if self._ahead.strip(_SPACE):
            self.mismatch = True

    def _next(self, raw: bytes, at: int) -> tuple[int, Side]:
        """Take the first expected piece; return how many bytes it is, or -1, and its side."""
        expected = self._expected
        side, piece, optional = expected.popleft()
        if raw.startswith(piece, at):
            return len(piece), side
        rest = raw[at : at + len(piece)]
        if optional or not piece.strip(_SPACE):
            # A special token that the text goes without, or white space that was trimmed.
            return 0, side
        if piece.startswith(rest) and at + len(rest) == len(raw):
            taken, left = len(rest), piece[len(rest) :]
        elif piece[:1] in _SPACE:
            taken, left = 0, piece.lstrip(_SPACE)
        elif raw[at : at + 1] in _SPACE:
            taken, left = 1, piece
        elif raw.startswith(_REPLACED, at):
            return self._replaced(raw, at, (side, piece, optional))
        else:
            expected.appendleft((side, piece, optional))
            return -1, side
        expected.appendleft((side, left, False))
        return taken, side

    def _pass_over(self, raw: bytes) -> None:
        """Drop reasoning that the upstream does not show, where text is as the answer alone is."""
        answer, plain, marked = bytearray(), bytearray(), bytearray()
        for side, piece, optional in self._expected:
            marked += piece
            if not optional:
                plain += piece
                answer += piece if side is Side.ANSWER else b""
        # White space alone decides nothing; what does is looked at once.
        self._unseen = not raw.strip(_SPACE)
        if _agree(raw, answer) and not (_agree(raw, plain) or _agree(raw, marked)):
            self.forget(keep=Side.ANSWER)

    def _replaced(self, raw: bytes, at: int, head: tuple[Side, bytes, bool]) -> tuple[int, Side]:
        """Take all pieces of one side whose bytes are no text, as a decoder writes them."""
        side, spelled, count = head[0], head[1], 0
        for where, piece, _ in self._expected:
            if where is not side:
                break
            spelled += piece
            count += 1
        written = spelled.decode(errors="replace").encode()
        if not raw.startswith(written, at):
            return -1, side
        for _ in range(count):
            self._expected.popleft()
        return len(written), side

    def _lost_track(
        self, parts: list[tuple[Side, bytearray]], raw: bytes, at: int, skip: int, side: Side
    ) -> list[tuple[Side, str]]:
        reasoned = any(where is Side.REASONING for where, _, _ in self._expected)
        if raw.startswith(_REPLACED, at):
            # Ids that spell no text: the decoder's substitute cannot be told from the model's.
            self.give_up()
        else:
            self.mismatch = True
            self._drop()
        rest = raw[max(at, skip) :].decode(errors="replace")
        known = [(where, part.decode(errors="replace")) for where, part in parts]
        return [*known, *self._guess(rest, side, reasoned=reasoned)]

    def _guess(self, text: str, side: Side, *, reasoned: bool) -> list[tuple[Side, str]]:
        """Deal out text that is not compared; what can be reasoning is taken for it."""
        if side is not Side.ANSWER:
            return self._settled(text, "", side)
        ends = [text.rfind(mark) + len(mark) for mark in self._marks.markers.close if mark in text]
        if not reasoned or self._marks.markers.lone_close:
            return self._settled("", text, side)
        end = max(ends, default=len(text))
        return self._settled(text[:end], text[end:], Side.REASONING)

    def _settled(self, before: str, after: str, side: Side) -> list[tuple[Side, str]]:
        """Return text before the answer, and text of it but for reasoning that comes late."""
        late = 0
        if self._held:
            if before:
                self._voiced = True
            elif not self._voiced and self._owed > _UTF8_BYTES * self._held:
                # More than is ever held back, and none of it came: it is not shown at all.
                self._owed = 0
            raw = after.encode()
            self._owed = max(0, self._owed - len(before.encode()))
            late = len(raw[: self._owed].decode(errors="ignore"))
            self._owed -= len(raw[: self._owed])
        parts = [(side, before), (Side.REASONING, after[:late])]
        return [*((where, part) for where, part in parts if part), *self._by_marks(after[late:])]

    def _by_marks(self, text: str) -> list[tuple[Side, str]]:
        """Split text by the marks in it, where its ids are known to be others than its own."""
        if not self.mismatch:
            return [(Side.ANSWER, text)] if text else []
        if self._texts is None:
            turns = Splitter(self._marks, opened=False)
            self._texts = TextSplitter(turns, self._marks.markers)
        return self._texts.feed(text)

    def rest(self) -> list[tuple[Side, str]]:
        """Return text still held back, as the beginning of a mark; the reply is over."""
        return [] if self._texts is None else self._texts.finish()


def _agree(text: bytes, spelled: bytearray) -> bool:
    """Whether one begins with the other, but for white space around them, and neither is empty."""
    text, other = text.strip(_SPACE), bytes(spelled).strip(_SPACE)
    return bool(text and other) and (text.startswith(other) or other.startswith(text))


def _add(parts: list[tuple[Side, bytearray]], side: Side, raw: bytes) -> None:
    if not raw:
        return
    if parts and parts[-1][0] is side:
        parts[-1][1].extend(raw)
    else:
        parts.append((side, bytearray(raw)))
