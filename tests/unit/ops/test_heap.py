"""Freed memory goes back to the system after a segment was built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coin_protocol.ops.heap import give_back
from tests.unit.memory.conftest import SMALL, MakeNode, vectors
from verifier_sdk.memory import keeper as keeper_module

# In a process of its own: what else lies on the heap of the tests is anybody's guess.
_HELD = """
from pathlib import Path
from coin_protocol.ops.heap import give_back

def own():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

pieces = [bytes(5000) for _ in range(10_000)]
last = pieces[-1]
before = own()
pieces.clear()
freed = own()
give_back()
print(before - own(), before - freed)
"""


def test_what_was_freed_is_given_back() -> None:
    if not Path("/proc/self/smaps_rollup").exists() or sys.platform != "linux":
        pytest.skip("Linux alone tells it")
    told = subprocess.run([sys.executable, "-c", _HELD], check=True, capture_output=True, text=True)
    given, by_itself = map(int, told.stdout.split())
    assert by_itself < 10_000
    assert given > 40_000


def test_it_may_be_done_at_any_time() -> None:
    give_back()
    give_back()


def test_whoever_seals_gives_back(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(keeper_module, "give_back", lambda: given.append(None))
    node = make_node(sizes=SMALL)
    node.remember(0, vectors(SMALL.seal_rows))
    assert node.memory.maintain()
    assert len(given) == 1
    assert node.memory.maintain()
    assert len(given) == 1
