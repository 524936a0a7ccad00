"""Judges of graded evidence: what was opened says about the rest (protocol, section 9)."""

from verifier_sdk.semantic.cosine import CosineJudge
from verifier_sdk.semantic.judge import (
    Judge,
    Judgement,
    OpenedBlock,
    OpenedEvidence,
    OpenedTokens,
    Visible,
    VisibleText,
    WholeBlock,
)
from verifier_sdk.semantic.textual import textual_scores

__all__ = [
    "CosineJudge",
    "Judge",
    "Judgement",
    "OpenedBlock",
    "OpenedEvidence",
    "OpenedTokens",
    "Visible",
    "VisibleText",
    "WholeBlock",
    "textual_scores",
]
