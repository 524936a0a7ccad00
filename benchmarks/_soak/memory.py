"""What a process holds, as the kernel counts it, and whether that stays the same. Linux."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

_KIB: Final = 1024
_TENTH: Final = 0.1
_HOUR: Final = 3600.0


@dataclass(frozen=True)
class Held:
    """What a process holds.

    Attributes:
        own: Bytes that stand in no file: heap, stacks, what libraries allocate. Nobody but the
            process can give them back.
        resident: These, and pages of files: libraries, which processes share, and index and
            database where they are mapped. The kernel takes those back whenever it needs room.
        files: Open file descriptors.
        threads: Of the kernel.
    """

    own: int
    resident: int
    files: int
    threads: int


def held_by(pid: int) -> Held:
    """Look at a process."""
    folder = Path(f"/proc/{pid}")
    rollup = _fields(folder / "smaps_rollup")
    return Held(
        own=rollup["Anonymous"] * _KIB,
        resident=rollup["Rss"] * _KIB,
        files=sum(1 for _ in (folder / "fd").iterdir()),
        threads=_fields(folder / "status")["Threads"],
    )


def _fields(path: Path) -> dict[str, int]:
    lines = (line.partition(":") for line in path.read_text(encoding="ascii").splitlines())
    found = ((name, value.split()) for name, _, value in lines)
    return {name: int(value[0]) for name, value in found if value and value[0].isdigit()}


@dataclass(frozen=True)
class Course:
    """How a figure went.

    Attributes:
        first: Its median in the first tenth of the time.
        last: Its median in the last tenth.
        per_hour: Its slope by least squares.
    """

    first: float
    last: float
    per_hour: float

    @property
    def last_to_first(self) -> float:
        """1 where it stays the same."""
        return self.last / self.first


def course(seconds: Sequence[float], values: Sequence[float]) -> Course:
    """Return how a figure went over time.

    Args:
        seconds: When it was looked at, rising, at least twice.
        values: What it was.
    """
    times, found = np.asarray(seconds, float), np.asarray(values, float)
    part = _TENTH * (times[-1] - times[0])
    slope = np.polyfit(times - times[0], found, 1)[0]
    return Course(
        first=statistics.median(found[times <= times[0] + part]),
        last=statistics.median(found[times >= times[-1] - part]),
        per_hour=float(slope) * _HOUR,
    )
