"""The hashed bytes, written out by hand from section 4 of the protocol."""

from __future__ import annotations

import struct
from hashlib import sha256, shake_256

import numpy as np
import pytest

from coin_protocol import encoding

SESSION = bytes(range(16))
SECRET = bytes(range(100, 132))
SALT = bytes(range(200, 216))
ROOT = bytes(range(32, 64))


def test_a_tag_is_one_length_byte_then_ascii() -> None:
    assert encoding.tag("coin.fp.v1") == b"\x0acoin.fp.v1"
    assert encoding.tag("") == b"\x00"
    assert encoding.tag("x" * 255) == b"\xff" + b"x" * 255


def test_a_tag_that_has_no_such_form_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        encoding.tag("x" * 256)
    with pytest.raises(UnicodeEncodeError):
        encoding.tag("münze")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (encoding.FP_TAG, b"\x0acoin.fp.v1"),
        (encoding.SALT_TAG, b"\x0ccoin.salt.v1"),
        (encoding.TOKEN_TAG, b"\x0dcoin.token.v1"),
        (encoding.BLOCK_TAG, b"\x0dcoin.block.v1"),
        (encoding.EMBEDDING_TAG, b"\x0ccoin.bemb.v1"),
        (encoding.FLIP_TAG, b"\x0ccoin.flip.v1"),
        (encoding.CHALLENGE_TAG, b"\x11coin.challenge.v1"),
        (encoding.WHOLE_TAG, b"\x0dcoin.whole.v1"),
        (encoding.KEY_TAG, b"\x0bcoin.key.v1"),
        (encoding.PROJECTION_TAG, b"\x12coin.projection.v1"),
    ],
)
def test_the_tags_are_those_of_version_1(found: bytes, wanted: bytes) -> None:
    assert found == wanted


def test_no_tag_begins_another() -> None:
    tags = [value for name, value in vars(encoding).items() if name.endswith("_TAG")]
    assert len(tags) == 10
    assert [(a, b) for a in tags for b in tags if a is not b and b.startswith(a)] == []


def test_a_statement_is_known_by_its_plain_sha256() -> None:
    assert encoding.digest(b"payload") == sha256(b"payload").digest()


def test_a_fingerprint_binds_the_id_and_the_row() -> None:
    row = bytes(range(20))
    wanted = sha256(b"\x0acoin.fp.v1" + b"\x00\x01\x02\x03" + row).digest()
    assert encoding.token_fingerprint(0x010203, row) == wanted
    # A quarter of a vocabulary shares its row with another token: the id tells them apart.
    assert encoding.token_fingerprint(0x010204, row) != wanted


@pytest.mark.parametrize("token_id", [-1, 1 << 32])
def test_a_fingerprint_takes_ids_of_32_bits(token_id: int) -> None:
    with pytest.raises(struct.error):
        encoding.token_fingerprint(token_id, b"")


def test_salts_are_one_stream_for_a_block_first_its_own_then_its_tokens() -> None:
    block_salt, token_salts = encoding.block_salts(SECRET, 258, 3)
    stream = shake_256(b"\x0ccoin.salt.v1" + SECRET + b"\x00\x00\x01\x02").digest(32 + 3 * 16)
    assert block_salt + token_salts == stream
    assert (len(block_salt), len(token_salts)) == (32, 48)


def test_salts_do_not_depend_on_how_many_are_asked_for() -> None:
    assert encoding.block_salts(SECRET, 1, 0) == (encoding.block_salts(SECRET, 1, 9)[0], b"")
    assert encoding.block_salts(SECRET, 1, 9)[1].startswith(encoding.block_salts(SECRET, 1, 4)[1])


def test_salts_differ_between_blocks_and_sessions() -> None:
    salts = {
        encoding.block_salts(secret, block, 1)
        for secret in (SECRET, SECRET[::-1])
        for block in (0, 1)
    }
    assert len(salts) == 4


def test_a_token_leaf_is_tag_session_block_position_salt_fingerprint() -> None:
    found = encoding.token_leaf(SESSION, 1, 258, SALT, ROOT)
    assert found == (
        b"\x0dcoin.token.v1" + SESSION + b"\x00\x00\x00\x01" + b"\x00\x00\x01\x02" + SALT + ROOT
    )


