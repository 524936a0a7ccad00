"""The paper's verifier as a judge to compare with, and the counts of a comparison."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coin_protocol.errors import ConfigurationError
from coin_protocol.v1 import profile_pb2, receipt_pb2
from tests.support.judges import evidence, heads, mlp
from tests.support.laboratory import traces
from verifier_sdk.semantic import CosineJudge
from verifier_sdk.semantic.baseline import (
    COLUMNS,
    FALSE_ALARMS,
    SCORES,
    DeepSetsJudge,
    block_scores,
)
from verifier_sdk.semantic.calibration import Null
from verifier_sdk.semantic.deepsets import DeepSets
from verifier_sdk.semantic.judge import OpenedEvidence
from verifier_sdk.training.compare import Comparison
from verifier_sdk.training.results import SessionResult

PASS, FAIL = receipt_pb2.OUTCOME_PASS, receipt_pb2.OUTCOME_FAIL


@pytest.fixture(scope="module")
def shown() -> OpenedEvidence:
    """What two rounds open of a trace."""
    return evidence(traces()[0], whole=2)


def baseline(values: list[float] | None = None) -> DeepSetsJudge:
    """Return a judge that knows nothing, calibrated on these logits."""
    known = np.linspace(-50, 50, 200) if values is None else np.array(values)
    sets = DeepSets(mlp(len(SCORES), 3), mlp(6, 1, seed=4))
    return DeepSetsJudge(heads(), sets, Null.of(known, np.ones(len(known))))


def test_its_scores_are_those_of_the_blocks_opened_with_their_embedding(
    shown: OpenedEvidence,
) -> None:
    found = block_scores(shown, heads())
    assert found.shape == (len(shown.blocks), len(SCORES)) == (len(shown.blocks), len(COLUMNS))
    alone = block_scores(replace(shown, whole_blocks=()), heads())
    assert np.allclose(found[:, 0], alone[:, 0], atol=1e-5)
    assert block_scores(replace(shown, blocks=()), heads()).shape == (0, len(SCORES))


def test_it_fails_what_hardly_any_honest_session_scores(shown: OpenedEvidence) -> None:
    honest = baseline([1000.0] * 99).judge(shown)
    assert honest.outcome == PASS
    odd = baseline([-1000.0] * 99).judge(shown)
    assert odd.outcome == FAIL
    assert odd.scores[0].value == pytest.approx(1 / 100)
    assert odd.scores[0].value <= FALSE_ALARMS


def test_where_no_embedding_was_opened_it_accuses_nobody(shown: OpenedEvidence) -> None:
    assert baseline([-1000.0] * 99).p_value(replace(shown, blocks=())) == 1.0


def test_tensors_make_the_same_judge_again(shown: OpenedEvidence) -> None:
    again = DeepSetsJudge.read(baseline().tensors(), heads())
    assert again.p_value(shown) == baseline().p_value(shown)


@pytest.mark.parametrize("shape", [None, (3, 4), (2, 0), (2,)])
def test_a_distribution_that_is_none_is_of_another_version(shape: tuple[int, ...] | None) -> None:
    tensors = baseline().tensors()
    del tensors["deepsets.null"]
    if shape is not None:
        tensors["deepsets.null"] = np.ones(shape, np.float32)
    with pytest.raises(ConfigurationError, match="another version"):
        DeepSetsJudge.read(tensors, heads())


# A comparison


def result(**fields: Any) -> SessionResult:
    values: dict[str, Any] = {
        "attack": "none", "family": "", "rate": 0.0, "placement": "", "block_size": 256,
        "tier": "committed", "domain": "math", "model": "a", "blocks": 8, "original_blocks": 8,
        "outcome": "PASS", "p_value": 0.5, "probability": 0.1, "share": 0.0, "estimate": 0.0,
        "interval": (0.0, 0.1), "tokens_exposed": 9, "block_embeddings_exposed": 3,
        "whole_blocks": 0, "rounds": 1,
    }  # fmt: skip
    return SessionResult(**values | fields)


INFLATED = {"attack": "x", "family": "bag", "rate": 1.0, "outcome": "FAIL"}


def test_what_other_judges_do_not_pass_counts_as_noticed(shown: OpenedEvidence) -> None:
    never = profile_pb2.CosineRules(tokens_to_block=profile_pb2.Threshold(value=2.0))
    found = Comparison({"rules": CosineJudge(never), "deepsets": baseline([1000.0] * 99)})
    found.observe(result(), shown)
    found.observe(result(outcome="INCONCLUSIVE"), shown)
    found.observe(result(**INFLATED), shown)
    assert found.document() == {
        "learned": {
            "bag": {"noticed": 1, "sessions": 1}, "none": {"noticed": 0, "sessions": 2},
        },
        "rules": {"bag": {"noticed": 1, "sessions": 1}, "none": {"noticed": 2, "sessions": 2}},
        "deepsets": {"bag": {"noticed": 0, "sessions": 1}, "none": {"noticed": 0, "sessions": 2}},
    }  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"tier": "opened"},
        {"block_size": 512},
        {"original_blocks": 3},
        {**INFLATED, "rate": 0.5},
    ],
)
def test_other_sessions_are_not_compared(shown: OpenedEvidence, fields: dict[str, Any]) -> None:
    found = Comparison({"deepsets": baseline()})
    found.observe(result(**fields), shown)
    found.observe(result(), replace(shown, blocks=()))
    assert not found.document()
