"""What is enqueued is said once, if its transaction commits, and shows equivocation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from coin_protocol.database.engine import reading, writing
from coin_protocol.errors import StatementError
from coin_protocol.log_leaf import CommitmentLeaf
from coin_protocol.merkle import leaf_hash
from tests.support.log_entries import House, commitment, leaves, verdict
from tests.support.parties import WAIT_SECONDS
from verifier_sdk.log import enqueue, find_equivocation, waiting


def again(leaf: CommitmentLeaf, provider: str = "acme") -> CommitmentLeaf:
    """Return the leaf of another commitment to the same session."""
    return CommitmentLeaf(provider, leaf.session_id, bytes(32))


def test_saying_something_again_changes_nothing(house: House) -> None:
    data = [*leaves(0, 3), verdict(1).to_bytes()]
    first = house.say(data)
    assert first == [leaf_hash(each) for each in data]
    assert house.say(data[1:]) == first[1:]
    house.sequencer().run_once()
    assert house.say(data) == first
    assert house.sequencer().run_once().sequenced == 0
    assert house.log.entries(0, 100) == data
    with reading(house.engine) as connection:
        assert waiting(connection) == 0


def test_what_is_rolled_back_is_not_said(house: House) -> None:
    def fail() -> None:
        with writing(house.engine) as connection:
            enqueue(connection, leaves(0, 1)[0])
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert house.append(1).sequenced == 1
    assert house.log.head().size == 1


def test_the_order_is_that_in_which_things_were_said(house: House) -> None:
    data = leaves(0, 40)
    for each in data:
        house.say([each])
    house.sequencer().run_once()
    assert house.log.entries(0, 100) == data


def test_what_is_no_leaf_is_refused(house: House) -> None:
    with pytest.raises(StatementError, match="neither a commitment's leaf nor a verdict's"):
        house.say([b"the client asked about his divorce"])


def test_a_second_commitment_to_a_session_shows_the_first_one(house: House) -> None:
    first, other = commitment(0), again(commitment(0))
    namesake = again(commitment(0), provider="acme 2")
    with writing(house.engine) as connection:
        for leaf in (first, verdict(0), commitment(1), namesake, first):
            enqueue(connection, leaf.to_bytes())
        for leaf in (first, commitment(1), namesake):
            assert find_equivocation(connection, leaf) is None
    house.sequencer().run_once()
    with writing(house.engine) as connection:
        enqueue(connection, other.to_bytes())
        assert find_equivocation(connection, other) == first.commitment_sha256
        assert find_equivocation(connection, first) == other.commitment_sha256


def test_of_two_at_one_moment_the_second_one_sees_the_first(house: House) -> None:
    begun = threading.Barrier(2)

    def submit(leaf: CommitmentLeaf) -> bytes | None:
        begun.wait(WAIT_SECONDS)
        with writing(house.engine) as connection:
            enqueue(connection, leaf.to_bytes())
            return find_equivocation(connection, leaf)

    for number in range(8):
        pair = commitment(number), again(commitment(number))
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(submit, pair))
        assert found in ([None, pair[0].commitment_sha256], [pair[1].commitment_sha256, None])
