"""Text embeddings as the protocol commits them: float64, every piece of text seen.

`TextEmbedder` is the small interface; `sentence_transformer.SentenceTransformerEmbedder`
implements it. This module cuts, averages, projects and quantises, and needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import shake_256
from typing import Protocol

import numpy as np
import numpy.typing as npt

from coin_protocol.encoding import PROJECTION_TAG
from coin_protocol.quantise import dequantise, quantise
from coin_protocol.tokenizer import Tokenizer, text_of
from coin_protocol.v1 import profile_pb2

Vectors = npt.NDArray[np.float64]


class TextEmbedder(Protocol):
    """A text embedding model in float64."""

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""

    @property
    def max_pieces(self) -> int:
        """Longest input in the model's own pieces, special pieces not counted."""

    def pieces(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return each text's pieces, uncut and without special pieces."""

    def encode(
        self,
        inputs: Sequence[tuple[int, ...]],
        progress: Callable[[int], None] | None = None,
    ) -> Vectors:
        """Return float64 (len(inputs), dimension), whatever they are batched with.

        Each input has at most `max_pieces` pieces. `progress` is told how many inputs each
        batch brought.
        """


def embed_texts(embedder: TextEmbedder, texts: Sequence[str]) -> Vectors:
    """Return unit vectors, float64 (len(texts), dimension), of whole texts."""
    return embed_pieces(embedder, embedder.pieces(texts))


def embed_pieces(
    embedder: TextEmbedder,
    inputs: Sequence[tuple[int, ...]],
    progress: Callable[[int], None] | None = None,
) -> Vectors:
    """Return unit vectors, float64 (len(inputs), dimension), of inputs of any length.

    An input longer than the model takes is cut, and its parts averaged by length.
    """
    parts: list[tuple[int, ...]] = []
    owners: list[int] = []
    for owner, pieces in enumerate(inputs):
        # The empty input still has one part, of weight one.
        for start in range(0, max(len(pieces), 1), embedder.max_pieces):
            parts.append(pieces[start : start + embedder.max_pieces])
            owners.append(owner)
    weights = np.array([max(len(part), 1) for part in parts], np.float64)
    vectors = np.zeros((len(inputs), embedder.dimension))
    np.add.at(vectors, owners, unit(embedder.encode(parts, progress)) * weights[:, None])
    return unit(vectors)


def unit(vectors: Vectors) -> Vectors:
    """Scale rows to norm 1; zero rows stay zero (and are refused by `quantise`)."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled


def window_texts(
    tokenizer: Tokenizer, spec: profile_pb2.EmbeddingSpec, token_ids: Sequence[int]
) -> list[str]:
    """Return the texts of a block's windows of `spec.window_tokens` ids, in order."""
    step = spec.window_tokens
    return [
        text_of(tokenizer, token_ids[start : start + step])
        for start in range(0, len(token_ids), step)
    ]


def quantised_windows(
    embedder: TextEmbedder, spec: profile_pb2.EmbeddingSpec, texts: Sequence[str]
) -> list[bytes]:
    """Return the quantised window embeddings of these texts, projected where spec says so."""
    rows = quantise(project(spec, embed_texts(embedder, texts)))
    return [row.tobytes() for row in rows]


def window_dimension(spec: profile_pb2.EmbeddingSpec) -> int:
    """Return the numbers in one committed window embedding."""
    return spec.projection.dimension if spec.HasField("projection") else spec.dimension


def project(spec: profile_pb2.EmbeddingSpec, vectors: Vectors) -> Vectors:
    """Return unit vectors after the profile's projection, or as they are without one.

    The matrix is Gaussian: SHAKE-256 of `T("coin.projection.v1") || seed` as 64-bit words,
    taken in pairs through Box-Muller. Results are compared with a tolerance, never by hash.
    """
    if not spec.HasField("projection"):
        return vectors
    matrix = _projection(spec.projection.seed, spec.dimension, spec.projection.dimension)
    return unit(vectors @ matrix)


@lru_cache(maxsize=16)
def _projection(seed: bytes, rows: int, columns: int) -> Vectors:
    pairs = (rows * columns + 1) // 2
    raw = shake_256(PROJECTION_TAG + seed).digest(16 * pairs)
    words = np.frombuffer(raw, ">u8").astype(np.float64).reshape(pairs, 2)
    uniform = (words + 0.5) / 2.0**64
    radius = np.sqrt(-2.0 * np.log(uniform[:, 0]))
    angle = 2.0 * np.pi * uniform[:, 1]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    matrix: Vectors = normal[: rows * columns].reshape(rows, columns)
    return matrix


def block_embedding(windows: Sequence[bytes], dimension: int) -> Vectors:
    """Return a block's embedding, float64 (dimension,): the normalised mean of its windows."""
    mean: Vectors = dequantise(windows, dimension).mean(axis=0, keepdims=True)
    result: Vectors = unit(mean)[0]
    return result
