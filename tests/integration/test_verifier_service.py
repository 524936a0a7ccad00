"""`VerifierService`: submit a receipt, run its audit, watch it until it is decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2

from coin_protocol import envelope
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.receipt import read_bundle
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1.verifier_service_pb2_grpc import VerifierServiceStub
from provider_sdk.provider import Provider
from tests.support.audits import bear_out, verdict_of
from tests.support.parties import PROVIDER, WAIT_SECONDS, Parties, run_session
from tests.support.raw import DOCUMENTED, call_raw, damaged, parses, status_of
from tests.support.servers import Opening, misbehaving, served, serving
from verifier_sdk.auditor import Auditor
from verifier_sdk.client import ProviderClient
from verifier_sdk.service import SERVICE, make_server

SUBMITTED, RUNNING = pb.AUDIT_STATE_SUBMITTED, pb.AUDIT_STATE_RUNNING
DECIDED, ERROR = pb.AUDIT_STATE_DECIDED, pb.AUDIT_STATE_ERROR


@dataclass(frozen=True)
class Node:
    """A verifier that serves, and a client's view of it."""

    channel: aio.Channel

    @property
    def stub(self) -> Any:
        return VerifierServiceStub(self.channel)

    async def submit(self, receipt: receipt_pb2.Receipt) -> str:
        request = pb.SubmitReceiptRequest(receipt=receipt)
        audit_id: str = (await self.stub.SubmitReceipt(request, timeout=WAIT_SECONDS)).audit_id
        return audit_id

    async def run(self, audit_id: str) -> pb.Audit:
        request = pb.RunAuditRequest(audit_id=audit_id)
        audit: pb.Audit = (await self.stub.RunAudit(request, timeout=WAIT_SECONDS)).audit
        return audit

    async def get(self, audit_id: str) -> pb.Audit:
        request = pb.GetAuditRequest(audit_id=audit_id)
        audit: pb.Audit = (await self.stub.GetAudit(request, timeout=WAIT_SECONDS)).audit
        return audit

    async def watch(self, audit_id: str) -> AsyncIterator[pb.Audit]:
        request = pb.WatchAuditRequest(audit_id=audit_id)
        async for reply in self.stub.WatchAudit(request, timeout=WAIT_SECONDS):
            yield reply.audit

    async def decide(self, audit_id: str) -> pb.Audit:
        """Run an audit and wait for its end."""
        await self.run(audit_id)
        async for audit in self.watch(audit_id):
            last = audit
        return last


@asynccontextmanager
async def verifying(auditor: Auditor, target: str) -> AsyncIterator[Node]:
    """Serve a verifier that knows one provider, and connect to it."""
    async with (
        ProviderClient(target, tls=None, timeout=WAIT_SECONDS) as client,
        served(await make_server(auditor, {PROVIDER: client})) as address,
        aio.insecure_channel(address) as channel,
    ):
        yield Node(channel)


