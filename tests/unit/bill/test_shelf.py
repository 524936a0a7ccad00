"""What is around a moment is found in order of time, and nothing else is looked at."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

from tests.unit.bill.making import NOON
from verifier_sdk.bill import Period
from verifier_sdk.bill.shelf import Shelf

HOUR = timedelta(hours=1)


def at(start: float, hours: float) -> Period:
    return Period(NOON + start * HOUR, NOON + (start + hours) * HOUR)


PERIODS = [at(start, hours) for start, hours in product((5, 0, 3, 1, 24), (0, 0.5, 2, 30))]


def test_what_overlaps_is_found_and_nothing_else() -> None:
    shelf = Shelf(PERIODS, lambda period: period)
    for asked in (*PERIODS, at(-9, 1), at(-9, 100), at(99, 1)):
        found = shelf.around(asked)
        assert sorted(found, key=PERIODS.index) == [p for p in PERIODS if p.overlaps(asked)]
        assert found == sorted(found, key=lambda period: period.start)


def test_an_empty_shelf_has_nothing() -> None:
    assert Shelf([], lambda period: period).around(at(0, 1)) == []


def test_what_is_far_away_is_not_looked_at() -> None:
    looked: list[Period] = []

    def period_of(period: Period) -> Period:
        looked.append(period)
        return period

    shelf = Shelf([at(number, 0.5) for number in range(1000)], period_of)
    looked.clear()
    assert len(shelf.around(at(500, 0.25))) == 1
    assert len(looked) < 5
