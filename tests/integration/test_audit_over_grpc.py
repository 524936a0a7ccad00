"""Audits over real sockets: honest replies pass, each lie is caught by its own check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from coin_protocol.checks.opened import shown_blocks
from coin_protocol.errors import (
    InvalidInputError,
)
from coin_protocol.keys import read_time
from coin_protocol.keyset import stamp
from coin_protocol.memory import InMemoryEvidence
from coin_protocol.statements import read_challenge, read_opening
from coin_protocol.testing.adversaries import (
    ADVERSARIES,
    TOKEN_BLOCK_ADVERSARIES,
    Adversary,
)
from coin_protocol.testing.small import small_profile
from coin_protocol.v1 import (
    receipt_pb2,
    statements_pb2,
)
from provider_sdk.provider import Provider
from tests.support.audits import audit, bear_out, failed, says, verdict_of
from tests.support.certificates import Certificates
from tests.support.parties import (
    ANSWER,
    VERIFIER,
    WAIT_SECONDS,
    Parties,
    reasoning_ids,
    run_session,
    small_policy,
    strict,
)
from tests.support.replays import HONEST, ask, brisk, replaying, slow
from tests.support.servers import serving
from verifier_sdk.client import ProviderClient
from verifier_sdk.semantic import Judgement, OpenedEvidence

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE = receipt_pb2.OUTCOME_INCONCLUSIVE


# Honest


@pytest.mark.parametrize("secured", [False, True], ids=["loopback", "mutual TLS"])
async def test_an_honest_reply_passes_with_the_tiers_it_earned(
    parties: Parties, provider: Provider, certificates: Certificates, *, secured: bool
) -> None:
    reply = run_session(provider)
    server_tls, client_tls = (certificates.server, certificates.client) if secured else (None, None)
    async with serving(provider, server_tls) as target:
        verdict = await audit(parties, reply.receipt, target, tls=client_tls, policy=small_policy())
    assert verdict.outcome == PASS
    assert not failed(verdict)
    assert list(verdict.tiers) == [
        receipt_pb2.TIER_ASSERTED,
        receipt_pb2.TIER_COMMITTED,
        receipt_pb2.TIER_TIMED,
        receipt_pb2.TIER_OPENED,
    ]
    record = provider.store.get(reply.commitment_sha256)
    assert verdict.exposure == record.ledger.exposure()
    plan = parties.policy.message.rounds
    assert verdict.exposure.block_embeddings == plan.blocks_first_round
    assert verdict.exposure.whole_blocks == plan.whole_blocks


class Undecided:
    """A judge that never decides."""

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Ask for more."""
        assert evidence.blocks
        return Judgement(INCONCLUSIVE, "never decided")


async def test_the_first_round_opens_tokens_of_every_block_and_later_ones_embeddings() -> None:
    parties = Parties(profile=small_profile(tokens_ppm=700_000, run_tokens=2))
    plan = parties.policy.message.rounds
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(160))
        async with (
            serving(provider) as target,
            ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
        ):
            bundle = await parties.auditor(judge=Undecided()).audit(reply.receipt, client)
        kept = provider.store.get(reply.commitment_sha256).ledger.exposure()
    bear_out(parties, bundle, parties.policy, judge=Undecided())
    verdict = verdict_of(bundle)
    assert not failed(verdict)
    assert verdict.exposure == kept
    first, *later = [read_challenge(entry.challenge.payload) for entry in bundle.rounds]
    # Twenty blocks are fewer than the plan asks for.
    assert (first.blocks, first.token_blocks) == (plan.blocks_first_round, 16)
    assert later
    for challenge in later:
        assert 0 < challenge.blocks <= plan.blocks_per_round
        assert challenge.token_blocks == 0
    opening = read_opening(bundle.rounds[0].opening.payload)
    opened = shown_blocks(opening)
    assert sorted(block.block_index for block in opened) == list(range(20))
    for block in opened:
        places = [token.position for token in block.tokens]
        assert len(places) == first.tokens_per_block // 2 * 2 > 1
        assert all(start % 2 == 0 for start in places[::2])
        assert places[1::2] == [start + 1 for start in places[::2]]


async def test_without_agreement_to_whole_blocks_the_tier_is_timed() -> None:
    parties = Parties(profile=small_profile(whole_blocks_ppm=0))
    with parties.provider() as provider:
        async with serving(provider) as target:
            verdict = await audit(parties, run_session(provider).receipt, target)
    assert verdict.outcome == PASS
    assert verdict.tier == receipt_pb2.TIER_TIMED
    assert verdict.exposure.whole_blocks == 0


