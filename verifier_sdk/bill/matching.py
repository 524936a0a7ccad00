"""Which receipts are of which line. What is not certain is left unmatched. Pure.

Two passes: the first notes who could claim a receipt by its counts, so that in the second none is
given to one of two lines that look alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from operator import attrgetter

from coin_protocol.vendors import Reported
from verifier_sdk.bill.book import ReceiptBook
from verifier_sdk.bill.buckets import Buckets, Group
from verifier_sdk.bill.line import Kind, Line, same_model
from verifier_sdk.bill.reading import Reading
from verifier_sdk.bill.receipts import Facts
from verifier_sdk.bill.shelf import Shelf

_Key = tuple[str, int, int]


class How(StrEnum):
    """By what a line was matched."""

    ID = "id"
    COUNTS = "counts"
    """Model, time and exact counts, unique on both sides."""
    BUCKET = "bucket"
    """All receipts of the model and period together."""
    AMBIGUOUS = "ambiguous"
    """Several would fit."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The receipts of a line.

    Attributes:
        how: They were matched.
        receipts: One a choice; those of a bucket are its group's.
        complete: Whether they are all that the line bills.
        group: Of a bucket's line.
        reused: The receipt was noted for another reply, too.
        given_to: Line that the receipt vouches for already.
        note: What people should know.
    """

    how: How
    receipts: Sequence[Facts] = ()
    complete: bool = True
    group: Group | None = None
    reused: Facts | None = None
    given_to: int | None = None
    note: str = ""


NO_MATCH = Match(how=How.NONE)


class Matcher:
    """Matches lines with receipts.

    Attributes:
        unused: Receipts that are of no line, once all lines were noted.
    """

    def __init__(self, book: ReceiptBook, skew: timedelta) -> None:
        """Match with `book`; `skew` is by how much honest clocks may differ."""
        self._book, self._skew = book, skew
        self._buckets = Buckets(skew)
        usable = [facts for facts in book if facts.counts]
        self._alike = _shelves(usable)
        # One that was kept with an id is not for a line with another.
        self._nameless = _shelves(facts for facts in usable if not facts.response_id)
        self._claims: Counter[bytes] = Counter()
        self._given: dict[bytes, int] = {}
        self.unused = 0

    def note(self, line: Line, reading: Reading) -> None:
        """Take note of a line, in the first pass."""
        if line.kind is Kind.BUCKET:
            self._buckets.add(line, reading)
        if line.kind is not Kind.REQUEST or reading.reported is None:
            return
        claimed = self._by_id(line) or self._candidates(line, reading.reported)
        self._claims.update(facts.commitment_sha256 for facts in claimed)

    def noted(self) -> None:
        """End the first pass."""
        usable = [facts for facts in self._book if facts.counts]
        if len(self._buckets):
            self.unused = self._buckets.assign(usable)
        else:
            self.unused = sum(facts.commitment_sha256 not in self._claims for facts in usable)

    def match(self, line: Line, reported: Reported) -> Match:
        """Return a line's receipts, in the second pass."""
        if line.kind is Kind.BUCKET:
            return self._bucket(line)
        by_id = self._by_id(line)
        if by_id:
            named = by_id[0].commitment_sha256
            first = self._given.get(named)
            if first is not None:
                return Match(how=How.ID, given_to=first)
            if line.charged(reported.generated):
                self._given[named] = line.number
            choices = max(facts.terms.choices for facts in by_id)
            choices = max(choices, line.terms.choices)
            complete = len(by_id) >= choices
            note = "" if complete else f"receipts of {len(by_id)} of {choices} choices"
            return Match(how=How.ID, receipts=by_id, complete=complete, note=note)
        for each in line.ids:
            if each in self._book.reused:
                return Match(how=How.ID, reused=self._book.reused[each])
        return self._by_counts(line, reported)

    def _by_id(self, line: Line) -> list[Facts]:
        for each in line.ids:
            if each in self._book.by_id:
                return self._book.by_id[each]
        return []

    def _candidates(self, line: Line, reported: Reported) -> list[Facts]:
        """Return the receipts that look like a line's, and are not known to be another's."""
        if line.period is None:
            return []
        key = same_model(line.model), reported.prompt_tokens, reported.generated
        shelf = (self._nameless if line.ids else self._alike).get(key)
        return [] if shelf is None else shelf.around(line.period.widened(self._skew))

    def _by_counts(self, line: Line, reported: Reported) -> Match:
        found = self._candidates(line, reported)
        if not found:
            return NO_MATCH
        rivals = max(self._claims[facts.commitment_sha256] for facts in found)
        if len(found) == 1 and rivals == 1:
            return Match(how=How.COUNTS, receipts=found)
        note = (
            f"{len(found)} receipts without id fit, and {rivals} lines fit them: none is taken; "
            f"keep receipts with the reply's id"
        )
        return Match(how=How.AMBIGUOUS, note=note)

    def _bucket(self, line: Line) -> Match:
        group = self._buckets.find(line)
        if group is None or not (group.inside or group.edge):
            return NO_MATCH
        return Match(how=How.BUCKET, complete=group.committed[1], group=group)


def _shelves(receipts: Iterable[Facts]) -> dict[_Key, Shelf[Facts]]:
    """Return receipts by what they have in common with a line, in order of time."""
    alike: dict[_Key, list[Facts]] = {}
    for facts in receipts:
        key = same_model(facts.model), facts.prompt_tokens, facts.generated
        alike.setdefault(key, []).append(facts)
    return {key: Shelf(found, attrgetter("served")) for key, found in alike.items()}
