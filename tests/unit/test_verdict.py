"""A verdict says what the checks and the judge found, no more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from coin_protocol import envelope
from coin_protocol.checks import CHECKS, Case, run_checks
from coin_protocol.errors import SignatureError
from coin_protocol.keys import read_time
from coin_protocol.statements import read_verdict
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import VERIFIER, Audit, World
from coin_protocol.v1 import envelope_pb2, receipt_pb2, statements_pb2
from tests.support.parties import Parties
from verifier_sdk.semantic import Judgement
from verifier_sdk.verdict import CAVEAT, make_verdict, sign_verdict

PASS = receipt_pb2.OUTCOME_PASS
FAIL = receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
SCORE = receipt_pb2.Score(name="tokens_to_block", block_index=1, value=0.5)
SATISFIED = Judgement(PASS, "the judge is satisfied", [SCORE])


def audited(world: World | None = None, *, tokens: int = 40) -> Audit:
    world = World() if world is None else world
    return world.audit(world.reply(tokens=tokens)).ask(blocks=2)


def verdict_on(
    case: Case, judgement: Judgement | None = SATISFIED, *, notes: tuple[str, ...] = ()
) -> receipt_pb2.Verdict:
    return make_verdict(
        case, run_checks(case), verifier=VERIFIER, judgement=judgement, notes=list(notes)
    )


def says(verdict: receipt_pb2.Verdict, words: str) -> bool:
    return any(words in reason.lower() for reason in verdict.reasons)


def test_a_sound_case_and_a_satisfied_judge_pass() -> None:
    audit = audited()
    case = audit.case()
    verdict = verdict_on(case)
    assert verdict.outcome == PASS
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert verdict.commitment_sha256 == case.commitment_sha256
    assert verdict.profile_sha256 == audit.world.profile.digest
    assert verdict.policy_sha256 == audit.world.policy.digest
    assert verdict.verifier == VERIFIER
    assert list(verdict.scores) == [SCORE]
    assert says(verdict, "the judge is satisfied")
    assert verdict.id_source == statements_pb2.ID_SOURCE_SAMPLED


def test_every_check_of_the_table_stands_in_the_verdict_in_order() -> None:
    verdict = verdict_on(audited().case())
    assert [result.code for result in verdict.checks] == [check.code for check in CHECKS]


def test_the_exposure_is_that_of_the_openings() -> None:
    case = audited().ask_whole().case()
    exposure = verdict_on(case).exposure
    assert exposure == case.ledger.exposure()
    assert (exposure.block_embeddings, exposure.whole_blocks) == (2, 1)
    assert exposure.tokens in (4, 5)


@pytest.mark.parametrize("outcome", [PASS, FAIL, INCONCLUSIVE])
def test_where_no_check_fails_the_judge_decides(
    outcome: receipt_pb2.Outcome.ValueType,
) -> None:
    verdict = verdict_on(audited().case(), Judgement(outcome, "so it is"))
    assert verdict.outcome == outcome
    blamed = receipt_pb2.FAULT_PROVIDER if outcome == FAIL else receipt_pb2.FAULT_UNSPECIFIED
    assert verdict.fault == blamed
    assert says(verdict, "so it is")


@pytest.mark.parametrize("judgement", [None, SATISFIED])
def test_a_failed_check_decides_whatever_the_judge_says(judgement: Judgement | None) -> None:
    world = World()
    reply = world.reply(edit_commitment=lambda c: setattr(c.usage, "reasoning_tokens", 99))
    verdict = verdict_on(world.audit(reply).case(), judgement)
    assert verdict.outcome == FAIL
    assert verdict.fault == receipt_pb2.FAULT_PROVIDER
    (reason,) = (reason for reason in verdict.reasons if reason.startswith("BILL: "))
    assert "99" in reason
    assert says(verdict, "dispute the bill")
    assert CAVEAT not in verdict.reasons


def test_a_check_whose_outcome_is_inconclusive_does_not_fail_the_audit() -> None:
    world = World()
    reply = world.reply(edit_commitment=lambda c: setattr(c, "profile_sha256", bytes(32)))
    verdict = verdict_on(world.audit(reply).case(), None)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert any(reason.startswith("PROFILE: ") for reason in verdict.reasons)


def test_what_nothing_signed_tells_is_blamed_on_nobody() -> None:
    world = World()
    reply = world.reply(edit_receipt=lambda receipt: setattr(receipt, "answer", b"other"))
    verdict = verdict_on(world.audit(reply).case(), None)
    assert (verdict.outcome, verdict.fault) == (FAIL, receipt_pb2.FAULT_UNATTRIBUTED)


def test_only_a_pass_carries_the_caveat() -> None:
    case = audited().case()
    assert CAVEAT in verdict_on(case).reasons
    for outcome in (FAIL, INCONCLUSIVE):
        assert CAVEAT not in verdict_on(case, Judgement(outcome, "no")).reasons


def test_without_openings_the_count_is_only_asserted_and_undecided() -> None:
    world = World()
    verdict = verdict_on(world.audit(world.reply()).case(), None, notes=("Nobody was there.",))
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.tier == receipt_pb2.TIER_ASSERTED
    assert says(verdict, "nobody was there")
    assert not verdict.scores


def test_a_bill_for_no_reasoning_needs_no_opening() -> None:
    world = World()
    verdict = verdict_on(world.audit(world.reply(tokens=0)).case(), None)
    assert verdict.outcome == PASS
    assert verdict.tier == receipt_pb2.TIER_COMMITTED


def test_tiers_are_those_that_the_evidence_earns() -> None:
    audit = audited()
    committed, timed, opened = (
        receipt_pb2.TIER_COMMITTED,
        receipt_pb2.TIER_TIMED,
        receipt_pb2.TIER_OPENED,
    )
    plain = verdict_on(audit.case())
    assert list(plain.tiers) == [receipt_pb2.TIER_ASSERTED, committed, timed]
    assert plain.tier == timed
    whole = verdict_on(audit.ask_whole().case())
    assert whole.tier == opened
    assert list(whole.tiers) == [receipt_pb2.TIER_ASSERTED, committed, timed, opened]


def test_bunched_checkpoints_earn_no_time_and_the_verdict_says_why() -> None:
    world = World()

    def bunch(receipt: receipt_pb2.Receipt) -> None:
        for seen in receipt.checkpoints:
            seen.seen_at.CopyFrom(receipt.answer_first_at)

    audit = world.audit(world.reply(tokens=40, edit_receipt=bunch)).ask()
    verdict = verdict_on(audit.case())
    assert verdict.outcome == PASS
    assert verdict.tier == receipt_pb2.TIER_COMMITTED
    assert any(reason.startswith("Not timed: ") for reason in verdict.reasons)


def test_a_reply_shorter_than_a_block_is_not_timed() -> None:
    verdict = verdict_on(audited(tokens=7).case())
    assert verdict.tier == receipt_pb2.TIER_COMMITTED
    assert says(verdict, "shorter than one block")


def test_a_timed_reply_says_nothing_of_missing_times() -> None:
    assert not says(verdict_on(audited().case()), "not timed")


def test_retokenized_ids_are_named_in_the_verdict() -> None:
    world = World()
    source = statements_pb2.ID_SOURCE_RETOKENIZED
    reply = world.reply(edit_commitment=lambda c: setattr(c, "id_source", source))
    verdict = verdict_on(world.audit(reply).ask().case())
    assert verdict.id_source == source
    assert says(verdict, "retokenized")
    assert not says(verdict_on(audited().case()), "retokenized")


@pytest.mark.parametrize("reason", statements_pb2.AbortReason.values()[1:])
def test_a_reply_that_is_a_part_is_named_in_the_verdict(
    reason: statements_pb2.AbortReason.ValueType,
) -> None:
    world = World()
    reply = world.reply(edit_commitment=lambda c: setattr(c, "abort_reason", reason))
    verdict = verdict_on(world.audit(reply).ask().case())
    assert verdict.abort_reason == reason
    assert verdict.outcome == PASS
    assert says(verdict, "a part")
    assert not says(verdict_on(audited().case()), "a part")


@pytest.mark.parametrize("payload", [b"", b"\xff\xff", b"\x0a\x01a"])
def test_statements_that_do_not_parse_prove_and_expose_nothing(payload: bytes) -> None:
    world = World()
    case = world.audit(world.reply()).case()
    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)
    signer = world.signer("provider")
    receipt.commitment.CopyFrom(envelope.sign(payload, envelope.COMMITMENT, signer))
    verdict = verdict_on(replace(case, receipt=receipt, manifest=None), None)
    assert verdict.outcome == FAIL
    assert list(verdict.tiers) == [receipt_pb2.TIER_ASSERTED]
    assert verdict.exposure == receipt_pb2.Exposure()
    assert any(reason.startswith("STATEMENT: ") for reason in verdict.reasons)


def test_a_receipt_that_nobody_signed_still_gets_a_verdict() -> None:
    world = World()
    case = world.audit(world.reply()).case()
    receipt = receipt_pb2.Receipt()
    receipt.CopyFrom(case.receipt)
    receipt.key_set.CopyFrom(envelope_pb2.Envelope())
    verdict = verdict_on(replace(case, receipt=receipt), None)
    assert (verdict.outcome, verdict.fault) == (FAIL, receipt_pb2.FAULT_UNATTRIBUTED)
    assert verdict.tier == receipt_pb2.TIER_ASSERTED


def test_a_signed_verdict_reads_back_under_the_verifiers_key() -> None:
    parties = Parties()
    verdict = verdict_on(audited().case())
    signed = sign_verdict(verdict, parties.verifier)
    envelope.verify(signed, envelope.VERDICT, parties.verifiers)
    assert read_verdict(signed.payload) == verdict
    with pytest.raises(SignatureError):
        envelope.verify_with_key(signed, envelope.VERDICT, parties.signer.public)


def test_a_verdict_is_dated_when_it_was_made() -> None:
    before = datetime.now(UTC)
    decided = read_time(verdict_on(audited().case()).decided_at)
    assert before <= decided <= datetime.now(UTC)


def test_a_projected_profile_gets_the_same_verdict() -> None:
    world = World(profile=small_profile(projection=6))
    assert verdict_on(audited(world).ask_whole().case()).outcome == PASS
