"""Every liar of the catalogue over a real server: none passes where it should be found out."""

from __future__ import annotations

import pytest

from coin_protocol.checks import CHECKS
from coin_protocol.evidence import Kind, commitment_equivocation, verify_evidence
from coin_protocol.keyset import SignedKeySet
from coin_protocol.statements import read_commitment
from coin_protocol.testing.adversaries import (
    ALL_ADVERSARIES,
    Adversary,
    Found,
)
from coin_protocol.testing.small import SmallTokenizer
from coin_protocol.v1 import receipt_pb2
from tests.integration.kit.playing import PLANS, plan_of, playing
from tests.support.audits import audit, failed, says
from tests.support.replays import HONEST, SHORT, ask
from verifier_sdk import client

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE
OUTCOMES = {check.code: check.outcome for check in CHECKS}
HONEST_TOKENS = len(SmallTokenizer().encode(SHORT.reasoning))


def found(kind: Found) -> list[Adversary]:
    """Return those that are found out in one way."""
    return [liar for liar in ALL_ADVERSARIES if liar.found == kind]


def drawn_upon() -> list[Adversary]:
    """Return those that an earlier check may catch."""
    return [liar for liar in ALL_ADVERSARIES if liar.or_by]


def each(liars: list[Adversary]) -> pytest.MarkDecorator:
    """Run a test for each liar."""
    return pytest.mark.parametrize("liar", liars, ids=lambda liar: liar.name)


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no pause of a busy machine excuse a late answer."""
    monkeypatch.setattr(client, "STALL_SECONDS", 10.0)


async def played(liar: Adversary, plan: str = "") -> receipt_pb2.Verdict:
    """Return the verdict on one reply of a liar, whose bundle is borne out offline."""
    async with playing(liar, plan or plan_of(liar)) as (parties, target):
        receipt = await ask(target, liar.name, SHORT.question)
        return await audit(parties, receipt, target)


@pytest.mark.parametrize("plan", PLANS)
async def test_the_honest_provider_passes_by_every_plan(plan: str) -> None:
    verdict = await played(HONEST, plan)
    assert not failed(verdict)
    assert verdict.outcome == PASS
    if plan == "paced":
        assert receipt_pb2.TIER_TIMED in verdict.tiers


@each(found(Found.CHECK))
async def test_a_lie_fails_its_check(liar: Adversary) -> None:
    verdict = await played(liar)
    (code,) = failed(verdict)
    assert code in liar.codes
    assert verdict.outcome == OUTCOMES[code] != PASS


@each(drawn_upon())
async def test_where_no_draw_falls_on_the_lie_its_own_check_fails(liar: Adversary) -> None:
    verdict = await played(liar, "tight")
    assert failed(verdict) == [liar.caught_by]


@each(found(Found.GRADED))
async def test_what_is_graded_fails_no_check_and_bills_more(liar: Adversary) -> None:
    async with playing(liar) as (parties, target):
        receipt = await ask(target, liar.name, SHORT.question)
        verdict = await audit(parties, receipt, target)
    assert read_commitment(receipt.commitment.payload).reasoning_tokens > HONEST_TOKENS
    assert not failed(verdict)
    # The judge of these rules is satisfied by anything: there is nobody else to find it out.
    assert verdict.outcome == PASS


async def test_split_tokens_show_in_the_verdict() -> None:
    (splitter,) = (liar for liar in ALL_ADVERSARIES if liar.name == "split-tokens")
    shares = {}
    for liar in (HONEST, splitter):
        verdict = await played(liar)
        shares[liar] = [
            score.value for score in verdict.scores if score.name == "noncanonical_tokens"
        ]
    assert shares[HONEST]
    assert not any(shares[HONEST])
    assert any(shares[splitter])


@each(found(Found.UNTIMED))
async def test_what_was_not_seen_to_grow_is_not_timed(liar: Adversary) -> None:
    verdict = await played(liar)
    assert not failed(verdict)
    assert receipt_pb2.TIER_TIMED not in verdict.tiers
    assert says(verdict, "not timed")


@each(found(Found.UNDECIDED))
async def test_what_is_taken_at_the_providers_word_is_no_pass(liar: Adversary) -> None:
    verdict = await played(liar)
    assert (verdict.outcome, verdict.fault) == (INCONCLUSIVE, receipt_pb2.FAULT_UNSPECIFIED)


@each(found(Found.EVIDENCE))
async def test_two_receipts_of_one_session_are_evidence(liar: Adversary) -> None:
    async with playing(liar) as (parties, target):
        receipts = [await ask(target, liar.name, SHORT.question) for _ in range(2)]
        verdicts = [await audit(parties, receipt, target) for receipt in receipts]
    assert [verdict.outcome for verdict in verdicts] == [PASS, PASS]
    evidence = commitment_equivocation(
        *(receipt.commitment for receipt in receipts),
        key_set=SignedKeySet(parties.key_set),
        trust=parties.trust,
    )
    assert verify_evidence(evidence, trust=parties.trust, log_key=None).kind == Kind.COMMITMENTS
