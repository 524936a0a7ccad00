"""Workshops over the models of the laboratory."""

from __future__ import annotations

from collections.abc import Sequence

from coin_protocol.profile import Profile
from coin_protocol.testing.small import SmallEmbedder
from tests.support.judges import rounds
from tests.support.laboratory import LabModels, profile, tokenizer
from verifier_sdk.lab import Library, Trace
from verifier_sdk.training.embedder import EmbeddingCache
from verifier_sdk.training.workshop import Workshop


def workshop(traces: Sequence[Trace], *, seed: int = 1, of: Profile | None = None) -> Workshop:
    """Return a workshop with a library of these traces."""
    cache = EmbeddingCache(SmallEmbedder())
    library = Library(traces, tokenizer(), cache.embed, seed)
    return Workshop(LabModels(of or profile()), cache, library, rounds(), seed)


def quiet(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""
