"""Faiss finds what comparing with all finds, for near duplicates at least."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coin_protocol.embedding import Vectors, unit
from coin_protocol.quantise import quantise
from tests.unit.memory.conftest import near
from verifier_sdk.memory.index import InvertedFile, load_faiss, nearest_of_all, write_inverted_file
from verifier_sdk.memory.vectors import Directions, Rows, cosines, directions

COUNT, DIMENSION = 12_000, 32


def clustered(count: int, seed: int = 3) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count // 20, DIMENSION))
    spread = rng.standard_normal((count, DIMENSION))
    found: Vectors = unit(centres[rng.integers(0, len(centres), count)] + 0.5 * spread)
    return found


VECTORS = clustered(COUNT)
ROWS = quantise(VECTORS)


def nothing() -> None:
    """Go on."""


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> InvertedFile:
    """All but the first hundred."""
    path = tmp_path_factory.mktemp("lists") / "lists.faiss"
    write_inverted_file(path, ROWS, np.arange(100, COUNT), nothing)
    return InvertedFile(path)


def best(lists: InvertedFile, asked: Directions, span: tuple[int, int]) -> list[int]:
    found, _ = lists.nearest(asked, 8, span, 0)
    values = np.where(found < 0, -2.0, cosines(asked.astype(np.float64), ROWS[found]))
    return [int(row[at]) for row, at in zip(found, values.argmax(axis=1), strict=True)]


def test_near_duplicates_are_found(lists: InvertedFile) -> None:
    picked = np.arange(100, COUNT, 40)
    asked = near(VECTORS[picked], 0.995).astype(np.float32)
    exact = nearest_of_all(asked, directions(ROWS), 1)[:, 0]
    assert np.mean(exact == picked) == 1.0
    assert np.mean(np.array(best(lists, asked, (100, COUNT))) == picked) >= 0.99


def test_only_positions_of_the_span_are_found(lists: InvertedFile) -> None:
    asked = VECTORS[:50].astype(np.float32)
    for span in ((100, COUNT), (5000, 6000), (7000, 7001)):
        found, _ = lists.nearest(asked, 8, span, 0)
        real = found[found >= 0]
        assert len(real)
        assert real.min() >= span[0]
        assert real.max() < span[1]


def test_more_effort_finds_more_until_nothing_is_left(lists: InvertedFile) -> None:
    asked = VECTORS[:16].astype(np.float32)
    span = (3000, 3300)
    exact = nearest_of_all(asked, directions(ROWS[3000:3300]), 300) + 3000
    found, everything = lists.nearest(asked, 8, span, 0)
    assert not everything
    found, everything = lists.nearest(asked, 400, span, 3)
    assert everything
    assert (np.sort(found, axis=1) == np.sort(exact, axis=1)).all()


def test_the_same_rows_make_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_inverted_file(tmp_path / name, ROWS, np.arange(3000), nothing)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    "rows",
    [
        quantise(near(np.repeat(VECTORS[:1], 2500, axis=0), 0.9999999)),
        quantise(np.eye(DIMENSION)[np.arange(2500) % DIMENSION]),
    ],
    ids=["all but the same", "few directions"],
)
def test_odd_vectors_can_be_indexed(rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "lists.faiss"
    write_inverted_file(path, rows, np.arange(len(rows)), nothing)
    found, _ = InvertedFile(path).nearest(directions(rows[:8]), 8, (0, len(rows)), 0)
    values = cosines(directions(rows[:8]).astype(np.float64), rows[np.maximum(found, 0)])
    assert values.max(axis=1).min() > 0.9999


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="lists"):
        write_inverted_file(tmp_path / "nowhere" / "lists", ROWS, np.arange(3000), nothing)


def test_a_build_can_be_stopped(tmp_path: Path) -> None:
    class Stopped(Exception): ...  # noqa: N818

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        write_inverted_file(tmp_path / "lists", ROWS, np.arange(3000), stop)
    assert not (tmp_path / "lists").exists()


def test_threads_of_others_are_left_as_they_were(lists: InvertedFile, tmp_path: Path) -> None:
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        asked = directions(ROWS[:4])
        lists.nearest(asked, 8, (100, COUNT), 0)
        nearest_of_all(asked, asked, 2)
        write_inverted_file(tmp_path / "lists", ROWS, np.arange(3000), nothing)
        # Torch may count its threads by the same number.
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)
