"""How long a process stood still, by clocks that are moved by hand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from verifier_sdk.pulse import BEAT_SECONDS, Pulse


@dataclass
class Clocks:
    steady: float = 100.0
    wall: float = 1e9

    def pass_by(self, seconds: float, *, steady: bool = True, wall: bool = True) -> None:
        self.steady += seconds if steady else 0.0
        self.wall += seconds if wall else 0.0

    def pulse(self) -> Pulse:
        return Pulse(steady=lambda: self.steady, wall=lambda: self.wall)


async def test_time_that_passes_in_beats_is_no_stall() -> None:
    clocks = Clocks()
    async with clocks.pulse().watching() as stood_still:
        for _ in range(100):
            clocks.pass_by(1.5 * BEAT_SECONDS)
            assert stood_still() == 0.0


@pytest.mark.parametrize(
    ("steady", "wall"), [(True, True), (True, False), (False, True)], ids=["both", "steady", "wall"]
)
async def test_a_gap_in_either_clock_is_a_stall(*, steady: bool, wall: bool) -> None:
    clocks = Clocks()
    async with clocks.pulse().watching() as stood_still:
        clocks.pass_by(5.0, steady=steady, wall=wall)
        assert 4.8 < stood_still() < 10.1
        before = stood_still()
        clocks.pass_by(BEAT_SECONDS)
        assert stood_still() == before


async def test_a_wall_clock_that_is_set_back_is_a_stall() -> None:
    clocks = Clocks()
    async with clocks.pulse().watching() as stood_still:
        clocks.pass_by(-60.0, steady=False)
        assert stood_still() == pytest.approx(60.0)


async def test_stalls_add_up() -> None:
    clocks = Clocks()
    async with clocks.pulse().watching() as stood_still:
        for _ in range(10):
            clocks.pass_by(0.5)
            stood_still()
        assert stood_still() == pytest.approx(10 * (0.5 - BEAT_SECONDS))


async def test_each_who_waits_learns_of_stalls_since_it_began() -> None:
    clocks = Clocks()
    pulse = clocks.pulse()
    async with pulse.watching() as first:
        clocks.pass_by(2.0)
        async with pulse.watching() as second:
            assert second() == 0.0
            clocks.pass_by(2.0)
            assert second() == pytest.approx(2.0 - BEAT_SECONDS)
        assert first() == pytest.approx(2 * (2.0 - BEAT_SECONDS))
    # What passes while nobody waits is no stall.
    clocks.pass_by(3600.0)
    async with pulse.watching() as third:
        assert third() == 0.0


async def test_nothing_beats_while_nobody_waits() -> None:
    before = asyncio.all_tasks()
    async with Pulse().watching():
        assert len(asyncio.all_tasks() - before) == 1
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_loop_that_is_blocked_is_a_stall() -> None:
    async with Pulse().watching() as stood_still:
        await asyncio.sleep(2 * BEAT_SECONDS)
        time.sleep(0.5)  # noqa: ASYNC251 - what is tested
        assert stood_still() > 0.3
