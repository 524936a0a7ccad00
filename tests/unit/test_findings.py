"""What a receipt shows is said finding by finding, and what was not looked at is said too."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from coin_protocol.checks import CHECKS, Case
from coin_protocol.findings import Finding
from coin_protocol.keyset import stamp
from coin_protocol.offline import CheckedReceipt, verify_receipt
from coin_protocol.testing.evidence_vectors import ATTACKS, Attack
from coin_protocol.testing.forgeries import audit, both, put, without
from coin_protocol.testing.world import START, Edit, World
from coin_protocol.v1 import receipt_pb2 as pb
from coin_protocol.v1 import statements_pb2

NAMES = [
    *("signature", "key_window", "profile", "request", "answer", "bill"),
    *("checkpoints", "order", "times", "decode_rate", "timed"),
]
FAILED_AS = {
    "SIGNATURE": "signature",
    "STATEMENT": "signature",
    "KEY_WINDOW": "key_window",
    "PROFILE": "profile",
    "CLIENT_NONCE": "request",
    "REQUEST_DIGEST": "request",
    "ANSWER_DIGEST": "answer",
    "BILL": "bill",
    "CHECKPOINT_PREFIX": "checkpoints",
    "ARRIVAL_TIME": "decode_rate",
}


def check(case: Case) -> CheckedReceipt:
    return verify_receipt(case.receipt, trust=case.trust, profile=case.profile, policy=case.policy)


def found_in(edit: Edit[pb.Receipt] | None = None, **forged: Any) -> dict[str, Finding]:
    if edit is not None:
        forged["edit_receipt"] = edit
    return {each.name: each for each in check(audit(**forged).case()).findings}


def at(seconds: float) -> Any:
    return stamp(START + timedelta(seconds=seconds))


def swapped(receipt: pb.Receipt) -> None:
    first, second = receipt.checkpoints[0].checkpoint, receipt.checkpoints[1].checkpoint
    payload = pb.SeenCheckpoint(checkpoint=first)
    first.CopyFrom(second)
    second.CopyFrom(payload.checkpoint)


def test_a_sound_receipt_shows_everything() -> None:
    checked = check(audit().case())
    assert [each.name for each in checked.findings] == NAMES
    assert [each.holds for each in checked.findings] == [True] * len(NAMES)
    assert all(each.detail for each in checked.findings)
    assert checked.outcome == pb.OUTCOME_PASS
    assert checked.commitment is not None
    assert checked.commitment.reasoning_tokens == 20


def test_each_finding_gives_its_numbers() -> None:
    key = World().signer("provider").public.keyid[:16]
    assert {name: found.detail for name, found in found_in().items()} == {
        "signature": (
            "a root that you believe signed the key set of 'provider', and its key "
            f"{key} the commitment; 4 statements in all are well formed"
        ),
        "key_window": (
            "the key is valid from 2025-12-31 12:00:00Z to 2026-01-02 12:00:00Z, the commitment "
            "dated 2026-01-01 12:00:00Z"
        ),
        "profile": "small, with blocks of 8 tokens",
        "request": "the 16 bytes that you sent, with your nonce",
        "answer": "the 10 bytes that you received",
        "bill": (
            "20 reasoning and 5 other tokens are committed to, 25 billed for 7 prompt tokens; "
            "you were told the same"
        ),
        "checkpoints": "2 seen for 2 full blocks, all of this session",
        "order": "blocks grow from 1 to 2",
        "times": (
            "none before the request, none backwards: checkpoint 1 after 0.100 s, "
            "its last text after 0.400 s"
        ),
        "decode_rate": "80 tokens a second at most since the request; 5000 are plausible",
        "timed": "an audit can earn it",
    }


def test_blocks_are_said_to_grow_up_to_the_last_checkpoint() -> None:
    assert found_in(tokens=30)["order"].detail == "blocks grow from 1 to 3"


def test_statements_are_counted_as_they_are_there() -> None:
    found = found_in(without("fingerprints"))["signature"]
    assert found.detail.endswith("; 3 statements in all are well formed")


def test_a_summary_that_is_bound_is_shown_with_the_answer() -> None:
    found = found_in(
        put("summary", b"in short"),
        edit_commitment=put("summary_sha256", sha256(b"in short").digest()),
    )["answer"]
    assert found.holds is True
    assert found.detail == "the 10 bytes that you received, and the summary"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_first_failed_check_is_a_finding_and_what_follows_is_not_looked_at(
    attack: Attack,
) -> None:
    case = attack.make()
    checked = check(case)
    report = checked.report
    by_name = {each.name: each for each in checked.findings}
    assert list(by_name) == NAMES
    if report.failed is None:
        assert False not in [each.holds for each in checked.findings if each.name in NAMES[:7]]
        return
    code = report.failed.code
    if code not in FAILED_AS:
        assert code == "FINGERPRINTS", "no other check looks at a receipt alone"
        return
    failed = by_name[FAILED_AS[code]]
    assert failed.holds is False
    assert failed.detail == report.detail
    codes = [check.code for check in CHECKS]
    for later, name in FAILED_AS.items():
        if codes.index(later) > codes.index(code) and name != FAILED_AS[code]:
            assert by_name[name].holds is None, name
            assert code in by_name[name].detail


def test_order_and_times_of_checkpoints_that_are_not_this_sessions_are_not_looked_at() -> None:
    found = found_in(edit_checkpoint=put("session_id", bytes(16)))
    assert found["checkpoints"].holds is False
    for name in ("order", "times"):
        assert found[name].holds is None
        assert found[name].detail == "not looked at, for CHECKPOINT_PREFIX failed"


def test_no_commitment_is_told_of_that_nobody_signed() -> None:
    assert check(audit(edit_receipt=put("commitment.payload", b"")).case()).commitment is None


def test_times_that_earn_nothing_fail_no_check() -> None:
    case = audit(edit_receipt=both(
        put("checkpoints.0.seen_at", at(0.3)), put("checkpoints.1.seen_at", at(0.3))
    )).case()  # fmt: skip
    checked = check(case)
    found = {each.name: each for each in checked.findings}
    assert checked.outcome == pb.OUTCOME_PASS
    assert found["timed"].holds is False
    assert "together at the end" in found["timed"].detail
    assert found["times"].holds is True


@pytest.mark.parametrize(
    ("edit", "name", "why"),
    [
        (
            swapped,
            "order",
            "checkpoint 2 counts 1 blocks, the one before it 2: they came out of order, or twice",
        ),
        (
            lambda receipt: receipt.checkpoints[1].CopyFrom(receipt.checkpoints[0]),
            "order",
            "checkpoint 2 counts 1 blocks, the one before it 1: they came out of order, or twice",
        ),
        (
            put("checkpoints.0.seen_at", at(0.3)),
            "times",
            "checkpoint 2 came 0.100 s before checkpoint 1",
        ),
        (
            put("answer_first_at", at(0.15)),
            "times",
            "the answer's first text came 0.050 s before checkpoint 2",
        ),
        (
            put("answer_last_at", at(0.35)),
            "times",
            "its last text came 0.050 s before the answer's first text",
        ),
    ],
    ids=["swapped", "twice", "backwards", "answer early", "last before first"],
)
def test_order_and_times_say_where_they_break(edit: Edit[pb.Receipt], name: str, why: str) -> None:
    found = found_in(edit)
    assert found[name].holds is False
    assert found[name].detail == why
    assert found["decode_rate"].holds is True


def test_what_came_with_the_request_did_not_come_before_it() -> None:
    found = found_in(put("checkpoints.0.seen_at", at(0)))["times"]
    assert found.holds is True
    assert "checkpoint 1 after 0.000 s" in found.detail


def test_what_came_before_the_request_says_so() -> None:
    found = found_in(both(without("checkpoints"), put("answer_first_at", at(-1))))
    assert found["times"].holds is False
    assert found["times"].detail == "the answer's first text came 1.000 s before the request"


def test_tokens_sooner_than_they_can_be_decoded_earn_no_times() -> None:
    found = found_in(put("checkpoints.1.seen_at", at(0.0001)))
    assert found["decode_rate"].holds is False
    assert "0.000 s after the request by the client's clock" in found["decode_rate"].detail
    assert found["timed"].holds is False
    assert found["timed"].detail == (
        "cannot be earned: checkpoints came sooner than they can have been decoded"
    )
    assert found["times"].holds is False


def test_a_receipt_without_checkpoints_leaves_them_open() -> None:
    found = found_in(without("checkpoints"))
    assert [found[name].holds for name in ("checkpoints", "order", "decode_rate")] == [None] * 3
    assert found["checkpoints"].detail == "no checkpoint was seen of 2 full blocks"
    assert found["order"].detail == found["decode_rate"].detail == "no checkpoint was seen"
    assert found["timed"].holds is False
    assert "0 checkpoints of 2 full blocks" in found["timed"].detail


def test_without_any_time_after_the_request_there_is_nothing_to_say_of_times() -> None:
    def bare(receipt: pb.Receipt) -> None:
        for name in ("checkpoints", "answer_first_at", "answer_last_at"):
            receipt.ClearField(name)

    found = found_in(bare)["times"]
    assert found.holds is None
    assert found.detail == "nothing was seen after the request"


def test_an_answer_that_is_not_bound_is_no_finding() -> None:
    found = found_in(
        put("answer", b"the ans"),
        edit_commitment=put("abort_reason", statements_pb2.ABORT_REASON_CLIENT_DISCONNECTED),
    )
    assert found["answer"].holds is None
    assert found["answer"].detail == "no answer is bound (CLIENT_DISCONNECTED)"
    assert found["bill"].holds is True


def test_another_split_of_the_same_sum_is_named_and_no_failure() -> None:
    found = found_in(put("billed.reasoning_tokens", 0))["bill"]
    assert found.holds is True
    assert found.detail.endswith("; you were told the same sum, 0 of it as reasoning")
    assert found_in()["bill"].detail.endswith("; you were told the same")


def test_a_client_that_was_told_nothing_is_told_so() -> None:
    assert found_in(without("billed"))["bill"].detail.endswith("; you were told nothing")
