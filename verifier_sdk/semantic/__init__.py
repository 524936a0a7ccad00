"""Judges of graded evidence: what the opened embeddings say (protocol, section 8)."""

from verifier_sdk.semantic.cosine import CosineJudge
from verifier_sdk.semantic.judge import Judge, Judgement, OpenedBlock, OpenedEvidence
from verifier_sdk.semantic.textual import textual_scores

__all__ = ["CosineJudge", "Judge", "Judgement", "OpenedBlock", "OpenedEvidence", "textual_scores"]
