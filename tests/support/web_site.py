"""A node's database for the pages: audits of every kind, real bundles, a log, hostile names."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ed25519
from sqlalchemy import Engine, insert, select
from starlette.applications import Starlette
from starlette.testclient import TestClient

from coin_protocol.checkpoint import cosign, parse_checkpoint
from coin_protocol.checks import run_checks
from coin_protocol.database.engine import open_engine, reading, writing
from coin_protocol.encoding import digest
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf
from coin_protocol.note import NoteAlgorithm, NoteSigner, add_signatures, split_note
from coin_protocol.profile import Policy
from coin_protocol.receipt import BUNDLE_FORMAT
from coin_protocol.signer import KeySigner
from coin_protocol.statements import read_commitment
from coin_protocol.testing.small import small_profile
from coin_protocol.testing.world import VERIFIER, World
from coin_protocol.v1 import receipt_pb2 as pb
from tests.support.databases import database
from verifier_sdk.log import Log, Sequencer, enqueue_all
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.judge import Judgement
from verifier_sdk.semantic.sequential import SequentialJudge
from verifier_sdk.store import tables
from verifier_sdk.store.metadata import METADATA
from verifier_sdk.store.tables import AUDIT, EVIDENCE, FILE, STANDING, WORKER
from verifier_sdk.verdict import make_verdict, sign_verdict
from verifier_sdk.web.accounts import AccountFile, Cost, make_account_line
from verifier_sdk.web.app import web_app
from verifier_sdk.web.node_log import NodeLog
from verifier_sdk.web.sessions import Sessions
from verifier_sdk.web.settings import WebSettings

NOW: Final = 1_790_000_000.0
ACCOUNT: Final = "ada"
PASSWORD: Final = "correct horse battery"  # noqa: S105 - of a test
CHEAP: Final = Cost(ln=14, r=8, p=1)
ORIGIN: Final = "verifier.example/log"

HOSTILE: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "evil\u202egnp.exe\u202c",
    "a/../b?c=d#e&f=%00g",
    "..",
    "tab\tnew\nline\x1b[31m",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 250,
)
"""Names that providers may have."""


@cache
def account_line() -> str:
    """Return the line of the one account; it costs a tenth of a second to make."""
    return make_account_line(ACCOUNT, PASSWORD, cost=CHEAP)


def write_accounts(folder: Path) -> Path:
    """Write a file with one account."""
    path = folder / "accounts"
    path.write_text(f"# who may read\n{account_line()}\n")
    path.chmod(0o600)
    return path


@dataclass
class WebNode:
    """A node's database, filled, and the pages over it."""

    engine: Engine
    accounts: Path | None
    log: NodeLog | None = None
    providers: tuple[str, ...] = ("lab",)
    policies: tuple[Policy, ...] = ()
    now: float = NOW
    settings: dict[str, Any] = field(default_factory=dict)
    bundles: dict[str, bytes] = field(default_factory=dict)
    """Ids of audits with a bundle, by what they are."""

    def app(self) -> Starlette:
        """Return the pages."""
        return web_app(
            engine=self.engine,
            log=self.log,
            providers=self.providers,
            settings=WebSettings(accounts=self.accounts, **self.settings),
            policies=self.policies,
            clock=lambda: self.now,
        )


@contextmanager
def web_node(kind: str, folder: Path) -> Iterator[WebNode]:
    """Give pages over an empty database."""
    with database(kind, folder) as url:
        engine = open_engine(url)
        try:
            METADATA.create_all(engine)
            yield WebNode(engine, write_accounts(folder))
        finally:
            engine.dispose()


def audit_values(number: int, **instead: Any) -> dict[str, Any]:
    """Return a row of an audit that is not decided yet, another one for each number."""
    seed = sha256(b"audit %d" % number).digest()
    values: dict[str, Any] = dict.fromkeys(column.name for column in AUDIT.columns)
    values.update(
        audit_id=seed,
        provider="lab",
        model="model-a",
        session_id=sha256(b"session" + seed).digest()[:16],
        commitment_sha256=sha256(b"commitment" + seed).digest(),
        request_sha256=sha256(b"request" + seed).digest(),
        reasoning_tokens=1000 + number,
        submitted_at=NOW - 3600.0 + number,
        submitted_by="client",
        state=tables.QUEUED,
        drawn="share",
        priority=0,
        attempts=0,
    )
    values.update(instead)
    del values["number"]
    return values


def decided_values(
    number: int, outcome: pb.Outcome.ValueType = pb.OUTCOME_PASS, **instead: Any
) -> dict[str, Any]:
    """Return a row of an audit with a verdict."""
    given = {
        "state": tables.DECIDED,
        "outcome": outcome,
        "tier": pb.TIER_TIMED,
        "fault": pb.FAULT_PROVIDER if outcome == pb.OUTCOME_FAIL else pb.FAULT_UNSPECIFIED,
        "attempts": 1,
        "rounds": 1,
    }
    values = audit_values(number, **(given | instead))
    values["verdict_sha256"] = sha256(b"verdict" + values["audit_id"]).digest()
    if values["decided_at"] is None:
        values["decided_at"] = values["submitted_at"] + 12.5
    return values


