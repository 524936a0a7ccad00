"""A session's token tree: known answers from section 4, what is refused, what is kept."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256, shake_256
from typing import Any

import numpy as np
import pytest

from coin_protocol import commitment, merkle
from coin_protocol.commitment import (
    CommitmentBuilder,
    PackedIds,
    Prefix,
    SessionSecret,
    block_leaf_hashes,
    fingerprint_leaf_hashes,
)
from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.testing import reference
from coin_protocol.testing.small import VOCABULARY, small_table

SESSION = SessionSecret(bytes(range(16)), bytes(range(100, 132)))
BLOCK = 4


def builder(block_size: int = BLOCK) -> CommitmentBuilder:
    table = small_table()
    return CommitmentBuilder(SESSION, block_size=block_size, fingerprints=table.fingerprints)


def by_hand(ids: Sequence[int], block_size: int = BLOCK) -> tuple[list[bytes], list[bytes]]:
    """Return token roots and block leaf hashes, spelled out from the protocol."""
    fingerprints = small_table().fingerprints
    roots, leaves = [], []
    for block, start in enumerate(range(0, len(ids), block_size)):
        chunk = ids[start : start + block_size]
        secret = b"\x0ccoin.salt.v1" + SESSION.secret + struct.pack(">I", block)
        salts = shake_256(secret).digest(32 + 16 * len(chunk))[32:]
        tokens = [
            sha256(
                b"\x00\x0dcoin.token.v1"
                + SESSION.session_id
                + struct.pack(">II", block, position)
                + salts[16 * position : 16 * position + 16]
                + fingerprints[token_id].tobytes()
            ).digest()
            for position, token_id in enumerate(chunk)
        ]
        roots.append(reference.root(tokens))
        head = struct.pack(">IQI", block, start, len(chunk))
        leaf = b"\x00\x0dcoin.block.v1" + SESSION.session_id + head + roots[-1]
        leaves.append(sha256(leaf).digest())
    return roots, leaves


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_a_tree_is_the_one_that_the_protocol_spells_out(count: int) -> None:
    ids = [(7 * number) % VOCABULARY for number in range(count)]
    growing = builder()
    growing.append(ids)
    tree = growing.finish()
    roots, leaves = by_hand(ids)
    assert [entry.token_root for entry in tree.entries] == roots
    assert [entry.token_count for entry in tree.entries] == [
        min(BLOCK, count - start) for start in range(0, count, BLOCK)
    ]
    assert tree.token_root == reference.root(leaves)
    assert block_leaf_hashes(SESSION.session_id, tree.entries) == leaves
    assert (tree.reasoning_tokens, tree.block_count) == (count, len(leaves))
    assert tree.token_ids.slice(0, count).tolist() == ids


def test_a_reply_without_reasoning_has_the_empty_tree() -> None:
    tree = builder().finish()
    assert tree.token_root == merkle.EMPTY_ROOT
    assert (tree.reasoning_tokens, tree.block_count, tree.entries) == (0, 0, ())
    assert tree.token_ids.slice(0, 10).tolist() == []


def test_one_token_makes_one_short_block() -> None:
    growing = builder()
    assert growing.append([9]) == []
    tree = growing.finish()
    assert tree.token_root == by_hand([9])[1][0]
    assert [entry.token_count for entry in tree.entries] == [1]


def test_each_full_block_gives_the_prefix_that_ends_with_it() -> None:
    ids = list(range(11))
    _, leaves = by_hand(ids[:8])
    assert builder().append(ids) == [
        Prefix(1, 4, reference.root(leaves[:1])),
        Prefix(2, 8, reference.root(leaves)),
    ]


def test_a_full_last_block_is_closed_once() -> None:
    growing = builder()
    (prefix,) = growing.append([1, 2, 3, 4])
    tree = growing.finish()
    assert tree.block_count == 1
    assert tree.token_root == prefix.token_root


def test_ids_can_be_read_back_while_the_tree_grows() -> None:
    growing = builder()
    growing.append([1, 2, 3, 4, 5])
    assert growing.token_count == 5
    first = growing.block(0)
    assert first.dtype == np.uint32
    assert first.tolist() == [1, 2, 3, 4]
    assert growing.block(1).tolist() == [5]
    first[0] = 99
    assert growing.block(0).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
)
def test_ids_may_come_as_integers_of_any_width(kind: type[np.integer[Any]]) -> None:
    ids = [0, 1, 100, 127, 5]
    growing = builder()
    growing.append(np.array(ids, kind))
    wanted = builder()
    wanted.append(ids)
    assert growing.finish().token_root == wanted.finish().token_root


def test_ids_may_come_in_any_byte_order_and_stride() -> None:
    growing = builder()
    growing.append(np.array([1, 9, 2, 9, 256], ">i8")[::2])
    assert growing.block(0).tolist() == [1, 2, 256]


BAD: dict[str, object] = {
    "the size of the vocabulary": [1, VOCABULARY],
    "negative": [1, -1],
    "past 32 bits": [1, (1 << 32) + 1],
    "past 64 bits": [1, (1 << 64) + 1],
    "wraps in int64": np.array([1, (1 << 64) - 1], np.uint64),
    "floats": [1.0, 2.0],
    "one float": [1, 2.0],
    "nan": [float("nan")],
    "float array": np.ones(2),
    "bool array": np.array([True, False]),
    "bools": [True, False],
    "nested": [[1, 2], [3, 4]],
    "ragged": [[1], [2, 3]],
    "two axes": np.ones((2, 2), np.int64),
    "one number": 1,
    "text": "12",
    "texts": ["1", "2"],
    "none": None,
    "nones": [None],
    "complex": [1j],
    "dates": np.array(["2026-01-01"], "datetime64[D]"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_what_are_no_ids_is_refused_and_nothing_is_taken(bad: Any) -> None:
    growing, wanted = builder(), builder()
    for before in (growing, wanted):
        before.append([1, 2, 3])
    with pytest.raises(InvalidInputError):
        growing.append(bad)
    assert growing.token_count == 3
    assert growing.append([4]) == wanted.append([4])
    assert growing.finish().token_root == wanted.finish().token_root


def test_an_error_names_the_id_and_the_vocabulary() -> None:
    named = f"token id %s is outside the vocabulary of {VOCABULARY} ids"
    for wrong in (-3, VOCABULARY + 7):
        with pytest.raises(InvalidInputError, match=named % wrong):
            builder().append(np.array([1, wrong, 2]))
    with pytest.raises(InvalidInputError, match=named % (VOCABULARY + 7)):
        builder().append([1, VOCABULARY + 7, 2])


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (np.ones((2, 2)), "found float64 with 2 axes"),
        (np.ones(3, np.bool_), "found bool with 1 axes"),
        ("12", "found str, or truth values in it"),
        ([True], "found list, or truth values in it"),
    ],
)
def test_an_error_names_what_was_found_instead_of_ids(bad: Any, found: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^wanted a flat sequence of token ids; {found}$"):
        builder().append(bad)


def test_ids_that_can_be_read_only_once_are_all_taken_or_none() -> None:
    once: Any = (number for number in range(6))
    growing, wanted = builder(), builder()
    try:
        growing.append(once)
    except InvalidInputError:
        assert growing.token_count == 0
        return
    wanted.append(range(6))
    assert growing.finish().token_root == wanted.finish().token_root


def test_no_ids_change_nothing() -> None:
    growing = builder()
    assert growing.append([]) == []
    assert growing.append(np.empty(0, np.int64)) == []
    assert growing.token_count == 0


def test_a_session_ends_at_the_greatest_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment, "MAX_REASONING_TOKENS", 6)
    growing = builder()
    growing.append([1, 2, 3, 4, 5])
    with pytest.raises(LimitError, match="at most 6 reasoning tokens"):
        growing.append([6, 7])
    assert growing.token_count == 5
    growing.append([6])
    with pytest.raises(LimitError):
        growing.append([7])
    assert growing.finish().token_ids.slice(0, 9).tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("session_bytes", "secret_bytes"), [(15, 32), (17, 32), (16, 31), (0, 0)])
def test_ids_and_secrets_of_other_lengths_are_refused(
    session_bytes: int, secret_bytes: int
) -> None:
    with pytest.raises(InvalidInputError, match="16 and a secret of 32 bytes"):
        SessionSecret(bytes(session_bytes), bytes(secret_bytes))


def test_a_secret_is_not_shown() -> None:
    shown = f"{SESSION!r} {SESSION}"
    assert SESSION.session_id.hex() in shown
    assert SESSION.secret.hex() not in shown
    assert repr(SESSION.secret) not in shown


def test_another_session_or_secret_gives_other_leaves() -> None:
    roots = set()
    for session in (
        SESSION,
        SessionSecret(bytes(16), SESSION.secret),
        SessionSecret(SESSION.session_id, bytes(32)),
    ):
        growing = CommitmentBuilder(
            session, block_size=BLOCK, fingerprints=small_table().fingerprints
        )
        growing.append([1, 2, 3])
        roots.add(growing.finish().token_root)
    assert len(roots) == 3


def test_fingerprint_leaves_are_salted_per_block() -> None:
    windows = [[b"row a", b"row b"], [b"row a", b"row b"]]
    found = fingerprint_leaf_hashes(SESSION, windows)
    for block, leaf_hash in enumerate(found):
        number = struct.pack(">I", block)
        salt = shake_256(b"\x0ccoin.salt.v1" + SESSION.secret + number).digest(32)
        leaf = b"\x00\x0ccoin.bemb.v1" + SESSION.session_id + number + salt
        leaf += b"\x00\x00\x00\x02" + b"row arow b"
        assert leaf_hash == sha256(leaf).digest()
    assert len(set(found)) == 2


def test_ids_take_as_few_bits_as_the_vocabulary_needs() -> None:
    ids = array("I", range(1000))
    assert PackedIds(ids, bits=17).nbytes == 17 * 1000 / 8
    for bits in (0, 1):
        assert PackedIds(array("I", bytes(4 * 8)), bits=bits).nbytes == 1
    assert len(PackedIds(ids, bits=17)) == 1000


def test_packed_ids_come_back_from_their_bytes() -> None:
    for bits, count in ((9, 0), (9, 1), (9, 7), (9, 8), (17, 5000), (0, 9)):
        ids = array("I", [number % (1 << bits) for number in range(count)])
        packed = PackedIds(ids, bits=bits)
        again = PackedIds.from_bytes(packed.to_bytes(), count=count, bits=bits)
        assert (len(again), again.nbytes) == (count, packed.nbytes)
        assert again.to_bytes() == packed.to_bytes()
        assert again.slice(0, count).tolist() == ids.tolist()


@pytest.mark.parametrize(("found", "count"), [(8, 8), (10, 8), (0, 1), (1, 0), (9, 9)])
def test_bytes_of_another_number_of_ids_are_refused(found: int, count: int) -> None:
    named = f"^{found} bytes are not {count} ids of 9 bits$"
    with pytest.raises(InvalidInputError, match=named):
        PackedIds.from_bytes(bytes(found), count=count, bits=9)


@pytest.mark.parametrize(("vocabulary", "bits"), [(1, 1), (2, 1), (256, 8), (257, 9), (300, 9)])
@pytest.mark.parametrize("kind", [list, partial(np.array, dtype=np.int64)], ids=["list", "array"])
def test_a_builder_packs_by_its_own_vocabulary(
    vocabulary: int, bits: int, kind: Callable[[list[int]], Any]
) -> None:
    fingerprints = small_table().fingerprints[:vocabulary]
    growing = CommitmentBuilder(SESSION, block_size=BLOCK, fingerprints=fingerprints)
    growing.append(kind([]))
    growing.append(kind([vocabulary - 1] * 80))
    packed = growing.finish().token_ids
    assert isinstance(packed, PackedIds)
    assert packed.nbytes == bits * 80 / 8
    assert packed.slice(0, 81).tolist() == [vocabulary - 1] * 80
