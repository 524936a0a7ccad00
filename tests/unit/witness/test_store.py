"""The database of a witness: its tables, and several who use it at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from coin_protocol.database.engine import open_engine
from coin_protocol.database.migrate import upgrade
from coin_protocol.errors import ConfigurationError, StoreUnavailableError
from tests.support.witnesses import ORIGIN, Log, cosigner, witness_over
from verifier_sdk.witness.rules import Refusal, Refused
from verifier_sdk.witness.store import WitnessStore
from verifier_sdk.witness.tables import METADATA, MIGRATIONS, VERSION_TABLE
from verifier_sdk.witness.witness import Answer, Cosigned

RACERS = 6


def at_once(calls: list[Callable[[], Answer]]) -> list[Answer]:
    """Call all from threads that start together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Answer]) -> Answer:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_the_migrations_make_the_tables_of_the_code(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, MIGRATIONS)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
    upgrade(engine, MIGRATIONS)  # changes nothing
    engine.dispose()


def test_one_of_two_forks_that_race_is_cosigned(url: str) -> None:
    """Two processes of a witness, each asked for another root of one size at the same moment."""
    log = Log().grow(8)
    forks = [log, *(log.branch(number, 8 - number) for number in range(1, RACERS))]
    with ExitStack() as stack:
        witnesses = [
            stack.enter_context(witness_over(url, log, new=number == 0)) for number in range(RACERS)
        ]
        for _ in range(2):
            old = witnesses[0].store.heads()[ORIGIN].size
            answers = at_once(
                [
                    partial(witness.add_checkpoint, fork.request(old))
                    for witness, fork in zip(witnesses, forks, strict=True)
                ]
            )
            (won,) = [one.result for one in answers if isinstance(one.result, Cosigned)]
            lost = [one.result for one in answers if isinstance(one.result, Refused)]
            assert {one.why for one in lost} == {Refusal.STALE}
            (winner,) = [fork for fork in forks if fork.head() == won.checkpoint]
            size = len(winner.tree)
            # Each goes on from the winner, and with other leaves than the rest.
            forks = [
                winner.branch(size, number + 1).grow(RACERS - number) for number in range(RACERS)
            ]
        assert len(witnesses[0].store.evidence()) > 0


def test_heads_that_race_never_shrink(url: str) -> None:
    log = Log().grow(40)
    with ExitStack() as stack:
        witnesses = [
            stack.enter_context(witness_over(url, log, new=number == 0)) for number in range(4)
        ]
        seen: list[tuple[int, int]] = []
        known = 0
        while known < 30:
            sizes = [known + 1 + number for number in range(4)]
            answers = at_once(
                [
                    partial(witness.add_checkpoint, log.request(known, size))
                    for witness, size in zip(witnesses, sizes, strict=True)
                ]
            )
            won = [one.result for one in answers if isinstance(one.result, Cosigned)]
            assert len(won) == 1
            assert won[0].checkpoint.size > known
            known = won[0].checkpoint.size
            seen.append((known, won[0].at))
            assert witnesses[0].store.heads()[ORIGIN].size == known
        assert seen == sorted(seen)


def test_a_database_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    log = Log().grow(3)
    path = tmp_path / "w.db"
    with witness_over(f"sqlite:///{path}", log) as witness:
        engine = open_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE witness_head"))
        engine.dispose()
        with pytest.raises(StoreUnavailableError):
            witness.add_checkpoint(log.request(0))


def test_a_password_is_not_shown() -> None:
    engine = open_engine("postgresql://someone:secretword@127.0.0.1:1/nothing")
    with pytest.raises(StoreUnavailableError) as caught:
        WitnessStore(engine, cosigner().verifier.vkey, [])
    assert "secretword" not in str(caught.value)
    engine.dispose()


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    path.write_bytes(b"something else" * 100)
    engine = open_engine(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match="is it a database of ours"):
        WitnessStore.initialise(engine, cosigner().verifier.vkey)
    engine.dispose()


def test_a_database_of_another_program_is_no_witness_s(url: str) -> None:
    """One that a provider has its tables in, by a wrong URL."""
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('0002')"))
    with pytest.raises(ConfigurationError, match="is this its database"):
        WitnessStore(engine, cosigner().verifier.vkey, [ORIGIN])
    with engine.connect() as connection:
        assert (
            connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0002"
        )
    engine.dispose()