def add_audits(engine: Engine, rows: list[dict[str, Any]]) -> None:
    """Write rows of audits."""
    with writing(engine) as connection:
        connection.execute(insert(AUDIT), rows)


def fill(node: WebNode, *, audits: int = 160) -> None:
    """Fill a node's database with what the pages show."""
    rng = random.Random(7)  # noqa: S311 - nothing secret
    judge = SequentialJudge(alpha=0.01, honest_sessions=500)
    states = {name: judge.start() for name in ("lab", "other lab")}
    rows = []
    for number in range(audits):
        provider = ("lab", "lab", "lab", "other lab")[number % 4]
        p = rng.random() ** (3 if provider == "other lab" else 1)
        p = max(0.002, round(p * 501) / 501)
        states[provider] = judge.update(states[provider], p)
        outcome = rng.choices(
            (pb.OUTCOME_PASS, pb.OUTCOME_INCONCLUSIVE, pb.OUTCOME_FAIL), (88, 9, 3)
        )[0]
        submitted = NOW - 40 * 3600 * (1 - number / audits) - 60
        low = rng.random() * 0.1
        rows.append(
            decided_values(
                number,
                outcome,
                provider=provider,
                model=rng.choice(("reasoner-1", "reasoner-1-mini")),
                reasoning_tokens=rng.randrange(100, 40_000),
                submitted_at=submitted,
                decided_at=submitted + rng.lognormvariate(2, 0.8),
                tier=rng.choice((pb.TIER_COMMITTED, pb.TIER_TIMED, pb.TIER_TIMED, pb.TIER_OPENED)),
                failed_check="BILL" if outcome == pb.OUTCOME_FAIL else None,
                p_value=p,
                inflation_probability=rng.random() * 0.3,
                share_low=low,
                share_high=low + rng.random() * 0.6,
                log_evidence=states[provider].log_value,
            )
        )
    rows += [audit_values(audits + number) for number in range(5)]
    rows.append(
        audit_values(audits + 5, state=tables.ERROR, attempts=6, failure=f"gave up on {HOSTILE[0]}")
    )
    rows += [
        decided_values(audits + 6 + number, provider=name, model=name[::-1], submitted_by=name)
        for number, name in enumerate(HOSTILE)
    ]
    with writing(node.engine) as connection:
        connection.execute(insert(AUDIT), rows)
        for name, state in states.items():
            connection.execute(
                insert(STANDING).values(
                    provider=name,
                    judge=sha256(b"judge").hexdigest(),
                    state=json.dumps(judge.to_dict(state)),
                    sessions=state.sessions,
                    updated_at=NOW - 100,
                )
            )
        connection.execute(
            insert(WORKER),
            [
                {"worker_id": "a", "started_at": NOW - 9000, "beat_at": NOW - 4, "decided": 90},
                {"worker_id": "b", "started_at": NOW - 9000, "beat_at": NOW - 900, "decided": 2},
            ],
        )
        for number, name in enumerate(("other lab", HOSTILE[0])):
            file = b"evidence %d" % number
            connection.execute(
                insert(EVIDENCE).values(
                    evidence_id=sha256(file).digest(),
                    kind="commitments",
                    provider=name,
                    found_at=NOW - 500 + number,
                    sentence=f"{name} signed two commitments to one session.",
                    file=file,
                )
            )
    node.policies = (*node.policies, Policy.shipped("default"))


def add_bundle(node: WebNode, what: str, bundle: pb.Bundle, **instead: Any) -> bytes:
    """Write a decided audit with its bundle; return its id."""
    verdict = pb.Verdict.FromString(bundle.verdict.payload)
    row = decided_values(
        90_000 + len(node.bundles),
        verdict.outcome,
        tier=verdict.tier,
        commitment_sha256=digest(bundle.receipt.commitment.payload),
        reasoning_tokens=pb_commitment(bundle).reasoning_tokens,
        session_id=pb_commitment(bundle).session_id,
        provider="lab",
        rounds=len(bundle.rounds),
        **instead,
    )
    row["verdict_sha256"] = digest(bundle.verdict.payload)
    with writing(node.engine) as connection:
        connection.execute(insert(AUDIT).values(row))
        query = select(AUDIT.c.number).where(AUDIT.c.audit_id == row["audit_id"])
        number = connection.execute(query).scalar_one()
        connection.execute(insert(FILE).values(number=number, bundle=bundle.SerializeToString()))
    node.bundles[what] = row["audit_id"]
    return bytes(row["audit_id"])


def pb_commitment(bundle: pb.Bundle) -> Any:
    """Return the commitment that a bundle is about."""
    return read_commitment(bundle.receipt.commitment.payload)


