"""Test vectors of the bytes that are hashed: tags, fingerprints, salts, leaves (section 4).

What is expected is put together here a second time, from the protocol's page with `hashlib`
and `int.to_bytes`; nothing of it comes from `coin_protocol.encoding`. `never` holds what
likely mistakes would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256, shake_256
from typing import Final

from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    hash_leaf,
    made,
)

TAGS: Final = (
    "coin.fp.v1",
    "coin.salt.v1",
    "coin.token.v1",
    "coin.block.v1",
    "coin.bemb.v1",
    "coin.flip.v1",
    "coin.challenge.v1",
    "coin.whole.v1",
    "coin.key.v1",
    "coin.projection.v1",
    "coin.log.commitment.v1",
    "coin.log.verdict.v1",
)
"""Every tag of version 1."""

SESSION_ID: Final = made("session id", 16)
SECRET: Final = made("session secret", 32)
LAST_BLOCK: Final = (1 << 20) - 1


def tag(name: str) -> bytes:
    """Return `T(name)`."""
    return bytes((len(name),)) + name.encode("ascii")


def u32(number: int) -> bytes:
    """Return a number as 4 bytes, big endian."""
    return number.to_bytes(4, "big")


def fingerprint(token_id: int, row: bytes) -> bytes:
    """Return `fp[v]`."""
    return sha256(tag("coin.fp.v1") + u32(token_id) + row).digest()


def salts(secret: bytes, block: int, tokens: int) -> tuple[bytes, list[bytes]]:
    """Return a block's salt and those of its tokens."""
    stream = shake_256(tag("coin.salt.v1") + secret + u32(block)).digest(32 + 16 * tokens)
    return stream[:32], [stream[32 + 16 * at : 48 + 16 * at] for at in range(tokens)]


def token_leaf(session_id: bytes, block: int, position: int, salt: bytes, fp: bytes) -> bytes:
    """Return the data of a token leaf."""
    return tag("coin.token.v1") + session_id + u32(block) + u32(position) + salt + fp


def block_leaf(session_id: bytes, block: int, first: int, tokens: int, root: bytes) -> bytes:
    """Return the data of a block leaf."""
    counts = first.to_bytes(8, "big") + u32(tokens)
    return tag("coin.block.v1") + session_id + u32(block) + counts + root


def fingerprint_leaf(session_id: bytes, block: int, salt: bytes, windows: Sequence[bytes]) -> bytes:
    """Return the data of a fingerprint leaf."""
    head = tag("coin.bemb.v1") + session_id + u32(block) + salt
    return head + u32(len(windows)) + b"".join(windows)


def encoding_vectors() -> Documents:
    """Return all vectors."""
    return by_file(
        [
            *_tags(),
            *_fingerprints(),
            *_salts(),
            *_token_leaves(),
            *_block_leaves(),
            *_fingerprint_leaves(),
        ]
    )


def _tags() -> list[dict[str, object]]:
    return [
        accepted(
            f"tag-{name.replace('.', '-')}",
            "One length byte, then ASCII.",
            "tag",
            {"name": name},
            {"bytes": tag(name)},
            never={
                "without its length": {"bytes": name.encode()},
                "ended by a zero byte": {"bytes": name.encode() + b"\0"},
                "with a length of two bytes": {"bytes": b"\0" + tag(name)},
            },
        )
        for name in TAGS
    ]


def _fingerprints() -> list[dict[str, object]]:
    found = []
    for token_id, numbers in ((0, 1), (1, 16), (255, 96), (256, 96), (65_536, 384), (1048575, 16)):
        row = made(f"row {token_id}", 4 + numbers)
        found.append(
            accepted(
                f"fingerprint-of-token-{token_id}",
                f"Of token {token_id} with a row of {numbers} numbers.",
                "token_fingerprint",
                {"token_id": token_id, "row": row},
                {"fingerprint": fingerprint(token_id, row)},
                never={
                    "without the id, so that ids of one row are the same": {
                        "fingerprint": sha256(tag("coin.fp.v1") + row).digest()
                    },
                    "hashed as a leaf at once": {
                        "fingerprint": hash_leaf(tag("coin.fp.v1") + u32(token_id) + row)
                    },
                },
            )
        )
    return found


