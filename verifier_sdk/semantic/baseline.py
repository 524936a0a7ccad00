"""The paper's verifier, kept to compare with: DeepSets over two scores a block.

How well the opened tokens match their block, and how well the block matches the answer
(arXiv 2505.13778), each as a cosine and by a matching head. Calibrated as the learned judge is,
with all families of filler in one score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from coin_protocol.errors import ConfigurationError
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.semantic.calibration import Null
from verifier_sdk.semantic.deepsets import DeepSets
from verifier_sdk.semantic.features import BLOCK_FEATURES, block_features, measured_blocks
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.judge import Judgement, OpenedEvidence
from verifier_sdk.semantic.mlp import Floats

FALSE_ALARMS: Final = 0.04
"""As the learned judge's."""

SCORES: Final = ("tokens_cosine", "tokens_head", "answer_whole", "answer_head")
COLUMNS: Final = [BLOCK_FEATURES.index(name) for name in SCORES]
"""Where they stand in a measured block."""


@dataclass(frozen=True)
class DeepSetsJudge:
    """Judges the set of scores of the blocks that were opened with their embedding.

    Attributes:
        heads: Matching heads.
        sets: The networks.
        null: Of their logit, among honest sessions.
    """

    heads: Heads
    sets: DeepSets
    null: Null

    def p_value(self, evidence: OpenedEvidence) -> float:
        """Return the share of honest sessions that look as inflated, 1 where none was opened."""
        scores = block_scores(evidence, self.heads)
        return self.null.p_value(float(self.sets.logits([scores])[0])) if len(scores) else 1.0

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Judge what was opened so far."""
        value = self.p_value(evidence)
        score = receipt_pb2.Score(name="p_value", value=value)
        if value <= FALSE_ALARMS:
            reason = f"{value:.3f} of honest sessions score as badly, by DeepSets"
            return Judgement(receipt_pb2.OUTCOME_FAIL, reason, [score])
        reason = f"{value:.3f} of honest sessions score no better, by DeepSets"
        return Judgement(receipt_pb2.OUTCOME_PASS, reason, [score])

    def tensors(self) -> dict[str, Floats]:
        """Return all tensors but the heads', for a file."""
        null = np.stack([self.null.knots, self.null.tails])
        return {**self.sets.tensors(), "deepsets.null": null}

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], heads: Heads) -> DeepSetsJudge:
        """Take the judge out of a file's tensors.

        Raises:
            ConfigurationError: A part is missing or of another version.
        """
        null = tensors.get("deepsets.null")
        if null is None or null.ndim != 2 or len(null) != 2 or not null.shape[1]:
            msg = "the model file has no tensor deepsets.null: it is of another version"
            raise ConfigurationError(msg)
        return cls(heads, DeepSets.read(tensors, len(SCORES)), Null(null[0], null[1]))


def block_scores(evidence: OpenedEvidence, heads: Heads) -> Floats:
    """Return the scores of the opened blocks, float32 (blocks, len(SCORES))."""
    if not evidence.blocks:
        return np.empty((0, len(SCORES)), np.float32)
    features = block_features(evidence, heads)
    rows = {index: row for row, index in enumerate(measured_blocks(evidence))}
    found: Floats = features[[rows[block.index] for block in evidence.blocks]][:, COLUMNS]
    return found
