"""Witnesses keep to what every witness keeps to; those that do not are found out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coin_protocol.testing.machines.rules import RuleBrokenError
from coin_protocol.testing.machines.witness import WitnessMachine
from tests.machines.systems import OF_PROCESSES, of_processes, searching, tried
from tests.machines.systems.witness_process import ProcessWitness
from tests.machines.systems.witness_pure import BROKEN, PureWitness
from tests.machines.systems.witness_sqlite import SqliteWitness

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


class OfRules(WitnessMachine):
    """Over the rules alone."""

    make = PureWitness


class OfSqlite(WitnessMachine):
    """Over a witness and its database."""

    make = SqliteWitness


class OfProcess(WitnessMachine):
    """Over processes of `coin witness serve`."""

    make = ProcessWitness


TestOfRules = tried(OfRules, settings(ANY, max_examples=max(10, ANY.max_examples // 2)))

TestOfSqlite = tried(OfSqlite, settings(ANY, max_examples=max(6, ANY.max_examples // 16)))

TestOfProcess = tried(OfProcess, of_processes(10), least=OF_PROCESSES)

SEARCH = searching()


@pytest.mark.parametrize("broken", BROKEN)
def test_a_witness_that_breaks_a_rule_is_found_out(broken: type[PureWitness]) -> None:
    class Broken(WitnessMachine):
        make = broken

    with pytest.raises(RuleBrokenError):
        run_state_machine_as_test(Broken, settings=SEARCH)
