"""The learned judge in real audits, and simulated audits held against real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coin_protocol.checks import run_checks
from coin_protocol.embedding import embed_texts, project, unit
from coin_protocol.profile import Profile
from coin_protocol.quantise import dequantise
from coin_protocol.testing.small import DIMENSION, SmallTokenizer, small_profile
from coin_protocol.v1 import receipt_pb2
from tests.support.audits import audit, failed
from tests.support.judges import judge
from tests.support.parties import ANSWER, Parties, Reply, reasoning_ids, run_session
from tests.support.servers import serving
from verifier_sdk.lab.attack import Attacked, Ids
from verifier_sdk.lab.audit import LabSession, Space
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.judge import OpenedEvidence
from verifier_sdk.semantic.learned import LearnedJudge
from verifier_sdk.semantic.visible import visible_of

PROFILES: dict[str, Callable[[], Profile]] = {
    "plain": lambda: small_profile(run_tokens=4),
    "projected": lambda: small_profile(run_tokens=4, projection=12),
    "runs of one": lambda: small_profile(run_tokens=0),
}


def small_judge(dimension: int) -> LearnedJudge:
    """Return a judge that knows nothing, over the small tokenizer."""
    return replace(judge(dimension), tokenizer=SmallTokenizer())


@pytest.mark.parametrize("name", PROFILES)
async def test_an_audit_ends_in_what_the_learned_judge_decides(name: str) -> None:
    parties = Parties(profile=PROFILES[name]())
    found = small_judge(12 if name == "projected" else DIMENSION)
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(160))
        async with serving(provider) as target:
            verdict = await audit(parties, reply.receipt, target, judge=found)
    assert not failed(verdict)
    assert verdict.outcome in receipt_pb2.Outcome.values()
    assert 0 < verdict.inflation_probability < 1
    assert verdict.inflated_share.low <= verdict.inflated_share.high
    names = {score.name for score in verdict.scores}
    assert {"p_value", *(f"p_value_{family}" for family in FAMILIES)} <= names


async def test_a_reply_of_one_block_is_not_passed_on_so_little() -> None:
    parties = Parties(profile=PROFILES["plain"]())
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(8))
        async with serving(provider) as target:
            verdict = await audit(parties, reply.receipt, target, judge=small_judge(DIMENSION))
    assert not failed(verdict)
    assert verdict.outcome in (receipt_pb2.OUTCOME_INCONCLUSIVE, receipt_pb2.OUTCOME_FAIL)


# The laboratory


def space(parties: Parties) -> Space:
    spec, models = parties.profile.message.embedding, parties.models

    def rows(ids: Ids) -> Any:
        raw = [models.table.row(token) for token in ids.tolist()]
        return unit(project(spec, dequantise(raw, spec.dimension)))

    return Space(
        parties.profile.message,
        models.tokenizer,
        lambda texts: project(spec, embed_texts(models.embedder, texts)),
        rows,
    )


def real(parties: Parties, reply: Reply) -> tuple[OpenedEvidence, LabSession]:
    """Return what a real audit shows, and a simulated one that drew the same."""
    case = reply.case(parties)
    fingerprints = case.receipt.fingerprints
    for number, (blocks, token_blocks) in enumerate(((2, 6), (3, 0)), 1):
        challenge = parties.challenge(
            fingerprints, round=number, blocks=blocks, token_blocks=token_blocks, tokens_per_block=4
        )
        case, _ = reply.ask(case, challenge)
    case, _ = reply.ask(case, parties.whole_challenge(fingerprints, blocks=3), whole=True)
    assert run_checks(case).failed is None
    models, spec = parties.models, parties.profile.message.embedding
    visible = visible_of(case.receipt, spec, models.tokenizer, models.embedder)
    ids = np.array(reasoning_ids(96), np.uint32)
    simulated = LabSession(
        Attacked(ids, np.zeros(len(ids), np.bool_)),
        space(parties),
        parties.policy.message.rounds,
        b"",
        drawn=[entry.drawn for entry in case.openings],
        drawn_whole=tuple(block.index for block in OpenedEvidence.of(case, visible).whole_blocks),
    )
    return OpenedEvidence.of(case, visible), simulated


@pytest.mark.parametrize("name", PROFILES)
def test_a_simulated_audit_shows_what_a_real_one_does(name: str) -> None:
    parties = Parties(profile=PROFILES[name]())
    with parties.provider() as provider:
        shown, session = real(parties, run_session(provider, reasoning_ids(96), answer=ANSWER))
    simulated = session.evidence(shown.visible)
    assert shown.total_blocks == simulated.total_blocks == 12
    assert shown.block_size == simulated.block_size
    assert shown.rounds == simulated.rounds == 2
    assert len(shown.token_blocks) == 6
    for one, other in zip(shown.token_blocks, simulated.token_blocks, strict=True):
        assert one.index == other.index
        assert np.array_equal(one.positions, other.positions)
        assert np.array_equal(one.ids, other.ids)
    for block, made in zip(shown.blocks, simulated.blocks, strict=True):
        assert block.index == made.index
        assert np.array_equal(block.opened.positions, made.opened.positions)
        assert np.array_equal(block.opened.ids, made.opened.ids)
        # What differs is the step of int8.
        assert np.allclose(block.windows, made.windows, atol=0.01)
        # … and tokens are settled.
        assert np.allclose(block.tokens, made.tokens, atol=1e-3)
    for whole, copy in zip(shown.whole_blocks, simulated.whole_blocks, strict=True):
        assert whole.index == copy.index
        assert np.array_equal(whole.ids, copy.ids)
        assert np.allclose(whole.windows, copy.windows, atol=0.01)
    # So both are judged alike.
    found = small_judge(12 if name == "projected" else DIMENSION)
    real_ratios, simulated_ratios = found.ratios(shown), found.ratios(simulated)
    assert np.allclose(real_ratios.values, simulated_ratios.values, atol=0.5)
    assert real_ratios.kinds.tolist() == simulated_ratios.kinds.tolist()
    assert real_ratios.block_size == simulated_ratios.block_size == parties.profile.block_size
