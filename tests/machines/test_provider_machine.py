"""An honest provider is never accused, whatever happens to it; one that errs is found out."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from coin_protocol.testing.machines.exposure import Terms
from coin_protocol.testing.machines.provider import ProviderMachine
from coin_protocol.testing.machines.provider_system import ProviderSystem
from coin_protocol.testing.machines.rules import Makes
from tests.machines.systems import FOUND_OUT, OF_PROCESSES, fewer, finding, tried
from tests.machines.systems.provider_broken import (
    CommitsAgain,
    CountsKindsApart,
    ForgetsLedger,
    HandsOverEarly,
    HidesOthers,
    LosesBlocks,
    LosesCheckpoint,
    MakesUpTokens,
    MemoryForgetsAnswers,
    MemorySignsWithFirstKey,
    SaysWhole,
)
from tests.machines.systems.provider_process import ProcessProvider
from tests.machines.systems.provider_rules import RulesProvider
from tests.machines.systems.provider_sdk import MemoryProvider, SqliteProvider


class OfRules(ProviderMachine):
    make = RulesProvider


class InMemory(ProviderMachine):
    make = MemoryProvider


class OverSqlite(ProviderMachine):
    make = SqliteProvider


class OfProcess(ProviderMachine):
    make = ProcessProvider


TestProviderOfRules = tried(OfRules, fewer(4))
TestProviderInMemory = tried(InMemory, fewer(10))
TestProviderOverSqlite = tried(OverSqlite, fewer(20))
TestProviderProcess = tried(OfProcess, fewer(30), least=OF_PROCESSES)

BROKEN = (
    ForgetsLedger,
    HidesOthers,
    CountsKindsApart,
    LosesCheckpoint,
    MakesUpTokens,
    CommitsAgain,
    MemoryForgetsAnswers,
    MemorySignsWithFirstKey,
    HandsOverEarly,
    LosesBlocks,
    SaysWhole,
)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_provider_is_found_out(kind: Makes[Terms, ProviderSystem]) -> None:
    class OfBroken(ProviderMachine):
        make = kind

    with pytest.raises(FOUND_OUT):
        run_state_machine_as_test(OfBroken, settings=finding())
