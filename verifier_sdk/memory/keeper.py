"""Keeps the segments on disk in step with the database: seals, merges, makes anew, deletes.

One process of a machine at a time does it, whichever comes first; others go on searching.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from coin_protocol.database.engine import reading
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.ops.heap import give_back
from verifier_sdk.memory import queries
from verifier_sdk.memory.build import write_segment
from verifier_sdk.memory.header import Header, Listed, Manifest
from verifier_sdk.memory.segment import FLAT_ROWS
from verifier_sdk.memory.shelf import Shelf

_LOG = logging.getLogger(__name__)

_MERGE_RATIO: Final = 3
"""A segment is merged with the one before it, where that has at most so many times its rows."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """When rows are sealed, and how.

    Attributes:
        seal_rows: So many rows that are settled are sealed; fewer are searched in memory.
        segment_rows: A segment is made of at most so many rows, so that a build takes no more than
            about a GiB; the smaller they are, the more of them a search goes through.
        flat_rows: Providers with more vectors in a segment are searched through its lists.
        settle_seconds: No transaction that remembers blocks is open for longer.
    """

    seal_rows: int = 4096
    segment_rows: int = 1 << 22
    flat_rows: int = FLAT_ROWS
    settle_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            InvalidInputError: They cannot be kept to.
        """
        if not (0 < self.seal_rows <= self.segment_rows and self.flat_rows > 0):
            msg = f"wanted 0 < seal_rows <= segment_rows and 0 < flat_rows; found {self}"
            raise InvalidInputError(msg)
        if not 0 <= self.settle_seconds < math.inf:
            msg = f"settle_seconds must be 0 or more; found {self.settle_seconds}"
            raise InvalidInputError(msg)


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of ids, ends included, with the rows that one profile has in it."""

    first: int
    last: int
    blocks: int
    listed: Listed | None = None


def merge(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """Return what pieces of one profile, in order, become: each several times the next.

    So a search goes through few of them, and a row is written again only a few times.

    Args:
        pieces: The last one is new.
        most: Rows in one piece.
    """
    merged = list(pieces)
    while len(merged) > 1:
        before, after = merged[-2:]
        blocks = before.blocks + after.blocks
        if before.blocks > _MERGE_RATIO * after.blocks or blocks > most:
            break
        merged[-2:] = [Piece(before.first, after.last, blocks)]
    return merged


class Keeper:
    """Changes a shelf. Threads may share it."""

    def __init__(
        self, engine: Engine, shelf: Shelf, sizes: Sizes, going_on: Callable[[], None]
    ) -> None:
        """Keep a shelf of this database; what `going_on` raises ends the work at any time."""
        self._engine = engine
        self._shelf = shelf
        self._sizes = sizes
        self._going_on = going_on

    def keep(self, *, wait: bool, damaged: Collection[Listed] = ()) -> bool:
        """Do what is due; return whether it was done.

        Args:
            wait: For another process or thread that is at it, rather than leave it to that one.
            damaged: Segments that could not be opened.

        Raises:
            StoreUnavailableError: The database does not answer.
            InvalidInputError: The folder cannot be written to.
        """
        with self._shelf.locked(wait=wait, going_on=self._going_on) as held:
            if held:
                manifest = self._shelf.read()
                # What a build left that failed or was killed: this one may end like it.
                self._shelf.sweep(manifest)
                manifest = self._seal(self._renew(manifest, damaged))
                self._shelf.sweep(manifest)
            return held

    def _renew(self, manifest: Manifest, damaged: Collection[Listed]) -> Manifest:
        """Make anew what is damaged, or holds vectors that were forgotten."""
        headers: dict[Listed, Header] = {}
        for listed in manifest.segments:
            try:
                headers[listed] = self._shelf.header(listed)
            except VerificationError as error:
                # Which rows it was made of stands in it alone.
                _LOG.warning("the memory's segments are made again: %s", error)
                return self._written(Manifest())
        marks = [mark for header in headers.values() for mark in (header.oldest, header.newest)]
        with reading(self._engine) as connection:
            last = queries.last_id(connection)
            there = queries.digests_of(connection, {mark.row_id for mark in marks})
        other = any(
            there.get(mark.row_id, mark.vector_sha256) != mark.vector_sha256 for mark in marks
        )
        if other or last < manifest.sealed:
            _LOG.warning("the memory's segments do not fit the database: they are made again")
            return self._written(Manifest())
        for listed, header in headers.items():
            if listed in damaged or header.oldest.row_id not in there:
                piece = Piece(header.first, header.last, header.blocks)
                renewed = self._build(header.profile_sha256, piece)
                segments = [renewed if one == listed else one for one in manifest.segments]
                kept = tuple(one for one in segments if one is not None)
                manifest = self._written(Manifest(manifest.sealed, kept))
        return manifest

    def _seal(self, manifest: Manifest) -> Manifest:
        """Seal settled rows, as many as one segment takes at a time."""
        while True:
            self._going_on()
            after = manifest.sealed
            with reading(self._engine) as connection:
                settled = queries.settled(connection, after, self._sizes.settle_seconds)
                enough = queries.nth_id(connection, after, self._sizes.seal_rows)
                if enough is None or enough > settled:
                    return manifest
                full = queries.nth_id(connection, after, self._sizes.segment_rows)
                last = min(settled, settled if full is None else full)
                counts = queries.count_by_profile(connection, after + 1, last)
            manifest = self._sealed(manifest, last, counts)

    def _sealed(self, manifest: Manifest, last: int, counts: dict[bytes, int]) -> Manifest:
        segments = list(manifest.segments)
        for profile, blocks in counts.items():
            of_profile = [
                Piece(header.first, header.last, header.blocks, listed)
                for listed in segments
                if (header := self._shelf.header(listed)).profile_sha256 == profile
            ]
            new = Piece(manifest.sealed + 1, last, blocks)
            made = merge([*of_profile, new], self._sizes.segment_rows)[-1]
            listed = self._build(profile, made)
            replaced = {one.listed for one in of_profile if one.first >= made.first}
            segments = [one for one in segments if one not in replaced]
            if listed is not None:
                segments.append(listed)
        return self._written(Manifest(last, tuple(segments)))

    def _build(self, profile_sha256: bytes, piece: Piece) -> Listed | None:
        started = time.monotonic()
        folder = self._shelf.new_folder(piece.first, piece.last)
        written = write_segment(
            self._engine,
            folder,
            profile_sha256=profile_sha256,
            first=piece.first,
            last=piece.last,
            flat_rows=self._sizes.flat_rows,
            going_on=self._going_on,
        )
        # The more rows, the more it took, up to a GiB; what searches next to it needs little.
        give_back()
        if written is None:
            return None
        header, digest = written
        _LOG.info(
            "sealed %d remembered blocks, %d of them distinct, in %.1f s",
            header.blocks,
            header.vectors,
            time.monotonic() - started,
        )
        return Listed(folder.name, digest)

    def _written(self, manifest: Manifest) -> Manifest:
        self._shelf.write(manifest)
        return manifest
