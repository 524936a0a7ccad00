"""What was found out about exact bytes, kept while the evidence of one audit grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


class Memo:
    """Results by everything that they follow from, so that none can be taken for another's.

    A case is made anew with each answer, and its checks run again. What they say of bytes that did
    not change is not worked out again: most of it are signatures.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._found: dict[tuple[object, ...], object] = {}

    def once(self, follows_from: tuple[object, ...], work: Callable[[], T]) -> T:
        """Return the result of `work`, done once; what it raises is raised each time.

        Args:
            follows_from: What is worked out, and of which bytes and objects. Objects count as
                themselves, and are kept.
            work: Takes nothing else into account.
        """
        try:
            return cast("T", self._found[follows_from])
        except KeyError:
            found = self._found[follows_from] = work()
            return found

    def read(self, read: Callable[[bytes], T], raw: bytes) -> T:
        """Return a statement, parsed once by a function that takes nothing else into account."""
        return self.once((read, raw), lambda: read(raw))
