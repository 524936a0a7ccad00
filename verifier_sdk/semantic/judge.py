"""The interface that every judge implements, and the evidence it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from coin_protocol.checks import Case
from coin_protocol.embedding import Vectors, block_embedding, project, unit, window_dimension
from coin_protocol.quantise import dequantise
from coin_protocol.v1 import receipt_pb2


@dataclass(frozen=True)
class OpenedBlock:
    """One opened block.

    Attributes:
        index: Place of the block, from 0.
        embedding: Unit block embedding, float64 (d,).
        windows: Window embeddings, float64 (windows, d).
        tokens: Unit rows of the opened tokens in the same space, float64 (tokens, d).
    """

    index: int
    embedding: Vectors
    windows: Vectors
    tokens: Vectors


@dataclass(frozen=True)
class OpenedEvidence:
    """What the openings of an audit show, once every deterministic check has passed.

    Attributes:
        blocks: Opened blocks, ascending.
        answer: Unit embedding of the visible answer, float64 (d,); None without a model.
        total_blocks: Blocks of the commitment.
    """

    blocks: Sequence[OpenedBlock]
    answer: Vectors | None
    total_blocks: int

    @classmethod
    def of(cls, case: Case, answer: Vectors | None) -> OpenedEvidence:
        """Read the opened blocks out of a case whose checks have passed.

        Args:
            case: The evidence.
            answer: Embedding of the answer in the model's own space, float64 (1, d).
        """
        spec = case.profile.message.embedding
        dimension = window_dimension(spec)
        blocks = {}
        for answered in case.openings:
            for block in answered.opening.blocks:
                rows = dequantise([token.row for token in block.tokens], spec.dimension)
                blocks[block.block_index] = OpenedBlock(
                    index=block.block_index,
                    embedding=block_embedding(block.windows, dimension),
                    windows=dequantise(block.windows, dimension),
                    tokens=unit(project(spec, rows)),
                )
        return cls(
            blocks=[blocks[index] for index in sorted(blocks)],
            answer=None if answer is None else project(spec, answer)[0],
            total_blocks=case.commitment.block_count,
        )


@dataclass(frozen=True)
class Judgement:
    """What a judge makes of the evidence so far.

    Attributes:
        outcome: PASS, FAIL, or INCONCLUSIVE (open more, if the caps allow).
        reason: One sentence for people.
        scores: One for each thing measured.
        probability: Calibrated probability of inflation; None where the judge has none.
        interval: Interval for the inflated share; None where the judge has none.
    """

    outcome: receipt_pb2.Outcome.ValueType
    reason: str
    scores: Sequence[receipt_pb2.Score] = field(default=())
    probability: float | None = None
    interval: tuple[float, float] | None = None


class Judge(Protocol):
    """Decides from opened embeddings. Pure: the same evidence gives the same judgement."""

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Judge the blocks opened so far, one at least."""


def cosine(left: Vectors, right: Vectors) -> float:
    """Return the cosine between two vectors, 0 if one of them is zero."""
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / norms if norms else 0.0
