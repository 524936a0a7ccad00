"""Bodies that an upstream compressed although it was asked not to."""

from __future__ import annotations

import zlib
from typing import Final

from coin_protocol.errors import InvalidInputError, LimitError

_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


class Decoder:
    """Undoes `gzip`, `deflate` or nothing, as the bytes come."""

    def __init__(self, coding: bytes, *, limit: int) -> None:
        """Undo what the header `content-encoding` names.

        Args:
            coding: The header, in lower case; empty where there is none.
            limit: Most bytes that one call may return: a few bytes can stand for very many.

        Raises:
            InvalidInputError: It is another coding.
        """
        self._limit = limit
        self._inflate = None
        if coding in {b"gzip", b"x-gzip", b"deflate"}:
            self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        elif coding not in {b"", b"identity"}:
            msg = "the upstream compressed its reply in a way that cannot be read here"
            raise InvalidInputError(msg)

    @property
    def changes(self) -> bool:
        """Whether what comes out differs from what goes in."""
        return self._inflate is not None

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that `data` stands for.

        Raises:
            InvalidInputError: They are not what the header says.
            LimitError: They are too many.
        """
        if self._inflate is None:
            return data
        try:
            found = self._inflate.decompress(data, self._limit)
        except zlib.error as error:
            msg = "the upstream's reply is not compressed as its header says"
            raise InvalidInputError(msg) from error
        if self._inflate.unconsumed_tail:
            msg = f"a compressed reply of more than {self._limit} bytes"
            raise LimitError(msg)
        return found
