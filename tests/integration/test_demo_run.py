"""The demo's own parts: processes that do not start, verdicts that surprise."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import aio

from coin_protocol import transport
from coin_protocol.demo import run
from coin_protocol.demo.run import Played
from coin_protocol.demo.scenarios import SCENARIOS, Scenario
from coin_protocol.errors import TryLaterError
from coin_protocol.receipt import read_bundle
from coin_protocol.statements import read_verdict
from coin_protocol.testing.adversaries import ADVERSARIES
from coin_protocol.testing.small import SmallModels
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.verifier_service_pb2_grpc import (
    VerifierServiceServicer,
    add_VerifierServiceServicer_to_server,
)
from provider_sdk.replay.traces import Trace
from tests.support.command import Coin
from tests.support.files import AuditFiles
from tests.support.parties import Parties
from tests.support.servers import served

TRACE = Trace("a-01", "a", "why?", "because", "so")


async def _port_of(code: str, folder: Path) -> int:
    command = [sys.executable, "-c", code]
    async with run._process(command, folder / "log") as ready:
        return await ready


async def test_a_process_says_where_it_serves(tmp_path: Path) -> None:
    assert await _port_of("print('{\"port\": 4711}', flush=True); input()", tmp_path) == 4711


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit('the reason why')",
        "import sys; sys.stderr.write('the reason why'); sys.stderr.flush(); print('hello')",
        "import sys; sys.stderr.write('the reason why'); sys.stderr.flush(); print('{}')",
    ],
    ids=["ends", "says something else", "says no port"],
)
async def test_a_process_that_does_not_start_is_told_with_its_log(
    tmp_path: Path, code: str
) -> None:
    with pytest.raises(TryLaterError, match="the reason why"):
        await _port_of(code, tmp_path)


async def test_a_process_that_never_says_so_is_given_up_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_START_SECONDS", 0.3)
    with pytest.raises(TryLaterError, match="did not start"):
        async with asyncio.timeout(20):
            await _port_of("import time; time.sleep(600)", tmp_path)


async def test_leaving_early_stops_the_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    async with asyncio.timeout(20), run._process(command, tmp_path / "log") as ready:
        assert not ready.done()


@asynccontextmanager
async def answering(servicer: VerifierServiceServicer | None) -> AsyncIterator[aio.Channel]:
    """Serve a verifier of a kind, or none, and connect to it."""
    server = await transport.make_server("x")
    if servicer is not None:
        add_VerifierServiceServicer_to_server(servicer, server)
    async with served(server) as target, transport.open_channel(target, None) as channel:
        yield channel


class Stuck(VerifierServiceServicer):
    """Takes a receipt, runs nothing, and says that it failed."""

    async def SubmitReceipt(
        self, request: pb.SubmitReceiptRequest, context: transport.Context
    ) -> pb.SubmitReceiptResponse:
        del request, context
        return pb.SubmitReceiptResponse(audit_id="1")

    async def RunAudit(
        self, request: pb.RunAuditRequest, context: transport.Context
    ) -> pb.RunAuditResponse:
        del request, context
        return pb.RunAuditResponse()

    async def GetAudit(
        self, request: pb.GetAuditRequest, context: transport.Context
    ) -> pb.GetAuditResponse:
        del request, context
        return pb.GetAuditResponse()

    async def ListAudits(
        self, request: pb.ListAuditsRequest, context: transport.Context
    ) -> pb.ListAuditsResponse:
        del request, context
        return pb.ListAuditsResponse()

    async def WatchAudit(
        self, request: pb.WatchAuditRequest, context: transport.Context
    ) -> AsyncIterator[pb.WatchAuditResponse]:
        del request, context
        audit = pb.Audit(state=pb.AUDIT_STATE_ERROR, error="the reason why")
        yield pb.WatchAuditResponse(audit=audit)


async def test_an_audit_that_fails_is_to_be_tried_later_with_its_reason() -> None:
    async with answering(Stuck()) as channel:
        with pytest.raises(TryLaterError, match="the reason why"):
            await run._audit(receipt_pb2.Receipt(), channel)


async def test_a_verifier_that_stops_answering_is_to_be_tried_later() -> None:
    async with answering(None) as channel:
        with pytest.raises(TryLaterError, match="UNIMPLEMENTED"):
            await run._audit(receipt_pb2.Receipt(), channel)


def test_each_adversary_is_in_one_scenario() -> None:
    told = [scenario.model for scenario in SCENARIOS]
    assert all(told.count(liar.name) == 1 for liar in ADVERSARIES)
    assert len({scenario.title for scenario in SCENARIOS}) == len(SCENARIOS) == 10


def _played(files: AuditFiles, scenario: Scenario) -> Played:
    bundle = read_bundle(files.bundle.read_bytes())
    return Played(scenario, TRACE, read_verdict(bundle.verdict.payload), bundle, 0.25)


@pytest.mark.parametrize(("undecided", "shown"), [(0, 0), (1, 1), (9, 2)])
async def test_another_honest_reply_is_asked_for_where_the_judge_is_undecided(
    audited: tuple[Parties, AuditFiles], undecided: int, shown: int
) -> None:
    _, files = audited
    decided = read_bundle(files.bundle.read_bytes())
    unclear = receipt_pb2.Bundle()
    unclear.CopyFrom(decided)
    verdict = read_verdict(decided.verdict.payload)
    verdict.outcome = receipt_pb2.OUTCOME_INCONCLUSIVE
    unclear.verdict.payload = verdict.SerializeToString()
    audits = [unclear] * undecided + [decided]

    async def ask() -> tuple[receipt_pb2.Receipt, float]:
        return receipt_pb2.Receipt(), 0.0

    async def audit(_: receipt_pb2.Receipt) -> tuple[receipt_pb2.Bundle, float]:
        return audits.pop(0), 0.0

    played = await run._decided(SCENARIOS[0], TRACE, await ask(), ask=ask, audit=audit)
    assert played.undecided == shown
    assert (played.outcome == "INCONCLUSIVE") == (undecided > shown)


@pytest.fixture
def shows(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    """What the demo plays instead of its processes."""
    plays: list[Played] = []

    async def play(_: Path) -> AsyncIterator[Played]:
        for played in plays:
            yield played

    monkeypatch.setattr(run, "play", play)
    monkeypatch.setattr("coin_protocol.cli.common.Models", SmallModels)
    return plays


def test_verdicts_as_expected_are_code_0(
    coin: Coin, shows: list[Played], audited: tuple[Parties, AuditFiles], tmp_path: Path
) -> None:
    _, files = audited
    shows.append(_played(files, Scenario("honest", "honest", "")))
    done = coin("demo", "--keep", tmp_path / "kept")
    assert done.code == 0
    assert "PASS" in done.out
    assert "unexpected" not in done.out
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {"honest.bundle.json", "honest.receipt.json"}
    assert "".join(str(tmp_path / "kept").split()) in "".join(done.out.split())


@pytest.mark.parametrize("as_json", [False, True])
def test_a_verdict_that_was_not_expected_is_code_1(
    coin: Coin, shows: list[Played], audited: tuple[Parties, AuditFiles], *, as_json: bool
) -> None:
    _, files = audited
    shows.append(_played(files, Scenario("honest", "honest", "")))
    shows.append(_played(files, Scenario("liar", "a lie that passes", "BILL")))
    done = coin("demo", *(["--json"] if as_json else []))
    assert done.code == 1
    if as_json:
        first, second = map(json.loads, done.out.splitlines())
        assert (first["verdict"], first["expected"]) == ("PASS", "PASS")
        assert (second["verdict"], second["expected"]) == ("PASS", "FAIL")
    else:
        assert "unexpected" in done.out


def test_a_lie_caught_by_another_check_is_not_as_expected(
    audited: tuple[Parties, AuditFiles],
) -> None:
    _, files = audited
    played = _played(files, Scenario("liar", "a lie", "BILL"))
    assert played.outcome == "PASS"
    assert played.failed_checks == []
    assert not played.as_expected
