"""Readers of runs and blocks: shapes, padding, determinism, and what files they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from coin_protocol.errors import ConfigurationError
from verifier_sdk.semantic.reader import (
    BLOCK_FAMILIES,
    RUN_FAMILIES,
    BlockNet,
    BlockReader,
    Readers,
    RunNet,
    RunReader,
    Vocabulary,
)
from verifier_sdk.semantic.reader.block_reader import repeated_before

Tensors = dict[str, npt.NDArray[np.generic]]

TRACES = [np.arange(at, at + 40, dtype=np.uint32) for at in range(30)]
VOCABULARY = Vocabulary.counted(TRACES, size=32, bits=3)


@pytest.fixture(scope="module")
def readers() -> Readers:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        runs = RunNet(VOCABULARY.rows, width=4, hidden=8)
        blocks = BlockNet(VOCABULARY.rows, embedding=4, width=8)
        # As the pools of a trained one, not zero.
        torch.nn.init.normal_(blocks.pool)
    return Readers(VOCABULARY, RunReader(VOCABULARY, runs), BlockReader(VOCABULARY, blocks))


def some_ids(*shape: int, seed: int = 3) -> npt.NDArray[np.uint32]:
    return np.random.default_rng(seed).integers(0, 131_072, shape).astype(np.uint32)


def test_frequent_ids_have_rows_of_their_own_and_the_rest_share() -> None:
    rows = VOCABULARY.rows_of(np.arange(200))
    own = rows[VOCABULARY.frequent]
    assert sorted(own.tolist()) == list(range(1, 33))
    rest = np.setdiff1d(np.arange(200), VOCABULARY.frequent)
    assert set(VOCABULARY.rows_of(rest).tolist()) == set(range(33, 41))
    assert VOCABULARY.rows == 41
    # Knuth's hash, by hand: the high 3 bits of 2654435761 mod 2^32.
    assert VOCABULARY.rows_of([100_000])[0] == 33 + ((100_000 * 2654435761 % 2**32) >> 29)


def test_rarity_falls_with_the_share_of_traces() -> None:
    idf = VOCABULARY.idf([39, 20, 100_000])
    assert idf[0] < idf[1] < idf[2]
    assert idf[0] == pytest.approx(-np.log2(30.5 / 31), abs=1 / 16)
    assert idf[2] == pytest.approx(np.log2(62), abs=1 / 16)


def test_runs_give_a_logit_for_each_family(readers: Readers) -> None:
    ids = some_ids(9, 4)
    found = readers.runs.read(ids)
    assert found.shape == (9, len(RUN_FAMILIES))
    assert found.dtype == np.float32
    assert np.array_equal(found, readers.runs.read(ids))
    assert np.allclose(found[2:3], readers.runs.read(ids[2:3]), atol=1e-6)
    assert readers.runs.read(np.empty((0, 4), np.uint32)).shape == (0, len(RUN_FAMILIES))


def test_what_a_mask_hides_does_not_matter(readers: Readers) -> None:
    ids = some_ids(5, 4)
    mask = np.array([[True, True, False, False]] * 5)
    other = np.where(mask, ids, 7)
    assert np.array_equal(readers.runs.read(ids, mask), readers.runs.read(other, mask))
    assert not np.array_equal(readers.runs.read(ids, mask), readers.runs.read(ids))


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        (some_ids(3, 5), None),
        (some_ids(4), None),
        (np.full((2, 4), 0.5), None),
        (np.full((2, 4), -1), None),
        (np.full((2, 4), 1 << 20), None),
        (some_ids(2, 4), np.ones((2, 3), np.bool_)),
        (some_ids(2, 4), np.ones((2, 4), np.int64)),
    ],
)
def test_runs_of_other_shapes_or_ids_are_refused(
    readers: Readers, ids: npt.ArrayLike, mask: npt.ArrayLike | None
) -> None:
    with pytest.raises(ValueError, match="must"):
        readers.runs.read(ids, mask)


def test_blocks_give_a_logit_for_each_family(readers: Readers) -> None:
    blocks = [some_ids(256), some_ids(256, seed=4), some_ids(1), some_ids(0)]
    found = readers.blocks.read(blocks)
    assert found.shape == (4, len(BLOCK_FAMILIES))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert not found[3].any()
    assert np.array_equal(found, readers.blocks.read(blocks))
    assert readers.blocks.read([]).shape == (0, len(BLOCK_FAMILIES))


@pytest.mark.parametrize("length", [1, 3, 17, 100, 255])
def test_a_block_reads_the_same_beside_longer_ones(readers: Readers, length: int) -> None:
    short = some_ids(length)
    alone = readers.blocks.read([short])
    beside = readers.blocks.read([some_ids(256, seed=5), short])
    assert np.allclose(alone[0], beside[1], atol=1e-4)


def test_long_blocks_are_the_mean_of_their_pieces(readers: Readers) -> None:
    long = some_ids(256 + 256 + 128)
    pieces = readers.blocks.read([long[:256], long[256:512], long[512:]])
    mean = (256 * pieces[0] + 256 * pieces[1] + 128 * pieces[2]) / 640
    assert np.allclose(readers.blocks.read([long])[0], mean, atol=1e-4)


def test_the_order_of_tokens_matters(readers: Readers) -> None:
    block = some_ids(64)
    forward, backward = readers.blocks.read([block, block[::-1].copy()])
    assert not np.allclose(forward, backward, atol=1e-3)


@pytest.mark.parametrize("block", [[[1, 2]], [0.5], [-1], [1 << 20]])
def test_what_is_no_block_is_refused(readers: Readers, block: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match=r"must"):
        readers.blocks.read([block])


def slowly_repeated(row: list[int]) -> list[list[float]]:
    found = []
    for at in range(len(row)):
        marks = []
        for length in range(1, 5):
            ending = row[at - length + 1 : at + 1] if at + 1 >= length else []
            before = [row[end - length : end] for end in range(length, at + 1)]
            marks.append(float(bool(ending) and row[at] != 0 and ending in before))
        found.append(marks)
    return found


def test_repeats_are_those_of_a_slow_search() -> None:
    rng = np.random.default_rng(6)
    rows = rng.integers(1, 5, (6, 40))
    rows[2, 30:] = 0
    assert repeated_before(rows).tolist() == [slowly_repeated(row) for row in rows.tolist()]


def test_readers_come_back_from_their_tensors(readers: Readers) -> None:
    tensors = readers.tensors()
    again = Readers.from_tensors(tensors)
    blocks = [some_ids(256), some_ids(30)]
    assert np.allclose(again.blocks.read(blocks), readers.blocks.read(blocks), atol=0.02)
    assert np.allclose(
        again.runs.read(some_ids(5, 4)), readers.runs.read(some_ids(5, 4)), atol=0.02
    )
    once_more = Readers.from_tensors(again.tensors())
    assert np.array_equal(again.blocks.read(blocks), once_more.blocks.read(blocks))
    assert all(value.dtype != np.float32 for value in tensors.values())


def without(name: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        del tensors[name]

    return change


def replaced(name: str, value: npt.ArrayLike) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = np.asarray(value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("format"),
        replaced("format", np.array([2], np.uint32)),
        without("vocabulary.frequent"),
        replaced("vocabulary.frequent", np.array([5, 5, 6], np.uint32)),
        replaced("vocabulary.frequent", np.array([0.5])),
        replaced("vocabulary.rarity", np.zeros(3, np.uint8)),
        replaced("vocabulary.shape", np.array([8, 99], np.uint32)),
        replaced("vocabulary.shape", np.array([8], np.uint32)),
        without("runs.first.weight"),
        replaced("runs.first.bias", np.zeros(8, np.float32)),
        replaced("runs.heads.bias", np.full(len(RUN_FAMILIES), np.nan, np.float16)),
        replaced("runs.embedding.weight", np.zeros((41, 4000), np.float16)),
        replaced("runs.extra", np.zeros(1, np.float16)),
        replaced("blocks.norm.weight", np.zeros((), np.float16)),
        without("blocks.layers.3.mix.weight"),
        replaced("blocks.heads.weight", np.zeros((3, 8), np.float16)),
    ],
)
def test_altered_tensors_are_refused(readers: Readers, change: Callable[[Tensors], None]) -> None:
    tensors = readers.tensors()
    change(tensors)
    with pytest.raises(ConfigurationError, match="no readers that can be used"):
        Readers.from_tensors(tensors)


def test_a_net_for_another_vocabulary_is_refused() -> None:
    other = Vocabulary.counted(TRACES, size=10, bits=3)
    with pytest.raises(ValueError, match="rows"):
        RunReader(other, RunNet(VOCABULARY.rows, width=4, hidden=8))
    with pytest.raises(ValueError, match="rows"):
        BlockReader(other, BlockNet(VOCABULARY.rows, embedding=4, width=8))


def test_no_traces_give_no_vocabulary() -> None:
    with pytest.raises(ValueError, match="no traces"):
        Vocabulary.counted([], size=10, bits=3)
