"""What a verifier remembers across sessions, for graded evidence (protocol, section 9).

A provider that sells one reasoning twice shows the same blocks under two commitments. Honest
models repeat themselves too, so a match is weighed and never proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coin_protocol.embedding import Vectors


@dataclass(frozen=True, slots=True)
class Match:
    """An earlier block of the same provider that is like the one asked about."""

    commitment_sha256: bytes
    block_index: int
    cosine: float


class EvidenceMemory(Protocol):
    """Block embeddings seen before, by provider."""

    def remember(
        self, provider: str, commitment_sha256: bytes, block_index: int, embedding: Vectors
    ) -> None:
        """Keep a block embedding, float64 (d,), of unit norm. Again changes nothing."""

    def nearest(self, provider: str, commitment_sha256: bytes, embedding: Vectors) -> Match | None:
        """Return the nearest block of another commitment of this provider, if there is one."""


class InMemoryEvidence:
    """An `EvidenceMemory` for one process: exact search, lost at exit."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: dict[str, dict[tuple[bytes, int], Vectors]] = {}

    def remember(
        self, provider: str, commitment_sha256: bytes, block_index: int, embedding: Vectors
    ) -> None:
        """Keep a block embedding."""
        self._seen.setdefault(provider, {})[commitment_sha256, block_index] = embedding

    def nearest(self, provider: str, commitment_sha256: bytes, embedding: Vectors) -> Match | None:
        """Return the nearest block of another commitment of this provider."""
        others = [
            (key, known)
            for key, known in self._seen.get(provider, {}).items()
            if key[0] != commitment_sha256
        ]
        if not others:
            return None
        cosines = np.stack([known for _, known in others]) @ embedding
        best = int(np.argmax(cosines))
        (commitment, block), _ = others[best]
        return Match(commitment, block, float(cosines[best]))