async def test_a_bill_for_no_reasoning_passes_unopened(
    parties: Parties, provider: Provider
) -> None:
    async with serving(provider) as target:
        verdict = await audit(parties, run_session(provider, []).receipt, target)
    assert verdict.outcome == PASS
    assert verdict.exposure == receipt_pb2.Exposure()


async def test_retokenized_ids_pass_and_are_named(parties: Parties, provider: Provider) -> None:
    source = statements_pb2.ID_SOURCE_RETOKENIZED
    reply = run_session(provider, id_source=source)
    async with serving(provider) as target:
        verdict = await audit(parties, reply.receipt, target)
    assert (verdict.outcome, verdict.id_source) == (PASS, source)
    assert says(verdict, "retokenized")


async def test_a_judge_that_stays_undecided_gets_more_until_the_caps_are_reached() -> None:
    # Two blocks of twenty: those of the first round, and none for a second.
    parties = Parties(
        policy=small_policy(strict),
        profile=small_profile(tokens_ppm=1_000_000, blocks_ppm=100_000),
    )
    rounds: list[tuple[str, int]] = []
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(160))
        async with serving(provider) as target:
            verdict = await audit(
                parties, reply.receipt, target, on_round=lambda *seen: rounds.append(seen)
            )
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.fault == receipt_pb2.FAULT_UNSPECIFIED
    assert not failed(verdict)
    assert says(verdict, "caps")
    assert verdict.exposure.block_embeddings == 2
    # The first round's whole block is asked for by a challenge of its own.
    assert rounds == [(reply.commitment_sha256.hex(), 1)] * 2


async def test_the_round_limit_ends_an_undecided_audit() -> None:
    parties = Parties(policy=small_policy(strict))
    plan = parties.policy.message.rounds
    rounds: list[int] = []
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(400))
        async with serving(provider) as target:
            verdict = await audit(
                parties, reply.receipt, target, on_round=lambda _, number: rounds.append(number)
            )
    assert verdict.outcome == INCONCLUSIVE
    assert max(rounds) == plan.max_rounds
    most = plan.blocks_first_round + (plan.max_rounds - 1) * plan.blocks_per_round
    assert plan.blocks_first_round <= verdict.exposure.block_embeddings <= most


async def test_many_audits_share_one_auditor(parties: Parties, provider: Provider) -> None:
    replies = [run_session(provider, reasoning_ids(60 + number)) for number in range(6)]
    auditor = parties.auditor()
    async with (
        serving(provider) as target,
        ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
    ):
        bundles = await asyncio.gather(*(auditor.audit(reply.receipt, client) for reply in replies))
    for reply, bundle in zip(replies, bundles, strict=True):
        verdict = verdict_of(bundle)
        assert verdict.outcome == PASS
        assert verdict.commitment_sha256 == reply.commitment_sha256


async def test_blocks_sold_twice_are_noted_and_prove_nothing() -> None:
    parties = Parties(profile=small_profile(blocks_ppm=1_000_000, tokens_ppm=1_000_000))
    memory = InMemoryEvidence()
    with parties.provider() as provider:
        replies = [run_session(provider, reasoning_ids(8)) for _ in range(2)]
        async with serving(provider) as target:
            first, second = [
                await audit(parties, reply.receipt, target, memory=memory) for reply in replies
            ]
    assert first.outcome == second.outcome == PASS
    assert not says(first, "is like block")
    assert says(second, f"is like block 0 of commitment {replies[0].commitment_sha256.hex()}")


async def test_blocks_sold_twice_are_noted_where_the_caps_leave_an_audit_undecided() -> None:
    parties = Parties(
        policy=small_policy(strict),
        profile=small_profile(tokens_ppm=1_000_000, blocks_ppm=1),
    )
    memory = InMemoryEvidence()
    same = [5] * 80
    with parties.provider() as provider:
        replies = [run_session(provider, same) for _ in range(2)]
        async with serving(provider) as target:
            first, second = [
                await audit(parties, reply.receipt, target, memory=memory) for reply in replies
            ]
    assert first.outcome == second.outcome == INCONCLUSIVE
    assert says(second, "caps")
    assert says(second, "is like block")


