"""Windows, long texts, projection and the mean of a block."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import shake_256

import numpy as np
import pytest

from coin_protocol.embedding import (
    Vectors,
    block_embedding,
    embed_pieces,
    embed_texts,
    project,
    quantised_windows,
    unit,
    window_dimension,
    window_texts,
)
from coin_protocol.errors import QuantisationError
from coin_protocol.quantise import dequantise, quantise, row_bytes
from coin_protocol.testing.small import (
    DIMENSION,
    SmallEmbedder,
    SmallTokenizer,
    small_profile,
)
from coin_protocol.v1 import profile_pb2

EMBEDDER = SmallEmbedder()
SPEC = small_profile().message.embedding
TOLERANCE = 1e-12


def projected(dimension: int) -> profile_pb2.EmbeddingSpec:
    return small_profile(projection=dimension).message.embedding


def close(found: Vectors, wanted: Vectors) -> bool:
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() < TOLERANCE)


class Recording(SmallEmbedder):
    """Remembers what it was asked to encode."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def encode(
        self,
        inputs: Sequence[tuple[int, ...]],
        progress: Callable[[int], None] | None = None,
    ) -> Vectors:
        self.asked += inputs
        return super().encode(inputs, progress)


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(0, []), (1, ["a"]), (4, ["abcd"]), (5, ["abcd", "e"]), (8, ["abcd", "efgh"])],
)
def test_windows_are_the_texts_of_runs_of_ids(count: int, wanted: list[str]) -> None:
    assert window_texts(SmallTokenizer(), SPEC, list(b"abcdefgh"[:count])) == wanted


def test_a_character_cut_by_a_window_is_replaced_on_both_sides() -> None:
    # The second byte of the e with acute accent begins the second window.
    assert window_texts(SmallTokenizer(), SPEC, list("abcé".encode())) == ["abc\ufffd", "\ufffd"]


def test_every_piece_of_a_text_is_embedded() -> None:
    embedder = Recording()
    embed_texts(embedder, ["abcdefgh", "", "abcdef", "xyz"])
    assert embedder.asked == [
        tuple(b"abcdef"),
        tuple(b"gh"),
        (),
        tuple(b"abcdef"),
        tuple(b"xyz"),
    ]


def test_a_model_of_single_pieces_sees_each_once() -> None:
    class Narrow(Recording):
        @property
        def max_pieces(self) -> int:
            return 1

    embedder = Narrow()
    embed_texts(embedder, ["a", "", "bc"])
    assert embedder.asked == [(ord("a"),), (), (ord("b"),), (ord("c"),)]


def test_the_parts_of_a_long_text_are_averaged_by_length() -> None:
    for rest in (b"g", b"gh"):
        first, second = unit(EMBEDDER.encode([tuple(b"abcdef"), tuple(rest)]))
        wanted = unit((6 * first + len(rest) * second)[None])
        assert close(embed_texts(EMBEDDER, ["abcdef" + rest.decode()]), wanted)


def test_a_text_that_fits_is_embedded_as_the_model_does() -> None:
    assert close(embed_texts(EMBEDDER, ["abc"]), unit(EMBEDDER.encode([tuple(b"abc")])))


def test_the_empty_text_has_an_embedding_too() -> None:
    assert close(embed_texts(EMBEDDER, [""]), unit(EMBEDDER.encode([()])))


def test_a_text_is_embedded_alike_whatever_stands_beside_it() -> None:
    texts = ["abcdefgh", "", "x", "long " * 20]
    together = embed_texts(EMBEDDER, texts)
    for number, text in enumerate(texts):
        assert (embed_texts(EMBEDDER, [text])[0] == together[number]).all()


def test_embeddings_have_norm_one() -> None:
    norms = np.linalg.norm(embed_texts(EMBEDDER, ["", "a", "abcdefghijkl"]), axis=1)
    assert np.abs(norms - 1).max() < TOLERANCE


def test_progress_counts_the_parts_that_were_embedded() -> None:
    told: list[int] = []
    embed_pieces(EMBEDDER, [tuple(b"abcdefgh"), ()], told.append)
    assert sum(told) == 3


def test_rows_are_scaled_to_norm_one_and_zero_rows_stay() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert unit(vectors).tolist() == [[0.6, 0.8], [0.0, 0.0]]
    assert vectors.tolist() == [[3.0, 4.0], [0.0, 0.0]]


def test_a_row_with_what_is_no_number_becomes_zero_and_is_refused() -> None:
    scaled = unit(np.array([[3.0, 4.0], [math.nan, 1.0]]))
    assert scaled.tolist() == [[0.6, 0.8], [0.0, 0.0]]
    with pytest.raises(QuantisationError, match="vector 1 is zero"):
        quantise(scaled)


def test_without_projection_vectors_stay_as_they_are() -> None:
    vectors = embed_texts(EMBEDDER, ["abc", "def"])
    assert (project(SPEC, vectors) == vectors).all()
    assert window_dimension(SPEC) == DIMENSION


@pytest.mark.parametrize("dimension", [1, 5, 16])
def test_projection_gives_unit_vectors_of_its_dimension(dimension: int) -> None:
    spec = projected(dimension)
    found = project(spec, embed_texts(EMBEDDER, ["abc", "def", "ghi"]))
    assert found.shape == (3, dimension)
    assert window_dimension(spec) == dimension
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < TOLERANCE


