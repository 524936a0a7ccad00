"""Which part of the text a run of ids stands for, and whether it is their text at all.

Text and ids of a stream do not keep step: an upstream holds text back while a character is
incomplete or a stop string may be coming, and leaves special tokens out. What the ids spell is
therefore kept until text comes for it. The check is there to find an upstream's mistakes (ids of
another reply, ids that were lost), not lies: it is the provider's own server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from provider_sdk.gateway.markers import MarkerIds
from provider_sdk.gateway.splitter import Run, Side

MAX_LAG: Final = 65_536
"""Ids without text, or bytes of text without ids, beyond which the two are not compared."""

MIN_UNSEEN: Final = 16
"""Reasoning ids that came before, without any text: more than a stop string or a character holds
back, so that the upstream does not show reasoning at all."""

_SPACE: Final = b" \t\r\n"
_REPLACED: Final = "\ufffd".encode()


class Alignment:
    """Deals text out to the sides that its ids are of.

    Attributes:
        mismatch: The ids do not spell the text; from then on text goes where the ids that came
            with it went.
        lost: Nothing is compared any more, and nothing is known to be wrong.
    """

    __slots__ = ("_ahead", "_before", "_expected", "_marks", "_voiced", "lost", "mismatch")

    def __init__(self, marks: MarkerIds) -> None:
        """Start before the first id."""
        self._marks = marks
        # Side, bytes, whether the text may lack them.
        self._expected: deque[tuple[Side, bytes, bool]] = deque()
        self._ahead = b""
        self._before = 0
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
            return
        self._before = len(self._expected)
        spell, silent = self._marks.tokenizer.token_bytes, self._marks.silent
        for run in runs:
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
        self._expected.clear()
        self._ahead = b""

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
        if side is Side.ANSWER and not self._voiced and self._before > MIN_UNSEEN:
            self._pass_over(raw)
        skip, self._ahead = len(self._ahead), b""
        parts: list[tuple[Side, bytearray]] = []
        at = 0
        while at < len(raw) and self._expected:
            taken, given = self._next(raw, at)
            if taken < 0:
                return self._lost_track(parts, raw, at, skip, side)
            self._voiced = self._voiced or (taken > 0 and given is Side.REASONING)
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
        """Drop reasoning that the upstream does not show, where the text begins as the answer."""
        first = next((piece for side, piece, _ in self._expected if side is Side.ANSWER), b"")
        why = next((piece for side, piece, _ in self._expected if side is Side.REASONING), b"")
        text = raw.lstrip(_SPACE)
        if text.startswith(first.strip(_SPACE)) and not text.startswith(why.strip(_SPACE)):
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
            self._expected.clear()
        rest = raw[max(at, skip) :].decode(errors="replace")
        known = [(where, part.decode(errors="replace")) for where, part in parts]
        return [*known, *self._guess(rest, side, reasoned=reasoned)]

    def _guess(self, text: str, side: Side, *, reasoned: bool) -> list[tuple[Side, str]]:
        """Deal out text that is not compared; what can be reasoning is taken for it."""
        if not reasoned or side is not Side.ANSWER or self._marks.markers.lone_close:
            return [(side, text)]
        ends = [text.rfind(mark) + len(mark) for mark in self._marks.markers.close if mark in text]
        end = max(ends, default=len(text))
        return [(Side.REASONING, text[:end]), (Side.ANSWER, text[end:])]


def _add(parts: list[tuple[Side, bytearray]], side: Side, raw: bytes) -> None:
    if not raw:
        return
    if parts and parts[-1][0] is side:
        parts[-1][1].extend(raw)
    else:
        parts.append((side, bytearray(raw)))