async def test_the_share_of_noncanonical_ids_in_whole_blocks_is_in_the_verdict(
    parties: Parties, provider: Provider
) -> None:
    pairs = provider.tokenizer.encode("ab")
    split = list(b"ab")
    for ids, share in ((pairs * 32, 0.0), (split * 16, 1.0)):
        reply = run_session(provider, ids)
        async with serving(provider) as target:
            verdict = await audit(parties, reply.receipt, target)
        found = [score.value for score in verdict.scores if score.name == "noncanonical_tokens"]
        assert found == [share] * verdict.exposure.whole_blocks
        assert found


# Lies


@pytest.mark.parametrize(
    "liar", [HONEST, *ADVERSARIES, *TOKEN_BLOCK_ADVERSARIES], ids=lambda liar: liar.name
)
async def test_each_lie_is_caught_by_its_own_check(liar: Adversary) -> None:
    # A policy that lets no machine be too slow to lie about time.
    parties = Parties(policy=small_policy(slow if liar.caught_by == "ARRIVAL_TIME" else brisk))
    async with replaying(parties, liar) as target:
        receipt = await ask(target, liar.name)
        assert receipt.answer == ANSWER.encode()
        verdict = await audit(parties, receipt, target)
    assert failed(verdict) == ([liar.caught_by] if liar.caught_by else [])
    assert verdict.outcome == (FAIL if liar.caught_by else PASS)


def _answer(receipt: receipt_pb2.Receipt) -> None:
    receipt.answer += b" or so it seems"


def _request(receipt: receipt_pb2.Receipt) -> None:
    receipt.request = receipt.request.replace(b"blue", b"grey")


def _nonce(receipt: receipt_pb2.Receipt) -> None:
    receipt.client_nonce = receipt.client_nonce[::-1]


def _bill(receipt: receipt_pb2.Receipt) -> None:
    receipt.billed.completion_tokens += 1


def _summary(receipt: receipt_pb2.Receipt) -> None:
    receipt.summary = b"a summary that was never shown"


def _times(receipt: receipt_pb2.Receipt) -> None:
    sent = read_time(receipt.sent_at)
    for seen in receipt.checkpoints:
        seen.seen_at.CopyFrom(stamp(sent + timedelta(microseconds=1)))


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (_answer, "ANSWER_DIGEST"),
        (_request, "REQUEST_DIGEST"),
        (_nonce, "CLIENT_NONCE"),
        (_bill, "BILL"),
        (_summary, "ANSWER_DIGEST"),
        (_times, "ARRIVAL_TIME"),
    ],
    ids=["answer", "request", "nonce", "bill", "summary", "times"],
)
async def test_a_client_that_alters_its_receipt_blames_nobody_with_it(
    tamper: Callable[[receipt_pb2.Receipt], None], code: str
) -> None:
    parties = Parties(policy=small_policy(brisk))
    async with replaying(parties) as target:
        receipt = await ask(target)
        tamper(receipt)
        verdict = await audit(parties, receipt, target)
    assert (verdict.outcome, failed(verdict)) == (FAIL, [code])
    assert verdict.fault == receipt_pb2.FAULT_UNATTRIBUTED


@pytest.mark.parametrize(
    "name", ["key_set", "commitment", "sent_at"], ids=["key set", "commitment", "time"]
)
async def test_a_receipt_that_lacks_a_part_is_the_clients_mistake(
    parties: Parties, provider: Provider, name: Any
) -> None:
    receipt = run_session(provider).receipt
    receipt.ClearField(name)
    async with serving(provider) as target, ProviderClient(target, tls=None) as client:
        with pytest.raises(InvalidInputError, match=name):
            await parties.auditor().audit(receipt, client)


async def test_an_auditor_needs_a_key_that_readers_know(parties: Parties) -> None:
    with pytest.raises(InvalidInputError, match=VERIFIER):
        parties.auditor(signer=parties.signer)


# Retention


@pytest.mark.parametrize(("days", "outcome"), [(-1, INCONCLUSIVE), (1, FAIL)])
async def test_silence_accuses_nobody_once_the_promise_has_ended(
    parties: Parties, days: int, outcome: receipt_pb2.Outcome.ValueType
) -> None:
    with parties.provider(retention=timedelta(days=days)) as provider:
        reply = run_session(provider)
        reply.ready()
        # As a store answers whose retention has ended.
        del provider.store._records[reply.commitment_sha256]  # type: ignore[attr-defined]
        async with serving(provider) as target:
            verdict = await audit(parties, reply.receipt, target)
    assert verdict.outcome == outcome
    assert failed(verdict) == ["OPENING_PRESENT"]
