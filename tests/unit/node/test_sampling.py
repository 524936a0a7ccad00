"""Which receipts are audited, and in which order."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin_protocol.usage import INSIDE, usage_for
from coin_protocol.v1 import receipt_pb2, statements_pb2
from verifier_sdk.node.sampling import ALWAYS, ASKED_PRIORITY, drawn, risk

SECRET = bytes(range(32))


def _commitments(count: int) -> list[bytes]:
    return [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(count)]


@given(st.binary(min_size=32, max_size=32))
def test_a_share_of_one_draws_all_and_of_zero_none(commitment: bytes) -> None:
    assert drawn(SECRET, commitment, 1.0)
    assert not drawn(SECRET, commitment, 0.0)


@given(st.binary(min_size=32, max_size=32), st.floats(0, 1), st.floats(0, 1))
def test_a_greater_share_draws_all_that_a_smaller_one_draws(
    commitment: bytes, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert drawn(SECRET, commitment, high) or not drawn(SECRET, commitment, low)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_about_the_share_is_drawn(share: float) -> None:
    found = sum(drawn(SECRET, one, share) for one in _commitments(10_000))
    assert abs(found - 10_000 * share) < 5 * (10_000 * share * (1 - share)) ** 0.5


def test_without_the_secret_nobody_knows_what_is_drawn() -> None:
    of = [[drawn(secret, one, 0.5) for one in _commitments(64)] for secret in (SECRET, bytes(32))]
    assert of[0] != of[1]


def _pair(
    *, tokens: int = 2560, checkpoints: int = 1
) -> tuple[receipt_pb2.Receipt, statements_pb2.Commitment]:
    usage = usage_for(prompt_tokens=5, reasoning_tokens=tokens, answer_tokens=9, counting=INSIDE)
    commitment = statements_pb2.Commitment(
        reasoning_tokens=tokens,
        answer_tokens=9,
        usage=usage,
        id_source=statements_pb2.ID_SOURCE_SAMPLED,
    )
    receipt = receipt_pb2.Receipt(
        billed=usage, checkpoints=[receipt_pb2.SeenCheckpoint()] * checkpoints
    )
    return receipt, commitment


def _risk(receipt: receipt_pb2.Receipt, commitment: statements_pb2.Commitment) -> int:
    return risk(receipt, commitment, block_size=256, failed_share=0.0)


def test_a_bill_that_disagrees_is_always_audited() -> None:
    receipt, commitment = _pair()
    assert _risk(receipt, commitment) < ALWAYS
    receipt.billed.completion_tokens += 1
    assert _risk(receipt, commitment) >= ALWAYS


def test_a_bill_that_counts_twice_is_always_audited() -> None:
    receipt, commitment = _pair()
    commitment.usage.completion_tokens += commitment.reasoning_tokens
    receipt.billed.CopyFrom(commitment.usage)
    assert _risk(receipt, commitment) >= ALWAYS


def test_each_oddity_raises_the_risk() -> None:
    honest = _risk(*_pair())
    assert _risk(*_pair(checkpoints=0)) > honest
    assert _risk(*_pair(tokens=256_000)) > honest
    receipt, commitment = _pair()
    commitment.id_source = statements_pb2.ID_SOURCE_RETOKENIZED
    retokenized = _risk(receipt, commitment)
    commitment.abort_reason = statements_pb2.ABORT_REASON_CANCELLED
    assert honest < retokenized < _risk(receipt, commitment)
    of_a_liar = risk(*_pair(), block_size=256, failed_share=1.0)
    assert of_a_liar > honest


def test_a_short_reply_needs_no_checkpoint() -> None:
    assert _risk(*_pair(tokens=255, checkpoints=0)) == _risk(*_pair(tokens=255))


def test_what_was_asked_for_comes_before_any_risk() -> None:
    receipt, commitment = _pair(tokens=1 << 24, checkpoints=0)
    receipt.billed.Clear()
    commitment.id_source = statements_pb2.ID_SOURCE_RETOKENIZED
    commitment.abort_reason = statements_pb2.ABORT_REASON_CRASHED
    assert risk(receipt, commitment, block_size=256, failed_share=1.0) < ASKED_PRIORITY
