"""Requests, replies and clients of httpx, whichever of the two libraries they are of.

OpenAI's client is built on `httpx2` from its version 3 on, and on `httpx` before. Both have what is
used here, under the same names; either may be missing, so none is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final, TypeAlias

from coin_protocol.errors import InvalidInputError

Client: TypeAlias = Any
"""`Client` or `AsyncClient`."""
Request: TypeAlias = Any
Response: TypeAlias = Any
Stream: TypeAlias = Any
"""`SyncByteStream` or `AsyncByteStream`: the bytes of a reply, as they come."""

_LIBRARIES: Final = ("httpx2", "httpx")


def library_of(client: Client) -> ModuleType:
    """Return the library that a client is of.

    Raises:
        InvalidInputError: It is neither's.
    """
    for kind in type(client).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in _LIBRARIES and name in sys.modules:
            return sys.modules[name]
    msg = f"found a {type(client).__name__}; wanted a client of httpx or httpx2"
    raise InvalidInputError(msg)
