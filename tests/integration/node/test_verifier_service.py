"""`VerifierService`: submit a receipt, run its audit, watch it until it is decided."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from sqlalchemy import Engine

from coin_protocol import envelope
from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.keys import ListedKey
from coin_protocol.keyset import ROOT_KEY_NAME, sign_key_set
from coin_protocol.receipt import read_bundle
from coin_protocol.signer import KeySigner
from coin_protocol.transport import quota_delay
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from provider_sdk.provider import Provider
from tests.support.audits import bear_out, verdict_of
from tests.support.nodes import NodeClient, NodeParts, running_node
from tests.support.parties import PROVIDER, Parties, run_session
from tests.support.raw import DOCUMENTED, call_raw, damaged, parses, status_of
from tests.support.servers import Opening, misbehaving, serving
from verifier_sdk.node.assembly import Bench
from verifier_sdk.node.service import SERVICE
from verifier_sdk.semantic import Judge, Judgement, OpenedEvidence

QUEUED, RUNNING = pb.AUDIT_STATE_QUEUED, pb.AUDIT_STATE_RUNNING
SUBMITTED = pb.AUDIT_STATE_SUBMITTED
DECIDED, ERROR = pb.AUDIT_STATE_DECIDED, pb.AUDIT_STATE_ERROR
UNDER_WAY = {SUBMITTED, QUEUED, RUNNING, DECIDED}

Verifying = Callable[..., AbstractAsyncContextManager[NodeClient]]


@pytest.fixture
def verifying(parties: Parties, engine: Engine, tmp_path: Path) -> Verifying:
    """Serve a node that knows one provider, and audits what it is asked to."""

    def run(target: str, **instead: Any) -> AbstractAsyncContextManager[NodeClient]:
        edit = instead.pop("edit", lambda bench: bench)
        parts = NodeParts(parties, engine, target, share=0.0, settings=instead)
        return running_node(parts, tmp_path, edit=edit)

    return run


def refused_with(error: pytest.ExceptionInfo[aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    return error.value.code(), error.value.details() or ""


async def test_a_receipt_goes_from_submitted_to_decided(
    parties: Parties, provider: Provider, verifying: Verifying
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target, verifying(target) as node:
        audit_id = await node.submit(reply.receipt)
        assert (await node.get(audit_id)).state == SUBMITTED
        assert (await node.run(audit_id)).state in UNDER_WAY - {SUBMITTED}
        states = [audit.state async for audit in node.watch(audit_id)]
        assert states[-1] == DECIDED
        assert set(states) <= UNDER_WAY - {SUBMITTED}
        decided = await node.get(audit_id)
    assert (decided.audit_id, decided.state) == (audit_id, DECIDED)
    assert not decided.HasField("error")
    bear_out(parties, decided.bundle, parties.policy)
    verdict = verdict_of(decided.bundle)
    assert verdict.outcome == receipt_pb2.OUTCOME_PASS
    assert verdict.commitment_sha256 == reply.commitment_sha256


async def test_submitting_again_gives_the_same_audit(
    provider: Provider, verifying: Verifying
) -> None:
    reply, other = run_session(provider), run_session(provider)
    async with serving(provider) as target, verifying(target) as node:
        audit_id = await node.submit(reply.receipt)
        assert await node.submit(reply.receipt) == audit_id
        decided = await node.decide(audit_id)
        assert await node.submit(reply.receipt) == audit_id
        assert await node.get(audit_id) == decided
        assert await node.submit(other.receipt) != audit_id


async def test_an_altered_receipt_is_another_audit(
    provider: Provider, verifying: Verifying
) -> None:
    receipt = run_session(provider).receipt
    async with serving(provider) as target, verifying(target) as node:
        audit_id = await node.submit(receipt)
        receipt.answer += b"!"
        assert await node.submit(receipt) != audit_id


async def test_more_receipts_than_are_kept_are_refused_with_the_time_to_come_again(
    provider: Provider, verifying: Verifying
) -> None:
    receipts = [run_session(provider).receipt for _ in range(3)]
    altered = receipt_pb2.Receipt()
    altered.CopyFrom(receipts[0])
    altered.answer += b"!"
    limits = {"receipts_per_day": 2, "receipts_per_commitment": 1}
    async with verifying("127.0.0.1:1", **limits) as node:
        audit_id = await node.submit(receipts[0])
        assert await node.submit(receipts[0]) == audit_id
        with pytest.raises(aio.AioRpcError) as full:
            await node.submit(altered)
        assert refused_with(full)[0] == grpc.StatusCode.FAILED_PRECONDITION
        await node.submit(receipts[1])
        with pytest.raises(aio.AioRpcError) as spent:
            await node.submit(receipts[2])
        # What was acknowledged stays.
        assert (await node.get(audit_id)).state == SUBMITTED
    code, details = refused_with(spent)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 receipts" in details
    delay = quota_delay(spent.value)
    assert delay is not None
    assert 0 < delay <= 86_400


async def test_an_audit_that_runs_or_is_decided_is_not_run_again(
    provider: Provider, verifying: Verifying
) -> None:
    reply = run_session(provider)
    asked: list[object] = []

    async def count(honest: Callable[[], Awaitable[Opening]], *request: object) -> Opening:
        asked.append(request)
        return await honest()

    async with misbehaving(provider, answer=count) as target, verifying(target) as node:
        audit_id = await node.submit(reply.receipt)
        await asyncio.gather(*(node.run(audit_id) for _ in range(5)))
        decided = await node.decide(audit_id)
        assert await node.run(audit_id) == decided
    assert len(asked) == 1


async def test_a_decided_audit_can_be_watched_again(
    provider: Provider, verifying: Verifying
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target, verifying(target) as node:
        decided = await node.decide(audit_id := await node.submit(reply.receipt))
        assert [audit async for audit in node.watch(audit_id)] == [decided]


async def _watched(
    provider: Provider, watchers: int, verifying: Verifying
) -> list[list[pb.AuditState.ValueType]]:
    """Return what watchers see that begin before the audit runs, which then takes its time."""
    go_on = asyncio.Event()

    async def slow(honest: Callable[[], Awaitable[Opening]], *_: object) -> Opening:
        await go_on.wait()
        return await honest()

    reply = run_session(provider)
    async with (
        misbehaving(provider, answer=slow) as target,
        verifying(target) as node,
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


@pytest.mark.parametrize("watchers", [1, 3])
async def test_watchers_that_began_before_the_audit_see_its_end(
    provider: Provider, verifying: Verifying, watchers: int
) -> None:
    order = [SUBMITTED, QUEUED, RUNNING, DECIDED]
    for states in await _watched(provider, watchers, verifying):
        assert (states[0], states[-1]) == (SUBMITTED, DECIDED)
        # Each state once, in this order; one that was short may have been missed.
        assert states == [state for state in order if state in states]


async def test_a_provider_that_lies_is_decided_and_no_error(
    provider: Provider, verifying: Verifying
) -> None:
    receipt = run_session(provider).receipt
    receipt.answer += b"!"
    async with serving(provider) as target, verifying(target) as node:
        decided = await node.decide(await node.submit(receipt))
    assert decided.state == DECIDED
    assert verdict_of(decided.bundle).outcome == receipt_pb2.OUTCOME_FAIL


async def test_a_receipt_of_an_unknown_provider_is_a_failed_precondition(
    parties: Parties, verifying: Verifying
) -> None:
    now = datetime.now(UTC)
    listed = ListedKey(parties.signer.public, now - timedelta(days=1), now + timedelta(days=1))
    other = sign_key_set("other", [listed], root=parties.root, issued_at=now, sequence=1)
    with parties.provider(name="other", key_set=other) as stranger:
        receipt = run_session(stranger).receipt
    async with verifying("127.0.0.1:1") as node:
        with pytest.raises(aio.AioRpcError) as caught:
            await node.submit(receipt)
    code, details = refused_with(caught)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "'other'" in details
    assert PROVIDER in details


async def test_a_commitment_that_the_provider_did_not_sign_is_evidence_of_nothing(
    parties: Parties, provider: Provider, verifying: Verifying
) -> None:
    honest = run_session(provider).receipt
    forged = receipt_pb2.Receipt()
    forged.CopyFrom(honest)
    forged.commitment.signatures[0].sig = bytes(64)
    # A root of another provider's speaks for that provider alone.
    foreign = receipt_pb2.Receipt()
    foreign.CopyFrom(honest)
    now = datetime.now(UTC)
    listed = ListedKey(parties.signer.public, now - timedelta(days=1), now + timedelta(days=1))
    root = KeySigner.generate(ROOT_KEY_NAME)
    foreign.key_set.CopyFrom(sign_key_set(PROVIDER, [listed], root=root, issued_at=now, sequence=1))
    async with verifying("127.0.0.1:1") as node:
        for receipt in (forged, foreign):
            with pytest.raises(aio.AioRpcError) as caught:
                await node.submit(receipt)
            code, details = refused_with(caught)
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert "is not signed by" in details
        assert not (await node.page()).audits


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
    provider: Provider, name: str, verifying: Verifying
) -> None:
    receipt = run_session(provider).receipt
    MALFORMED[name](receipt)
    async with verifying("127.0.0.1:1") as node:
        with pytest.raises(aio.AioRpcError) as caught:
            await node.submit(receipt)
    code, details = refused_with(caught)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details


@pytest.mark.parametrize("audit_id", ["", "0" * 64, "x" * 10_000])
async def test_an_audit_that_was_never_submitted_is_not_found(
    audit_id: str, verifying: Verifying
) -> None:
    async with verifying("127.0.0.1:1") as node:
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


class FailingJudge:
    """Fails as it is told to, then judges."""

    def __init__(self, judge: Judge) -> None:
        self.error: Exception | None = None
        self._judge = judge

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        if self.error is not None:
            raise self.error
        return self._judge.judge(evidence)


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
    provider: Provider,
    verifying: Verifying,
    error: Exception,
    told: str,
) -> None:
    failing: list[FailingJudge] = []

    def edit(bench: Bench) -> Bench:
        failing.append(FailingJudge(bench.judge))
        failing[0].error = error
        return replace(bench, judge=failing[0])

    reply = run_session(provider)
    async with serving(provider) as target, verifying(target, edit=edit, retry_seconds=[]) as node:
        audit_id = await node.submit(reply.receipt)
        stopped = await node.decide(audit_id)
        assert stopped.state == ERROR
        assert not stopped.HasField("bundle")
        assert told in stopped.error
        for secret in ("42", "/home/me"):
            assert secret not in stopped.error
        failing[0].error = None
        again = await node.decide(audit_id)
    assert again.state == DECIDED
    assert not again.HasField("error")


async def test_audits_are_listed_newest_first_by_pages(
    provider: Provider, verifying: Verifying
) -> None:
    receipts = [run_session(provider).receipt for _ in range(5)]
    async with serving(provider) as target, verifying(target) as node:
        ids = [await node.submit(receipt) for receipt in receipts]
        await node.decide(ids[1])
        found, token = [], ""
        while True:
            page = await node.page(page_size=2, page_token=token)
            found += [audit.audit_id for audit in page.audits]
            token = page.next_page_token
            if not token:
                break
        assert found == ids[::-1]
        for wanted, which in (
            ({"state": DECIDED}, [ids[1]]),
            ({"outcome": receipt_pb2.OUTCOME_PASS}, [ids[1]]),
            ({"outcome": receipt_pb2.OUTCOME_FAIL}, []),
            ({"provider": PROVIDER, "state": SUBMITTED}, [ids[4], ids[3], ids[2], ids[0]]),
            ({"provider": "other"}, []),
        ):
            page = await node.page(**wanted)
            assert [audit.audit_id for audit in page.audits] == which
        for bad in ({"page_size": 1001}, {"page_token": "-1"}, {"provider": "x" * 300}):
            with pytest.raises(aio.AioRpcError) as caught:
                await node.page(**bad)
            assert refused_with(caught)[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_bundle_that_was_served_is_a_bundle_file(
    provider: Provider, verifying: Verifying
) -> None:
    reply = run_session(provider)
    async with serving(provider) as target, verifying(target) as node:
        decided = await node.decide(await node.submit(reply.receipt))
    assert read_bundle(decided.bundle.SerializeToString()) == decided.bundle


async def test_health_says_that_the_service_serves(verifying: Verifying) -> None:
    async with verifying("127.0.0.1:1") as node:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        raw = await call_raw(node.channel, "/grpc.health.v1.Health/Check", request)
    status = health_pb2.HealthCheckResponse.FromString(raw).status
    assert status == health_pb2.HealthCheckResponse.SERVING


KINDS = {
    "SubmitReceipt": pb.SubmitReceiptRequest,
    "RunAudit": pb.RunAuditRequest,
    "GetAudit": pb.GetAuditRequest,
    "WatchAudit": pb.WatchAuditRequest,
    "ListAudits": pb.ListAuditsRequest,
}


@pytest.mark.parametrize("method", KINDS)
async def test_whatever_bytes_come_the_status_is_a_documented_one(
    provider: Provider, method: str, verifying: Verifying
) -> None:
    receipt = run_session(provider, [1, 2, 3]).receipt
    submit = pb.SubmitReceiptRequest(receipt=receipt).SerializeToString()
    sound = pb.GetAuditRequest(audit_id="0" * 64).SerializeToString()
    raws = damaged(submit if method == "SubmitReceipt" else sound, [submit, sound])
    seen = set()
    async with verifying("127.0.0.1:1") as node:
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
