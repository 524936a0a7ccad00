"""The words of a verdict on a line: few, stable, each with what honest cause it may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Verdict(StrEnum):
    """What is said of a line. Of several the first in this order is."""

    MALFORMED = "malformed"
    """It could not be read."""
    COUNTED_TWICE = "counted_twice"
    """Reasoning was added or priced twice, or one reply was billed twice."""
    INFLATED = "inflated"
    """It bills more than the receipt commits to."""
    WRONG_CONVENTION = "wrong_convention"
    """Reasoning is counted beside the completion where it is said to be inside, or the reverse."""
    INVALID_RECEIPT = "invalid_receipt"
    """Its receipt does not verify, or failed its audit."""
    UNDERSTATED = "understated"
    """It bills less than the receipt commits to, or than the prices give."""
    INCONSISTENT = "inconsistent"
    """It contradicts itself, or the request."""
    QUESTIONABLE = "questionable"
    """Nothing is contradicted, but something is worth asking."""
    EQUAL = "equal"
    """It bills what its receipt commits to."""
    MISSING_RECEIPT = "missing_receipt"
    """Nothing speaks against it, and no receipt for it."""
    NO_COUNTS = "no_counts"
    """It states money alone: there is nothing to reconcile."""


class Weight(StrEnum):
    """How much a finding says."""

    CONTRADICTION = "contradiction"
    """Two numbers cannot both be right: the bill's, or one of the bill's and one that you hold."""
    QUESTION = "question"
    """There are honest causes that the data at hand cannot tell apart."""


class Code(StrEnum):
    """What was found on a line; a name of `coin_protocol.vendors` means what it means there."""

    REPLY_BILLED_TWICE = "REPLY_BILLED_TWICE"
    RECEIPT_REUSED = "RECEIPT_REUSED"
    REASONING_COUNTED_TWICE = "REASONING_COUNTED_TWICE"
    GENERATED_REASONING_TWICE = "GENERATED_REASONING_TWICE"
    REASONING_PRICED_TWICE = "REASONING_PRICED_TWICE"
    GENERATED_MORE = "GENERATED_MORE"
    GENERATED_SLIGHTLY_MORE = "GENERATED_SLIGHTLY_MORE"
    PROMPT_MORE = "PROMPT_MORE"
    CACHED_LESS = "CACHED_LESS"
    COUNTED_OTHERWISE = "COUNTED_OTHERWISE"
    REASONING_ABOVE_COMPLETION = "REASONING_ABOVE_COMPLETION"
    CACHED_ABOVE_PROMPT = "CACHED_ABOVE_PROMPT"
    AMBIGUOUS = "AMBIGUOUS"
    RECEIPT_INVALID = "RECEIPT_INVALID"
    AUDIT_FAILED = "AUDIT_FAILED"
    GENERATED_LESS = "GENERATED_LESS"
    GENERATED_SLIGHTLY_LESS = "GENERATED_SLIGHTLY_LESS"
    GENERATED_WITHOUT_REASONING = "GENERATED_WITHOUT_REASONING"
    PROMPT_LESS = "PROMPT_LESS"
    REASONING_NOT_PRICED = "REASONING_NOT_PRICED"
    ANSWER_NOT_PRICED = "ANSWER_NOT_PRICED"
    PRICE_BELOW_LIST = "PRICE_BELOW_LIST"
    TOTAL_DISAGREES = "TOTAL_DISAGREES"
    FIELDS_DISAGREE = "FIELDS_DISAGREE"
    COMPLETION_ABOVE_CAP = "COMPLETION_ABOVE_CAP"
    GENERATED_ABOVE_CAP = "GENERATED_ABOVE_CAP"
    REASONING_ABOVE_BUDGET = "REASONING_ABOVE_BUDGET"
    EMPTY_ANSWER_BILLED = "EMPTY_ANSWER_BILLED"
    FAILED_REPLY_BILLED = "FAILED_REPLY_BILLED"
    FASTER_THAN_DECODING = "FASTER_THAN_DECODING"
    CACHE_PRICED_IN_FULL = "CACHE_PRICED_IN_FULL"
    PRICE_ABOVE_LIST = "PRICE_ABOVE_LIST"


_V, _W = Verdict, Weight

# fmt: off
VERDICT_OF: Final[Mapping[Code, tuple[Verdict, Weight]]] = MappingProxyType({
    Code.REPLY_BILLED_TWICE: (_V.COUNTED_TWICE, _W.CONTRADICTION),
    Code.RECEIPT_REUSED: (_V.COUNTED_TWICE, _W.CONTRADICTION),
    Code.REASONING_COUNTED_TWICE: (_V.COUNTED_TWICE, _W.CONTRADICTION),
    Code.GENERATED_REASONING_TWICE: (_V.COUNTED_TWICE, _W.CONTRADICTION),
    Code.REASONING_PRICED_TWICE: (_V.COUNTED_TWICE, _W.CONTRADICTION),
    Code.GENERATED_MORE: (_V.INFLATED, _W.CONTRADICTION),
    Code.GENERATED_SLIGHTLY_MORE: (_V.INFLATED, _W.QUESTION),
    Code.PROMPT_MORE: (_V.INFLATED, _W.CONTRADICTION),
    Code.CACHED_LESS: (_V.INFLATED, _W.QUESTION),
    Code.COUNTED_OTHERWISE: (_V.WRONG_CONVENTION, _W.QUESTION),
    Code.REASONING_ABOVE_COMPLETION: (_V.WRONG_CONVENTION, _W.QUESTION),
    Code.CACHED_ABOVE_PROMPT: (_V.WRONG_CONVENTION, _W.QUESTION),
    Code.AMBIGUOUS: (_V.WRONG_CONVENTION, _W.QUESTION),
    Code.RECEIPT_INVALID: (_V.INVALID_RECEIPT, _W.CONTRADICTION),
    Code.AUDIT_FAILED: (_V.INVALID_RECEIPT, _W.QUESTION),
    Code.GENERATED_LESS: (_V.UNDERSTATED, _W.CONTRADICTION),
    Code.GENERATED_SLIGHTLY_LESS: (_V.UNDERSTATED, _W.QUESTION),
    Code.GENERATED_WITHOUT_REASONING: (_V.UNDERSTATED, _W.CONTRADICTION),
    Code.PROMPT_LESS: (_V.UNDERSTATED, _W.CONTRADICTION),
    Code.REASONING_NOT_PRICED: (_V.UNDERSTATED, _W.QUESTION),
    Code.ANSWER_NOT_PRICED: (_V.UNDERSTATED, _W.QUESTION),
    Code.PRICE_BELOW_LIST: (_V.UNDERSTATED, _W.QUESTION),
    Code.TOTAL_DISAGREES: (_V.INCONSISTENT, _W.CONTRADICTION),
    Code.FIELDS_DISAGREE: (_V.INCONSISTENT, _W.CONTRADICTION),
    Code.COMPLETION_ABOVE_CAP: (_V.INCONSISTENT, _W.CONTRADICTION),
    Code.GENERATED_ABOVE_CAP: (_V.QUESTIONABLE, _W.QUESTION),
    Code.REASONING_ABOVE_BUDGET: (_V.QUESTIONABLE, _W.QUESTION),
    Code.EMPTY_ANSWER_BILLED: (_V.QUESTIONABLE, _W.QUESTION),
    Code.FAILED_REPLY_BILLED: (_V.QUESTIONABLE, _W.QUESTION),
    Code.FASTER_THAN_DECODING: (_V.QUESTIONABLE, _W.QUESTION),
    Code.CACHE_PRICED_IN_FULL: (_V.QUESTIONABLE, _W.QUESTION),
    Code.PRICE_ABOVE_LIST: (_V.QUESTIONABLE, _W.QUESTION),
})
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found on a line.

    Attributes:
        code: Stable.
        sentence: With the numbers.
        tokens: Billed too many; negative where too few; None where it is not about tokens.
        money: Billed too much, in the line's currency; None where the data do not say.
    """

    code: Code
    sentence: str
    tokens: int | None = None
    money: Decimal | None = None

    @property
    def verdict(self) -> Verdict:
        """What it makes of the line, on its own."""
        return VERDICT_OF[self.code][0]

    @property
    def weight(self) -> Weight:
        """How much it says."""
        return VERDICT_OF[self.code][1]
