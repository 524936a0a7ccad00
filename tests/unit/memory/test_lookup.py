"""What was shown for another request is found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import func, select

from coin_protocol.database.engine import reading, writing
from coin_protocol.embedding import Vectors
from coin_protocol.errors import InvalidInputError
from coin_protocol.limits import MAX_BLOCKS
from tests.unit.memory.conftest import (
    DIMENSION,
    OTHER_PROFILE,
    PROFILE,
    MakeNode,
    Node,
    commitment,
    near,
    vectors,
)
from verifier_sdk.memory import Sizes
from verifier_sdk.memory.tables import MEMORY_BLOCK

NEAR_DUPLICATE = 0.995


Settle = Callable[[], object]


@pytest.fixture(params=["tail", "segment"])
def settle(request: pytest.FixtureRequest, node: Node) -> Settle:
    """Seal what was remembered before it is looked up, or leave it as it is."""
    return node.memory.maintain if request.param == "segment" else lambda: None


def test_an_empty_memory_knows_nothing(node: Node) -> None:
    assert node.lookup(vectors(2)) == [None, None]
    assert node.lookup(vectors(0)) == []


def test_the_same_block_of_another_request_is_found(node: Node, settle: Settle) -> None:
    shown = vectors(6)
    node.remember(1, shown, first=10)
    settle()
    found = node.lookup(shown[[3, 5]], excluding=2)
    for match, index in zip(found, (13, 15), strict=True):
        assert match is not None
        assert match.exact
        assert (match.commitment_sha256, match.block_index) == (commitment(1), index)
        assert match.cosine == pytest.approx(1.0, abs=1e-4)


def test_a_near_duplicate_is_found_with_its_cosine(node: Node, settle: Settle) -> None:
    shown = vectors(40)
    node.remember(1, shown)
    settle()
    asked = near(shown, NEAR_DUPLICATE)
    for index, match in enumerate(node.lookup(asked, excluding=2)):
        assert match is not None
        assert not match.exact
        assert match.block_index == index
        assert match.cosine == pytest.approx(NEAR_DUPLICATE, abs=1e-3)


def test_what_is_nearest_is_found_even_if_it_points_away(node: Node) -> None:
    shown = vectors(1)
    node.remember(1, shown)
    match = node.lookup(-shown, excluding=2)[0]
    assert match is not None
    assert match.cosine == pytest.approx(-1.0, abs=1e-3)


def test_blocks_of_the_same_commitment_do_not_count(node: Node, settle: Settle) -> None:
    shown = vectors(5)
    node.remember(1, shown)
    settle()
    assert node.lookup(shown, excluding=1) == [None] * 5
    node.remember(2, near(shown[:1], 0.9))
    match = node.lookup(shown[:1], excluding=1)[0]
    assert match is not None
    assert match.commitment_sha256 == commitment(2)


def test_another_requests_block_is_found_behind_hundreds_of_ones_own(
    make_node: MakeNode,
) -> None:
    node = make_node(sizes=Sizes(seal_rows=4, settle_seconds=0.0, flat_rows=100))
    shown = vectors(1)
    node.remember(1, near(np.repeat(shown, 700, axis=0), 0.99))
    node.remember(2, near(shown, 0.9))
    for _ in range(2):
        match = node.lookup(shown, excluding=1)[0]
        assert match is not None
        assert match.commitment_sha256 == commitment(2)
        assert match.cosine == pytest.approx(0.9, abs=1e-2)
        node.memory.maintain()
    assert node.memory.state().segments == 1
    assert node.lookup(shown, excluding=2)[0] is not None


def test_a_block_that_a_hundred_requests_share_is_kept_once(node: Node, settle: Settle) -> None:
    boilerplate = vectors(3)
    for number in range(100):
        node.remember(number, boilerplate)
    settle()
    found = node.lookup(boilerplate, excluding=0)
    assert [match and match.commitment_sha256 for match in found] == [commitment(1)] * 3
    assert [match and match.block_index for match in found] == [0, 1, 2]
    slightly = node.lookup(near(boilerplate, 0.9999), excluding=0)
    assert [match and match.commitment_sha256 for match in slightly] == [commitment(1)] * 3
    state = node.memory.state()
    assert state.vectors + state.tail == 3 * (state.segments or 1)


def test_the_same_vector_comes_before_nearer_ones_of_less_exactness(node: Node) -> None:
    shown = vectors(1)
    node.remember(1, near(np.repeat(shown, 50, axis=0), 1 - 1e-7))
    node.remember(2, shown)
    match = node.lookup(shown, excluding=3)[0]
    assert match is not None
    assert match.exact


def test_providers_and_profiles_are_kept_apart(node: Node, settle: Settle) -> None:
    shown = vectors(5)
    node.remember(1, shown)
    node.remember(2, shown, provider="another", first=5)
    node.remember(3, shown, profile=OTHER_PROFILE)
    settle()
    assert node.lookup(shown, provider="nobody") == [None] * 5
    for provider, profile, number in (
        ("acme", PROFILE, 1),
        ("another", PROFILE, 2),
        ("acme", OTHER_PROFILE, 3),
    ):
        found = node.lookup(shown, provider=provider, profile=profile)
        assert {match and match.commitment_sha256 for match in found} == {commitment(number)}
    assert node.lookup(shown, excluding=3, profile=OTHER_PROFILE) == [None] * 5


def test_remembering_again_changes_nothing(node: Node) -> None:
    node.remember(1, vectors(3))
    node.remember(1, vectors(4, seed=5))
    with reading(node.engine) as connection:
        assert connection.execute(select(func.count()).select_from(MEMORY_BLOCK)).scalar() == 4
        assert connection.execute(select(func.max(MEMORY_BLOCK.c.id))).scalar() == 4
    found = node.lookup(vectors(3))
    assert [match and match.exact for match in found] == [True] * 3


def test_two_that_remember_the_same_at_once_both_go_on(node: Node, make_node: MakeNode) -> None:
    if node.engine.dialect.name == "sqlite":
        pytest.skip("on SQLite they take turns")
    other = make_node()
    with writing(node.engine) as connection:
        node.memory.remember(
            connection,
            vectors(2),
            provider="acme",
            profile_sha256=PROFILE.digest,
            commitment_sha256=commitment(1),
            block_indices=[0, 1],
        )
        with reading(other.engine) as beside:
            assert not beside.execute(select(MEMORY_BLOCK)).all()
    other.remember(1, vectors(3))
    assert [match and match.exact for match in other.lookup(vectors(3))] == [True] * 3


def test_what_is_not_committed_is_not_found(node: Node) -> None:
    class Broken(Exception): ...  # noqa: N818

    def fail() -> None:
        with writing(node.engine) as connection:
            node.memory.remember(
                connection,
                vectors(2),
                provider="acme",
                profile_sha256=PROFILE.digest,
                commitment_sha256=commitment(1),
                block_indices=[0, 1],
            )
            assert node.lookup(vectors(2)) == [None, None]
            raise Broken

    with pytest.raises(Broken):
        fail()
    assert node.lookup(vectors(2)) == [None, None]


def test_names_that_no_database_holds_are_spelt_out(node: Node) -> None:
    node.remember(1, vectors(1), provider="ac\0me")
    assert node.lookup(vectors(1), provider="ac\0me")[0] is not None
    assert node.lookup(vectors(1), provider="acme")[0] is None


def test_many_vectors_are_looked_up_in_parts(node: Node) -> None:
    shown = vectors(100)
    node.remember(1, shown)
    found = node.lookup(shown)
    assert [match and match.block_index for match in found] == list(range(100))


BAD = {
    "another dimension": np.ones((2, DIMENSION + 1)),
    "one vector alone": np.ones(DIMENSION),
    "single precision": np.ones((2, DIMENSION), np.float32),
    "zero": np.zeros((1, DIMENSION)),
    "next to zero": np.full((1, DIMENSION), 1e-200),
    "not a number": np.full((1, DIMENSION), np.nan),
    "infinite": np.full((1, DIMENSION), np.inf),
    "beyond squaring": np.full((1, DIMENSION), 1e300),
}


@pytest.mark.parametrize("rows", BAD.values(), ids=BAD.keys())
def test_what_is_no_block_embedding_is_refused(node: Node, rows: Vectors) -> None:
    with pytest.raises(InvalidInputError, match="wanted"):
        node.lookup(rows)
    with pytest.raises(InvalidInputError, match="wanted"):
        node.remember(1, rows)


def test_a_profile_that_the_memory_was_not_opened_for_is_named(node: Node) -> None:
    with pytest.raises(InvalidInputError, match="aaaaaaaa"):
        node.memory.lookup(
            vectors(1), provider="acme", profile_sha256=b"\xaa" * 32, excluding=commitment(1)
        )


def test_a_commitment_that_is_no_digest_is_refused(node: Node) -> None:
    with pytest.raises(InvalidInputError, match="32 bytes; found 3"):
        node.memory.lookup(
            vectors(1), provider="acme", profile_sha256=PROFILE.digest, excluding=b"abc"
        )


@pytest.mark.parametrize("indices", [[0], [0, 0], [0, -1], [0, MAX_BLOCKS], [0, 1, 2]])
def test_block_indices_that_cannot_be_are_refused(node: Node, indices: list[int]) -> None:
    with writing(node.engine) as connection, pytest.raises(InvalidInputError, match="indices"):
        node.memory.remember(
            connection,
            vectors(2),
            provider="acme",
            profile_sha256=PROFILE.digest,
            commitment_sha256=commitment(1),
            block_indices=indices,
        )


def test_a_longer_vector_says_the_same_as_one_of_norm_1(node: Node) -> None:
    node.remember(1, 3.0 * vectors(2))
    assert [match and match.exact for match in node.lookup(vectors(2))] == [True, True]