@pytest.mark.parametrize("tokens", [1, 2, 255, 256, 257])
def test_leaf_hashes_of_a_block_are_those_of_its_leaves(tokens: int) -> None:
    salts = shake_256(b"salts").digest(16 * tokens)
    raw = shake_256(b"fingerprints").digest(32 * tokens)
    fingerprints = np.frombuffer(raw, np.uint8).reshape(tokens, 32)
    found = encoding.token_leaf_hashes(SESSION, 7, salts, fingerprints)
    for position, leaf_hash in enumerate(found):
        leaf = b"\x0dcoin.token.v1" + SESSION + struct.pack(">II", 7, position)
        leaf += salts[16 * position : 16 * position + 16]
        leaf += raw[32 * position : 32 * position + 32]
        assert leaf_hash == sha256(b"\x00" + leaf).digest()
    assert len(found) == tokens


def test_leaf_hashes_do_not_depend_on_the_memory_layout_of_the_fingerprints() -> None:
    raw = np.frombuffer(shake_256(b"fingerprints").digest(32 * 8), np.uint8).reshape(8, 32)
    salts = shake_256(b"salts").digest(16 * 4)
    strided = raw[::2]
    wanted = encoding.token_leaf_hashes(SESSION, 0, salts, strided.copy())
    assert encoding.token_leaf_hashes(SESSION, 0, salts, strided) == wanted
    assert encoding.token_leaf_hashes(SESSION, 0, salts, np.asfortranarray(strided)) == wanted


def test_leaf_hashes_of_a_part_of_a_block_count_from_its_first_token() -> None:
    salts = shake_256(b"salts").digest(16 * 5)
    fingerprints = np.frombuffer(shake_256(b"fingerprints").digest(32 * 5), np.uint8).reshape(5, 32)
    whole = encoding.token_leaf_hashes(SESSION, 7, salts, fingerprints)
    part = encoding.token_leaf_hashes(SESSION, 7, salts[32:], fingerprints[2:], first=2)
    assert part == whole[2:]


def test_numbers_in_leaves_and_salts_are_unsigned() -> None:
    top, four, eight = (1 << 32) - 1, b"\xff" * 4, b"\xff" * 8
    stream = shake_256(b"\x0ccoin.salt.v1" + SECRET + four).digest(32)
    assert encoding.block_salts(SECRET, top, 0) == (stream, b"")
    leaf = b"\x0dcoin.token.v1" + SESSION + four + four + SALT + ROOT
    assert encoding.token_leaf(SESSION, top, top, SALT, ROOT) == leaf
    fingerprints = np.frombuffer(ROOT, np.uint8).reshape(1, 32)
    hashed = encoding.token_leaf_hashes(SESSION, top, SALT, fingerprints, first=top)
    assert hashed == [sha256(b"\x00" + leaf).digest()]
    leaf = b"\x0dcoin.block.v1" + SESSION + four + eight + four + ROOT
    assert encoding.block_leaf(SESSION, top, (1 << 64) - 1, top, ROOT) == leaf
    leaf = b"\x0ccoin.bemb.v1" + SESSION + four + ROOT + b"\x00" * 4
    assert encoding.fingerprint_leaf(SESSION, top, ROOT, []) == leaf


@pytest.mark.parametrize(
    "salts",
    [
        15,
        16,
        31,
        32,
        64,
    ],
)
def test_a_block_without_a_salt_for_each_token_is_refused(salts: int) -> None:
    with pytest.raises(ValueError, match=r"broadcast|reshape|multiple|salt"):
        encoding.token_leaf_hashes(SESSION, 0, bytes(salts), np.zeros((3, 32), np.uint8))


def test_a_block_leaf_is_tag_session_block_first_token_count_root() -> None:
    found = encoding.block_leaf(SESSION, 258, 66_048, 200, ROOT)
    assert found == (
        b"\x0dcoin.block.v1"
        + SESSION
        + b"\x00\x00\x01\x02"
        + b"\x00\x00\x00\x00\x00\x01\x02\x00"
        + b"\x00\x00\x00\xc8"
        + ROOT
    )


def test_a_fingerprint_leaf_is_tag_session_block_salt_count_windows() -> None:
    salt, windows = bytes(range(64, 96)), [b"window one", b"window two"]
    found = encoding.fingerprint_leaf(SESSION, 3, salt, windows)
    assert found == (
        b"\x0ccoin.bemb.v1"
        + SESSION
        + b"\x00\x00\x00\x03"
        + salt
        + b"\x00\x00\x00\x02"
        + b"window onewindow two"
    )


def test_a_fingerprint_leaf_counts_its_windows() -> None:
    salt = bytes(32)
    joined = encoding.fingerprint_leaf(SESSION, 0, salt, [b"onetwo"])
    assert encoding.fingerprint_leaf(SESSION, 0, salt, [b"one", b"two"]) != joined
