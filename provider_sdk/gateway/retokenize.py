"""Token ids made from text that arrives in pieces, for upstreams that give text alone.

The ids are those of the whole text at once. How we know: the text is cut only where an ASCII
letter, one space and an ASCII letter follow each other, and only where encoding the two sides
apart gives what encoding them together gives. Tokenizers that first cut text into words by a
regular expression (all byte-level BPE in use: GPT, Llama 3, Qwen, DeepSeek, tekken) always cut
there, look ahead by one character and merge within words only, so that nothing further on can
change what stands before such a cut. For any other tokenizer `cuts_words` tries it out on text
made to go wrong; where it does not hold, and where text has no such place (Chinese, say), ids
are made at the end.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import Final

from coin_protocol.tokenizer import Tokenizer

STEP: Final = 512
"""Characters between two attempts to cut: each character is encoded about three times."""

RIGHT: Final = 48
"""Characters kept after a cut: more than any look-ahead."""

_CUT: Final = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")
_PROBE: Final = (
    "It's a test, isn't it? We're 12345 of 3.14159 tokens; x_1 = foo(bar)[0] + 'quoted words'.\n\n"
    "    indented code here\n\t\ttabs and  two   spaces \u00e9t\u00e9 na\u00efve \u6f22\u5b57 "
    "mixed in words \U0001f389 emoji between words HTTPServer camelCase ALLCAPS end of line \r\n "
    "next one "
    "a b c d e f g the the the of of to to and so on I'll we'd they've don't can't "
)


def cuts_words(tokenizer: Tokenizer) -> bool:
    """Whether a text's ids are those of its parts, cut between words.

    Tries every cut of a probing text, alone and all together.
    """
    text = _PROBE * 2
    cuts = [match.start() for match in _CUT.finditer(text)]
    whole = tokenizer.encode(text)
    if any(tokenizer.encode(text[:at]) + tokenizer.encode(text[at:]) != whole for at in cuts):
        return False
    ends = [*cuts, len(text)]
    parts = [text[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    return [token_id for part in parts for token_id in tokenizer.encode(part)] == whole


class Retokenizer:
    """Ids of one text."""

    __slots__ = ("_local", "_next", "_pending", "_size", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer, *, local: bool) -> None:
        """Start before the first character.

        Args:
            tokenizer: The profile's.
            local: What `cuts_words` says of it. Where False, all ids come from `finish`.
        """
        self._tokenizer = tokenizer
        self._local = local
        self._pending = StringIO()
        self._size = 0
        self._next = STEP

    @property
    def pending(self) -> int:
        """Characters whose ids `finish` has to make."""
        return self._size

    def feed(self, text: str) -> list[int]:
        """Return ids that no further text can change."""
        self._pending.write(text)
        self._size += len(text)
        if self._size < self._next or not self._local:
            return []
        whole = self._pending.getvalue()
        cuts = [match.start() for match in _CUT.finditer(whole, 0, len(whole) - RIGHT)]
        if cuts:
            left, right = whole[: cuts[-1]], whole[cuts[-1] :]
            ids = self._tokenizer.encode(left)
            if ids + self._tokenizer.encode(right) == self._tokenizer.encode(whole):
                self._hold(right)
                return ids
        self._hold(whole)
        # Twice as much before the next attempt, so that text without words costs no more than
        # twice its encoding.
        self._next = 2 * self._size
        return []

    def finish(self) -> list[int]:
        """Return the other ids; the text is over."""
        ids = self._tokenizer.encode(self._pending.getvalue()) if self._size else []
        self._pending, self._size = StringIO(), 0
        return ids

    def _hold(self, text: str) -> None:
        self._pending = StringIO()
        self._pending.write(text)
        self._size = len(text)
        self._next = max(STEP, self._size + STEP)
