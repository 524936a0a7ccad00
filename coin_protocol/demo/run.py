"""Play the scenarios: a client that asks, keeps its receipt, and has it audited."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from grpc import aio

from coin_protocol import transport
from coin_protocol.cli.keys import Role, make_keys
from coin_protocol.demo.scenarios import SCENARIOS, Scenario
from coin_protocol.errors import TryLaterError
from coin_protocol.statements import read_verdict
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as verifier_pb
from coin_protocol.v1 import verifier_service_pb2_grpc as verifier_grpc
from provider_sdk.replay.traces import Trace, shipped_traces
from verifier_sdk.replay_client import ask_replay

PROVIDER: Final = "demo-provider"
VERIFIER: Final = "demo-verifier"
_HONEST: Final = "math-03"
"""Trace of the honest reply: of 4,000 simulated audits the judge passed 3,981 and failed none."""

_REPLIES: Final = 3
"""Honest replies that are asked for at most: what is opened is drawn, and one draw in two hundred
leaves the judge undecided."""

_START_SECONDS: Final = 120.0
_CALL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario and what came of it.

    Attributes:
        scenario: Who lied, if anybody did.
        trace: What was asked and answered.
        verdict: Of the audit.
        bundle: That it comes in.
        seconds: Of asking and auditing.
        undecided: Honest replies before this one whose audit ended without a decision.
    """

    scenario: Scenario
    trace: Trace
    verdict: receipt_pb2.Verdict
    bundle: receipt_pb2.Bundle
    seconds: float
    undecided: int = 0

    @property
    def failed_checks(self) -> list[str]:
        """Codes of the checks that failed."""
        failed = receipt_pb2.CHECK_STATUS_FAILED
        return [result.code for result in self.verdict.checks if result.status == failed]

    @property
    def outcome(self) -> str:
        """PASS, FAIL or INCONCLUSIVE."""
        return receipt_pb2.Outcome.Name(self.verdict.outcome).removeprefix("OUTCOME_")

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the expected one, by the check that should decide."""
        wanted = [self.scenario.caught_by] if self.scenario.caught_by else []
        return self.outcome == self.scenario.expected and self.failed_checks == wanted


async def play(folder: Path) -> AsyncIterator[Played]:
    """Start both processes, play every scenario in turn, stop both.

    Args:
        folder: For keys and logs.

    Raises:
        TryLaterError: A process did not start or stopped answering.
    """
    make_keys(folder / "provider", PROVIDER, Role.PROVIDER)
    make_keys(folder / "verifier", VERIFIER, Role.VERIFIER)
    port = _free_port()
    provider = [
        *(sys.executable, "-m", "coin_protocol.demo.provider"),
        *("--keys", str(folder / "provider"), "--name", PROVIDER),
        *("--verifier", VERIFIER, "--verifier-key", str(folder / "verifier" / "key.pub.pem")),
        *("--listen", f"127.0.0.1:{port}"),
    ]
    verifier = [
        *(sys.executable, "-m", "coin_protocol.cli", "verifier", "serve"),
        *("--key", str(folder / "verifier" / "key.pem"), "--name", VERIFIER),
        *("--listen", "127.0.0.1:0", "--database", f"sqlite:///{folder / 'verifier.db'}"),
        *("--provider", f"{PROVIDER}=127.0.0.1:{port}"),
        *("--root", str(folder / "provider" / "root.pub.pem"), "--profile", "demo"),
    ]
    async with (
        _process(provider, folder / "provider.log") as provider_ready,
        _process(verifier, folder / "verifier.log") as verifier_ready,
    ):
        ports = await asyncio.gather(provider_ready, verifier_ready)
        async with (
            transport.open_channel(f"127.0.0.1:{ports[0]}", None) as to_provider,
            transport.open_channel(f"127.0.0.1:{ports[1]}", None) as to_verifier,
        ):
            pairs = list(zip(SCENARIOS, _traces(), strict=False))
            # While one reply is audited the next is generated: that is two other processes.
            asked = asyncio.create_task(_ask(*pairs[0], to_provider))
            for number, (scenario, trace) in enumerate(pairs):
                receipt, asking = await asked
                if number + 1 < len(pairs):
                    asked = asyncio.create_task(_ask(*pairs[number + 1], to_provider))
                yield await _decided(
                    scenario,
                    trace,
                    (receipt, asking),
                    ask=partial(_ask, scenario, trace, to_provider),
                    audit=partial(_audit, channel=to_verifier),
                )


async def _decided(
    scenario: Scenario,
    trace: Trace,
    asked: tuple[receipt_pb2.Receipt, float],
    *,
    ask: Callable[[], Awaitable[tuple[receipt_pb2.Receipt, float]]],
    audit: Callable[[receipt_pb2.Receipt], Awaitable[tuple[receipt_pb2.Bundle, float]]],
) -> Played:
    """Audit a reply; where the judge leaves an honest one undecided, ask for another."""
    receipt, asking = asked
    undecided = 0
    while True:
        bundle, auditing = await audit(receipt)
        verdict = read_verdict(bundle.verdict.payload)
        played = Played(scenario, trace, verdict, bundle, asking + auditing, undecided)
        if scenario.caught_by or played.outcome != "INCONCLUSIVE" or undecided + 1 == _REPLIES:
            return played
        receipt, asking = await ask()
        undecided += 1


def _traces() -> Iterator[Trace]:
    """Yield the sample traces in turn, beginning with that of the honest reply."""
    traces = shipped_traces()
    first = [trace.id for trace in traces].index(_HONEST)
    return islice(cycle(traces), first, None)


async def _ask(
    scenario: Scenario, trace: Trace, channel: aio.Channel
) -> tuple[receipt_pb2.Receipt, float]:
    """Ask the model, as a client that keeps what it sees and when. Also gives the seconds."""
    start = time.perf_counter()
    receipt = await ask_replay(channel, model=scenario.model, question=trace.question)
    if scenario.tamper is not None:
        scenario.tamper(receipt)
    return receipt, time.perf_counter() - start


async def _audit(
    receipt: receipt_pb2.Receipt, channel: aio.Channel
) -> tuple[receipt_pb2.Bundle, float]:
    """Have a receipt audited. Also gives the seconds."""
    start = time.perf_counter()
    stub = verifier_grpc.VerifierServiceStub(channel)
    audit = verifier_pb.Audit()
    try:
        submitted = await stub.SubmitReceipt(
            verifier_pb.SubmitReceiptRequest(receipt=receipt), timeout=_CALL_SECONDS
        )
        run = verifier_pb.RunAuditRequest(audit_id=submitted.audit_id)
        await stub.RunAudit(run, timeout=_CALL_SECONDS)
        watch = verifier_pb.WatchAuditRequest(audit_id=submitted.audit_id)
        async for reply in stub.WatchAudit(watch, timeout=_CALL_SECONDS):
            audit = reply.audit
    except aio.AioRpcError as error:
        msg = f"the verifier stopped answering ({error.code().name})"
        raise TryLaterError(msg) from error
    if audit.state != verifier_pb.AUDIT_STATE_DECIDED:
        msg = f"the audit ended without a verdict: {audit.error}"
        raise TryLaterError(msg)
    return audit.bundle, time.perf_counter() - start


@asynccontextmanager
async def _process(command: list[str], log: Path) -> AsyncIterator[asyncio.Task[int]]:
    """Run a server process; give the task that waits for the port it prints."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=errors
        )
    stdout = process.stdout
    if stdout is None:
        msg = "a process was started without its output"
        raise TryLaterError(msg)

    async def port() -> int:
        try:
            line = await asyncio.wait_for(stdout.readline(), _START_SECONDS)
            return int(json.loads(line)["port"])
        except (TimeoutError, ValueError, KeyError, TypeError) as error:
            msg = f"{command[2]} did not start: {_tail(log)}"
            raise TryLaterError(msg) from error

    waiting = asyncio.create_task(port())
    try:
        yield waiting
    finally:
        waiting.cancel()
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _free_port() -> int:
    """Return a port that was free a moment ago, so that both processes can start at once."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
