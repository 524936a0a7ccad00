"""A sealed part of the memory: the distinct vectors of a range of rows, searched on disk.

A folder with three files. `header.json` says what the other two must be; `rows.npy` holds the
encoded vectors, those of a provider side by side; `lists.faiss` is an inverted file over them,
where a provider has so many that comparing with each takes too long. The last two are mapped
into memory, so processes of one machine share them. Nothing in a segment is ever changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from coin_protocol.errors import VerificationError
from coin_protocol.quantise import row_bytes
from verifier_sdk.memory.header import Header
from verifier_sdk.memory.index import InvertedFile, Positions, nearest_of_all
from verifier_sdk.memory.vectors import Directions, Rows, directions

T = TypeVar("T")

HEADER_FILE: Final = "header.json"
ROWS_FILE: Final = "rows.npy"
LISTS_FILE: Final = "lists.faiss"

FLAT_ROWS: Final = 2048
"""Up to so many vectors of a provider are compared one by one: 0.3 ms."""


class Segment:
    """An opened segment. Any number of threads may search it at once."""

    def __init__(self, header: Header, rows: Rows, lists: InvertedFile | None) -> None:
        """Keep what `open_segment` has checked.

        Args:
            header: What it holds.
            rows: Encoded vectors, uint8 (vectors, 4 + dimension).
            lists: Over positions in `rows` of providers with many.
        """
        self.header = header
        self.rows = rows
        self._lists = lists

    def slice(self, provider: str) -> Slice | None:
        """Return the part that is one provider's, if it has any."""
        span = self.header.providers.get(provider)
        if span is None:
            return None
        many = span[1] - span[0] > self.header.flat_rows
        return Slice(self.rows, span, self._lists if many else None)


class Slice:
    """One provider's vectors in a segment."""

    def __init__(self, rows: Rows, span: tuple[int, int], lists: InvertedFile | None) -> None:
        """Search the positions of a span, through lists where there are some."""
        self.rows = rows
        self._span = span
        self._lists = lists

    def nearest(self, queries: Directions, count: int, effort: int) -> tuple[Positions, bool]:
        """Return positions of likely nearest vectors, and whether there are no others."""
        if self._lists is not None:
            return self._lists.nearest(queries, count, self._span, effort)
        first, end = self._span
        found = nearest_of_all(queries, directions(self.rows[first:end]), count)
        return found + first, count >= end - first


def open_segment(folder: Path, header_sha256: bytes) -> Segment:
    """Open a segment that the manifest names, after checking every byte of it.

    Raises:
        VerificationError: A file is missing or is not what was written.
    """
    header = read_header(folder, header_sha256)
    path = folder / ROWS_FILE
    _check(path, header.rows_sha256)
    rows = _loading(path, lambda path: np.load(path, mmap_mode="r"))
    wanted = (header.vectors, row_bytes(header.dimension))
    if rows.shape != wanted or rows.dtype != np.uint8:
        msg = f"{folder.name}: {ROWS_FILE} has {rows.dtype} {rows.shape}, wanted uint8 {wanted}"
        raise VerificationError(msg)
    lists = None
    if header.lists_sha256 is not None:
        _check(folder / LISTS_FILE, header.lists_sha256)
        lists = _loading(folder / LISTS_FILE, InvertedFile)
    # A view without numpy.memmap's own work at each access.
    return Segment(header, np.asarray(rows), lists)


def read_header(folder: Path, header_sha256: bytes) -> Header:
    """Return a segment's header.

    Raises:
        VerificationError: It is missing or is not what the manifest names.
    """
    try:
        raw = (folder / HEADER_FILE).read_bytes()
    except OSError as error:
        msg = f"{folder.name}: cannot read {HEADER_FILE}: {error.strerror}"
        raise VerificationError(msg) from error
    if hashlib.sha256(raw).digest() != header_sha256:
        msg = f"{folder.name}: {HEADER_FILE} is not what the manifest names"
        raise VerificationError(msg)
    return Header.from_json(raw)


def file_digest(path: Path) -> bytes:
    """Return the SHA-256 of a file of any length."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _check(path: Path, wanted: bytes) -> None:
    try:
        found = file_digest(path)
    except OSError as error:
        msg = f"{path.parent.name}: cannot read {path.name}: {error.strerror}"
        raise VerificationError(msg) from error
    if found != wanted:
        msg = f"{path.parent.name}: {path.name} is not what the header names"
        raise VerificationError(msg)


def _loading(path: Path, load: Callable[[Path], T]) -> T:
    try:
        return load(path)
    except Exception as error:
        # numpy and faiss raise whatever the bytes lead them to.
        msg = f"{path.parent.name}: {path.name} cannot be loaded: {error}"
        raise VerificationError(msg) from error
