"""Clients that would have a provider look worse than it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Engine

from coin_protocol.v1 import receipt_pb2
from provider_sdk.provider import Provider
from tests.support.audits import audit, failed
from tests.support.nodes import NodeParts
from tests.support.parties import Parties, run_session
from tests.support.servers import serving
from tests.support.submissions import bundle, decided, submission, submit, took
from verifier_sdk.node.intake import Intake
from verifier_sdk.store.reading import failed_share

FAIL = receipt_pb2.OUTCOME_FAIL


def blamed(fault: receipt_pb2.Fault.ValueType) -> receipt_pb2.Bundle:
    """Return a failed audit."""
    found = bundle(FAIL)
    verdict = receipt_pb2.Verdict.FromString(found.verdict.payload)
    verdict.fault = fault
    found.verdict.payload = verdict.SerializeToString()
    return found


def test_failures_that_a_client_can_make_are_none_of_a_providers_record(engine: Engine) -> None:
    submit(engine, *(submission(number) for number in range(4)))
    for _ in range(3):
        decided(engine, took(engine), blamed(receipt_pb2.FAULT_UNATTRIBUTED))
    assert failed_share(engine, "acme") == 0.0
    decided(engine, took(engine), blamed(receipt_pb2.FAULT_PROVIDER))
    assert failed_share(engine, "acme") == 0.25


async def test_an_altered_answer_accuses_nobody(parties: Parties, provider: Provider) -> None:
    receipt = run_session(provider).receipt
    receipt.answer += b" and more"
    await accuses_nobody(parties, provider, receipt, "ANSWER_DIGEST")


async def test_a_bill_that_the_client_made_up_accuses_nobody(
    parties: Parties, provider: Provider
) -> None:
    receipt = run_session(provider).receipt
    receipt.billed.completion_tokens += 1000
    await accuses_nobody(parties, provider, receipt, "BILL")


async def test_a_clock_that_the_client_set_back_accuses_nobody(
    parties: Parties, provider: Provider
) -> None:
    receipt = run_session(provider).receipt
    # As if every checkpoint had come long before it could have been decoded.
    for seen in receipt.checkpoints:
        seen.seen_at.CopyFrom(receipt.sent_at)
    receipt.sent_at.FromDatetime(receipt.sent_at.ToDatetime() + timedelta(seconds=60))
    async with serving(provider) as target:
        found = await audit(parties, receipt, target)
    assert found.fault != receipt_pb2.FAULT_PROVIDER
    assert receipt_pb2.TIER_TIMED not in found.tiers


async def accuses_nobody(
    parties: Parties, provider: Provider, receipt: receipt_pb2.Receipt, check: str
) -> None:
    async with serving(provider) as target:
        found = await audit(parties, receipt, target)
    assert failed(found) == [check]
    assert found.outcome == FAIL
    assert found.fault == receipt_pb2.FAULT_UNATTRIBUTED


def test_no_client_draws_its_own_session(parties: Parties, provider: Provider) -> None:
    """Only the node's secret says what is drawn; no edit of a receipt changes that."""
    given: dict[str, Any] = {"secret": bytes(32), "block_size": 8, "failed_share": lambda _: 0.0}
    parts = NodeParts(parties, None, "127.0.0.1:1", share=0.5)  # type: ignore[arg-type] # unused
    intake = Intake(None, parts.providers, **given)  # type: ignore[arg-type] # unused
    for _ in range(8):
        receipt = run_session(provider).receipt
        first = intake.prepare(receipt, "ann").drawn
        for caller in ("ann", "ben"):
            receipt.sent_at.nanos = (receipt.sent_at.nanos + 1000) % 1_000_000_000
            assert intake.prepare(receipt, caller).drawn == first
