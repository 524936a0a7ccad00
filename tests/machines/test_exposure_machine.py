"""No challenges in any order pass a cap, over any restart; a ledger that errs is found out."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from coin_protocol.testing.machines.exposure import ExposureMachine
from tests.machines.systems import FOUND_OUT, OF_PROCESSES, fewer, finding, tried
from tests.machines.systems.provider_adapters import ledger_of
from tests.machines.systems.provider_broken import (
    AnswersAnew,
    AnswersStrangers,
    CountsKindsApart,
    CountsNoWholeBlocks,
    ForgetsLedger,
    HidesOthers,
    LedgerOfEachVerifier,
    OpensMore,
    PassesFlipsOver,
    RefusesAll,
    RefusesUnkindDraws,
    ReusesFlip,
)
from tests.machines.systems.provider_process import ProcessProvider
from tests.machines.systems.provider_rules import RulesProvider
from tests.machines.systems.provider_sdk import MemoryProvider, SqliteProvider


class OfRules(ExposureMachine):
    make = ledger_of(RulesProvider)


class InMemory(ExposureMachine):
    make = ledger_of(MemoryProvider)


class OverSqlite(ExposureMachine):
    make = ledger_of(SqliteProvider)


class OfProcess(ExposureMachine):
    make = ledger_of(ProcessProvider)


TestExposureOfRules = tried(OfRules, fewer(4))
TestExposureInMemory = tried(InMemory, fewer(10))
TestExposureOverSqlite = tried(OverSqlite, fewer(30))
TestExposureOfAProcess = tried(OfProcess, fewer(30), least=OF_PROCESSES)

BROKEN = (
    ForgetsLedger,
    ReusesFlip,
    PassesFlipsOver,
    HidesOthers,
    CountsKindsApart,
    AnswersAnew,
    LedgerOfEachVerifier,
    CountsNoWholeBlocks,
    RefusesUnkindDraws,
    RefusesAll,
    OpensMore,
    AnswersStrangers,
)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_ledger_is_found_out(kind: type[RulesProvider]) -> None:
    class OfBroken(ExposureMachine):
        make = ledger_of(kind)

    with pytest.raises(FOUND_OUT):
        run_state_machine_as_test(OfBroken, settings=finding())
