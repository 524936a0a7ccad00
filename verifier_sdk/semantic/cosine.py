"""The plain cosine rule: thresholds with guard bands, the weakest judge there is.

It sees words that have nothing to do with their block or the answer, and little else; `coin
eval` compares it with the learned judge. Its scores are not calibrated, so it never accuses:
below a threshold it says INCONCLUSIVE.
"""

from __future__ import annotations

import numpy as np

from coin_protocol.v1 import profile_pb2, receipt_pb2
from verifier_sdk.semantic import exact
from verifier_sdk.semantic.judge import Judgement, OpenedBlock, OpenedEvidence, cosine


class CosineJudge:
    """Means over the opened blocks, held against the policy's thresholds."""

    def __init__(self, rules: profile_pb2.CosineRules) -> None:
        """Take the thresholds of a policy."""
        self._rules = rules

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Judge the blocks opened so far, one at least."""
        scores = [
            receipt_pb2.Score(name=name, block_index=block.index, value=value)
            for block in evidence.blocks
            for name, value in block_scores(block, evidence).items()
        ]
        low = []
        for name, threshold in (
            ("tokens_to_block", self._rules.tokens_to_block),
            ("block_to_answer", self._rules.block_to_answer),
        ):
            values = np.array([score.value for score in scores if score.name == name])
            if not len(values):
                continue
            mean = float(exact.mean(values))
            if mean < threshold.value + threshold.guard:
                low.append(f"mean {name} {mean:.3f} is not above {threshold.value:g}")
        if low:
            reason = f"the cosine rule is not satisfied: {'; '.join(low)}"
            return Judgement(receipt_pb2.OUTCOME_INCONCLUSIVE, reason, scores)
        reason = f"the cosine rule is satisfied on {len(evidence.blocks)} opened blocks"
        return Judgement(receipt_pb2.OUTCOME_PASS, reason, scores)


def block_scores(block: OpenedBlock, evidence: OpenedEvidence) -> dict[str, float]:
    """Return a block's cosine scores, by name."""
    scores = {}
    if len(block.tokens):
        scores["tokens_to_block"] = cosine(exact.mean(block.tokens, 0), block.embedding)
    answer = evidence.visible.answer
    if answer is not None:
        scores["block_to_answer"] = cosine(block.embedding, answer.embedding)
    return scores
