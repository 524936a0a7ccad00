"""The cosine rule: thresholds with guard bands over opened embeddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coin_protocol.embedding import Vectors, unit
from coin_protocol.profile import Profile
from coin_protocol.quantise import dequantise
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import World
from coin_protocol.v1 import profile_pb2, receipt_pb2
from tests.support.parties import ANSWER, Parties, reasoning_ids, run_session, small_policy
from verifier_sdk.semantic import (
    CosineJudge,
    Judgement,
    OpenedBlock,
    OpenedEvidence,
    OpenedTokens,
    Visible,
    VisibleText,
)
from verifier_sdk.semantic.cosine import block_scores
from verifier_sdk.semantic.exact import settled
from verifier_sdk.semantic.judge import cosine

PASS, INCONCLUSIVE = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_INCONCLUSIVE


def rules(tokens: float = 0.2, answer: float = 0.1, guard: float = 0.02) -> CosineJudge:
    return CosineJudge(
        profile_pb2.CosineRules(
            tokens_to_block=profile_pb2.Threshold(value=tokens, guard=guard),
            block_to_answer=profile_pb2.Threshold(value=answer, guard=guard),
        )
    )


def at(cosine_to_x: float) -> Vectors:
    """Return a unit vector of the plane with this cosine to the first axis."""
    return np.array([cosine_to_x, (1.0 - cosine_to_x**2) ** 0.5])


X = at(1.0)
NO_IDS = np.empty(0, np.uint32)


def block(index: int, tokens: float, answer: float) -> OpenedBlock:
    """Return a block with these cosines to its one token and to the answer X."""
    embedding = at(answer)
    across = np.array([-embedding[1], embedding[0]])
    token = tokens * embedding + (1.0 - tokens**2) ** 0.5 * across
    return OpenedBlock(index, embedding[None], opened(index, 1), token[None])


def opened(index: int, count: int) -> OpenedTokens:
    """Return so many opened tokens, whatever they are."""
    return OpenedTokens(index, np.arange(count), np.zeros(count, np.uint32))


def seen(answer: Vectors | None) -> Visible:
    """Return an answer with this embedding."""
    return Visible(None, None if answer is None else VisibleText(NO_IDS, answer[None]))


def evidence(*blocks: OpenedBlock, answer: Vectors | None = X) -> OpenedEvidence:
    return OpenedEvidence(blocks, seen(answer), total_blocks=10, block_size=8)


def test_cosine_is_the_cosine_of_the_angle() -> None:
    assert cosine(at(0.3), X) == pytest.approx(0.3)
    assert cosine(at(-0.7) * 5.0, X * 0.1) == pytest.approx(-0.7)
    assert cosine(X, -X) == pytest.approx(-1.0)


@pytest.mark.parametrize("vectors", [(np.zeros(2), X), (X, np.zeros(2)), (np.zeros(2),) * 2])
def test_the_cosine_with_a_zero_vector_is_zero(vectors: tuple[Vectors, Vectors]) -> None:
    assert cosine(*vectors) == 0.0


def test_scores_are_the_cosines_of_each_block() -> None:
    found = rules().judge(evidence(block(3, 0.5, 0.4), block(7, 0.9, -0.2)))
    scores = {(score.name, score.block_index): score.value for score in found.scores}
    assert scores == pytest.approx(
        {
            ("tokens_to_block", 3): 0.5,
            ("block_to_answer", 3): 0.4,
            ("tokens_to_block", 7): 0.9,
            ("block_to_answer", 7): -0.2,
        }
    )


def test_the_score_of_tokens_is_that_of_their_mean() -> None:
    tokens = np.array([[1.0, 0.0], [0.0, 1.0]])
    one = OpenedBlock(0, X[None], opened(0, 2), tokens)
    assert block_scores(one, evidence())["tokens_to_block"] == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("tokens", "answer", "outcome"),
    [
        (0.5, 0.5, PASS),
        (0.2201, 0.1201, PASS),
        (0.2199, 0.5, INCONCLUSIVE),
        (0.5, 0.1199, INCONCLUSIVE),
        (0.1, 0.05, INCONCLUSIVE),
        (-1.0, -1.0, INCONCLUSIVE),
    ],
)
def test_a_mean_must_clear_its_threshold_and_the_guard_band(
    tokens: float, answer: float, outcome: receipt_pb2.Outcome.ValueType
) -> None:
    assert rules().judge(evidence(block(0, tokens, answer))).outcome == outcome


def test_the_mean_over_blocks_decides_and_not_the_worst() -> None:
    assert rules().judge(evidence(block(0, 0.9, 0.9), block(1, 0.0, 0.0))).outcome == PASS
    many = [block(0, 0.9, 0.9), *(block(number, 0.0, 0.9) for number in range(1, 6))]
    assert rules().judge(evidence(*many)).outcome == INCONCLUSIVE


@pytest.mark.parametrize("tokens", [-1.0, -0.3, 0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("answer", [-1.0, 0.0, 0.5, 1.0])
def test_the_rule_never_accuses(tokens: float, answer: float) -> None:
    found = rules().judge(evidence(block(0, tokens, answer)))
    assert found.outcome in (PASS, INCONCLUSIVE)
    assert found.probability is None
    assert found.interval is None


def test_the_reason_names_what_is_low_and_the_threshold() -> None:
    found = rules().judge(evidence(block(0, 0.1, 0.05)))
    assert "mean tokens_to_block 0.100 is not above 0.2" in found.reason
    assert "mean block_to_answer 0.050 is not above 0.1" in found.reason
    only = rules().judge(evidence(block(0, 0.1, 0.5)))
    assert "block_to_answer" not in only.reason


def test_without_an_embedding_of_the_answer_only_tokens_are_scored() -> None:
    found = rules().judge(evidence(block(0, 0.9, -1.0), answer=None))
    assert found.outcome == PASS
    assert {score.name for score in found.scores} == {"tokens_to_block"}


def test_judging_is_pure() -> None:
    shown = evidence(block(0, 0.3, 0.2), block(1, 0.4, 0.1))
    judge = rules()
    first = judge.judge(shown)
    assert judge.judge(shown) == first
    assert rules().judge(shown) == first


def test_a_judgement_carries_no_scores_unless_given() -> None:
    assert list(Judgement(INCONCLUSIVE, "nothing was opened").scores) == []


# Evidence out of a case


def test_evidence_is_what_the_openings_show() -> None:
    world = World()
    case = world.audit(world.reply(tokens=40)).ask(blocks=2, tokens_per_block=3).case()
    found = OpenedEvidence.of(case, seen(None))
    (answered,) = case.openings
    assert [one.index for one in found.blocks] == sorted(
        one.block_index for one in answered.opening.blocks
    )
    assert found.total_blocks == 5
    for one in answered.opening.blocks:
        (same,) = (other for other in found.blocks if other.index == one.block_index)
        rows = dequantise([token.row for token in one.tokens], 16)
        assert np.array_equal(same.tokens, settled(unit(rows)))
        assert np.allclose(same.windows, dequantise(one.windows, 16))
        places = {token.position: token.token_id for token in one.tokens}
        assert same.opened.positions.tolist() == sorted(places)
        assert same.opened.ids.tolist() == [places[at] for at in sorted(places)]
        assert np.linalg.norm(same.embedding) == pytest.approx(1.0)


def test_a_block_opened_twice_counts_once() -> None:
    world = World(profile=small_profile(tokens_ppm=1_000_000, blocks_ppm=1_000_000))
    audit = world.audit(world.reply(tokens=16))
    case = audit.ask(blocks=2).ask(blocks=2).case()
    assert [one.index for one in OpenedEvidence.of(case, seen(None)).blocks] == [0, 1]


def test_under_a_projection_all_vectors_share_the_smaller_space() -> None:
    world = World(profile=small_profile(projection=6))
    case = world.audit(world.reply(tokens=20)).ask().case()
    models = world.models
    spec = world.profile.message.embedding
    answer = VisibleText.of(ANSWER, spec, models.tokenizer, models.embedder)
    found = OpenedEvidence.of(case, Visible(None, answer))
    (one,) = found.blocks
    assert one.embedding.shape == (6,)
    assert one.tokens.shape[1] == one.windows.shape[1] == 6
    assert found.visible.answer is not None
    assert found.visible.answer.windows.shape[1] == 6
    assert np.linalg.norm(found.visible.answer.embedding) == pytest.approx(1.0)


@pytest.mark.parametrize("profile", [small_profile(), small_profile(projection=12)])
def test_sensible_text_satisfies_the_default_rule_and_foreign_tokens_do_not(
    profile: Profile,
) -> None:
    parties = Parties(profile=profile)
    judge = CosineJudge(small_policy().message.cosine_rules)
    with parties.provider() as provider:
        reply = run_session(provider, reasoning_ids(64))
        case = reply.case(parties)
        challenge = parties.challenge(case.receipt.fingerprints, blocks=3, tokens_per_block=4)
        case, _ = reply.ask(case, challenge)
    models, spec = parties.models, profile.message.embedding
    answer = VisibleText.of(ANSWER, spec, models.tokenizer, models.embedder)
    honest = OpenedEvidence.of(case, Visible(None, answer))
    assert judge.judge(honest).outcome == PASS
    # The same blocks with tokens that lie across them.
    spoilt = replace(
        honest,
        blocks=[replace(one, tokens=_across(one.embedding)[None]) for one in honest.blocks],
    )
    assert judge.judge(spoilt).outcome == INCONCLUSIVE


def _across(vector: Vectors) -> Vectors:
    other = np.roll(vector, 1)
    across: Vectors = other - (other @ vector) * vector
    return across