def _salts() -> list[dict[str, object]]:
    found = []
    # 6 and 7 tokens lie to both sides of the first 136 bytes that SHAKE-256 gives at a time.
    for block, tokens in ((0, 0), (0, 1), (1, 6), (2, 7), (255, 8), (LAST_BLOCK, 33), (256, 257)):
        block_salt, token_salts = salts(SECRET, block, tokens)
        tokens_first = shake_256(tag("coin.salt.v1") + SECRET + u32(block)).digest(48)[16:]
        found.append(
            accepted(
                f"salts-of-block-{block}-of-{tokens}",
                f"Of block {block} with {tokens} tokens, out of one stream.",
                "block_salts",
                {"session_secret": SECRET, "block": block, "tokens": tokens},
                {"block_salt": block_salt, "token_salts": token_salts},
                never={
                    "the block's salt after a token's": {
                        "block_salt": tokens_first,
                        "token_salts": token_salts,
                    }
                },
            )
        )
    return found


def _token_leaves() -> list[dict[str, object]]:
    cases = (
        ("first-of-a-session", 0, 0, made("salt", 16), made("fingerprint", 32)),
        ("second-of-the-third-block", 2, 1, made("salt", 16), made("fingerprint", 32)),
        ("past-one-byte", 256, 255, made("salt", 16), made("fingerprint", 32)),
        ("last-of-the-largest", LAST_BLOCK, 4095, made("salt", 16), made("fingerprint", 32)),
        ("with-zeros-at-the-end", 0, 7, bytes(16), made("fingerprint", 30) + bytes(2)),
    )
    found = []
    for name, block, position, salt, fp in cases:
        data = token_leaf(SESSION_ID, block, position, salt, fp)
        swapped = token_leaf(SESSION_ID, position, block, salt, fp)
        unsalted = token_leaf(SESSION_ID, block, position, b"", fp)
        wrong = {
            "hashed without 0x00": {"data": data, "leaf_hash": sha256(data).digest()},
            "without the salt": {"data": unsalted, "leaf_hash": hash_leaf(unsalted)},
        }
        if block != position:
            wrong["position before block"] = {"data": swapped, "leaf_hash": hash_leaf(swapped)}
        found.append(
            accepted(
                f"token-leaf-{name}",
                f"Position {position} of block {block}.",
                "token_leaf",
                {
                    "session_id": SESSION_ID,
                    "block": block,
                    "position": position,
                    "salt": salt,
                    "fingerprint": fp,
                },
                {"data": data, "leaf_hash": hash_leaf(data)},
                never=wrong,
            )
        )
    return found


def _block_leaves() -> list[dict[str, object]]:
    found = []
    cases = (
        ("first", 0, 0, 256),
        ("second", 1, 256, 256),
        ("short", 2, 512, 1),
        ("largest", LAST_BLOCK, (1 << 24) - 16, 16),
    )
    for name, block, first, tokens in cases:
        root = made("token root", 32)
        data = block_leaf(SESSION_ID, block, first, tokens, root)
        narrow = tag("coin.block.v1") + SESSION_ID + u32(block) + u32(first) + u32(tokens) + root
        found.append(
            accepted(
                f"block-leaf-{name}",
                f"Block {block} of {tokens} tokens, behind {first}.",
                "block_leaf",
                {
                    "session_id": SESSION_ID,
                    "block": block,
                    "first": first,
                    "tokens": tokens,
                    "token_root": root,
                },
                {"data": data, "leaf_hash": hash_leaf(data)},
                never={
                    "earlier tokens in four bytes": {
                        "data": narrow,
                        "leaf_hash": hash_leaf(narrow),
                    }
                },
            )
        )
    return found


def _fingerprint_leaves() -> list[dict[str, object]]:
    found = []
    for block, windows, numbers in ((0, 1, 16), (1, 2, 6), (255, 4, 96), (LAST_BLOCK, 3, 1)):
        rows = [made(f"window {number}", 4 + numbers) for number in range(windows)]
        salt = made(f"block salt {block}", 32)
        data = fingerprint_leaf(SESSION_ID, block, salt, rows)
        uncounted = tag("coin.bemb.v1") + SESSION_ID + u32(block) + salt + b"".join(rows)
        found.append(
            accepted(
                f"fingerprint-leaf-of-block-{block}-of-{windows}-windows",
                f"Block {block} with {windows} windows of {numbers} numbers.",
                "fingerprint_leaf",
                {"session_id": SESSION_ID, "block": block, "block_salt": salt, "windows": rows},
                {"data": data, "leaf_hash": hash_leaf(data)},
                never={
                    "without the number of windows": {
                        "data": uncounted,
                        "leaf_hash": hash_leaf(uncounted),
                    }
                },
            )
        )
    return found
