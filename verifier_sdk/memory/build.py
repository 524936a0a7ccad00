"""Make a segment of a range of rows. The same rows give the same vectors in the same order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import Engine

from coin_protocol.database.engine import reading
from coin_protocol.errors import InvalidInputError
from coin_protocol.files import replace_file
from coin_protocol.quantise import SCALE_BYTES
from verifier_sdk.memory import queries
from verifier_sdk.memory.header import Header, Mark
from verifier_sdk.memory.index import write_inverted_file
from verifier_sdk.memory.segment import HEADER_FILE, LISTS_FILE, ROWS_FILE, file_digest
from verifier_sdk.memory.vectors import Rows

_LOG = logging.getLogger(__name__)

_PAGE: Final = 2048
"""Rows read in one transaction: a longer one would keep SQLite's log from being emptied, and
objects for many rows at a time leave Python's heap full of holes."""

_OWNER_BYTES: Final = 4


def write_segment(
    engine: Engine,
    folder: Path,
    *,
    profile_sha256: bytes,
    first: int,
    last: int,
    flat_rows: int,
    going_on: Callable[[], None],
) -> tuple[Header, bytes] | None:
    """Write the segment of a profile's rows in a range of ids.

    Args:
        engine: Of the database.
        folder: Made for its files.
        profile_sha256: Whose rows.
        first: From this id,
        last: to this one.
        flat_rows: Where no provider has more distinct vectors, there is no inverted file.
        going_on: Called now and then; what it raises ends the work.

    Returns:
        The header and its file's digest, or None where there is no such row.

    Raises:
        StoreUnavailableError: The database does not answer.
        InvalidInputError: The folder cannot be written to.
    """
    read = _read(engine, profile_sha256, first, last, going_on)
    if not read.count:
        return None
    rows, providers = _arrange(read)
    going_on()
    try:
        folder.mkdir(mode=0o700)
        digests = _write_files(folder, rows, providers, flat_rows, going_on)
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror}"
        raise InvalidInputError(msg) from error
    header = Header(
        profile_sha256=profile_sha256,
        dimension=rows.shape[1] - SCALE_BYTES,
        first=first,
        last=last,
        blocks=read.count,
        vectors=len(rows),
        flat_rows=flat_rows,
        oldest=read.oldest,
        newest=read.newest,
        providers=providers,
        rows_sha256=digests[ROWS_FILE],
        lists_sha256=digests.get(LISTS_FILE),
    )
    written = header.to_json()
    replace_file(folder / HEADER_FILE, written)
    return header, sha256(written).digest()


def _write_files(
    folder: Path,
    rows: Rows,
    providers: dict[str, tuple[int, int]],
    flat_rows: int,
    going_on: Callable[[], None],
) -> dict[str, bytes]:
    """Write rows and lists, and return their digests: what a crash leaves of them is told by it."""
    np.save(folder / ROWS_FILE, rows, allow_pickle=False)
    many = [span for span in providers.values() if span[1] - span[0] > flat_rows]
    if many:
        positions = np.concatenate([np.arange(*span, dtype=np.int64) for span in many])
        write_inverted_file(folder / LISTS_FILE, rows, positions, going_on)
    digests = {}
    for path in folder.iterdir():
        path.chmod(0o600)
        digests[path.name] = file_digest(path)
    return digests


class _Read:
    """Rows of one profile: owner and vector of each as fixed bytes, to be sorted."""

    def __init__(self) -> None:
        self.count = 0
        self.width = 0
        self.owners: dict[str, int] = {}
        self.keyed = bytearray()
        self.oldest = Mark(0, b"")
        self.newest = Mark(0, b"")
        self._oldest_at = np.inf

    def add(self, page: list[Any]) -> None:
        self.width = self.width or len(page[0].vector)
        odd = [row.id for row in page if len(row.vector) != self.width]
        if odd:
            _LOG.warning("rows %s have vectors of another length; they are left out", odd)
            page = [row for row in page if len(row.vector) == self.width]
        for row in page:
            owner = self.owners.setdefault(row.provider, len(self.owners))
            self.keyed += owner.to_bytes(_OWNER_BYTES, "big")
            self.keyed += row.vector
            if row.remembered_at < self._oldest_at:
                self._oldest_at = row.remembered_at
                self.oldest = Mark(row.id, sha256(row.vector).digest())
        if page:
            self.newest = Mark(page[-1].id, sha256(page[-1].vector).digest())
        self.count += len(page)


def _read(
    engine: Engine, profile_sha256: bytes, first: int, last: int, going_on: Callable[[], None]
) -> _Read:
    read, after = _Read(), first
    while True:
        going_on()
        with reading(engine) as connection:
            page = queries.rows_of(connection, profile_sha256, after, last, at_most=_PAGE)
        if page:
            read.add(list(page))
        if len(page) < _PAGE:
            return read
        after = page[-1].id + 1


def _arrange(read: _Read) -> tuple[Rows, dict[str, tuple[int, int]]]:
    """Return the distinct vectors, sorted by provider and bytes, and where each provider's lie."""
    width = _OWNER_BYTES + read.width
    keyed = np.frombuffer(read.keyed, np.dtype((np.void, width)))
    # Millions of rows: sorted where they lie, and let go of before the next copy of them.
    keyed.sort()
    new = np.ones(len(keyed), np.bool_)
    new[1:] = keyed[1:] != keyed[:-1]
    distinct = keyed[new].view(np.uint8).reshape(-1, width)
    del keyed
    read.keyed = bytearray()
    owners = np.ascontiguousarray(distinct[:, :_OWNER_BYTES]).view(">u4").ravel()
    names = list(read.owners)
    ends = np.searchsorted(owners, np.arange(len(names)), side="right").tolist()
    providers = {
        name: (start, end) for name, start, end in zip(names, [0, *ends], ends, strict=False)
    }
    return np.ascontiguousarray(distinct[:, _OWNER_BYTES:]), providers
