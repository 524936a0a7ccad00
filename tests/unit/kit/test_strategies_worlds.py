"""Whole worlds that are drawn pass every check, and have in them all that may differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, find, given, settings
from hypothesis import strategies as st

from coin_protocol.checks import Case, run_checks
from coin_protocol.checks.opened import shown_blocks
from coin_protocol.draw import DrawnBlock
from coin_protocol.errors import InvalidInputError
from coin_protocol.keys import ECDSA_P256
from coin_protocol.offline import verify_bundle, verify_receipt
from coin_protocol.opening import Opener
from coin_protocol.receipt import check_receipt, read_bundle, read_receipt, to_json
from coin_protocol.testing import strategies as coin
from coin_protocol.testing.forgeries import ShiftedWorld
from coin_protocol.testing.world import Audit, Reply, World
from coin_protocol.tiers import earned_tiers
from coin_protocol.usage import BESIDE
from coin_protocol.v1 import opening_pb2, receipt_pb2, statements_pb2

SOME = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
PLAIN = st.just(World())


def passes(case: Case) -> None:
    report = run_checks(case)
    assert report.failed is None, (report.failed.code, report.detail)


@given(coin.replies())
@MANY
def test_a_reply_passes_every_check(reply: Reply) -> None:
    check_receipt(reply.receipt)
    passes(reply.world.audit(reply).case())


@given(coin.receipts(world=PLAIN))
@SOME
def test_a_receipt_passes_every_check_and_is_read_in_either_form(
    receipt: receipt_pb2.Receipt,
) -> None:
    assert read_receipt(receipt.SerializeToString()) == receipt
    assert read_receipt(to_json(receipt).encode()) == receipt
    world = World()
    checked = verify_receipt(receipt, trust=world.trust, profile=world.profile, policy=world.policy)
    assert checked.outcome == receipt_pb2.OUTCOME_PASS


@given(coin.audits())
@MANY
def test_an_audit_passes_every_check(audit: Audit) -> None:
    passes(audit.case())


@given(coin.cases())
@SOME
def test_a_case_passes_every_check(case: Case) -> None:
    passes(case)


@given(coin.decided(audit=coin.audits(rounds=st.just(2), whole_rounds=st.just(1))))
@MANY
def test_a_bundle_bears_out_its_verdict(found: coin.Decided) -> None:
    world, bundle = found.audit.world, found.bundle
    assert read_bundle(bundle.SerializeToString()) == bundle
    case = found.audit.case()
    verify_bundle(
        bundle,
        trust=world.trust,
        profile=world.profile,
        policy=world.policy,
        installed=case.installed,
    )


@given(coin.bundles())
@SOME
def test_a_bundle_has_a_json_form(bundle: receipt_pb2.Bundle) -> None:
    assert read_bundle(to_json(bundle).encode()) == bundle


@given(coin.openers(tokens=st.integers(1, 20)))
@SOME
def test_an_opener_opens_each_of_its_blocks(opener: Opener) -> None:
    for index, count in enumerate(opener.token_counts):
        shown = opener.block(DrawnBlock(index, tuple(range(count))))
        assert len(shown.tokens) == count


@given(coin.seen_checkpoints())
@SOME
def test_a_seen_checkpoint_has_an_envelope_and_a_time(
    seen: receipt_pb2.SeenCheckpoint,
) -> None:
    message = statements_pb2.Checkpoint.FromString(seen.checkpoint.payload)
    assert message.block_count >= 1
    assert seen.HasField("seen_at")


@given(coin.worlds())
@SOME
def test_a_world_signs_with_what_its_profile_allows(world: World) -> None:
    ring = Audit(world.reply(tokens=0)).case().keys
    listed = {listed.key.name: listed.key.algorithm for listed in ring.keys}
    assert listed["provider"] in world.profile.message.key_algorithms


# All that may differ does.


def reaches(strategy: st.SearchStrategy[Any], wanted: Callable[[Any], bool]) -> None:
    """Find something that is wanted, and make it no smaller."""
    # What is found is not shown: some of it would fill pages.
    assert find(
        strategy.map(wanted),
        lambda found: found,
        settings=settings(
            max_examples=1_000,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def signed(reply: Reply) -> statements_pb2.Commitment:
    return statements_pb2.Commitment.FromString(reply.receipt.commitment.payload)


REPLIES: dict[str, Callable[[Reply], bool]] = {
    **{
        f"abort reason {reason}": lambda reply, reason=reason: (  # type: ignore[misc]
            signed(reply).abort_reason == reason
        )
        for reason in statements_pb2.AbortReason.values()
    },
    "a crash with checkpoints": lambda reply: (
        signed(reply).abort_reason == statements_pb2.ABORT_REASON_CRASHED
        and len(reply.receipt.checkpoints) > 0
    ),
    "retokenized": lambda reply: signed(reply).id_source == statements_pb2.ID_SOURCE_RETOKENIZED,
    "counted beside": lambda reply: signed(reply).usage.reasoning_counting == BESIDE,
    "no reasoning": lambda reply: not signed(reply).block_count,
    "lost checkpoints": lambda reply: (
        0
        < len(reply.receipt.checkpoints)
        < signed(reply).reasoning_tokens // reply.world.profile.block_size
    ),
    "a summary": lambda reply: reply.receipt.HasField("summary"),
    "an end of answers": lambda reply: signed(reply).HasField("answers_until"),
    "told nothing": lambda reply: not reply.receipt.HasField("billed"),
    "told without reasoning": lambda reply: (
        reply.receipt.billed.completion_tokens > 0 and not reply.receipt.billed.reasoning_counting
    ),
    "times not noted": lambda reply: not reply.receipt.HasField("answer_first_at"),
    "an ECDSA key": lambda reply: reply.world.signer("provider").public.algorithm == ECDSA_P256,
    "a key revoked since": lambda reply: any(
        listed.key.name == "provider" and listed.revoked_at is not None
        for listed in Audit(reply).case().keys.keys
    ),
    "a pinned root": lambda reply: not reply.receipt.root_chain,
    "a root with certificates": lambda reply: len(reply.receipt.root_chain) >= 2,
    "old keys": lambda reply: len(Audit(reply).case().keys) >= 3,
}


@pytest.mark.parametrize("wanted", REPLIES.values(), ids=REPLIES)
def test_every_kind_of_reply_is_drawn(wanted: Callable[[Reply], bool]) -> None:
    reaches(coin.replies(tokens=st.integers(0, 20)), wanted)


def statuses(audit: Audit) -> list[str]:
    rounds = [*audit.rounds, *audit.whole_rounds]
    return ["refused" if entry.HasField("refusal") else "opened" for entry in rounds]


AUDITS: dict[str, Callable[[Audit], bool]] = {
    "a refusal after an answer": lambda audit: "refused" in statuses(audit)[1:],
    "a refusal of the first": lambda audit: statuses(audit)[:1] == ["refused"],
    "a whole round refused": lambda audit: any(
        entry.HasField("refusal") for entry in audit.whole_rounds
    ),
    "a whole block opened": lambda audit: any(
        entry.HasField("opening") for entry in audit.whole_rounds
    ),
    "answers by a later key": lambda audit: (
        len(audit.rounds) > 0
        and audit.rounds[0].opening.signatures[:1] != []
        and audit.rounds[0].opening.signatures[0].keyid
        != audit.reply.receipt.commitment.signatures[0].keyid
    ),
    "an opening after another": lambda audit: any(
        opening_pb2.Opening.FromString(entry.opening.payload).answered for entry in audit.rounds
    ),
    "token blocks alone": lambda audit: any(
        opening.token_blocks and not opening.blocks
        for opening in (
            opening_pb2.Opening.FromString(entry.opening.payload) for entry in audit.rounds
        )
    ),
}


@pytest.mark.parametrize("wanted", AUDITS.values(), ids=AUDITS)
def test_every_kind_of_audit_is_drawn(wanted: Callable[[Audit], bool]) -> None:
    reaches(coin.audits(reply=coin.replies(tokens=st.integers(1, 20))), wanted)


@pytest.mark.parametrize("outcome", receipt_pb2.Outcome.values()[1:])
def test_every_outcome_is_drawn(outcome: receipt_pb2.Outcome.ValueType) -> None:
    def says(bundle: receipt_pb2.Bundle) -> bool:
        return receipt_pb2.Verdict.FromString(bundle.verdict.payload).outcome == outcome

    reaches(coin.bundles(), says)


@pytest.mark.parametrize("answer", ["opening", "refusal", "no_answer"])
def test_every_answer_is_drawn_in_rounds_of_either_kind(answer: str) -> None:
    for rounds in (coin.rounds(), coin.whole_rounds()):
        reaches(rounds, lambda entry: bool(entry.HasField(answer)))


@pytest.mark.parametrize("reason", opening_pb2.RefusalReason.values()[1:])
def test_every_reason_of_a_refusal_is_drawn(
    reason: opening_pb2.RefusalReason.ValueType,
) -> None:
    reaches(coin.refusals(), lambda refusal: bool(refusal.reason == reason))


# Options.


@given(coin.receipts(world=PLAIN, tokens=st.just(17), fingerprints=st.just(value=True)))
@SOME
def test_options_narrow_a_receipt(receipt: receipt_pb2.Receipt) -> None:
    message = statements_pb2.Commitment.FromString(receipt.commitment.payload)
    assert (message.reasoning_tokens, message.block_count) == (17, 3)
    assert message.profile_sha256 == World().profile.digest
    assert receipt.HasField("fingerprints")


@given(
    coin.audits(
        reply=coin.replies(world=PLAIN, tokens=st.just(40)),
        rounds=st.just(1),
        blocks=st.just(2),
        token_blocks=st.just(1),
        tokens_per_block=st.just(3),
        whole_rounds=st.just(1),
        whole=st.just(4),
        refusals=False,
    )
)
@SOME
def test_options_narrow_an_audit(audit: Audit) -> None:
    (sampled,), (whole,) = audit.rounds, audit.whole_rounds
    opening = opening_pb2.Opening.FromString(sampled.opening.payload)
    assert [len(found.tokens) for found in shown_blocks(opening)] == [3, 3, 3]
    assert (len(opening.blocks), len(opening.token_blocks)) == (2, 1)
    assert len(opening_pb2.WholeBlockOpening.FromString(whole.opening.payload).blocks) == 4
    passes(audit.case())


@given(
    coin.audits(
        reply=coin.replies(world=PLAIN, tokens=st.just(40)),
        whole_rounds=st.just(1),
        whole=st.just(4),
    )
)
@SOME
def test_a_provider_refuses_what_its_caps_do_not_allow(audit: Audit) -> None:
    # Two of five blocks may be opened whole.
    assert audit.whole_rounds[0].HasField("refusal")
    passes(audit.case())


@given(coin.audits(reply=coin.replies(tokens=st.just(0)), rounds=st.just(2)))
@SOME
def test_of_a_reply_without_reasoning_nothing_is_asked(audit: Audit) -> None:
    assert not audit.rounds
    assert receipt_pb2.TIER_COMMITTED in earned_tiers(audit.case(), run_checks(audit.case()))


def test_a_challenge_for_nothing_is_refused_with_what_to_give_instead() -> None:
    nothing = st.just(0)
    strategy = coin.openings(blocks=nothing, token_blocks=nothing)
    with pytest.raises(InvalidInputError, match="give either"):
        find(strategy, lambda _: True, settings=settings(phases=[Phase.generate]))


@given(coin.rounds(world=st.just(ShiftedWorld()), answered=st.just(value=True)))
@SOME
def test_a_world_of_ones_own_is_used_as_it_is(entry: receipt_pb2.Round) -> None:
    assume(entry.HasField("opening"))
    edge = opening_pb2.Opening.FromString(entry.opening.payload).edge
    assert edge.last_token.row != World().models.table.row(edge.last_token.token_id)


@given(coin.rounds(world=PLAIN, blocks=st.just(1), answered=st.just(value=True)))
@SOME
def test_options_narrow_a_round(entry: receipt_pb2.Round) -> None:
    assert not entry.HasField("no_answer")
