"""Write a verdict down once, with all that follows from it, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from coin_protocol.database.engine import writing
from coin_protocol.encoding import digest
from coin_protocol.errors import InvalidInputError
from coin_protocol.log_leaf import VerdictLeaf
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.log.outbox import enqueue
from verifier_sdk.semantic.sequential import SequentialJudge, State
from verifier_sdk.store.claims import Claim
from verifier_sdk.store.clock import database_time
from verifier_sdk.store.tables import AUDIT, BY_SHARE, DECIDED, FILE, PURGED, STANDING, WORKER

P_VALUE: Final = "p_value"
"""Name of the score that is weighed over sessions."""

Remember = Callable[[Connection], None]
"""Writes what an audit opened into the memory across sessions."""


@dataclass(frozen=True, kw_only=True)
class Weigher:
    """How p-values of a provider's sessions add up.

    Attributes:
        judge_sha256: Of the judge's file, hex: p-values of different judges do not mix.
        judge: The sequential judge.
    """

    judge_sha256: str
    judge: SequentialJudge


def decide(
    engine: Engine,
    claim: Claim,
    bundle: receipt_pb2.Bundle,
    *,
    worker: str,
    weigher: Weigher | None,
    remember: Remember,
) -> bool:
    """Keep a bundle with its verdict, unless the audit has one.

    The verdict, its entry for the log, what is remembered of the blocks and what is weighed over
    sessions are on disk together, or not at all.

    Args:
        engine: Of the node's database.
        claim: The audit. That its lease ran out does not matter: the first verdict stands.
        bundle: With its signed verdict.
        worker: Who decided.
        weigher: None where no calibrated judge judged.
        remember: Called with the transaction's connection.

    Returns:
        Whether this verdict is the one that stands.

    Raises:
        StoreUnavailableError: The database does not answer.
    """
    verdict = receipt_pb2.Verdict.FromString(bundle.verdict.payload)
    with writing(engine) as connection:
        row = connection.execute(
            select(AUDIT.c.state, AUDIT.c.provider, AUDIT.c.request_sha256, AUDIT.c.drawn)
            .where(AUDIT.c.number == claim.number)
            .with_for_update()
        ).one()
        if row.state in {DECIDED, PURGED}:
            return False
        now = database_time(connection)
        p_value = _p_value(verdict.scores)
        evidence = None
        # What promises few false accusations holds for sessions that nobody whom the audit
        # concerns chose.
        if weigher is not None and p_value is not None and row.drawn == BY_SHARE:
            session = row.provider, row.request_sha256
            evidence = _weigh(connection, session, weigher, p_value, now)
        connection.execute(
            update(AUDIT)
            .where(AUDIT.c.number == claim.number)
            .values(
                state=DECIDED,
                due_at=None,
                claimed_by=None,
                claimed_until=None,
                failure=None,
                decided_at=now,
                p_value=p_value,
                log_evidence=evidence,
                verdict_sha256=digest(bundle.verdict.payload),
                rounds=len(bundle.rounds),
                **_figures(verdict),
            )
        )
        connection.execute(
            update(FILE)
            .where(FILE.c.number == claim.number)
            .values(receipt=None, progress=None, bundle=bundle.SerializeToString())
        )
        leaf = VerdictLeaf(verdict.commitment_sha256, digest(bundle.verdict.payload))
        enqueue(connection, leaf.to_bytes())
        remember(connection)
        connection.execute(
            update(WORKER)
            .where(WORKER.c.worker_id == worker)
            .values(decided=WORKER.c.decided + 1, beat_at=now)
        )
        return True


def _figures(verdict: receipt_pb2.Verdict) -> dict[str, Any]:
    failed = receipt_pb2.CHECK_STATUS_FAILED
    share = verdict.inflated_share if verdict.HasField("inflated_share") else None
    judged = verdict.HasField("inflation_probability")
    return {
        "outcome": verdict.outcome,
        "tier": verdict.tier,
        "fault": verdict.fault,
        "failed_check": next((one.code for one in verdict.checks if one.status == failed), None),
        "inflation_probability": verdict.inflation_probability if judged else None,
        "share_low": None if share is None else share.low,
        "share_high": None if share is None else share.high,
        "exposed_tokens": verdict.exposure.tokens,
    }


def _p_value(scores: Sequence[receipt_pb2.Score]) -> float | None:
    return next((score.value for score in scores if score.name == P_VALUE), None)


def _weigh(
    connection: Connection,
    session: tuple[str, bytes],
    weigher: Weigher,
    p_value: float,
    now: float,
) -> float | None:
    """Add a session, by provider and request, to the evidence; return what that adds up to, ln.

    None where a session of the same request was weighed: one prompt, asked again and again, would
    be one chance to err counted many times.
    """
    judge, (provider, request) = weigher.judge, session
    key = (STANDING.c.provider == provider) & (STANDING.c.judge == weigher.judge_sha256)
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(STANDING)
        .values(
            provider=provider,
            judge=weigher.judge_sha256,
            state=json.dumps(judge.to_dict(judge.start())),
            sessions=0,
            updated_at=now,
        )
        .on_conflict_do_nothing()
    )
    kept = connection.execute(select(STANDING.c.state).where(key).with_for_update()).scalar_one()
    # Only now: whoever weighed a session meanwhile had this row.
    weighed = select(func.count()).where(
        AUDIT.c.provider == provider,
        AUDIT.c.request_sha256 == request,
        AUDIT.c.log_evidence.is_not(None),
    )
    if connection.execute(weighed).scalar_one():
        return None
    state = judge.update(_state(judge, kept), p_value)
    connection.execute(
        update(STANDING)
        .where(key)
        .values(state=json.dumps(judge.to_dict(state)), sessions=state.sessions, updated_at=now)
    )
    return state.log_value


def _state(judge: SequentialJudge, kept: str) -> State:
    try:
        return judge.from_dict(json.loads(kept))
    except (InvalidInputError, ValueError) as error:
        msg = f"what is kept of a provider's sessions cannot be used: {error}"
        raise InvalidInputError(msg) from error
