"""Freed memory goes back to the system, and threads share a heap."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


_SAID = {"MALLOC_ARENA_MAX", "GLIBC_TUNABLES"}

# Each thread holds its first memory while the next one takes some.
_THREADS = """
import ctypes, sys, threading
from coin_protocol.ops.heap import share_heap

if sys.argv[1] == "shared":
    share_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
there = threading.Barrier(24)

def take():
    libc.malloc(5000)
    there.wait()

threads = [threading.Thread(target=take) for _ in range(24)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_stats()
"""


def heaps(how: str, **environment: str) -> int:
    """Return how many heaps a process with many threads has."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_stats"):
        pytest.skip("glibc alone has them")
    inherited = {name: value for name, value in os.environ.items() if name not in _SAID}
    done = subprocess.run(
        [sys.executable, "-c", _THREADS, how],
        check=True,
        capture_output=True,
        text=True,
        env=inherited | environment,
    )
    return done.stderr.count("Arena ")


def test_threads_share_a_heap() -> None:
    assert heaps("each its own") > 1
    assert heaps("shared") == 1


def test_what_the_environment_says_stands() -> None:
    assert heaps("shared", MALLOC_ARENA_MAX="3") == 3
    assert heaps("shared", GLIBC_TUNABLES="glibc.malloc.arena_max=3") == 3
