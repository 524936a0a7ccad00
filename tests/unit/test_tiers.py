"""Evidence tiers: what each rests on, and why times earn nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from coin_protocol.checks import Case, run_checks
from coin_protocol.keyset import stamp
from coin_protocol.profile import Policy
from coin_protocol.testing.forgeries import audit, change, put, unanswered, without
from coin_protocol.testing.profiles import rules_policy
from coin_protocol.testing.world import START, Edit
from coin_protocol.tiers import earned_tiers, untimed_reason
from coin_protocol.v1 import receipt_pb2 as pb

ASSERTED, COMMITTED, TIMED, OPENED = (
    pb.TIER_ASSERTED,
    pb.TIER_COMMITTED,
    pb.TIER_TIMED,
    pb.TIER_OPENED,
)
SHORT = "the reasoning is shorter than one block, so no checkpoint was due"
SAW = "the client saw {} checkpoints of 2 full blocks"
BACKWARDS = "the client's clock ran backwards, or checkpoints came after the answer began"
BUNCHED = "2 checkpoints arrived within {} s, together at the end"


def tiers(case: Case) -> list[pb.Tier.ValueType]:
    return earned_tiers(case, run_checks(case))


def seen(*seconds: float) -> Edit[pb.Receipt]:
    """Return an edit of when the client saw each checkpoint."""

    def edit(receipt: pb.Receipt) -> None:
        for entry, at in zip(receipt.checkpoints, seconds, strict=True):
            entry.seen_at.CopyFrom(stamp(START + timedelta(seconds=at)))

    return edit


def test_a_receipt_alone_is_the_providers_word() -> None:
    assert tiers(replace(audit().case(), manifest=None)) == [ASSERTED]
    assert tiers(audit().case()) == [ASSERTED]


def test_drawn_openings_that_verify_are_commitment() -> None:
    case = audit(edit_receipt=without("checkpoints")).ask().case()
    assert tiers(case) == [ASSERTED, COMMITTED]


def test_whole_blocks_alone_are_no_drawn_sample() -> None:
    assert tiers(audit().ask_whole().case()) == [ASSERTED]


def test_nothing_to_open_is_commitment_once_the_tree_is_shown_to_be_empty() -> None:
    case = audit(tokens=0).case()
    assert tiers(case) == [ASSERTED, COMMITTED]
    assert tiers(replace(case, manifest=None)) == [ASSERTED]


def test_checkpoints_seen_as_tokens_were_decoded_are_timed() -> None:
    assert tiers(audit().ask().case()) == [ASSERTED, COMMITTED, TIMED]
    assert untimed_reason(audit().case()) == ""


def test_a_block_embedded_again_is_opened_with_times_or_without() -> None:
    assert tiers(audit().ask().ask_whole().case()) == [ASSERTED, COMMITTED, TIMED, OPENED]
    case = audit(edit_receipt=without("checkpoints")).ask().ask_whole().case()
    assert tiers(case) == [ASSERTED, COMMITTED, OPENED]


def test_a_block_that_could_not_be_embedded_again_is_not_opened() -> None:
    case = replace(audit().ask().ask_whole().case(), installed=None)
    assert tiers(case) == [ASSERTED, COMMITTED, TIMED]


@pytest.mark.parametrize(
    "case",
    [
        audit().ask(edit_opening=put("flip", bytes(32))).case(),
        audit().ask(edit_round=unanswered("UNAVAILABLE")).case(),
        audit(edit_receipt=put("answer", b"forged")).ask().case(),
        audit(edit_commitment=put("usage.reasoning_tokens", 30)).case(),
    ],
    ids=["flip made up", "not reached", "answer altered", "bill over-reported"],
)
def test_evidence_that_fails_before_openings_verified_earns_nothing(case: Case) -> None:
    assert tiers(case) == [ASSERTED]


def test_a_failed_arrival_time_leaves_what_was_earned_before() -> None:
    case = audit(edit_receipt=put("checkpoints.0.seen_at", stamp(START))).ask().case()
    assert tiers(case) == [ASSERTED, COMMITTED]


def test_tiers_that_are_not_built_are_never_earned() -> None:
    found = tiers(audit().ask().ask_whole().case())
    assert pb.TIER_REEXECUTED not in found
    assert pb.TIER_ATTESTED not in found


@pytest.mark.parametrize(
    ("tokens", "edit", "reason"),
    [
        (7, lambda _: None, SHORT),
        (0, lambda _: None, SHORT),
        (20, change("checkpoints", lambda found: found[:1]), SAW.format(1)),
        (20, change("checkpoints", lambda found: found[1:]), SAW.format(1)),
        (20, change("checkpoints", lambda found: found[::-1]), SAW.format(2)),
        (20, change("checkpoints", lambda found: [*found, found[1]]), SAW.format(3)),
        (20, without("checkpoints"), SAW.format(0)),
        (20, seen(0.2, 0.1), BACKWARDS),
        (20, seen(0.1, 60.0), BACKWARDS),
        (20, put("sent_at", stamp(START + timedelta(seconds=0.15))), BACKWARDS),
        (20, seen(0.2, 0.2), BUNCHED.format("0.000")),
        (20, seen(0.2, 0.2015), BUNCHED.format("0.002")),
        (20, without("answer_first_at"), "the receipt does not say when the answer began"),
    ],
)
def test_times_that_prove_nothing_are_named(tokens: int, edit: Edit[Any], reason: str) -> None:
    case = audit(tokens=tokens, edit_receipt=edit).case()
    assert untimed_reason(case) == reason


def test_checkpoints_just_as_far_apart_as_decoding_takes_are_timed() -> None:
    # Eight tokens at 5,000 a second take 1.6 ms.
    assert untimed_reason(audit(edit_receipt=seen(0.2, 0.2016)).case()) == ""
    assert untimed_reason(audit(edit_receipt=seen(0.2, 0.201599)).case()) != ""


def test_how_far_apart_depends_on_the_policy() -> None:
    message = rules_policy()
    message.max_tokens_per_second = 79.0
    policy = Policy.from_bytes(message.SerializeToString())
    case = replace(audit().case(), policy=policy)
    assert "together at the end" in untimed_reason(case)


def test_one_checkpoint_is_timed_by_request_and_answer() -> None:
    assert untimed_reason(audit(tokens=8).case()) == ""
    late = audit(tokens=8, edit_receipt=seen(60.0)).case()
    assert "came after the answer began" in untimed_reason(late)
