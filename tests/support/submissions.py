"""Receipts that nobody signed, kept and claimed: for what the database makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine

from coin_protocol.log_leaf import CommitmentLeaf
from coin_protocol.v1 import envelope_pb2, receipt_pb2
from tests.support.nodes import lease
from verifier_sdk.semantic.sequential import SequentialJudge
from verifier_sdk.store import claims
from verifier_sdk.store.claims import Claim, claim_next
from verifier_sdk.store.clock import database_time
from verifier_sdk.store.quota import DEFAULT_QUOTA, Quota, Refused
from verifier_sdk.store.submissions import Submission, keep
from verifier_sdk.store.verdicts import Weigher, decide

WEIGHER = Weigher(judge_sha256="ab" * 32, judge=SequentialJudge(0.01, 400))


def submission(number: int, **instead: Any) -> Submission:
    """Return a receipt of a provider's, told from others by its number."""
    name = hashlib.sha256(number.to_bytes(4, "big")).digest()
    given: dict[str, Any] = {
        "audit_id": name,
        "provider": "acme",
        "model": "acme-1",
        "session_id": name[:16],
        "commitment_sha256": name,
        "request_sha256": name,
        "reasoning_tokens": 100,
        "submitted_by": "",
        "drawn": "share",
        "priority": 10,
        "receipt": b"receipt",
        "leaf": CommitmentLeaf("acme", name[:16], name).to_bytes(),
    }
    return Submission(**(given | instead))


def hand_in(engine: Engine, quota: Quota, *batch: Submission) -> list[str | Refused]:
    """Keep receipts under a quota; return what became of each."""
    return keep(engine, batch, lambda _first, _second: None, quota=quota)


def submit(engine: Engine, *batch: Submission) -> list[str]:
    """Keep receipts, which there is room for; return their states."""
    states = [one for one in hand_in(engine, DEFAULT_QUOTA, *batch) if isinstance(one, str)]
    assert len(states) == len(batch)
    return states


def bundle(
    outcome: receipt_pb2.Outcome.ValueType = receipt_pb2.OUTCOME_PASS, p_value: float | None = None
) -> receipt_pb2.Bundle:
    """Return a bundle that holds a verdict and nothing else."""
    verdict = receipt_pb2.Verdict(outcome=outcome, commitment_sha256=bytes(32))
    if p_value is not None:
        verdict.scores.add(name="p_value", value=p_value)
    signed = envelope_pb2.Envelope(payload=verdict.SerializeToString())
    return receipt_pb2.Bundle(format="coin.bundle.v1", verdict=signed)


def decided(
    engine: Engine, claim: Claim, found: receipt_pb2.Bundle, weigher: Weigher | None = WEIGHER
) -> bool:
    """Write a verdict down."""
    return decide(engine, claim, found, worker="w", weigher=weigher, remember=lambda _: None)


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch, *, ahead: float) -> Iterator[None]:
    """Let the node's shared clock stand so many seconds ahead."""
    with monkeypatch.context() as patch:
        before = database_time
        patch.setattr(claims, "database_time", lambda connection: before(connection) + ahead)
        yield


def took(engine: Engine, worker: str = "worker", **instead: Any) -> Claim:
    """Claim the next audit, which there is."""
    claim = claim_next(engine, lease(worker, **instead))
    assert claim is not None
    return claim
