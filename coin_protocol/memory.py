"""What a verifier remembers across sessions, for graded evidence (protocol, section 9).

A provider that sells one reasoning twice shows the same blocks under two commitments. Honest
models repeat themselves too, so a match is weighed and never proof.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from coin_protocol.embedding import Vectors


@dataclass(frozen=True, slots=True)
class Match:
    """An earlier block of the same provider that is like the one asked about."""

    commitment_sha256: bytes
    block_index: int
    cosine: float


@dataclass(frozen=True, slots=True)
class OpenedBlocks:
    """The blocks of one commitment that were opened with their embedding.

    Attributes:
        provider: Who committed.
        profile_sha256: What the vectors are made under: those of two profiles never compare.
        commitment_sha256: Whose blocks they are.
        indices: Of the blocks, n distinct ones.
        vectors: Their embeddings, float64 (n, d), of norm 1.
    """

    provider: str
    profile_sha256: bytes
    commitment_sha256: bytes
    indices: Sequence[int]
    vectors: Vectors = field(repr=False)


class EvidenceMemory(Protocol):
    """Block embeddings seen before, by provider and profile."""

    def recall(self, opened: OpenedBlocks) -> Sequence[Match | None]:
        """Return for each block the nearest one of another commitment, where there is one."""

    def remember(self, opened: OpenedBlocks) -> None:
        """Keep blocks. Again changes nothing."""


class InMemoryEvidence:
    """An `EvidenceMemory` for one process: exact search, lost at exit. Threads may share it."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: dict[tuple[str, bytes], dict[tuple[bytes, int], Vectors]] = {}
        self._lock = threading.Lock()

    def recall(self, opened: OpenedBlocks) -> Sequence[Match | None]:
        """Return for each block the nearest one of another commitment, where there is one."""
        with self._lock:
            kept = self._seen.get((opened.provider, opened.profile_sha256), {})
            others = {
                key: known for key, known in kept.items() if key[0] != opened.commitment_sha256
            }
        if not others:
            return [None] * len(opened.indices)
        keys, cosines = list(others), opened.vectors @ np.stack(list(others.values())).T
        nearest = np.argmax(cosines, axis=1)
        found: list[Match | None] = []
        for best, row in zip(nearest, cosines, strict=True):
            commitment, index = keys[best]
            found.append(Match(commitment, index, float(row[best])))
        return found

    def remember(self, opened: OpenedBlocks) -> None:
        """Keep blocks."""
        with self._lock:
            kept = self._seen.setdefault((opened.provider, opened.profile_sha256), {})
            for index, vector in zip(opened.indices, opened.vectors, strict=True):
                kept[opened.commitment_sha256, index] = vector
