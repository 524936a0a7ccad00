"""Requests and answers, byte by byte."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.errors import CoinError, InvalidInputError, LimitError, StatementError
from coin_protocol.limits import MAX_NOTE_BYTES
from verifier_sdk.witness.wire import (
    MAX_PROOF_LINES,
    MAX_REQUEST_BYTES,
    AddCheckpoint,
    parse_request,
    parse_size_answer,
    write_request,
)

# Source: the example of https://c2sp.org/tlog-witness.
PROOF = (
    "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=",
    "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=",
    "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=",
    "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=",
)
NOTE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv"
    "2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
).encode()
EXAMPLE = "old 20852014\n{}\n\n".format("\n".join(PROOF)).encode() + NOTE
HASH = base64.b64encode(bytes(32)).decode()


def test_the_published_example_is_read_and_written() -> None:
    found = parse_request(EXAMPLE)
    assert found.old_size == 20852014
    assert [base64.b64encode(one).decode() for one in found.proof] == list(PROOF)
    assert found.note == NOTE
    assert write_request(found.old_size, found.proof, found.note) == EXAMPLE


def test_a_request_without_a_proof_has_two_lines_before_its_checkpoint() -> None:
    assert write_request(0, [], b"note") == b"old 0\n\nnote"
    assert parse_request(b"old 0\n\nnote") == AddCheckpoint(0, (), b"note")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\nnote",
        b"old 5",
        b"old 5\n",
        b"old\n\nnote",
        b"old \n\nnote",
        b"old  5\n\nnote",
        b"old 05\n\nnote",
        b"old -1\n\nnote",
        b"old +1\n\nnote",
        b"old 1 \n\nnote",
        b"old 9223372036854775808\n\nnote",
        b"old " + b"9" * 5000 + b"\n\nnote",
        b"OLD 5\n\nnote",
        b"new 5\n\nnote",
        b"old 5\r\n\r\nnote",
        b"old 5\nAAAA\n\nnote",
        b"old 5\n" + HASH.rstrip("=").encode() + b"\n\nnote",
        b"old 5\n" + HASH.encode() + b" \n\nnote",
        b"old 5\n" + base64.b64encode(bytes(33)) + b"\n\nnote",
        b"old 5\n\xe2\x80\x94\n\nnote",
    ],
)
def test_malformed_requests_are_refused(body: bytes) -> None:
    with pytest.raises(StatementError):
        parse_request(body)


def test_limits_of_a_request() -> None:
    most = [bytes(32)] * MAX_PROOF_LINES
    largest = write_request((1 << 63) - 1, most, bytes(MAX_NOTE_BYTES))
    assert len(largest) == MAX_REQUEST_BYTES
    assert len(parse_request(largest).proof) == MAX_PROOF_LINES
    with pytest.raises(LimitError, match="at most"):
        parse_request(largest + b"x")
    with pytest.raises(LimitError, match="64 lines"):
        parse_request(f"old 5\n{HASH}\n".encode() + b"\n".join([HASH.encode()] * 63) + b"\n\nnote")
    with pytest.raises(InvalidInputError, match="64 hashes"):
        write_request(5, [bytes(32)] * 64, b"note")


@pytest.mark.parametrize(
    ("body", "size"), [(b"0\n", 0), (b"50\n", 50), (b"9223372036854775807\n", (1 << 63) - 1)]
)
def test_a_size_is_read(body: bytes, size: int) -> None:
    assert parse_size_answer(body) == size


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"50", b"050\n", b"-1\n", b"50\n\n", b"9223372036854775808\n", b"\xff\n"]
)
def test_what_is_no_size_is_refused(body: bytes) -> None:
    with pytest.raises(StatementError):
        parse_size_answer(body)


@given(
    old=st.integers(0, (1 << 63) - 1),
    proof=st.lists(st.binary(min_size=32, max_size=32), max_size=5),
    note=st.binary(max_size=100),
)
def test_any_request_comes_back(old: int, proof: list[bytes], note: bytes) -> None:
    assert parse_request(write_request(old, proof, note)) == AddCheckpoint(old, tuple(proof), note)


@given(body=st.binary(max_size=200))
def test_whatever_comes_in_is_read_or_refused_by_an_error_of_ours(body: bytes) -> None:
    try:
        found = parse_request(body)
    except CoinError:
        return
    assert write_request(found.old_size, found.proof, found.note) == body