def refused_with(error: pytest.ExceptionInfo[aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    return error.value.code(), error.value.details() or ""


async def test_a_receipt_goes_from_submitted_to_decided(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target, verifying(parties.auditor(), target) as node:
        audit_id = await node.submit(reply.receipt)
        assert (await node.get(audit_id)).state == SUBMITTED
        assert (await node.run(audit_id)).state in (RUNNING, DECIDED)
        states = [audit.state async for audit in node.watch(audit_id)]
        assert states[-1] == DECIDED
        assert set(states) <= {RUNNING, DECIDED}
        decided = await node.get(audit_id)
    assert (decided.audit_id, decided.state) == (audit_id, DECIDED)
    assert not decided.HasField("error")
    bear_out(parties, decided.bundle, parties.policy)
    verdict = verdict_of(decided.bundle)
    assert verdict.outcome == receipt_pb2.OUTCOME_PASS
    assert verdict.commitment_sha256 == reply.commitment_sha256


async def test_submitting_again_gives_the_same_audit(parties: Parties, provider: Provider) -> None:
    reply, other = run_session(provider), run_session(provider)
    async with serving(provider) as target, verifying(parties.auditor(), target) as node:
        audit_id = await node.submit(reply.receipt)
        assert await node.submit(reply.receipt) == audit_id
        decided = await node.decide(audit_id)
        assert await node.submit(reply.receipt) == audit_id
        assert await node.get(audit_id) == decided
        assert await node.submit(other.receipt) != audit_id


async def test_an_altered_receipt_is_another_audit(parties: Parties, provider: Provider) -> None:
    receipt = run_session(provider).receipt
    async with serving(provider) as target, verifying(parties.auditor(), target) as node:
        audit_id = await node.submit(receipt)
        receipt.answer += b"!"
        assert await node.submit(receipt) != audit_id


async def test_an_audit_that_runs_or_is_decided_is_not_run_again(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    rounds: list[int] = []
    auditor = parties.auditor(on_round=lambda _, number: rounds.append(number))
    async with serving(provider) as target, verifying(auditor, target) as node:
        audit_id = await node.submit(reply.receipt)
        await asyncio.gather(*(node.run(audit_id) for _ in range(5)))
        decided = await node.decide(audit_id)
        assert await node.run(audit_id) == decided
    # One challenge of each kind.
    assert rounds == [1, 1]


async def test_a_decided_audit_can_be_watched_again(parties: Parties, provider: Provider) -> None:
    reply = run_session(provider)
    async with serving(provider) as target, verifying(parties.auditor(), target) as node:
        decided = await node.decide(audit_id := await node.submit(reply.receipt))
        assert [audit async for audit in node.watch(audit_id)] == [decided]


async def _watched(
    parties: Parties, provider: Provider, watchers: int
) -> list[list[pb.AuditState.ValueType]]:
    """Return what watchers see that begin before the audit runs, which then takes its time."""
    go_on = asyncio.Event()

    async def slow(honest: Callable[[], Awaitable[Opening]], *_: object) -> Opening:
        await go_on.wait()
        return await honest()

    reply = run_session(provider)
    async with (
        misbehaving(provider, answer=slow) as target,
        verifying(parties.auditor(), target) as node,
    ):
        audit_id = await node.submit(reply.receipt)
        began = [asyncio.Event() for _ in range(watchers)]

        async def watch(number: int) -> list[pb.AuditState.ValueType]:
            states = []
            async for audit in node.watch(audit_id):
                states.append(audit.state)
                began[number].set()
            return states

        tasks = [asyncio.create_task(watch(number)) for number in range(watchers)]
        for event in began:
            await event.wait()
        await node.run(audit_id)
        go_on.set()
        return await asyncio.gather(*tasks)


async def test_watchers_that_began_before_the_audit_see_its_end(
    parties: Parties, provider: Provider
) -> None:
    for states in await _watched(parties, provider, 3):
        assert (states[0], states[-1]) == (SUBMITTED, DECIDED)


async def test_watchers_see_each_change(parties: Parties, provider: Provider) -> None:
    assert await _watched(parties, provider, 1) == [[SUBMITTED, RUNNING, DECIDED]]


async def test_a_provider_that_lies_is_decided_and_no_error(
    parties: Parties, provider: Provider
) -> None:
    receipt = run_session(provider).receipt
    receipt.answer += b"!"
    async with serving(provider) as target, verifying(parties.auditor(), target) as node:
        decided = await node.decide(await node.submit(receipt))
    assert decided.state == DECIDED
    assert verdict_of(decided.bundle).outcome == receipt_pb2.OUTCOME_FAIL


async def test_a_receipt_of_an_unknown_provider_is_a_failed_precondition(
    parties: Parties, provider: Provider
) -> None:
    receipt = run_session(provider).receipt
    async with ProviderClient("127.0.0.1:1", tls=None) as client:
        server = await make_server(parties.auditor(), {"other": client})
        async with served(server) as address, aio.insecure_channel(address) as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await Node(channel).submit(receipt)
    code, details = refused_with(caught)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert PROVIDER in details
    assert "other" in details


def _without(name: Any) -> Callable[[receipt_pb2.Receipt], object]:
    return lambda receipt: receipt.ClearField(name)


MALFORMED: dict[str, Callable[[receipt_pb2.Receipt], object]] = {
    "nothing": lambda receipt: receipt.Clear(),
    "no key set": _without("key_set"),
    "no commitment": _without("commitment"),
    "no time": _without("sent_at"),
    "commitment that does not parse": lambda receipt: receipt.commitment.CopyFrom(
        envelope_pb2.Envelope(payload=b"\xff", payload_type=envelope.COMMITMENT)
    ),
    "empty commitment": lambda receipt: receipt.commitment.CopyFrom(envelope_pb2.Envelope()),
    "time out of range": lambda receipt: setattr(receipt.sent_at, "seconds", 2**60),
    "long nonce": lambda receipt: setattr(receipt, "client_nonce", bytes(65)),
    "other format": lambda receipt: setattr(receipt, "format", "coin.receipt.v9"),
    "checkpoint without time": lambda receipt: receipt.checkpoints[0].ClearField("seen_at"),
}


@pytest.mark.parametrize("name", sorted(MALFORMED))
async def test_a_malformed_receipt_is_an_invalid_argument(
    parties: Parties, provider: Provider, name: str
) -> None:
    receipt = run_session(provider).receipt
    MALFORMED[name](receipt)
    async with verifying(parties.auditor(), "127.0.0.1:1") as node:
        with pytest.raises(aio.AioRpcError) as caught:
            await node.submit(receipt)
    code, details = refused_with(caught)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details


@pytest.mark.parametrize("audit_id", ["", "0" * 64, "x" * 10_000])
async def test_an_audit_that_was_never_submitted_is_not_found(
    parties: Parties, audit_id: str
) -> None:
    async with verifying(parties.auditor(), "127.0.0.1:1") as node:
        for call in (node.run, node.get, node.decide):
            with pytest.raises(aio.AioRpcError) as caught:
                await call(audit_id)
            code, details = refused_with(caught)
            assert code == grpc.StatusCode.NOT_FOUND
            assert len(details) < 200
        with pytest.raises(aio.AioRpcError) as caught:
            async for _ in node.watch(audit_id):
                pass
        assert refused_with(caught)[0] == grpc.StatusCode.NOT_FOUND


class FailingAuditor(Auditor):
    """Fails as it is told to, then audits."""

    error: Exception | None = None

    async def audit(
        self, receipt: receipt_pb2.Receipt, provider: ProviderClient
    ) -> receipt_pb2.Bundle:
        if self.error is not None:
            raise self.error
        return await super().audit(receipt, provider)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidInputError("the receipt's clock is broken"), "the receipt's clock is broken"),
        (ConfigurationError("no model in /home/me"), ""),
        (ZeroDivisionError("the secret is 42"), ""),
    ],
    ids=["receipt", "configuration", "bug"],
)
async def test_an_audit_that_fails_says_nothing_of_the_provider_and_can_run_again(
    parties: Parties, provider: Provider, error: Exception, told: str
) -> None:
    auditor = FailingAuditor(
        name="verifier",
        signer=parties.verifier,
        trust=parties.trust,
        models=parties.models,
        policy=parties.policy,
    )
    auditor.error = error
    reply = run_session(provider)
    async with serving(provider) as target, verifying(auditor, target) as node:
        audit_id = await node.submit(reply.receipt)
        stopped = await node.decide(audit_id)
        assert stopped.state == ERROR
        assert not stopped.HasField("bundle")
        assert told in stopped.error
        for secret in ("42", "/home/me"):
            assert secret not in stopped.error
        auditor.error = None
        again = await node.decide(audit_id)
    assert again.state == DECIDED
    assert not again.HasField("error")


async def test_there_is_a_greatest_number_of_audits(
    parties: Parties, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verifier_sdk.service.MAX_AUDITS", 2)
    receipts = [run_session(provider).receipt for _ in range(3)]
    async with verifying(parties.auditor(), "127.0.0.1:1") as node:
        kept = [await node.submit(receipt) for receipt in receipts[:2]]
        with pytest.raises(aio.AioRpcError) as caught:
            await node.submit(receipts[2])
        assert refused_with(caught)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [await node.submit(receipt) for receipt in receipts[:2]] == kept


async def test_a_bundle_that_was_served_is_a_bundle_file(
    parties: Parties, provider: Provider
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target, verifying(parties.auditor(), target) as node:
        decided = await node.decide(await node.submit(reply.receipt))
    assert read_bundle(decided.bundle.SerializeToString()) == decided.bundle


async def test_health_says_that_the_service_serves(parties: Parties) -> None:
    async with verifying(parties.auditor(), "127.0.0.1:1") as node:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        raw = await call_raw(node.channel, "/grpc.health.v1.Health/Check", request)
    status = health_pb2.HealthCheckResponse.FromString(raw).status
    assert status == health_pb2.HealthCheckResponse.SERVING


KINDS = {
    "SubmitReceipt": pb.SubmitReceiptRequest,
    "RunAudit": pb.RunAuditRequest,
    "GetAudit": pb.GetAuditRequest,
    "WatchAudit": pb.WatchAuditRequest,
}


@pytest.mark.parametrize("method", KINDS)
async def test_whatever_bytes_come_the_status_is_a_documented_one(
    parties: Parties, provider: Provider, method: str
) -> None:
    receipt = run_session(provider, [1, 2, 3]).receipt
    submit = pb.SubmitReceiptRequest(receipt=receipt).SerializeToString()
    sound = pb.GetAuditRequest(audit_id="0" * 64).SerializeToString()
    raws = damaged(submit if method == "SubmitReceipt" else sound, [submit, sound])
    seen = set()
    async with verifying(parties.auditor(), "127.0.0.1:1") as node:
        for raw in raws:
            code, details = await status_of(
                node.channel, f"/{SERVICE}/{method}", raw, streams=method == "WatchAudit"
            )
            assert code != grpc.StatusCode.INTERNAL
            assert "Traceback" not in details
            if parses(KINDS[method], raw):
                assert code in DOCUMENTED, (raw, details)
                seen.add(code)
        assert await node.submit(receipt)
    assert seen
