"""The words that metrics and notes use: few, and they do not change."""

from __future__ import annotations

from enum import StrEnum

from coin_protocol.errors import VerificationError


class UsageCode(StrEnum):
    """Why a usage block is refused."""

    MALFORMED = "MALFORMED"
    """A count is no whole number within the limit, or the block has another shape."""
    MISSING_COUNT = "MISSING_COUNT"
    """A count without which nothing can be checked is not stated."""
    FIELDS_DISAGREE = "FIELDS_DISAGREE"
    """Two fields of one meaning differ, or parts do not make their whole."""
    REASONING_ABOVE_COMPLETION = "REASONING_ABOVE_COMPLETION"
    """More reasoning than the completion that is said to contain it."""
    REASONING_COUNTED_TWICE = "REASONING_COUNTED_TWICE"
    """The total holds the reasoning once more than the convention has it."""
    TOTAL_DISAGREES = "TOTAL_DISAGREES"
    """The total is another sum."""
    CACHED_ABOVE_PROMPT = "CACHED_ABOVE_PROMPT"
    """More cached prompt tokens than the prompt that is said to contain them."""
    AMBIGUOUS = "AMBIGUOUS"
    """Several conventions fit, with different meanings or names; nothing is guessed."""


class DifferenceCode(StrEnum):
    """How a reported usage departs from what was committed."""

    REASONING_NOT_STATED = "REASONING_NOT_STATED"
    REASONING_ZERO = "REASONING_ZERO"
    REASONING_OFF_BY_MARKERS = "REASONING_OFF_BY_MARKERS"
    REASONING_LESS = "REASONING_LESS"
    REASONING_MORE = "REASONING_MORE"
    GENERATED_REASONING_TWICE = "GENERATED_REASONING_TWICE"
    GENERATED_WITHOUT_REASONING = "GENERATED_WITHOUT_REASONING"
    GENERATED_OFF_BY_MARKERS = "GENERATED_OFF_BY_MARKERS"
    GENERATED_LESS = "GENERATED_LESS"
    GENERATED_MORE = "GENERATED_MORE"
    COUNTED_OTHERWISE = "COUNTED_OTHERWISE"


class UsageError(VerificationError):
    """A vendor's usage block does not add up, or cannot be read without guessing.

    Attributes:
        code: Stable; fit for a metric label.
    """

    def __init__(self, code: UsageCode, message: str) -> None:
        """Say what was found, what was wanted and what to do."""
        super().__init__(message)
        self.code = code
