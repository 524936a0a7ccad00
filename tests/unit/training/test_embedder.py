"""The embedding cache: the same vectors whatever was interrupted; and the fast model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from coin_protocol.embedding import Vectors, embed_texts
from coin_protocol.models import Models
from coin_protocol.profile import Profile
from coin_protocol.testing.small import DIMENSION, SmallEmbedder
from tests.support.laboratory import CODE, GERMAN, JAPANESE, SENTENCE, traces
from verifier_sdk.lab import sentences
from verifier_sdk.training import embedder as module
from verifier_sdk.training.embedder import EmbeddingCache, FastEmbedder

TEXTS = ["so", "the sky", "is blue", "", " ", JAPANESE, "\ud800", "a" * 5000]


class Counting(SmallEmbedder):
    """Counts what it embeds, and stops where it is told to."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.count = 0
        self.stop_after = stop_after

    def pieces(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the bytes of each text."""
        if self.count + len(texts) > self.stop_after:
            raise KeyboardInterrupt
        self.count += len(texts)
        return [tuple(text.encode(errors="replace")) for text in texts]


def expected(texts: Sequence[str]) -> Vectors:
    return embed_texts(Counting(), texts)


def near(found: object, texts: Sequence[str]) -> bool:
    return bool(np.allclose(np.asarray(found), expected(texts), atol=2e-3))


@pytest.mark.parametrize("on_disk", [False, True])
def test_vectors_are_those_of_the_embedder(tmp_path: Path, *, on_disk: bool) -> None:
    cache = EmbeddingCache(Counting(), tmp_path if on_disk else None)
    found = cache.embed(TEXTS)
    assert found.dtype == np.float32
    assert near(found, TEXTS)
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)
    assert cache.embed([]).shape == (0, DIMENSION)


def test_each_text_is_embedded_once() -> None:
    counting = Counting()
    cache = EmbeddingCache(counting)
    assert cache.missing([*TEXTS, *TEXTS]) == len(TEXTS)
    assert near(cache.embed([*TEXTS, *TEXTS[::-1]]), [*TEXTS, *TEXTS[::-1]])
    assert counting.count == len(TEXTS)
    assert cache.missing(TEXTS) == 0
    cache.embed(TEXTS[::-1])
    cache.embed(["new", *TEXTS])
    assert counting.count == len(TEXTS) + 1


def test_what_was_embedded_is_there_the_next_time(tmp_path: Path) -> None:
    first = EmbeddingCache(Counting(), tmp_path).embed(TEXTS)
    counting = Counting()
    again = EmbeddingCache(counting, tmp_path)
    assert np.array_equal(again.embed(TEXTS), first)
    assert counting.count == 0
    assert near(again.embed([*TEXTS, "more"]), [*TEXTS, "more"])
    assert near(EmbeddingCache(Counting(), tmp_path).embed(["more", *TEXTS]), ["more", *TEXTS])


def test_an_interrupted_run_loses_one_chunk_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4)
    texts = [f"text {number}" for number in range(20)]
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(Counting(stop_after=11), tmp_path).embed(texts)
    counting = Counting()
    cache = EmbeddingCache(counting, tmp_path)
    assert cache.missing(texts) == 12
    assert near(cache.embed(texts), texts)
    assert counting.count == 12


def cut(name: str, count: int) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-count])

    return edit


def lengthen(name: str, count: int) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes() + b"\x07" * count)

    return edit


@pytest.mark.parametrize(
    ("edit", "lost"),
    [
        (cut("keys.bin", 1), 1),
        (cut("keys.bin", 16), 1),
        (cut("keys.bin", 40), 3),
        (cut("rows.f16", 1), 1),
        (cut("rows.f16", 2 * DIMENSION), 1),
        (cut("rows.f16", 5 * DIMENSION), 3),
        (lengthen("rows.f16", 1), 0),
        (lengthen("rows.f16", 4 * DIMENSION), 0),
        (lengthen("keys.bin", 3), 0),
        (lengthen("keys.bin", 32), 0),
        (lambda folder: (folder / "keys.bin").unlink(), 6),
        (lambda folder: (folder / "rows.f16").unlink(), 6),
        (lambda folder: (folder / "keys.bin").write_bytes(b""), 6),
    ],
)
def test_whatever_an_interruption_leaves_the_rest_is_right(
    tmp_path: Path, edit: Callable[[Path], object], lost: int
) -> None:
    texts = [f"text {number}" for number in range(6)]
    EmbeddingCache(Counting(), tmp_path).embed(texts)
    edit(tmp_path)
    cache = EmbeddingCache(Counting(), tmp_path)
    assert cache.missing(texts) == lost
    assert near(cache.embed(["new", *texts]), ["new", *texts])
    counting = Counting()
    assert near(EmbeddingCache(counting, tmp_path).embed(["new", *texts]), ["new", *texts])
    assert counting.count == 0


def test_two_processes_may_share_a_cache(tmp_path: Path) -> None:
    one, two = (EmbeddingCache(Counting(), tmp_path) for _ in range(2))
    one.embed(["a", "b"])
    two.embed(["b", "c", "d"])
    one.embed(["d", "e"])
    texts = ["a", "b", "c", "d", "e"]
    assert near(one.embed(texts), texts)
    assert near(two.embed(texts), texts)
    counting = Counting()
    assert near(EmbeddingCache(counting, tmp_path).embed(texts), texts)
    assert counting.count == 0


def test_progress_counts_every_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    steps: list[int] = []
    cache = EmbeddingCache(Counting(), tmp_path)
    cache.embed(["a"])
    cache.prepare(["a", "b", "c", "d", "b"], steps.append)
    assert sum(steps) == 5
    assert steps[0] == 2


# The fast model


def test_only_a_loaded_model_can_be_made_fast() -> None:
    with pytest.raises(TypeError, match="found SmallEmbedder"):
        FastEmbedder(SmallEmbedder())


@pytest.mark.models
def test_fast_vectors_are_those_of_the_exact_model() -> None:
    exact = Models(Profile.shipped("default")).embedder
    fast = FastEmbedder(exact)
    texts = [
        *sentences(traces()[0].reasoning)[:24],
        *[part[:220] for part in (GERMAN, JAPANESE, CODE, SENTENCE)],
        "a", "", "?!", "x " * 400, "\U0001f642" * 40, traces()[3].reasoning[:1500],
    ]  # fmt: skip
    found, wanted = embed_texts(fast, texts), embed_texts(exact, texts)
    assert ((found * wanted).sum(axis=1) > 0.999).all()
    assert fast.precision in ("bfloat16", "float32")
    # The exact one is as exact as before.
    assert np.allclose(embed_texts(exact, texts[:3]), wanted[:3], atol=1e-9)


@pytest.mark.models
def test_fast_vectors_do_not_depend_on_what_they_are_batched_with() -> None:
    fast = FastEmbedder(Models(Profile.shipped("default")).embedder)
    texts = [sentence for one in traces()[:4] for sentence in sentences(one.reasoning)][:80]
    alone = np.concatenate([embed_texts(fast, [text]) for text in texts[:8]])
    together = embed_texts(fast, texts)[:8]
    assert ((alone * together).sum(axis=1) > 0.999).all()
    steps: list[int] = []
    fast.encode(fast.pieces(texts), steps.append)
    assert sum(steps) == len(texts)