def test_projection_is_the_same_each_time_and_for_each_vector() -> None:
    spec = projected(5)
    vectors = embed_texts(EMBEDDER, ["abc", "def"])
    found = project(spec, vectors)
    assert (project(spec, vectors) == found).all()
    assert close(project(spec, vectors[1:]), found[1:])


def test_projection_depends_on_its_seed() -> None:
    spec, other = projected(5), projected(5)
    other.projection.seed = bytes(32)
    vectors = embed_texts(EMBEDDER, ["abc"])
    assert not close(project(spec, vectors), project(other, vectors))


def test_the_projection_matrix_is_gaussian() -> None:
    spec = profile_pb2.EmbeddingSpec(dimension=200)
    spec.projection.dimension = 150
    spec.projection.seed = bytes(range(32))
    # A unit vector's image is a row of the matrix, scaled; all entries have one variance.
    rows = project(spec, np.eye(200)) * np.sqrt(150)
    assert abs(rows.mean()) < 0.03
    assert abs(rows.std() - 1) < 0.03
    assert abs((np.abs(rows) < 1).mean() - 0.6827) < 0.02
    # No two rows are near each other: rows are independent.
    assert np.abs(np.corrcoef(rows) - np.eye(200)).max() < 0.5


def test_the_projection_matrix_is_box_muller_of_a_seeded_stream() -> None:
    spec = profile_pb2.EmbeddingSpec(dimension=3)
    spec.projection.dimension = 5
    spec.projection.seed = bytes(range(32))
    raw = shake_256(b"\x12coin.projection.v1" + bytes(range(32))).digest(16 * 8)
    uniform = [(int.from_bytes(raw[at : at + 8], "big") + 0.5) / 2**64 for at in range(0, 128, 8)]
    normal: list[float] = []
    for first, second in zip(uniform[::2], uniform[1::2], strict=True):
        radius, angle = math.sqrt(-2 * math.log(first)), 2 * math.pi * second
        normal += [radius * math.cos(angle), radius * math.sin(angle)]
    assert close(project(spec, np.eye(3)), unit(np.array(normal[:15]).reshape(3, 5)))


def test_the_projection_of_a_seed_is_known() -> None:
    spec = profile_pb2.EmbeddingSpec(dimension=2)
    spec.projection.dimension = 2
    spec.projection.seed = bytes(32)
    known = np.array([[-0.941607040842, 0.336713796326], [0.111430562626, 0.993772222249]])
    assert np.abs(project(spec, np.eye(2)) - known).max() < 1e-10


def test_projection_keeps_what_is_alike_alike() -> None:
    spec = profile_pb2.EmbeddingSpec(dimension=300)
    spec.projection.dimension = 200
    spec.projection.seed = bytes(range(32))
    generator = np.random.default_rng(5)
    first = unit(generator.normal(size=(1, 300)))
    near = unit(first + 0.1 * unit(generator.normal(size=(1, 300))))
    far = unit(generator.normal(size=(1, 300)))
    images = project(spec, np.vstack([first, near, far]))
    assert images[0] @ images[1] > 0.97
    assert abs(images[0] @ images[2] - first[0] @ far[0]) < 0.3


@pytest.mark.parametrize("dimension", [0, 5])
def test_window_rows_are_quantised_embeddings_projected_where_the_profile_says_so(
    dimension: int,
) -> None:
    spec = projected(dimension)
    texts = ["abcd", "efgh", ""]
    rows = quantised_windows(EMBEDDER, spec, texts)
    wanted = quantise(project(spec, embed_texts(EMBEDDER, texts)))
    assert rows == [row.tobytes() for row in wanted]
    assert {len(row) for row in rows} == {row_bytes(window_dimension(spec))}


def test_a_model_that_gives_zero_is_refused() -> None:
    class Zero(SmallEmbedder):
        def encode(
            self,
            inputs: Sequence[tuple[int, ...]],
            progress: Callable[[int], None] | None = None,
        ) -> Vectors:
            return 0 * super().encode(inputs, progress)

    with pytest.raises(QuantisationError, match="vector 0 is zero"):
        quantised_windows(Zero(), SPEC, ["abc"])


def test_a_block_is_the_normalised_mean_of_its_windows() -> None:
    rows = quantised_windows(EMBEDDER, SPEC, ["abcd", "efgh", "i"])
    found = block_embedding(rows, DIMENSION)
    assert found.shape == (DIMENSION,)
    assert close(found[None], unit(dequantise(rows, DIMENSION).sum(axis=0)[None]))


def test_a_block_of_one_window_has_its_direction() -> None:
    rows = quantised_windows(EMBEDDER, SPEC, ["abcd"])
    assert close(block_embedding(rows, DIMENSION)[None], unit(dequantise(rows, DIMENSION)))


def test_a_block_does_not_depend_on_the_order_of_its_windows() -> None:
    rows = quantised_windows(EMBEDDER, SPEC, ["abcd", "efgh", "i"])
    assert close(
        block_embedding(rows, DIMENSION)[None], block_embedding(rows[::-1], DIMENSION)[None]
    )
