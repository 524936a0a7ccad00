"""Who is dead is told by signs that stand still, whatever any clock says."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from sqlalchemy import Connection, insert, update

from coin_protocol.database.engine import reading, writing
from coin_protocol.v1 import statements_pb2
from provider_sdk.live import LiveSession
from provider_sdk.recovery import recover
from provider_sdk.store import SqlStore
from provider_sdk.store.leases import Leases
from provider_sdk.store.tables import PROCESS
from tests.support.parties import Parties
from tests.unit.store.conftest import MakeStore
from tests.unit.store.test_jobs import opened, soon

LEASE = 15.0


class Place:
    """Leases as one process sees them, on a monotonic clock moved by hand."""

    def __init__(self, store: SqlStore) -> None:
        """See nobody yet."""
        self.store = store
        self.now = 1000.0
        self.leases = Leases("me", LEASE, lambda: self.now)

    def passes(self, seconds: float, *, signing: bool = True) -> None:
        """Let time pass, in steps that are short beside a lease."""
        for _ in range(round(seconds)):
            self.now += 1.0
            if signing:
                self.leases.given()

    def living(self) -> set[str]:
        """Return who is not known to be dead, besides the store itself."""
        with reading(self.store.engine) as connection:
            return set(self.leases.living(connection)) - {self.store.process_id}


@pytest.fixture
def place(store: SqlStore) -> Place:
    """A place with two more processes in the database: this one, and another an hour ahead."""
    with writing(store.engine) as connection:
        rows = [
            {"process_id": "me", "beat_at": 5000.0},
            {"process_id": "other", "beat_at": 5000.0 + 3600.0},
        ]
        connection.execute(insert(PROCESS), rows)
    return Place(store)


def signs(place: Place, beat_at: float) -> None:
    with writing(place.store.engine) as connection:
        connection.execute(
            update(PROCESS).where(PROCESS.c.process_id == "other").values(beat_at=beat_at)
        )


def test_a_sign_that_stands_still_for_a_lease_is_that_of_a_dead_process(place: Place) -> None:
    assert place.living() == {"me", "other"}
    place.passes(LEASE - 1)
    assert place.living() == {"me", "other"}
    place.passes(2)
    assert place.living() == {"me"}


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_by_an_hour_kills_nobody(place: Place, hours: int) -> None:
    assert place.living() == {"me", "other"}
    sign = 8600.0
    for step in range(10):
        place.passes(5)
        sign += 5.0 + (3600.0 * hours if step == 4 else 0.0)
        signs(place, sign)
        assert place.living() == {"me", "other"}


def test_who_was_away_says_nothing_of_the_others_for_a_lease(place: Place) -> None:
    assert place.living() == {"me", "other"}
    place.passes(LEASE * 2, signing=False)  # the database was away, or this process was paused
    assert place.living() == {"me", "other"}
    place.passes(1)
    assert place.living() == {"me", "other"}
    signs(place, 9000.0)
    place.passes(LEASE)
    assert place.living() == {"me", "other"}
    place.passes(LEASE)
    assert place.living() == {"me"}


async def test_processes_an_hour_apart_share_a_database_and_keep_their_sessions(
    parties: Parties, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = make_store(lease_seconds=0.4), make_store(lease_seconds=0.4)
    beat = slow.writer._beat

    def an_hour_ago(connection: object) -> None:
        beat(connection)  # type: ignore[arg-type]
        connection.execute(  # type: ignore[attr-defined]
            update(PROCESS)
            .where(PROCESS.c.process_id == slow.process_id)
            .values(beat_at=PROCESS.c.beat_at - 3600.0)
        )

    monkeypatch.setattr(slow.writer, "_beat", an_hour_ago)
    with parties.provider(store=slow) as mine, parties.provider(store=fast) as theirs:
        session = opened(mine)
        session.append([1, 2, 3])
        with pytest.raises(TimeoutError):
            await soon(lambda: recover(theirs, fast), seconds=1.0)
        assert (await session.abort(statements_pb2.ABORT_REASON_CANCELLED)).choice.commitment


async def test_a_process_that_begins_meanwhile_is_not_taken_for_dead(
    parties: Parties, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping = make_store()
    if keeping.engine.dialect.name == "sqlite":
        pytest.skip("on SQLite nobody writes meanwhile")
    living, sessions = keeping.leases.living, list[LiveSession]()
    with parties.provider(store=keeping) as keeper, ExitStack() as stack:

        def begun_after(connection: Connection) -> list[str]:
            found = living(connection)
            if not sessions:
                late = stack.enter_context(parties.provider(store=make_store()))
                sessions.append(opened(late))
                sessions[0]._written.result(10.0)
            return found

        monkeypatch.setattr(keeping.leases, "living", begun_after)
        assert recover(keeper, keeping) == 0
        ended = await sessions[0].abort(statements_pb2.ABORT_REASON_CANCELLED)
        assert ended.choice.commitment
