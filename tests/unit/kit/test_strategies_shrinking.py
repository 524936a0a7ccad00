"""Awkward sizes are drawn, and whatever fails shrinks to the smallest that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from coin_protocol.keys import KeyRing
from coin_protocol.testing import strategies as coin
from coin_protocol.testing.world import Audit, Reply
from coin_protocol.v1 import keys_pb2, opening_pb2, receipt_pb2, statements_pb2

T = TypeVar("T")
PLAIN = st.just(coin.DrawnWorld())


def smallest(strategy: st.SearchStrategy[T], wanted: Callable[[T], object]) -> T:
    return find(
        strategy,
        lambda found: bool(wanted(found)),
        settings=settings(
            max_examples=1_000,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
        ),
    )


# Sizes.

POWERS = [1 << bit for bit in range(7)]
NEAR = sorted(
    {
        size
        for mark in (0, 8, 16, *POWERS, *(8 * power for power in POWERS))
        for size in (mark - 1, mark, mark + 1)
        if 0 <= size <= 100
    }
)


@pytest.mark.parametrize("size", NEAR)
def test_every_awkward_size_is_drawn(size: int) -> None:
    assert size in coin.awkward_sizes(8, 100)
    assert smallest(coin.sizes(8, 100), lambda found: found == size) == size


def test_awkward_sizes_are_drawn_more_often_than_others() -> None:
    awkward, drawn = set(coin.awkward_sizes(256, 100_000)), list[int]()

    def note(size: int) -> bool:
        drawn.append(size)
        return False

    with pytest.raises(Exception, match="No examples"):
        smallest(coin.sizes(256, 100_000), note)
    assert sum(size in awkward for size in drawn) > len(drawn) // 3
    assert len(awkward) < 200


@pytest.mark.parametrize("least", [0, 1, 2, 5, 6, 10, 11, 13, 20, 27, 63, 77, 100])
def test_a_size_shrinks_to_the_smallest_that_will_do(least: int) -> None:
    assert smallest(coin.sizes(8, 100), lambda found: found >= least) == least


def test_sizes_begin_where_they_are_told_to() -> None:
    assert smallest(coin.sizes(8, 100, least=9), lambda _: True) == 9
    assert coin.awkward_sizes(8, 12, least=9) == [9, 10, 11, 12]


# Traces and keys.


def test_a_trace_shrinks_to_zeros() -> None:
    assert smallest(coin.token_ids(), lambda ids: len(ids) >= 5) == [0] * 5
    assert smallest(coin.token_ids(), lambda ids: 7 in ids) == [7]


def test_a_key_set_with_a_revoked_key_shrinks_to_one_key() -> None:
    def has_revoked(message: keys_pb2.KeySet) -> bool:
        return any(key.HasField("revoked_at") for key in message.keys)

    (key,) = smallest(coin.key_sets(), has_revoked).keys
    assert key.algorithm == keys_pb2.KEY_ALGORITHM_ED25519
    assert key.name == "0"


def test_a_root_shrinks_to_a_pinned_key_and_a_certified_one_to_its_leaf() -> None:
    assert not smallest(coin.roots(), lambda _: True).chain
    found = smallest(coin.roots(), lambda root: root.domain is not None)
    assert found.domain is not None
    assert (len(found.chain), found.domain.domain) == (1, "acme.example")
    assert len(smallest(coin.roots(), lambda root: len(root.chain) >= 3).chain) == 3


def test_a_rotation_shrinks_to_one_key_and_one_after_it() -> None:
    def revoked(rings: tuple[KeyRing, KeyRing]) -> bool:
        return any(listed.revoked_at is not None for listed in rings[1].keys)

    older, newer = smallest(coin.rotations(), revoked)
    assert (len(older), len(newer)) == (1, 2)


# Statements.


def test_a_commitment_of_two_blocks_shrinks_to_one_token_past_a_block() -> None:
    message = smallest(coin.commitments(), lambda found: found.block_count >= 2)
    assert message.reasoning_tokens == 257
    assert message.usage.completion_tokens == 257
    assert message.abort_reason == statements_pb2.ABORT_REASON_UNSPECIFIED


def test_a_manifest_with_a_short_block_shrinks_to_one_token() -> None:
    (entry,) = smallest(coin.manifests(), lambda found: found.blocks).blocks
    assert entry.token_count == 1


def test_a_verdict_that_accuses_shrinks_to_one_score() -> None:
    def accuses(message: receipt_pb2.Verdict) -> bool:
        return message.outcome == receipt_pb2.OUTCOME_FAIL

    message = smallest(coin.verdicts(), accuses)
    assert len(message.scores) == 1
    assert not message.reasons


def test_a_signed_head_with_a_witness_shrinks_to_one() -> None:
    found = smallest(coin.signed_heads(), lambda found: found.witnesses)
    assert (found.head.size, found.head.origin, len(found.witnesses)) == (0, "0", 1)


# Whole worlds.


def committed(receipt: receipt_pb2.Receipt) -> statements_pb2.Commitment:
    return statements_pb2.Commitment.FromString(receipt.commitment.payload)


def test_a_reply_with_two_checkpoints_shrinks_to_two_full_blocks_of_trivial_ids() -> None:
    reply: Reply = smallest(coin.replies(), lambda found: len(found.receipt.checkpoints) >= 2)
    message = committed(reply.receipt)
    assert message.reasoning_tokens == 2 * reply.world.profile.block_size
    assert not reply.receipt.root_chain
    assert message.block_count == 2
    assert reply.opener.tree.token_ids.slice(0, 99).tolist() == [0] * message.reasoning_tokens


def test_a_receipt_with_two_checkpoints_shrinks_to_two_full_blocks_in_any_world() -> None:
    receipt = smallest(coin.receipts(world=PLAIN), lambda found: len(found.checkpoints) >= 2)
    assert committed(receipt).reasoning_tokens == 16
    assert (receipt.request, receipt.answer, receipt.HasField("summary")) == (b"", b"", False)


def test_an_opening_with_a_token_block_shrinks_to_one_token() -> None:
    opening = smallest(coin.openings(world=PLAIN), lambda found: found.token_blocks)
    (block,) = opening.token_blocks
    assert len(block.tokens) == 1
    assert not opening.blocks
    assert opening.edge.last_token.position == 0


def test_an_audit_with_a_whole_block_shrinks_to_one_token_opened_whole() -> None:
    def opened_whole(audit: Audit) -> bool:
        return any(entry.HasField("opening") for entry in audit.whole_rounds)

    audit = smallest(coin.audits(reply=coin.replies(world=PLAIN)), opened_whole)
    assert not audit.rounds
    (entry,) = audit.whole_rounds
    (block,) = opening_pb2.WholeBlockOpening.FromString(entry.opening.payload).blocks
    assert len(block.token_ids) == 1


def test_an_audit_with_a_refusal_shrinks_to_one_round() -> None:
    def is_refused(audit: Audit) -> bool:
        return any(entry.HasField("refusal") for entry in audit.rounds)

    audit = smallest(coin.audits(reply=coin.replies(world=PLAIN)), is_refused)
    assert len(audit.rounds) == 1
    assert not audit.whole_rounds


def test_a_bundle_with_two_rounds_shrinks_to_two_rounds_over_one_token() -> None:
    short = coin.replies(world=PLAIN, tokens=st.integers(1, 9))
    bundle = smallest(
        coin.bundles(audit=coin.audits(reply=short)), lambda found: len(found.rounds) == 2
    )
    assert committed(bundle.receipt).reasoning_tokens == 1
    assert not bundle.whole_rounds
    assert not bundle.matches
