"""Verifiers keep to what every verifier keeps to; those that do not are found out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coin_protocol.testing.machines.rules import RuleBrokenError
from coin_protocol.testing.machines.verifier import VerifierMachine
from tests.machines.systems import OF_PROCESSES, of_processes, searching, tried
from tests.machines.systems.verifier_node import SqliteNode, SqliteNodeOfFewAudits
from tests.machines.systems.verifier_process import ProcessVerifier
from tests.machines.systems.verifier_pure import BROKEN, PureVerifier, PureVerifierOfFewAudits

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


class OfRules(VerifierMachine):
    """Over the rules alone."""

    make = PureVerifier


class OfRulesOnABudget(VerifierMachine):
    """Over the rules alone, with few audits a day."""

    make = PureVerifierOfFewAudits


class OfNode(VerifierMachine):
    """Over the parts of a node."""

    make = SqliteNode


class OfNodeOnABudget(VerifierMachine):
    """Over the parts of a node that makes few audits a day."""

    make = SqliteNodeOfFewAudits


class OfProcess(VerifierMachine):
    """Over a process of `coin verifier serve`."""

    make = ProcessVerifier
    most_receipts = 12


TestOfRules = tried(OfRules, settings(ANY, max_examples=max(10, ANY.max_examples // 2)))

TestOfRulesOnABudget = tried(
    OfRulesOnABudget, settings(ANY, max_examples=max(10, ANY.max_examples // 3))
)

TestOfNode = tried(OfNode, settings(ANY, max_examples=max(4, ANY.max_examples // 25)))

TestOfNodeOnABudget = tried(
    OfNodeOnABudget, settings(ANY, max_examples=max(2, ANY.max_examples // 50))
)

TestOfProcess = tried(OfProcess, of_processes(8), least=OF_PROCESSES)

SEARCH = searching()


@pytest.mark.parametrize("broken", BROKEN)
def test_a_verifier_that_breaks_a_rule_is_found_out(broken: type[PureVerifier]) -> None:
    class Broken(VerifierMachine):
        make = broken

    with pytest.raises(RuleBrokenError):
        run_state_machine_as_test(Broken, settings=SEARCH)
