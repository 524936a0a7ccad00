"""Logs keep to what every log keeps to; those that do not are found out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coin_protocol.testing.machines.log import LogMachine
from coin_protocol.testing.machines.rules import RuleBrokenError
from tests.machines.systems import OF_PROCESSES, of_processes, searching, tried
from tests.machines.systems.log_process import ProcessLog
from tests.machines.systems.log_pure import BROKEN, PureLog
from tests.machines.systems.log_sqlite import SqliteLog

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


class OfRules(LogMachine):
    """Over the rules of the core."""

    make = PureLog


class OfSqlite(LogMachine):
    """Over the log of a node."""

    make = SqliteLog


class OfProcess(LogMachine):
    """Over the log of a node's process."""

    make = ProcessLog
    most_entries = 600


TestOfRules = tried(OfRules, settings())

TestOfSqlite = tried(OfSqlite, settings(ANY, max_examples=max(8, ANY.max_examples // 8)))

TestOfProcess = tried(OfProcess, of_processes(12), least=OF_PROCESSES)

SEARCH = searching()


@pytest.mark.parametrize("broken", BROKEN)
def test_a_log_that_breaks_a_rule_is_found_out(broken: type[PureLog]) -> None:
    class Broken(LogMachine):
        make = broken

    with pytest.raises(RuleBrokenError):
        run_state_machine_as_test(Broken, settings=SEARCH)
