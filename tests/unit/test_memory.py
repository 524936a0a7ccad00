"""What a verifier remembers: the nearest block of another commitment of the same provider."""

from __future__ import annotations

import numpy as np
import pytest

from coin_protocol.embedding import Vectors, unit
from coin_protocol.memory import InMemoryEvidence, Match

FIRST, SECOND, THIRD = b"1" * 32, b"2" * 32, b"3" * 32


def direction(*numbers: float) -> Vectors:
    found: Vectors = unit(np.array([numbers], np.float64))[0]
    return found


EAST, NORTH, NORTH_EAST = direction(1, 0), direction(0, 1), direction(1, 1)


@pytest.fixture
def memory() -> InMemoryEvidence:
    return InMemoryEvidence()


def test_an_empty_memory_knows_nothing(memory: InMemoryEvidence) -> None:
    assert memory.nearest("acme", FIRST, EAST) is None


def test_the_same_block_of_another_commitment_is_found(memory: InMemoryEvidence) -> None:
    memory.remember("acme", FIRST, 3, EAST)
    assert memory.nearest("acme", SECOND, EAST) == Match(FIRST, 3, 1.0)


def test_the_nearest_of_many_is_found(memory: InMemoryEvidence) -> None:
    memory.remember("acme", FIRST, 0, NORTH)
    memory.remember("acme", FIRST, 1, NORTH_EAST)
    memory.remember("acme", SECOND, 2, -EAST)
    found = memory.nearest("acme", THIRD, EAST)
    assert found is not None
    assert (found.commitment_sha256, found.block_index) == (FIRST, 1)
    assert found.cosine == pytest.approx(np.sqrt(0.5))


def test_something_is_nearest_even_if_it_points_away(memory: InMemoryEvidence) -> None:
    memory.remember("acme", FIRST, 0, -EAST)
    found = memory.nearest("acme", SECOND, EAST)
    assert found is not None
    assert found.cosine == pytest.approx(-1.0)


def test_blocks_of_the_same_commitment_do_not_count(memory: InMemoryEvidence) -> None:
    memory.remember("acme", FIRST, 0, EAST)
    assert memory.nearest("acme", FIRST, EAST) is None
    memory.remember("acme", SECOND, 5, NORTH)
    found = memory.nearest("acme", FIRST, EAST)
    assert found is not None
    assert found.commitment_sha256 == SECOND


def test_providers_are_kept_apart(memory: InMemoryEvidence) -> None:
    memory.remember("acme", FIRST, 0, EAST)
    assert memory.nearest("another", SECOND, EAST) is None


def test_remembering_again_changes_nothing(memory: InMemoryEvidence) -> None:
    memory.remember("acme", FIRST, 0, EAST)
    before = memory.nearest("acme", SECOND, NORTH_EAST)
    memory.remember("acme", FIRST, 0, EAST)
    assert memory.nearest("acme", SECOND, NORTH_EAST) == before
    assert len(memory._seen["acme"]) == 1
