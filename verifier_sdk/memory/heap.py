"""Give memory back that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def give_back() -> None:
    """Hand the pages of the heap that nobody uses to the system; where that cannot be, do nothing.

    After some work that took much, glibc keeps most of it for the next time, for ever.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:  # noqa: ANN401 - a function of C
    if not sys.platform.startswith("linux"):
        return None
    # musl has none, and needs none.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return trim
