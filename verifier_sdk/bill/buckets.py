"""A day's, or hour's, lines of one model beside the receipts of that time. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from operator import attrgetter

from coin_protocol.vendors import Reported
from verifier_sdk.bill.committed import Committed
from verifier_sdk.bill.line import Line, Period, same_model
from verifier_sdk.bill.reading import Reading
from verifier_sdk.bill.receipts import Facts
from verifier_sdk.bill.shelf import Shelf


@dataclass
class Group:
    """The lines that bill one period and model: receipts cannot tell them apart.

    Attributes:
        period: Of the lines.
        first: Number of the first line.
        lines: How many there are.
        requests: In all of them; None where one does not say.
        reported: Sums, under the vendor's convention.
        undecided: Whether reasoning may be beside the completion in some of them.
        inside: Receipts that are wholly of this period.
        edge: Receipts that clocks may have put into it or into a neighbour.
    """

    period: Period
    first: int
    lines: int
    requests: int | None
    reported: Reported
    undecided: bool = False
    inside: list[Facts] = field(default_factory=list)
    edge: list[Facts] = field(default_factory=list)

    def add(self, line: Line, reported: Reported, *, undecided: bool) -> None:
        """Add a line."""
        self.lines += 1
        self.undecided |= undecided
        known = self.requests is not None and line.requests is not None
        self.requests = (self.requests or 0) + (line.requests or 0) if known else None
        self.reported = _sum(self.reported, reported)

    # Each line of a group is compared with all its receipts: they are summed up once.

    @cached_property
    def certain(self) -> Committed:
        """What the receipts come to that are wholly of this period."""
        return Committed.of(self.inside)

    @cached_property
    def every(self) -> Committed:
        """The same, with those at the edge."""
        return Committed.of([*self.inside, *self.edge])

    @cached_property
    def committed(self) -> tuple[Committed, bool]:
        """What to compare with, and whether it is that of all requests.

        Where the number of requests says so, or the sums agree, receipts at the edge are of this
        period too.
        """
        choices = (self.certain, self.every)
        for found in choices:
            if self.requests == found.requests:
                return found, True
        billed = self.reported.prompt_tokens, self.reported.generated
        for found in choices:
            if found.receipts and billed == (found.prompt_tokens, found.generated):
                return found, True
        return self.certain, False

    @property
    def more_receipts_than_requests(self) -> bool:
        """Whether fewer requests are billed than certainly were made."""
        return self.requests is not None and self.requests < self.certain.requests


class Buckets:
    """The groups of a bill that is summed up, and their receipts."""

    def __init__(self, skew: timedelta) -> None:
        """Begin without any; `skew` is by how much honest clocks may differ."""
        self._skew = skew
        self._groups: dict[tuple[datetime, datetime, str], Group] = {}

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._groups)

    def add(self, line: Line, reading: Reading) -> None:
        """Add a line."""
        key, reported = _key(line), reading.reported
        if key is None or line.period is None or reported is None:
            return
        group = self._groups.get(key)
        if group is not None:
            group.add(line, reported, undecided=reading.undecided)
            return
        self._groups[key] = Group(
            line.period, line.number, 1, line.requests, reported, reading.undecided
        )

    def find(self, line: Line) -> Group | None:
        """Return a line's group."""
        key = _key(line)
        return None if key is None else self._groups.get(key)

    def assign(self, receipts: Iterable[Facts]) -> int:
        """Give every receipt to the groups that it may be of; return how many found none."""
        by_model: dict[str, list[Group]] = {}
        for (_, _, model), group in self._groups.items():
            by_model.setdefault(model, []).append(group)
        shelves = {model: Shelf(groups, attrgetter("period")) for model, groups in by_model.items()}
        left = 0
        for facts in receipts:
            fitting = [
                group
                # A bill that does not name its models has them under no name.
                for model in {same_model(facts.model), ""}
                if model in shelves
                for group in shelves[model].around(facts.served.widened(self._skew))
            ]
            wide = facts.served.widened(self._skew)
            sure = [group for group in fitting if group.period.holds(wide)]
            if len(sure) == 1 and len(fitting) == 1:
                sure[0].inside.append(facts)
            else:
                for group in fitting:
                    group.edge.append(facts)
            left += not fitting
        return left


def _key(line: Line) -> tuple[datetime, datetime, str] | None:
    if line.period is None:
        return None
    return line.period.start, line.period.end, same_model(line.model)


def _sum(one: Reported, other: Reported) -> Reported:
    reasoning = [one.reasoning_tokens, other.reasoning_tokens]
    known = [each for each in reasoning if each is not None]
    return Reported(
        vendor=one.vendor,
        counting=one.counting,
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        cached_prompt_tokens=one.cached_prompt_tokens + other.cached_prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        reasoning_tokens=sum(known) if len(known) == len(reasoning) else None,
        total_tokens=None,
        unnamed_tokens=one.unnamed_tokens + other.unnamed_tokens,
    )
