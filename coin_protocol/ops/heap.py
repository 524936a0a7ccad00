"""Keep what the C library holds of memory near what is in use, in processes that run for months.

glibc's malloc has a heap for every few threads, up to eight a core, and keeps what was freed for
the next time. It gives back the free end of the first heap alone: in seven minutes of audits what
was free grew from 10 to 60 MB, what was in use not at all.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any, Final

_M_ARENA_MAX: Final = -8
_SET_BY: Final = frozenset({"MALLOC_ARENA_MAX", "GLIBC_TUNABLES"})


def share_heap() -> None:
    """Have all threads that start from now on share one heap, unless the environment says how many.

    Threads of Python seldom take memory at the same time. Where it cannot be, do nothing.
    """
    set_option = _function("mallopt", ctypes.c_int, ctypes.c_int)
    if set_option is not None and not _SET_BY & os.environ.keys():
        set_option(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Hand the pages of the heap that nobody uses to the system; where that cannot be, do nothing.

    It takes milliseconds, during which no thread gets memory.
    """
    trim = _function("malloc_trim", ctypes.c_size_t)
    if trim is not None:
        trim(0)


@cache
def _function(name: str, *takes: Any) -> Any:  # noqa: ANN401 - types and functions of C
    if not sys.platform.startswith("linux"):
        return None
    # musl has neither, and needs neither.
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function.argtypes, function.restype = takes, ctypes.c_int
    return function
