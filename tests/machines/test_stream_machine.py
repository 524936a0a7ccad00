"""Streams come out the same in any chunks and over any crash; a system that errs is found out."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from coin_protocol.testing.machines.stream import StreamMachine
from tests.machines.systems import FOUND_OUT, OF_PROCESSES, fewer, finding, tried
from tests.machines.systems.provider_adapters import streams_of
from tests.machines.systems.provider_broken import (
    LosesCheckpoint,
    MakesUpTokens,
    OrderOfChunks,
    SkipsCheckpoints,
    TakesHalfAChunk,
)
from tests.machines.systems.provider_process import ProcessProvider
from tests.machines.systems.provider_rules import RulesProvider
from tests.machines.systems.provider_sdk import SqliteProvider


class OfRules(StreamMachine):
    make = streams_of(RulesProvider)


class OverSqlite(StreamMachine):
    make = streams_of(SqliteProvider)


class OfProcess(StreamMachine):
    make = streams_of(ProcessProvider)


TestStreamsOfRules = tried(OfRules, fewer(2))
TestStreamsOverSqlite = tried(OverSqlite, fewer(30))
TestStreamsOfAProcess = tried(OfProcess, fewer(30), least=OF_PROCESSES)

BROKEN = (OrderOfChunks, TakesHalfAChunk, LosesCheckpoint, MakesUpTokens, SkipsCheckpoints)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_stream_is_found_out(kind: type[RulesProvider]) -> None:
    class OfBroken(StreamMachine):
        make = streams_of(kind)

    with pytest.raises(FOUND_OUT):
        run_state_machine_as_test(OfBroken, settings=finding())