def bundle_of(
    *,
    seed: str = "page",
    tokens: int = 600,
    outcome: pb.Outcome.ValueType = pb.OUTCOME_PASS,
    reason: str = "19 opened blocks look like honest reasoning does",
    forged: bool = False,
    notes: tuple[str, ...] = (),
) -> pb.Bundle:
    """Return a bundle of two rounds and a whole block, its verdict signed."""
    policy = Policy.shipped("default")
    world = World(
        seed=seed,
        profile=small_profile(block_size=32, window_tokens=16, whole_blocks_ppm=200_000),
        policy=policy,
    )

    def inflate(commitment: Any) -> None:
        if forged:
            commitment.usage.reasoning_tokens += 64
            commitment.usage.completion_tokens += 64

    reply = world.reply(tokens=tokens, edit_commitment=inflate)
    audit = world.audit(reply)
    if not forged:
        audit = audit.ask(blocks=3, token_blocks=4, tokens_per_block=4)
        audit = audit.ask(blocks=2, tokens_per_block=4).ask_whole(blocks=2)
    case = audit.case()
    report = run_checks(case)
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    scores = [pb.Score(name=f"p_value_{family}", value=rng.random()) for family in FAMILIES]
    scores.append(pb.Score(name="p_value", value=0.31))
    scores += [
        pb.Score(name="noncanonical_tokens", block_index=index, value=0.01 * index)
        for index in range(2)
    ]
    judgement = Judgement(outcome, reason, scores, 0.08, (0.0, 0.14))
    verdict = make_verdict(
        case,
        report,
        verifier=VERIFIER,
        judgement=None if forged else judgement,
        notes=list(notes),
    )
    verdict.decided_at.FromSeconds(int(NOW))
    bundle = pb.Bundle(
        format=BUNDLE_FORMAT,
        receipt=reply.receipt,
        manifest=reply.manifest,
        rounds=audit.rounds,
        whole_rounds=audit.whole_rounds,
        verdict=sign_verdict(verdict, world.signer(VERIFIER)),
    )
    bundle.matches.add(
        block_index=3, other_commitment_sha256=bytes(32), other_block_index=7, cosine=0.9981
    )
    return bundle


def witness_key(seed: int) -> NoteSigner:
    """Return the key of a witness."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return NoteSigner(KeySigner(f"witness-{seed}.example", key), NoteAlgorithm.COSIGNATURE)


def log_signer() -> NoteSigner:
    """Return the log's key."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
    return NoteSigner(KeySigner(ORIGIN, key))


def fill_log(node: WebNode, folder: Path, rows: list[Any], *, quorum: int = 0) -> None:
    """Log audits, sign heads, and have one of three witnesses cosign the last."""
    head_file = folder / "head"
    sequencer = Sequencer(node.engine, log_signer(), origin=ORIGIN, head_file=head_file)
    log, witnesses = Log(node.engine), [witness_key(seed) for seed in (1, 2, 3)]
    for row in rows:
        leaf = CommitmentLeaf(row.provider, bytes(row.session_id), bytes(row.commitment_sha256))
        leaves = [leaf.to_bytes()]
        if row.verdict_sha256 is not None:
            verdict = VerdictLeaf(bytes(row.commitment_sha256), bytes(row.verdict_sha256))
            leaves.append(verdict.to_bytes())
        with writing(node.engine) as connection:
            enqueue_all(connection, leaves)
        sequencer.run_once()
    head = log.head()
    checkpoint = parse_checkpoint(split_note(head.note)[0])
    verifiers = [witness.verifier for witness in witnesses]
    signed = add_signatures(head.note, [cosign(checkpoint, witnesses[0], int(NOW) - 5)])
    log.cosign(signed, verifiers)
    node.log = NodeLog(Log(node.engine, quorum=quorum), node.engine, verifiers)


def rows_of(node: WebNode, most: int) -> list[Any]:
    """Return the newest rows of audits."""
    query = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(most)
    with reading(node.engine) as connection:
        return list(connection.execute(query).all())


def browser(node: WebNode, origin: str = "http://127.0.0.1", **given: Any) -> TestClient:
    """Return a client that does as browsers do; errors of the application stay inside."""
    return TestClient(
        node.app(), base_url=origin, raise_server_exceptions=False, follow_redirects=False, **given
    )


@contextmanager
def visiting(node: WebNode) -> Iterator[TestClient]:
    """Give a client with a session, for what is not about logging in."""
    assert node.accounts is not None
    sessions = Sessions(node.engine, lambda: node.now, 3600.0)
    with browser(node) as client:
        token = sessions.start(AccountFile(node.accounts).accounts()[ACCOUNT])
        client.cookies.set("coin_session", token)
        yield client


def form_token(page: str) -> str:
    """Return what a page's form holds beside the cookie."""
    found = re.search(r'name="token" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


def send(client: TestClient, path: str, **fields: str) -> Any:
    """Send a form as our own page does."""
    return client.post(path, data=fields, headers={"sec-fetch-site": "same-origin"})


def log_in(client: TestClient, password: str = PASSWORD, *, target: str = "") -> Any:
    """Fill the login form in; return the answer."""
    token = form_token(client.get("/login").text)
    return send(client, "/login", token=token, name=ACCOUNT, password=password, next=target)
