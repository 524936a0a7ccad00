"""What must hold of a node's database when all audits are made, however often its workers died."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select

from benchmarks._crashes.site import Site
from benchmarks._faults.children import Child
from coin_protocol.database.engine import reading
from coin_protocol.errors import CoinError
from coin_protocol.exposure import Caps
from coin_protocol.log_leaf import VerdictLeaf
from coin_protocol.merkle import leaf_hash
from coin_protocol.offline import verify_bundle
from coin_protocol.receipt import read_bundle
from coin_protocol.statements import read_verdict
from coin_protocol.v1 import receipt_pb2
from tests.support.parties import Reply
from verifier_sdk.log.tables import ENTRY
from verifier_sdk.node.observe import outcome_of
from verifier_sdk.store.tables import AUDIT, DECIDED, FILE


@dataclass
class Findings:
    """What was found.

    Attributes:
        violations: Sentences.
        counts: Of everything, by name.
    """

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def violated(self, what: str, detail: str) -> None:
        """Note that something does not hold."""
        self.violations.append(f"{what}: {detail}")


async def end(children: Sequence[Child], findings: Findings) -> None:
    """End all processes as an operator would."""
    for child in children:
        if code := await child.stop():
            findings.violated("a process ends well", f"{child.name}: exit code {code}")
        for code in child.deaths:
            findings.violated("no process dies of itself", f"{child.name}: exit code {code}")
        findings.counts["failed_starts"] += child.failed_starts


def look(site: Site, engine: Engine, submitted: Mapping[bytes, Reply]) -> Findings:
    """Look at every audit, its bundle, the log and the provider's own ledger.

    Args:
        site: Whose rules count.
        engine: Of the node's database.
        submitted: What was handed in, by the id of its audit.
    """
    findings = Findings()
    with reading(engine) as connection:
        rows = connection.execute(
            select(AUDIT, FILE.c.bundle).join(FILE, FILE.c.number == AUDIT.c.number)
        ).all()
        if Counter(row.audit_id for row in rows) != Counter(submitted.keys()):
            findings.violated("each receipt is one audit", f"{len(rows)} of {len(submitted)}")
        for row in rows:
            _look_at(site, row, submitted[row.audit_id], findings)
        look_at_log(connection, rows, findings)
    return findings


def _look_at(site: Site, row: Row[Any], reply: Reply, findings: Findings) -> None:
    name = row.audit_id.hex()
    findings.counts["attempts"] += row.attempts
    findings.counts["attempts_of_one_most"] = max(
        findings.counts["attempts_of_one_most"], row.attempts
    )
    if row.state != DECIDED or row.bundle is None:
        findings.violated("every audit is decided", f"{name} is {row.state}: {row.failure}")
        return
    bundle = read_bundle(row.bundle)
    if sha256(bundle.verdict.payload).digest() != row.verdict_sha256:
        findings.violated("the bundle holds the verdict of its row", name)
    verdict = read_verdict(bundle.verdict.payload)
    outcome = outcome_of(verdict)
    findings.counts[f"verdicts_{outcome}"] += 1
    if verdict.outcome == receipt_pb2.OUTCOME_FAIL:
        findings.violated("an honest provider is never failed", f"{name}: {verdict.reasons}")
    parties = site.parties
    try:
        verify_bundle(
            bundle,
            trust=parties.trust,
            profile=parties.profile,
            policy=parties.policy,
            installed=(parties.models.tokenizer, parties.models.embedder),
        )
    except CoinError as error:
        findings.violated("every bundle verifies offline", f"{name}: {error}")
    _look_at_exposure(site, reply, verdict, findings)


def _look_at_exposure(
    site: Site, reply: Reply, verdict: receipt_pb2.Verdict, findings: Findings
) -> None:
    commitment = reply.commitment
    caps = Caps.of(
        site.parties.profile.message.caps,
        tokens=commitment.reasoning_tokens,
        blocks=commitment.block_count,
    )
    spent = reply.session.provider.store.get(reply.commitment_sha256).ledger.exposure()
    within = (
        spent.tokens <= caps.tokens
        and spent.block_embeddings <= caps.block_embeddings
        and spent.whole_blocks <= caps.whole_blocks
    )
    if not within:
        findings.violated("exposure keeps to the caps", f"{spent} of {caps}")
    if spent != verdict.exposure:
        # A challenge was too old to be sent again, and another one was answered besides.
        findings.counts["audits_that_opened_more_than_they_show"] += 1


def look_at_log(connection: Connection, rows: Sequence[Row[Any]], findings: Findings) -> None:
    """Look whether the log holds each commitment and each verdict once, and nothing else.

    Args:
        connection: To the node's database.
        rows: Of all audits.
        findings: Are added to.
    """
    entries = Counter(connection.execute(select(ENTRY.c.leaf_hash)).scalars())
    if any(count > 1 for count in entries.values()):
        findings.violated("no entry of the log stands twice", f"{entries.most_common(3)}")
    for row in rows:
        if row.state != DECIDED:
            continue
        leaf = VerdictLeaf(row.commitment_sha256, row.verdict_sha256)
        if entries[leaf_hash(leaf.to_bytes())] != 1:
            findings.violated("each verdict has one entry", row.audit_id.hex())
    total = connection.execute(select(func.count()).select_from(ENTRY)).scalar_one()
    if total != 2 * len(rows):
        findings.violated("the log has one entry for each commitment and verdict", f"{total}")
