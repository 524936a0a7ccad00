"""The bytes that are hashed: tags, fingerprints, salts and leaves (protocol, section 4).

A tag `T(x)` is one length byte, then ASCII. Integers are big endian. Every function here is
pure and returns exact bytes; leaf *data* still has to go through `merkle.leaf_hash`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256, shake_256
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.limits import BLOCK_SALT_BYTES, HASH_BYTES, SESSION_ID_BYTES, TOKEN_SALT_BYTES


def tag(name: str) -> bytes:
    """Return `T(name)`: one length byte, then `name` in ASCII."""
    raw = name.encode("ascii")
    return bytes((len(raw),)) + raw


FP_TAG: Final = tag("coin.fp.v1")
SALT_TAG: Final = tag("coin.salt.v1")
TOKEN_TAG: Final = tag("coin.token.v1")
BLOCK_TAG: Final = tag("coin.block.v1")
EMBEDDING_TAG: Final = tag("coin.bemb.v1")
FLIP_TAG: Final = tag("coin.flip.v1")
CHALLENGE_TAG: Final = tag("coin.challenge.v1")
WHOLE_TAG: Final = tag("coin.whole.v1")
KEY_TAG: Final = tag("coin.key.v1")
PROJECTION_TAG: Final = tag("coin.projection.v1")

# 0x00 and the data of a token leaf, as numpy lays them out. "V" keeps trailing zero bytes.
_TOKEN_LEAF: Final = np.dtype(
    [
        ("head", f"V{1 + len(TOKEN_TAG) + SESSION_ID_BYTES + 4}"),
        ("position", ">u4"),
        ("salt", f"V{TOKEN_SALT_BYTES}"),
        ("fp", f"V{HASH_BYTES}"),
    ]
)


def digest(payload: bytes) -> bytes:
    """Return the digest by which a statement, profile or policy is known: plain SHA-256."""
    return sha256(payload).digest()


def token_fingerprint(token_id: int, row: bytes) -> bytes:
    """Return `fp[v]`, 32 bytes, of token `v` with its quantised `row`."""
    return sha256(FP_TAG + struct.pack(">I", token_id) + row).digest()


def block_salts(session_secret: bytes, block: int, tokens: int) -> tuple[bytes, bytes]:
    """Return the salt of block `block` (32 bytes) and those of its tokens (16 bytes each)."""
    stream = shake_256(SALT_TAG + session_secret + struct.pack(">I", block)).digest(
        BLOCK_SALT_BYTES + TOKEN_SALT_BYTES * tokens
    )
    return stream[:BLOCK_SALT_BYTES], stream[BLOCK_SALT_BYTES:]


def token_leaf(session_id: bytes, block: int, position: int, salt: bytes, fp: bytes) -> bytes:
    """Return the data of one token leaf."""
    return TOKEN_TAG + session_id + struct.pack(">II", block, position) + salt + fp


def token_leaf_hashes(
    session_id: bytes,
    block: int,
    salts: bytes,
    fingerprints: npt.NDArray[np.uint8],
    *,
    first: int = 0,
) -> list[bytes]:
    """Return the RFC 9162 leaf hashes of a block's tokens, 32 bytes each.

    Builds all leaves at once: byte for byte those of `token_leaf`.

    Args:
        session_id: 16 bytes.
        block: Index of the block.
        salts: 16 bytes for each token, in order.
        fingerprints: uint8, shape (tokens, 32), one token at least.
        first: Position of the first of these tokens in the block.

    Raises:
        ValueError: Salts or session id have another length.
    """
    tokens = len(fingerprints)
    if len(salts) != tokens * TOKEN_SALT_BYTES or len(session_id) != SESSION_ID_BYTES:
        msg = f"{len(salts)} bytes of salts and {len(session_id)} of session id, {tokens} tokens"
        raise ValueError(msg)
    leaves = np.empty(tokens, _TOKEN_LEAF)
    leaves["head"] = np.void(b"\x00" + TOKEN_TAG + session_id + struct.pack(">I", block))
    leaves["position"] = np.arange(first, first + tokens)
    leaves["salt"] = np.frombuffer(salts, leaves["salt"].dtype)
    leaves["fp"] = np.ascontiguousarray(fingerprints).view(leaves["fp"].dtype).ravel()
    pieces = struct.unpack(f"{_TOKEN_LEAF.itemsize}s" * tokens, leaves.data)
    return [sha256(piece).digest() for piece in pieces]


def block_leaf(
    session_id: bytes, block: int, first_token: int, tokens: int, token_root: bytes
) -> bytes:
    """Return the data of one block leaf; `first_token` counts from the session's start."""
    head = struct.pack(">IQI", block, first_token, tokens)
    return BLOCK_TAG + session_id + head + token_root


def fingerprint_leaf(
    session_id: bytes, block: int, block_salt: bytes, windows: Sequence[bytes]
) -> bytes:
    """Return the data of one fingerprint leaf over a block's quantised window embeddings."""
    head = EMBEDDING_TAG + session_id + struct.pack(">I", block)
    return head + block_salt + struct.pack(">I", len(windows)) + b"".join(windows)
