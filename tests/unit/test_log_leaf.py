"""The bytes of a log's leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import InvalidInputError, LimitError, StatementError
from coin_protocol.limits import MAX_LOG_LEAF_BYTES
from coin_protocol.log_leaf import COMMITMENT_LEAF_TAG, CommitmentLeaf, VerdictLeaf, parse_leaf
from coin_protocol.merkle import leaf_hash

SESSION = bytes(range(16))
DIGEST = bytes(range(32))
OTHER = bytes(range(100, 132))


def test_the_bytes_are_those_of_the_protocol() -> None:
    leaf = CommitmentLeaf("ácme", SESSION, DIGEST)
    assert leaf.to_bytes() == (
        b"\x16coin.log.commitment.v1" + b"\x00\x05" + "ácme".encode() + SESSION + DIGEST
    )
    assert VerdictLeaf(DIGEST, OTHER).to_bytes() == b"\x13coin.log.verdict.v1" + DIGEST + OTHER
    # Changed bytes would make all proofs of old logs worthless.
    assert leaf_hash(leaf.to_bytes()).hex() == (
        "3af829874477216d4877e7e758a5b80adef883f358e908196224fa9363f55cb8"
    )
    assert leaf_hash(VerdictLeaf(DIGEST, OTHER).to_bytes()).hex() == (
        "5fd5ac7994c5f541c78c3b2bc43fea47ae09f76501fb9f600c974f0ea1377d12"
    )


@given(
    st.one_of(
        st.builds(
            CommitmentLeaf,
            st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
            st.binary(min_size=16, max_size=16),
            st.binary(min_size=32, max_size=32),
        ),
        st.builds(
            VerdictLeaf,
            st.binary(min_size=32, max_size=32),
            st.binary(min_size=32, max_size=32),
        ),
    ),
    st.binary(min_size=1, max_size=3),
    st.integers(1, 400),
)
def test_a_leaf_has_one_form_and_no_part_or_extension_of_it_is_one(
    leaf: CommitmentLeaf | VerdictLeaf, more: bytes, cut: int
) -> None:
    data = leaf.to_bytes()
    assert len(data) <= MAX_LOG_LEAF_BYTES
    assert parse_leaf(data) == leaf
    for other in (data + more, data[: max(0, len(data) - cut)]):
        with pytest.raises(StatementError):
            parse_leaf(other)


@given(st.binary(max_size=400))
def test_rubbish_is_no_leaf(raw: bytes) -> None:
    with pytest.raises(StatementError):
        parse_leaf(raw)


def test_a_longer_one_is_not_even_looked_at() -> None:
    with pytest.raises(LimitError, match="513 bytes"):
        parse_leaf(bytes(MAX_LOG_LEAF_BYTES + 1))


@pytest.mark.parametrize(
    ("length", "rest", "said"),
    [
        (4, DIGEST[:-1], "commitment_sha256 has 32 bytes; found 31"),
        (4, DIGEST + b"x", "commitment_sha256 has 32 bytes; found 33"),
        (3, DIGEST, "commitment_sha256 has 32 bytes; found 33"),
        (5, DIGEST, "commitment_sha256 has 32 bytes; found 31"),
        (53, DIGEST, "name has 53 bytes; found 52"),
        (0xFFD0, DIGEST, "name has 65488 bytes; found 52"),
        (0, DIGEST, "1 to 256 bytes"),
    ],
)
def test_a_leaf_whose_parts_do_not_fit_is_none(length: int, rest: bytes, said: str) -> None:
    name = length.to_bytes(2) + b"acme"
    with pytest.raises(StatementError, match=f"malformed leaf of a log: .*{said}"):
        parse_leaf(COMMITMENT_LEAF_TAG + name + SESSION + rest)


def test_a_name_that_is_no_utf8_is_no_leaf() -> None:
    data = CommitmentLeaf("acme", SESSION, DIGEST).to_bytes().replace(b"acme", b"ac\xff\xfe")
    with pytest.raises(StatementError, match="malformed leaf"):
        parse_leaf(data)


@pytest.mark.parametrize(
    ("provider", "session_id", "digest", "said"),
    [
        ("", SESSION, DIGEST, "1 to 256 bytes"),
        ("é" * 129, SESSION, DIGEST, "1 to 256 bytes"),
        ("\ud800", SESSION, DIGEST, "surrogate"),
        ("acme", SESSION[:-1], DIGEST, "session_id has 16 bytes; found 15"),
        ("acme", SESSION, DIGEST + b"\0", "commitment_sha256 has 32 bytes; found 33"),
    ],
)
def test_what_no_commitment_says_makes_no_leaf(
    provider: str, session_id: bytes, digest: bytes, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        CommitmentLeaf(provider, session_id, digest)


def test_what_no_verdict_says_makes_no_leaf() -> None:
    with pytest.raises(InvalidInputError, match=r"^commitment_sha256 has 32 bytes; found 31"):
        VerdictLeaf(DIGEST[1:], OTHER)
    with pytest.raises(InvalidInputError, match="verdict_sha256 has 32 bytes; found 0"):
        VerdictLeaf(DIGEST, b"")
