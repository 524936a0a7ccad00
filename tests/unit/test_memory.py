"""What is remembered of blocks across sessions, in one process."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from coin_protocol.embedding import Vectors
from coin_protocol.memory import InMemoryEvidence, Match, OpenedBlocks

FIRST, SECOND, THIRD = (bytes([number]) * 32 for number in range(3))
PROFILE = bytes(32)
EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])
NORTH_EAST = np.array([1.0, 1.0]) / np.sqrt(2)


@pytest.fixture
def memory() -> InMemoryEvidence:
    return InMemoryEvidence()


def opened(
    commitment: bytes,
    *vectors: Vectors,
    first: int = 0,
    provider: str = "acme",
    profile: bytes = PROFILE,
) -> OpenedBlocks:
    indices = range(first, first + len(vectors))
    return OpenedBlocks(provider, profile, commitment, indices, np.stack(vectors))


def nearest(memory: InMemoryEvidence, asked: OpenedBlocks) -> Match | None:
    (found,) = memory.recall(asked)
    return found


def test_an_empty_memory_knows_nothing(memory: InMemoryEvidence) -> None:
    assert memory.recall(opened(FIRST, EAST, NORTH)) == [None, None]


def test_the_same_block_of_another_commitment_is_found(memory: InMemoryEvidence) -> None:
    memory.remember(opened(FIRST, EAST, first=3))
    assert nearest(memory, opened(SECOND, EAST)) == Match(FIRST, 3, 1.0)


def test_the_nearest_of_many_is_found_for_each(memory: InMemoryEvidence) -> None:
    memory.remember(opened(FIRST, NORTH, NORTH_EAST))
    memory.remember(opened(SECOND, -EAST, first=2))
    east, west = memory.recall(opened(THIRD, EAST, -EAST))
    assert east is not None
    assert (east.commitment_sha256, east.block_index) == (FIRST, 1)
    assert east.cosine == pytest.approx(np.sqrt(0.5))
    assert west == Match(SECOND, 2, 1.0)


def test_something_is_nearest_even_if_it_points_away(memory: InMemoryEvidence) -> None:
    memory.remember(opened(FIRST, -EAST))
    found = nearest(memory, opened(SECOND, EAST))
    assert found is not None
    assert found.cosine == pytest.approx(-1.0)


def test_blocks_of_the_same_commitment_do_not_count(memory: InMemoryEvidence) -> None:
    memory.remember(opened(FIRST, EAST))
    assert nearest(memory, opened(FIRST, EAST)) is None
    memory.remember(opened(SECOND, NORTH, first=5))
    found = nearest(memory, opened(FIRST, EAST))
    assert found is not None
    assert found.commitment_sha256 == SECOND


def test_providers_and_profiles_are_kept_apart(memory: InMemoryEvidence) -> None:
    memory.remember(opened(FIRST, EAST))
    assert nearest(memory, opened(SECOND, EAST, provider="another")) is None
    assert nearest(memory, opened(SECOND, EAST, profile=bytes([1]) * 32)) is None


def test_remembering_again_changes_nothing(memory: InMemoryEvidence) -> None:
    memory.remember(opened(FIRST, EAST))
    before = nearest(memory, opened(SECOND, NORTH_EAST))
    memory.remember(opened(FIRST, EAST))
    assert nearest(memory, opened(SECOND, NORTH_EAST)) == before
    assert len(memory._seen["acme", PROFILE]) == 1


def test_threads_remember_while_others_recall(memory: InMemoryEvidence) -> None:
    class Looking(bytes):
        """A digest that has another thread remember something whenever it is compared."""

        def __ne__(self, other: object) -> bool:
            beside = threading.Thread(target=memory.remember, args=[opened(THIRD, NORTH)])
            threads.append(beside)
            beside.start()
            beside.join(0.1)
            return bytes(self) != other

    threads: list[threading.Thread] = []
    memory.remember(opened(FIRST, EAST, NORTH))
    found = nearest(memory, opened(Looking(SECOND), EAST))
    assert found == Match(FIRST, 0, 1.0)
    for thread in threads:
        thread.join()
    assert len(threads) == 2
    assert len(memory._seen["acme", PROFILE]) == 3
