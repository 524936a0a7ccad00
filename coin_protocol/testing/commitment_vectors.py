"""Test vectors of whole commitments: from a session's secret and ids to every root (section 4).

Leaves are those of `encoding_vectors`, roots those of the slow tree of `reference`; nothing is
computed by the code under test. Rows and windows are bytes made up: no embedding is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from coin_protocol.testing import reference
from coin_protocol.testing.encoding_vectors import (
    SECRET,
    SESSION_ID,
    block_leaf,
    fingerprint,
    fingerprint_leaf,
    salts,
    token_leaf,
)
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    hash_leaf,
    made,
    refused,
)

_ROWS = [made(f"table row {token_id}", 7) for token_id in range(5)]
_FINGERPRINTS = [fingerprint(token_id, row) for token_id, row in enumerate(_ROWS)]

_SIZES = (
    ("no-tokens", 8, 0),
    ("one-token", 8, 1),
    ("block-less-one", 8, 7),
    ("one-block", 8, 8),
    ("block-and-one", 8, 9),
    ("two-blocks-less-one", 8, 15),
    ("two-blocks", 8, 16),
    ("two-blocks-and-one", 8, 17),
    ("blocks-of-one-token", 1, 5),
    ("blocks-of-three", 3, 8),
    ("seven-blocks", 2, 13),
    ("eight-blocks", 2, 16),
    ("nine-blocks", 2, 17),
    ("thirty-one-blocks", 2, 61),
    ("thirty-two-blocks", 2, 64),
    ("thirty-three-blocks", 2, 65),
    ("256-less-one", 256, 255),
    ("256", 256, 256),
    ("256-and-one", 256, 257),
    ("more-tokens-than-four-blocks-of-33", 33, 140),
)


def commitment_vectors() -> Documents:
    """Return all vectors."""
    sized = [
        _committed(
            f"commit-{name}",
            f"{tokens} tokens in blocks of {block_size}.",
            block_size,
            [byte % 5 for byte in made("ids", tokens)],
        )
        for name, block_size, tokens in _SIZES
    ]
    same = _committed(
        "commit-the-same-token-again-and-again",
        "Equal tokens have leaves of their own, by their salts.",
        4,
        [3] * 12,
    )
    return by_file([*sized, same, *_mistakes(), *_refusals()])


def _given(block_size: int, token_ids: Sequence[int]) -> dict[str, object]:
    return {
        "session_id": SESSION_ID,
        "session_secret": SECRET,
        "block_size": block_size,
        "rows": _ROWS,
        "token_ids": list(token_ids),
        "windows": _windows(len(_cut(block_size, token_ids))),
    }


def _windows(blocks: int) -> list[list[bytes]]:
    """Return window embeddings, two of most blocks, one or three of some."""
    return [
        [made(f"window {block} {at}", 7) for at in range(1 + (block * 5 + 1) % 3)]
        for block in range(blocks)
    ]


def _cut(block_size: int, token_ids: Sequence[int]) -> list[Sequence[int]]:
    return [token_ids[at : at + block_size] for at in range(0, len(token_ids), block_size)]


def _leaves(block: int, token_ids: Sequence[int]) -> list[bytes]:
    _, token_salts = salts(SECRET, block, len(token_ids))
    return [
        hash_leaf(
            token_leaf(SESSION_ID, block, position, token_salts[position], _FINGERPRINTS[token_id])
        )
        for position, token_id in enumerate(token_ids)
    ]


def _block_leaves(blocks: Sequence[Sequence[int]], roots: Sequence[bytes]) -> list[bytes]:
    counts = [len(block) for block in blocks]
    firsts = [0, *accumulate(counts)]
    return [
        hash_leaf(block_leaf(SESSION_ID, index, firsts[index], counts[index], root))
        for index, root in enumerate(roots)
    ]


def _roots(block_size: int, token_ids: Sequence[int]) -> dict[str, object]:
    """Return everything that a provider of these tokens signs."""
    blocks = _cut(block_size, token_ids)
    roots = [reference.root(_leaves(index, block)) for index, block in enumerate(blocks)]
    leaves = _block_leaves(blocks, roots)
    full = len(token_ids) // block_size
    embedded = [
        hash_leaf(fingerprint_leaf(SESSION_ID, index, salts(SECRET, index, 0)[0], rows))
        for index, rows in enumerate(_windows(len(blocks)))
    ]
    return {
        "token_table_root": reference.root([hash_leaf(fp) for fp in _FINGERPRINTS]),
        "blocks": [
            {"token_count": len(block), "token_root": root}
            for block, root in zip(blocks, roots, strict=True)
        ],
        "checkpoints": [
            {
                "block_count": count,
                "token_count": count * block_size,
                "token_root": reference.root(leaves[:count]),
            }
            for count in range(1, full + 1)
        ],
        "token_root": reference.root(leaves),
        "fingerprint_root": reference.root(embedded),
    }


def _committed(
    name: str, about: str, block_size: int, token_ids: Sequence[int]
) -> dict[str, object]:
    return accepted(
        name, about, "commit", _given(block_size, token_ids), _roots(block_size, token_ids)
    )


def _mistakes() -> list[dict[str, object]]:
    """Return one commitment beside what mistakes in it would give."""
    ids = [0, 1, 2, 3, 4] * 4
    right = _roots(8, ids)
    blocks = _cut(8, ids)
    leaves = [_leaves(index, block) for index, block in enumerate(blocks)]
    roots = [reference.root(block) for block in leaves]
    firsts = (0, 1, 2)
    in_blocks = [
        hash_leaf(block_leaf(SESSION_ID, index, firsts[index], len(blocks[index]), root))
        for index, root in enumerate(roots)
    ]
    tree = _block_leaves(blocks, roots)
    return [
        accepted(
            "commit-and-mistakes",
            "Three blocks, the last one short, and what mistakes would make of them.",
            "commit",
            _given(8, ids),
            right,
            never={
                "the last block leaf repeated, to a power of two": right
                | {"token_root": reference.root([*tree, tree[-1]])},
                "earlier tokens counted in blocks": right
                | {"token_root": reference.root(in_blocks)},
                "all tokens in one tree": right
                | {"token_root": reference.root([leaf for block in leaves for leaf in block])},
                "block roots without block leaves": right | {"token_root": reference.root(roots)},
            },
        )
    ]


def _refusals() -> list[dict[str, object]]:
    cases: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("id-past-the-vocabulary", "There is no row of id 5.", {"token_ids": [0, 5]}),
        ("id-negative", "No id is negative.", {"token_ids": [-1]}),
        ("session-id-short", "A session id has 16 bytes.", {"session_id": SESSION_ID[:-1]}),
        ("session-id-long", "A session id has 16 bytes.", {"session_id": SESSION_ID + b"\0"}),
        ("session-id-empty", "A session id has 16 bytes.", {"session_id": b""}),
        ("secret-short", "A session secret has 32 bytes.", {"session_secret": SECRET[:-1]}),
        ("secret-long", "A session secret has 32 bytes.", {"session_secret": SECRET + b"\0"}),
    )
    given = _given(8, [0, 1])
    return [
        refused(f"commit-{name}", about, "commit", given | change, "InvalidInputError")
        for name, about, change in cases
    ]
