"""Bodies of HTTP messages that come compressed."""

from __future__ import annotations

import zlib
from typing import Final

from coin_protocol.errors import InvalidInputError, LimitError

_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_GZIP_MAGIC: Final = 0x1F
_ZLIB_METHOD: Final = 8


class Decoder:
    """Undoes `gzip`, `deflate` or nothing, as the bytes come.

    Attributes:
        changes: Whether what comes out differs from what goes in.
    """

    def __init__(self, coding: bytes, *, limit: int) -> None:
        """Undo what the header `content-encoding` names.

        Args:
            coding: The header, in lower case; empty where there is none.
            limit: Most bytes that one call may return: a few bytes can stand for very many.

        Raises:
            InvalidInputError: It is another coding.
        """
        self._limit = limit
        self.changes = coding not in {b"", b"identity"}
        self._inflate = zlib.decompressobj(_GZIP)
        self._first = coding == b"deflate"
        if self.changes and coding not in {b"gzip", b"x-gzip", b"deflate"}:
            msg = (
                "the reply is compressed in a way that cannot be read here; wanted gzip or deflate"
            )
            raise InvalidInputError(msg)

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that `data` stands for.

        Raises:
            InvalidInputError: They are not what the header says.
            LimitError: They are too many.
        """
        if not self.changes:
            return data
        if self._first and data:
            # Some send the bare algorithm under this name, and not zlib's format as they should.
            self._first = False
            bare = data[0] & 0x0F != _ZLIB_METHOD
            self._inflate = zlib.decompressobj(_RAW if bare else _ZLIB)
        found = b""
        while data:
            if self._inflate.eof:
                if data[0] != _GZIP_MAGIC:
                    # Padding, which is none of the reply.
                    break
                # A body may be several, one after the other.
                self._inflate = zlib.decompressobj(_GZIP)
            found += self._undo(data, self._limit - len(found))
            data = self._inflate.unused_data
        return found

    def _undo(self, data: bytes, limit: int) -> bytes:
        try:
            # No limit is what zlib takes 0 for.
            found = self._inflate.decompress(data, limit + 1)
        except zlib.error as error:
            msg = "the reply is not compressed as its header says"
            raise InvalidInputError(msg) from error
        if len(found) > limit or self._inflate.unconsumed_tail:
            msg = f"a compressed reply of more than {self._limit} bytes"
            raise LimitError(msg)
        return found
