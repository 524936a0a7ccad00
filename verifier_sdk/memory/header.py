"""What a segment and a manifest say of themselves, as JSON; nothing in it is believed unchecked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from coin_protocol.errors import VerificationError
from coin_protocol.limits import HASH_BYTES, MAX_EMBEDDING_DIMENSION

FORMAT: Final = 1

_ODD: Final = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
"""What reading fields of other types than they should have leads to."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A row by which a segment is held against the database."""

    row_id: int
    vector_sha256: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """A segment's contents.

    Attributes:
        profile_sha256: Of all its vectors.
        dimension: Numbers in one vector.
        first: It was made of the profile's rows with ids from this one,
        last: to this one.
        blocks: How many rows that were.
        vectors: How many of their vectors were distinct.
        flat_rows: Providers with more vectors are searched through the lists.
        oldest: The row that retention deletes first.
        newest: The row with the largest id.
        providers: Positions of each provider's vectors, first and end.
        rows_sha256: Of the file of rows.
        lists_sha256: Of the inverted file, where there is one.
    """

    profile_sha256: bytes
    dimension: int
    first: int
    last: int
    blocks: int
    vectors: int
    flat_rows: int
    oldest: Mark
    newest: Mark
    providers: dict[str, tuple[int, int]]
    rows_sha256: bytes
    lists_sha256: bytes | None

    def to_json(self) -> bytes:
        """Return the header's file."""
        return _dump(
            {
                "format": FORMAT,
                "profile_sha256": self.profile_sha256.hex(),
                "dimension": self.dimension,
                "ids": [self.first, self.last],
                "blocks": self.blocks,
                "vectors": self.vectors,
                "flat_rows": self.flat_rows,
                "oldest": [self.oldest.row_id, self.oldest.vector_sha256.hex()],
                "newest": [self.newest.row_id, self.newest.vector_sha256.hex()],
                "providers": self.providers,
                "rows_sha256": self.rows_sha256.hex(),
                "lists_sha256": self.lists_sha256 and self.lists_sha256.hex(),
            }
        )

    @classmethod
    def from_json(cls, raw: bytes) -> Header:
        """Read a header's file.

        Raises:
            VerificationError: It is not one, or of another format.
        """
        found = _load(raw, "header")
        try:
            lists = found["lists_sha256"]
            header = cls(
                profile_sha256=_digest(found["profile_sha256"]),
                dimension=int(found["dimension"]),
                first=int(found["ids"][0]),
                last=int(found["ids"][1]),
                blocks=int(found["blocks"]),
                vectors=int(found["vectors"]),
                flat_rows=int(found["flat_rows"]),
                oldest=Mark(int(found["oldest"][0]), _digest(found["oldest"][1])),
                newest=Mark(int(found["newest"][0]), _digest(found["newest"][1])),
                providers={
                    str(name): (int(first), int(end))
                    for name, (first, end) in found["providers"].items()
                },
                rows_sha256=_digest(found["rows_sha256"]),
                lists_sha256=None if lists is None else _digest(lists),
            )
        except _ODD as error:
            msg = f"not the header of a segment: {type(error).__name__} {error}"
            raise VerificationError(msg) from error
        inside = all(0 <= first < end <= header.vectors for first, end in header.providers.values())
        if not (inside and 0 < header.dimension <= MAX_EMBEDDING_DIMENSION):
            msg = "the header of a segment has numbers out of their limits"
            raise VerificationError(msg)
        return header


@dataclass(frozen=True, slots=True)
class Listed:
    """A segment as the manifest names it: its folder, and the digest of its header."""

    name: str
    header_sha256: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which segments there are: together they hold every row up to the id `sealed`."""

    sealed: int = 0
    segments: tuple[Listed, ...] = ()

    def to_json(self) -> bytes:
        """Return the manifest's file: the digest of its second line, then that line."""
        body = _dump(
            {
                "format": FORMAT,
                "sealed": self.sealed,
                "segments": [[one.name, one.header_sha256.hex()] for one in self.segments],
            }
        )
        return sha256(body).hexdigest().encode() + b"\n" + body

    @classmethod
    def from_json(cls, raw: bytes) -> Manifest:
        """Read a manifest's file.

        Raises:
            VerificationError: It is not one, of another format, or was altered.
        """
        head, _, body = raw.partition(b"\n")
        if head != sha256(body).hexdigest().encode():
            msg = "the manifest is not what was written"
            raise VerificationError(msg)
        found = _load(body, "manifest")
        try:
            segments = [Listed(_folder(name), _digest(sha)) for name, sha in found["segments"]]
            return cls(int(found["sealed"]), tuple(segments))
        except _ODD as error:
            msg = f"not a manifest: {type(error).__name__} {error}"
            raise VerificationError(msg) from error


def _dump(found: dict[str, Any]) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode() + b"\n"


def _load(raw: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        msg = f"the {what} is not JSON: {error}"
        raise VerificationError(msg) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        msg = f"the {what} is of another format than {FORMAT}"
        raise VerificationError(msg)
    return found


def _digest(found: str) -> bytes:
    raw = bytes.fromhex(found)
    if len(raw) != HASH_BYTES:
        msg = f"a digest has {len(raw)} bytes"
        raise ValueError(msg)
    return raw


def _folder(name: str) -> str:
    if not name.replace("-", "").isalnum():
        msg = "a segment's name has other characters than letters, digits and hyphens"
        raise ValueError(msg)
    return name
