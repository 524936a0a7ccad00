"""One line of a bill, whatever form it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a line bills."""

    REQUEST = "request"
    BUCKET = "bucket"
    """All requests of a period to a model."""
    MONEY = "money"
    """An amount without any count of tokens."""


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time, its end not in it; both aware."""

    start: datetime
    end: datetime

    def widened(self, by: timedelta) -> Period:
        """Return it with a margin on both sides."""
        return Period(self.start - by, self.end + by)

    def overlaps(self, other: Period) -> bool:
        """Whether both have a moment in common; an empty period is a moment."""
        return self.start <= other.end and other.start <= self.end

    def holds(self, other: Period) -> bool:
        """Whether the other lies in it as a whole."""
        return self.start <= other.start and other.end <= self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the request limited.

    Attributes:
        max_tokens: Cap on what each choice generates.
        reasoning_budget: Cap on its reasoning alone.
        choices: That were asked for; each has the whole cap.
    """

    max_tokens: int | None = None
    reasoning_budget: int | None = None
    choices: int = 1


NO_TERMS: Final = Terms()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line as billed.

    Attributes:
        number: Of the line in the file, or of the record in a JSON document; from 1.
        kind: What it bills.
        model: As the bill names it; empty where it does not.
        ids: By which the reply may be known to whoever received it.
        vendor: Whose convention the usage block follows; None where nobody said.
        usage: Block under that vendor's own names; None where the line has no counts.
        period: Of a bucket, or when the request was served at the latest and earliest.
        requests: Of a bucket, where it says how many there were.
        cost: Money, in `currency`; None where the line states none.
        currency: ISO 4217, upper case; empty without cost.
        service_tier: Where prices depend on it; empty for the standard one.
        cache_write: Prompt tokens written to a cache for minutes, and for an hour.
        terms: Of the request, where the bill carries them.
        answer_empty: Whether the reply had no answer at all; None where the bill does not say.
        failed: How the reply failed or was cancelled; empty where it did not.
        finish: Why it ended, in the vendor's word.
        seconds: From request to end of the reply, rounded up; None where not measured.
        from_cache: Whether a gateway answered from its own cache, so that no model ran.
        own_key: Whether somebody else bills the tokens (bring your own key).
        disagreement: Where the bill states one count twice and differently, in a sentence.
    """

    number: int
    kind: Kind
    model: str = ""
    ids: tuple[str, ...] = ()
    vendor: str | None = None
    usage: Mapping[str, object] | None = None
    period: Period | None = None
    requests: int | None = None
    cost: Decimal | None = None
    currency: str = ""
    service_tier: str = ""
    cache_write: tuple[int, int] = (0, 0)
    terms: Terms = NO_TERMS
    answer_empty: bool | None = None
    failed: str = ""
    finish: str = ""
    seconds: float | None = None
    from_cache: bool = False
    own_key: bool = False
    disagreement: str = ""

    def charged(self, generated: int) -> bool:
        """Whether somebody is to pay for so many generated tokens."""
        return generated > 0 and self.cost != 0

    @property
    def name(self) -> str:
        """What people call it: its id, or its day."""
        if self.ids:
            return self.ids[0]
        return "" if self.period is None else self.period.start.date().isoformat()


def same_model(name: str) -> str:
    """Return a model's name as it is compared: without what routes to it, in lower case."""
    return name.rpartition("/")[2].lower()
