"""Commit to token ids as they stream (protocol, sections 4 and 5).

`CommitmentBuilder` takes ids, hashes each block as it fills, and knows the token root of
every prefix of full blocks. It does no I/O and signs nothing. What it hashes is derived
again from the session's secret when a challenge opens it (`opening`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from coin_protocol import merkle
from coin_protocol.encoding import block_leaf, block_salts, fingerprint_leaf, token_leaf_hashes
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.limits import HASH_BYTES, MAX_REASONING_TOKENS, SESSION_ID_BYTES
from coin_protocol.v1 import statements_pb2

_ID: Final = np.dtype("u4")


@dataclass(frozen=True, slots=True)
class Prefix:
    """The tree after some full blocks: what a checkpoint signs."""

    block_count: int
    token_count: int
    token_root: bytes


@dataclass(frozen=True, slots=True)
class SessionSecret:
    """What ties leaves to one session: its public id (16 bytes), its secret (32 bytes)."""

    session_id: bytes
    secret: bytes

    def __post_init__(self) -> None:
        """Check the lengths."""
        if len(self.session_id) != SESSION_ID_BYTES or len(self.secret) != HASH_BYTES:
            msg = f"wanted a session id of {SESSION_ID_BYTES} and a secret of {HASH_BYTES} bytes"
            raise InvalidInputError(msg)

    def __repr__(self) -> str:
        """Show the public id only."""
        return f"SessionSecret(session_id={self.session_id.hex()!r})"


class CommitmentBuilder:
    """The token tree of one session, growing.

    Memory: the ids (4 bytes a token), one root a block, and the work on the current block.
    """

    def __init__(
        self, session: SessionSecret, *, block_size: int, fingerprints: npt.NDArray[np.uint8]
    ) -> None:
        """Start an empty tree.

        Args:
            session: Ties the leaves to the session.
            block_size: Tokens in a full block.
            fingerprints: `fp` of the whole vocabulary, uint8 (vocabulary, 32), of
                `TokenTable.fingerprints`.
        """
        self._session = session
        self._block_size = block_size
        self._fingerprints = fingerprints
        self._ids = array("I")
        self._entries: list[statements_pb2.BlockEntry] = []
        self._tree = merkle.IncrementalTree()

    @property
    def token_count(self) -> int:
        """Ids taken so far."""
        return len(self._ids)

    @property
    def block_count(self) -> int:
        """Blocks closed so far."""
        return len(self._entries)

    def block(self, index: int) -> npt.NDArray[np.uint32]:
        """Return a copy of the ids of block `index`, uint32."""
        start = index * self._block_size
        return np.frombuffer(self._ids[start : start + self._block_size], _ID)

    def append(self, token_ids: Sequence[int] | npt.NDArray[np.integer]) -> list[Prefix]:
        """Take ids in the order sampled; return the prefix after each block they filled.

        Raises:
            InvalidInputError: An id is outside the vocabulary, or not an integer; nothing was
                taken.
            LimitError: The session would pass the greatest number of tokens; nothing was
                taken.
        """
        ids = _checked_ids(token_ids, len(self._fingerprints))
        if len(self._ids) + len(ids) > MAX_REASONING_TOKENS:
            msg = f"a session commits at most {MAX_REASONING_TOKENS} reasoning tokens"
            raise LimitError(msg)
        self._ids.extend(ids)
        prefixes = []
        while (len(self._entries) + 1) * self._block_size <= len(self._ids):
            self._close_block()
            blocks = len(self._entries)
            prefixes.append(Prefix(blocks, blocks * self._block_size, self._tree.root()))
        return prefixes

    def finish(self) -> TokenTree:
        """Close the last block and return the finished tree. Call once."""
        if len(self._entries) * self._block_size < len(self._ids):
            self._close_block()
        return TokenTree(
            token_root=self._tree.root(),
            token_ids=PackedIds(self._ids, bits=(len(self._fingerprints) - 1).bit_length()),
            entries=tuple(self._entries),
        )

    def _close_block(self) -> None:
        index = len(self._entries)
        ids = self.block(index)
        _, salts = block_salts(self._session.secret, index, len(ids))
        leaves = token_leaf_hashes(
            self._session.session_id, index, salts, self._fingerprints.take(ids, axis=0)
        )
        self._add(statements_pb2.BlockEntry(token_count=len(ids), token_root=merkle.root(leaves)))

    def _add(self, entry: statements_pb2.BlockEntry) -> None:
        index = len(self._entries)
        self._entries.append(entry)
        self._tree.append(
            merkle.leaf_hash(
                block_leaf(
                    self._session.session_id,
                    index,
                    index * self._block_size,
                    entry.token_count,
                    entry.token_root,
                )
            )
        )


def _checked_ids(token_ids: Sequence[int] | npt.NDArray[np.integer], vocabulary: int) -> array[int]:
    """Return ids below `vocabulary` as unsigned 32-bit integers.

    Raises:
        InvalidInputError: They are not a flat sequence of such integers.
    """
    ids = array("I")
    if isinstance(token_ids, np.ndarray):
        if token_ids.ndim != 1 or token_ids.dtype.kind not in "iu":
            found = f"{token_ids.dtype} with {token_ids.ndim} axes"
            msg = f"wanted a flat sequence of token ids; found {found}"
            raise InvalidInputError(msg)
        least, most = int(token_ids.min(initial=0)), int(token_ids.max(initial=0))
        ids.frombytes(token_ids.astype(_ID).tobytes())
    else:
        flat = isinstance(token_ids, Sequence) and not isinstance(
            token_ids, (bytes, bytearray, str)
        )
        if not flat or bool in map(type, token_ids):
            kind = type(token_ids).__name__
            msg = f"wanted a flat sequence of token ids; found {kind}, or truth values in it"
            raise InvalidInputError(msg)
        # An array takes a short list ten times faster than numpy does.
        try:
            ids.extend(token_ids)
        except (TypeError, OverflowError) as error:
            msg = f"wanted a flat sequence of token ids from 0 up; found {error}"
            raise InvalidInputError(msg) from error
        least, most = 0, max(ids, default=0)
    if least < 0 or most >= vocabulary:
        wrong = least if least < 0 else most
        msg = f"token id {wrong} is outside the vocabulary of {vocabulary} ids"
        raise InvalidInputError(msg)
    return ids


class PackedIds:
    """Token ids in as few bits each as the vocabulary needs (17 for 131,072 ids)."""

    _CHUNK = 4096  # ids unpacked at a time; a multiple of 8, so that chunks end on bytes

    def __init__(self, token_ids: array[int], *, bits: int) -> None:
        """Pack ids below `2 ** bits`."""
        self._bits = max(bits, 1)
        self._count = len(token_ids)
        packed = bytearray()
        for start in range(0, self._count, self._CHUNK):
            chunk = np.array(token_ids[start : start + self._CHUNK], ">u4").view(np.uint8)
            bit_rows = np.unpackbits(chunk.reshape(-1, 4), axis=1)[:, 32 - self._bits :]
            packed += np.packbits(bit_rows).tobytes()
        self._packed = bytes(packed)

    @classmethod
    def from_bytes(cls, packed: bytes, *, count: int, bits: int) -> PackedIds:
        """Return `count` ids that `to_bytes` gave.

        Raises:
            InvalidInputError: They are not so many bytes.
        """
        ids = cls(array("I"), bits=bits)
        if len(packed) != (count * ids._bits + 7) // 8:
            msg = f"{len(packed)} bytes are not {count} ids of {ids._bits} bits"
            raise InvalidInputError(msg)
        ids._count, ids._packed = count, packed
        return ids

    def to_bytes(self) -> bytes:
        """Return the bits, first id first, the last byte filled up with zeros."""
        return self._packed

    def __len__(self) -> int:
        """Return the number of ids."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return len(self._packed)

    def slice(self, start: int, stop: int) -> npt.NDArray[np.uint32]:
        """Return ids `start` to `stop`, uint32."""
        stop = min(stop, self._count)
        if start >= stop:
            return np.empty(0, np.uint32)
        first_bit = start * self._bits
        end_bit = stop * self._bits
        raw = np.frombuffer(self._packed, np.uint8)[first_bit // 8 : (end_bit + 7) // 8]
        bit_row = np.unpackbits(raw)[first_bit % 8 :][: end_bit - first_bit]
        rows = np.zeros((stop - start, 32), np.uint8)
        rows[:, 32 - self._bits :] = bit_row.reshape(stop - start, self._bits)
        return np.packbits(rows).view(">u4").astype(np.uint32)


class TokenIds(Protocol):
    """A finished session's ids, wherever they are kept."""

    def __len__(self) -> int:
        """Return the number of ids."""

    def slice(self, start: int, stop: int) -> npt.NDArray[np.uint32]:
        """Return ids `start` to `stop`, uint32; fewer where there are no more."""


@dataclass(frozen=True, slots=True)
class TokenTree:
    """A finished session's tokens: what the provider keeps to answer challenges from."""

    token_root: bytes
    token_ids: TokenIds
    entries: tuple[statements_pb2.BlockEntry, ...]

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return len(self.entries)

    @property
    def reasoning_tokens(self) -> int:
        """Number of tokens."""
        return len(self.token_ids)


def block_leaf_hashes(
    session_id: bytes, entries: Sequence[statements_pb2.BlockEntry]
) -> list[bytes]:
    """Return the leaf hashes of the token tree, from its manifest."""
    return [
        merkle.leaf_hash(block_leaf(session_id, index, first, entry.token_count, entry.token_root))
        for index, first, entry in _with_offsets(entries)
    ]


def fingerprint_leaf_hashes(
    session: SessionSecret, windows: Sequence[Sequence[bytes]]
) -> list[bytes]:
    """Return the leaf hashes of the fingerprint tree, from each block's window rows."""
    return [
        merkle.leaf_hash(
            fingerprint_leaf(
                session.session_id, index, block_salts(session.secret, index, 0)[0], rows
            )
        )
        for index, rows in enumerate(windows)
    ]


def _with_offsets(
    entries: Sequence[statements_pb2.BlockEntry],
) -> Iterator[tuple[int, int, statements_pb2.BlockEntry]]:
    first = 0
    for index, entry in enumerate(entries):
        yield index, first, entry
        first += entry.token_count
