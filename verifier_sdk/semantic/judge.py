"""The interface that every judge implements, and the evidence it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from coin_protocol.checks import Case
from coin_protocol.embedding import (
    TextEmbedder,
    Vectors,
    embed_texts,
    project,
    unit,
    window_dimension,
)
from coin_protocol.quantise import dequantise
from coin_protocol.tokenizer import Tokenizer, text_of
from coin_protocol.v1 import opening_pb2, profile_pb2, receipt_pb2
from verifier_sdk.semantic import exact

Ids = npt.NDArray[np.uint32]

MAX_VISIBLE_WINDOWS = 64
"""Windows of a visible text that are embedded: the first ones of a longer text."""


@dataclass(frozen=True)
class OpenedTokens:
    """Tokens opened in one block.

    Attributes:
        index: Place of the block, from 0.
        positions: Places in the block, ascending, int64 (tokens,).
        ids: Token ids, uint32 (tokens,).
    """

    index: int
    positions: npt.NDArray[np.int64]
    ids: Ids


@dataclass(frozen=True)
class OpenedBlock:
    """One block opened with its embedding.

    Attributes:
        index: Place of the block, from 0.
        windows: Window embeddings, float64 (windows, d).
        opened: The tokens drawn in it.
        tokens: Their unit rows in the windows' space, float64 (tokens, d).
    """

    index: int
    windows: Vectors
    opened: OpenedTokens
    tokens: Vectors

    @property
    def embedding(self) -> Vectors:
        """Unit block embedding, float64 (d,): the normalised mean of the windows."""
        return _mean(self.windows)


@dataclass(frozen=True)
class WholeBlock:
    """One block opened whole, and embedded again.

    Attributes:
        index: Place of the block, from 0.
        ids: All its token ids, uint32 (n,).
        windows: Window embeddings, float64 (windows, d).
    """

    index: int
    ids: Ids
    windows: Vectors


@dataclass(frozen=True)
class VisibleText:
    """Text that the client saw, as the verifier tokenizes and embeds it.

    Attributes:
        ids: Canonical token ids, uint32 (n,).
        windows: Unit embeddings of its windows, float64 (windows, d).
    """

    ids: Ids
    windows: Vectors

    @property
    def embedding(self) -> Vectors:
        """Unit embedding, float64 (d,): the normalised mean of the windows."""
        return _mean(self.windows)

    @classmethod
    def of(
        cls,
        text: str,
        spec: profile_pb2.EmbeddingSpec,
        tokenizer: Tokenizer,
        embedder: TextEmbedder,
    ) -> VisibleText | None:
        """Embed a text in windows of the profile's length; None if nothing is to be seen."""
        if not text.strip():
            return None
        ids = tokenizer.encode(text)
        texts = window_texts(ids, spec.window_tokens, tokenizer)
        windows = exact.settled(project(spec, embed_texts(embedder, texts)))
        return cls(np.array(ids, np.uint32), windows)


def window_texts(ids: Sequence[int], window_tokens: int, tokenizer: Tokenizer) -> list[str]:
    """Return the texts of a visible text's first windows."""
    ends = range(0, min(len(ids), MAX_VISIBLE_WINDOWS * window_tokens), window_tokens)
    return [text_of(tokenizer, ids[start : start + window_tokens]) for start in ends]


@dataclass(frozen=True)
class Visible:
    """What the client saw of one reply; None where there was nothing."""

    prompt: VisibleText | None
    answer: VisibleText | None
    summary: VisibleText | None = None


@dataclass(frozen=True)
class OpenedEvidence:
    """What the openings of an audit show, once every deterministic check has passed.

    Attributes:
        blocks: Blocks opened with embedding, ascending.
        visible: What the client saw.
        total_blocks: Blocks of the commitment.
        block_size: Tokens in a full block.
        token_blocks: Tokens opened in other blocks, ascending.
        whole_blocks: Blocks opened whole, ascending.
        rounds: Rounds of challenges so far.
        last: Whether no further round can be played.
    """

    blocks: Sequence[OpenedBlock]
    visible: Visible
    total_blocks: int
    block_size: int
    token_blocks: Sequence[OpenedTokens] = ()
    whole_blocks: Sequence[WholeBlock] = ()
    rounds: int = 1
    last: bool = True

    @classmethod
    def of(cls, case: Case, visible: Visible, *, last: bool = True) -> OpenedEvidence:
        """Read the opened parts out of a case whose checks have passed."""
        spec = case.profile.message.embedding
        dimension = window_dimension(spec)
        shown = {
            block.block_index: block
            for answered in case.openings
            for block in answered.opening.blocks
        }
        blocks = [shown[index] for index in sorted(shown)]
        # Of all blocks at once: numpy takes as long for one. Of none, it splits off an empty part.
        rows = dequantise([token.row for block in blocks for token in block.tokens], spec.dimension)
        tokens = np.split(
            exact.settled(unit(project(spec, rows))),
            np.cumsum([len(block.tokens) for block in blocks[:-1]]),
        )
        windows = np.split(
            dequantise([row for block in blocks for row in block.windows], dimension),
            np.cumsum([len(block.windows) for block in blocks[:-1]]),
        )
        alone = {
            entry.block_index: _tokens(entry.block_index, entry.tokens)
            for answered in case.openings
            for entry in answered.opening.token_blocks
        }
        whole = {
            entry.block_index: WholeBlock(
                index=entry.block_index,
                ids=np.array(entry.token_ids, np.uint32),
                windows=dequantise(entry.windows, dimension),
            )
            for answered in case.whole_openings
            for entry in answered.opening.blocks
        }
        return cls(
            blocks=[
                OpenedBlock(
                    index=block.block_index,
                    windows=own,
                    opened=_tokens(block.block_index, block.tokens),
                    tokens=known,
                )
                for block, own, known in zip(blocks, windows, tokens, strict=False)
            ],
            visible=visible,
            total_blocks=case.commitment.block_count,
            block_size=case.profile.block_size,
            token_blocks=[alone[index] for index in sorted(alone)],
            whole_blocks=[whole[index] for index in sorted(whole)],
            rounds=len(case.openings),
            last=last,
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
    """Decides from opened evidence. Pure: the same evidence gives the same judgement."""

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Judge what was opened so far, one block at least."""


def cosine(left: Vectors, right: Vectors) -> float:
    """Return the cosine between two vectors, 0 if one of them is zero."""
    one, other = exact.unit(np.stack([left, right]))
    return float(exact.product(one[None], other[:, None])[0, 0])


def _tokens(index: int, tokens: Sequence[opening_pb2.TokenOpening]) -> OpenedTokens:
    ordered = sorted(tokens, key=lambda token: token.position)
    return OpenedTokens(
        index=index,
        positions=np.array([token.position for token in ordered], np.int64),
        ids=np.array([token.token_id for token in ordered], np.uint32),
    )


def _mean(windows: Vectors) -> Vectors:
    found: Vectors = exact.unit(exact.mean(windows, axis=0)[None])[0]
    return found
