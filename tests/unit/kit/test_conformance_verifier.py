"""Verifier nodes that are driven over sockets: ours, and ones that say other than they found."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc import aio

from coin_protocol import transport
from coin_protocol.cli.note_keys import verifier_key
from coin_protocol.conformance import FolderCases, Kind, Result, Status, run_live_cases, selected
from coin_protocol.conformance.case import SHIPPED, Case, CaseSource
from coin_protocol.conformance.editing import edited
from coin_protocol.conformance.own_providers import (
    LiarCases,
    OwnProviders,
    OwnSetting,
    Sample,
    liars,
    own_providers,
    read_samples,
)
from coin_protocol.conformance.verifier import OPERATIONS, VerifierDriver, VerifierSetting
from coin_protocol.conformance.wire import Wire
from coin_protocol.errors import InvalidInputError
from coin_protocol.keyset import SignedKeySet
from coin_protocol.note import NoteAlgorithm, NoteVerifier
from coin_protocol.v1 import log_service_pb2 as log_pb
from coin_protocol.v1 import log_service_pb2_grpc as log_grpc
from coin_protocol.v1 import profile_pb2, receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1 import verifier_service_pb2_grpc as pb_grpc
from tests.support.nodes import NodeParts, node_database, running_node
from tests.support.parties import (
    ANSWER,
    PROVIDER,
    REASONING,
    WAIT_SECONDS,
    Parties,
    run_session,
    small_policy,
)
from tests.support.replays import TOKENS_PER_SECOND, brisk
from tests.support.servers import served

ORIGIN = "audits.example.org/log"
SAMPLES = [Sample("sky-02", "physics", "why is the evening red?", REASONING, ANSWER)]
SOURCES: list[CaseSource] = [FolderCases(SHIPPED), LiarCases()]
CASES = selected(SOURCES, Kind.VERIFIER)
CASES.sort(key=lambda case: list(OPERATIONS).index(case.operation))


def only(*patterns: str) -> list[Case]:
    wanted = selected(SOURCES, Kind.VERIFIER, patterns)
    return [case for case in CASES if case in wanted]


def hurried(policy: profile_pb2.Policy) -> None:
    brisk(policy)
    policy.challenge_deadline.CopyFrom(Duration(seconds=2))


@dataclass(frozen=True)
class Standing:
    """A node, providers of the runner's own, and what the runner is told."""

    parties: Parties
    target: str
    own: OwnProviders
    log_key: NoteVerifier
    more: dict[str, Any] = field(default_factory=dict)

    def setting(self, **instead: Any) -> VerifierSetting:
        models = self.parties.models
        given: dict[str, Any] = {
            "trust": self.parties.trust,
            "profile": self.parties.profile,
            "policy": self.parties.policy,
            "name": PROVIDER,
            "reply": self.own.reply,
            "installed": lambda: (models.tokenizer, models.embedder),
            "log_key": self.log_key,
            "audit_seconds": 2 * WAIT_SECONDS,
            "settle": "name the providers in the node's settings",
        }
        return VerifierSetting(**(given | instead))


@asynccontextmanager
async def standing(folder: Path, *, log: bool = True, **settings: Any) -> AsyncIterator[Standing]:
    parties = Parties(policy=small_policy(hurried))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{found.getsockname()[1]}"
    key = folder / "log.pem"
    vkey = verifier_key(ORIGIN, NoteAlgorithm.ED25519, out=key, uri=None)
    logged = {"origin": ORIGIN, "key": f"file:{key}", "head_file": folder / "head"}
    given = {"log": logged if log else None, "call_seconds": 10.0} | settings
    own = OwnSetting(
        name=PROVIDER,
        signer=parties.signer,
        key_set=SignedKeySet(parties.key_set),
        root=parties.root,
        models=parties.models,
        verifiers=parties.verifiers,
        samples=SAMPLES,
        tokens_per_second=TOKENS_PER_SECOND,
    )
    with node_database("sqlite", folder) as engine:
        parts = NodeParts(parties, engine, listen, share=0.0, settings=given)
        async with running_node(parts, folder) as node, own_providers(own, listen, None) as made:
            target = f"127.0.0.1:{node.ports.grpc}"
            yield Standing(parties, target, made, NoteVerifier.from_vkey(vkey))


async def driven(target: str, chosen: VerifierSetting, cases: Sequence[Case]) -> dict[str, Result]:
    async with transport.open_channel(target, None) as channel:
        driver = VerifierDriver(Wire(channel, target, WAIT_SECONDS), chosen)
        found = await run_live_cases(cases, driver.perform, lambda _: None)
    return {result.case.name: result for result in found}


def named(results: dict[str, Result], status: Status) -> set[str]:
    return {name for name, result in results.items() if result.status is status}


# Ours


async def test_our_node_passes_every_case_and_finds_every_liar_out(tmp_path: Path) -> None:
    async with standing(tmp_path) as found:
        results = await driven(found.target, found.setting(), CASES)
    assert {name: results[name].came for name in named(results, Status.FAILED)} == {}
    assert named(results, Status.SKIPPED) == set()
    assert {f"lie-{name}" for name in liars()} <= results.keys()


async def test_without_providers_log_or_models_the_rest_is_skipped_with_a_reason(
    tmp_path: Path,
) -> None:
    async with standing(tmp_path, log=False) as found:
        bare = await driven(found.target, found.setting(reply=None, log_key=None), CASES)
        results = await driven(found.target, found.setting(), only("log-*"))
    assert named(bare, Status.FAILED) == set()
    assert "list-page-too-large" in named(bare, Status.PASSED)
    assert "--keys" in bare["honest-reply-fails-no-check"].came
    assert {one.came for one in results.values()} == {"the node keeps no log"}


async def test_lies_that_a_policy_does_not_look_for_are_skipped(tmp_path: Path) -> None:
    parties = Parties(policy=small_policy(_looks_for_little))
    async with standing(tmp_path) as found:
        chosen = found.setting(policy=parties.policy)
        results = await driven(found.target, chosen, only("lie-whole-*", "lie-kinder-tokens"))
    assert named(results, Status.SKIPPED) == results.keys()


def _looks_for_little(policy: profile_pb2.Policy) -> None:
    hurried(policy)
    policy.rounds.whole_blocks = policy.rounds.token_blocks_first_round = 0


async def test_a_node_that_does_not_know_the_runners_providers_is_told_what_to_set(
    tmp_path: Path,
) -> None:
    async with standing(tmp_path, retry_seconds=[]) as found:

        async def reply(name: str) -> receipt_pb2.Receipt:
            assert name == "honest"
            # Of this provider's name and root, and of no session that it still holds.
            with found.parties.provider() as provider:
                return run_session(provider).receipt

        lost = await driven(found.target, found.setting(reply=reply), only("honest-*"))
        stranger = Parties()

        async def forged(name: str) -> receipt_pb2.Receipt:
            assert name == "honest"
            with stranger.provider() as provider:
                return run_session(provider).receipt

        unknown = await driven(found.target, found.setting(reply=forged), only("honest-*"))
    assert "OPENING_PRESENT" in lost["honest-reply-fails-no-check"].came
    refused = unknown["honest-reply-fails-no-check"]
    assert "RECEIPT_NOT_SIGNED" in refused.came
    assert refused.advice == "name the providers in the node's settings"


async def test_rules_that_are_not_the_nodes_are_told_of(tmp_path: Path) -> None:
    async with standing(tmp_path) as found:
        chosen = found.setting(policy=small_policy())
        results = await driven(found.target, chosen, only("honest-*"))
        other = found.setting(trust=Parties().trust)
        signed = await driven(found.target, other, only("honest-*"))
    assert "--policy" in results["honest-reply-fails-no-check"].advice
    assert "--verifier" in signed["honest-reply-fails-no-check"].advice


# A node that says other than it found


Edit = Callable[[Any], object]


async def passed_on(call: Any, request: Message, context: transport.Context, edit: Edit) -> Any:
    try:
        reply = await call(request, timeout=WAIT_SECONDS)
    except aio.AioRpcError as error:
        await context.abort(error.code(), error.details() or "")
    edit(reply)
    return reply


class Between(pb_grpc.VerifierServiceServicer):
    """Passes calls on to a node, and changes what it says."""

    def __init__(self, channel: aio.Channel, edit: Edit) -> None:
        self._stub: Any = pb_grpc.VerifierServiceStub(channel)
        self._edit = edit

    async def SubmitReceipt(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.SubmitReceipt, request, context, self._edit)

    async def RunAudit(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.RunAudit, request, context, self._edit)

    async def GetAudit(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.GetAudit, request, context, self._edit)

    async def ListAudits(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.ListAudits, request, context, self._edit)

    async def WatchAudit(self, request: Any, context: Any) -> AsyncIterator[pb.WatchAuditResponse]:
        del context
        async for reply in self._stub.WatchAudit(request, timeout=WAIT_SECONDS):
            self._edit(reply)
            yield reply


class LogBetween(log_grpc.LogServiceServicer):
    """The same before a log."""

    def __init__(self, channel: aio.Channel, edit: Edit) -> None:
        self._stub: Any = log_grpc.LogServiceStub(channel)
        self._edit = edit

    async def GetCheckpoint(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.GetCheckpoint, request, context, self._edit)

    async def GetInclusionProof(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.GetInclusionProof, request, context, self._edit)

    async def GetConsistencyProof(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.GetConsistencyProof, request, context, self._edit)

    async def GetEntries(self, request: Any, context: Any) -> Any:
        return await passed_on(self._stub.GetEntries, request, context, self._edit)


@asynccontextmanager
async def lying(found: Standing, edit: Edit) -> AsyncIterator[str]:
    names = [
        pb.DESCRIPTOR.services_by_name["VerifierService"].full_name,
        log_pb.DESCRIPTOR.services_by_name["LogService"].full_name,
    ]
    async with transport.open_channel(found.target, None) as channel:
        server = await transport.make_server(*names)
        pb_grpc.add_VerifierServiceServicer_to_server(Between(channel, edit), server)
        log_grpc.add_LogServiceServicer_to_server(LogBetween(channel, edit), server)
        async with served(server) as target:
            yield target


def _other_ids(reply: Any) -> None:
    if isinstance(reply, pb.SubmitReceiptResponse):
        reply.audit_id = "00" * 32


def _no_bundle(reply: Any) -> None:
    if isinstance(reply, pb.GetAuditResponse):
        reply.audit.ClearField("bundle")


def _other_check(reply: Any) -> None:
    if isinstance(reply, pb.GetAuditResponse):
        reply.audit.failed_check = "BILL"


def _unsigned(reply: Any) -> None:
    if isinstance(reply, pb.GetAuditResponse) and reply.audit.HasField("bundle"):
        signature = reply.audit.bundle.verdict.signatures[0]
        signature.sig = bytes((signature.sig[0] ^ 1, *signature.sig[1:]))


def _not_decided(reply: Any) -> None:
    if isinstance(reply, pb.WatchAuditResponse):
        reply.audit.state = pb.AUDIT_STATE_RUNNING


def _error(reply: Any) -> None:
    if isinstance(reply, pb.GetAuditResponse):
        reply.audit.state, reply.audit.error = pb.AUDIT_STATE_ERROR, "out of luck"


def _lists_nothing(reply: Any) -> None:
    if isinstance(reply, pb.ListAuditsResponse):
        reply.ClearField("audits")


def _lists_bundles(reply: Any) -> None:
    if isinstance(reply, pb.ListAuditsResponse):
        for audit in reply.audits:
            audit.bundle.format = "shown"


def _forks(reply: Any) -> None:
    if isinstance(reply, log_pb.GetConsistencyProofResponse):
        reply.proof[:] = [bytes(32)] * len(reply.proof)


def _proves_another(reply: Any) -> None:
    if isinstance(reply, log_pb.GetInclusionProofResponse):
        reply.proof[:] = [bytes(32) for _ in reply.proof] or [bytes(32)]


def _heads_of_nobody(reply: Any) -> None:
    if isinstance(reply, (log_pb.GetInclusionProofResponse, log_pb.GetCheckpointResponse)):
        reply.checkpoint = reply.checkpoint.replace(b"\n\n", b"\nmore\n\n")


HONEST = "honest-reply-fails-no-check"


@pytest.mark.parametrize(
    ("edit", "tried", "failed", "came"),
    [
        (_other_ids, ["receipt-twice-*"], ["receipt-twice-is-one-audit"], "00000"),
        (_no_bundle, [HONEST], [HONEST], "no bundle"),
        (_other_check, [HONEST], [HONEST], "failed_check 'BILL'"),
        (_unsigned, [HONEST, "bundle-*"], [HONEST, "bundle-decides-again"], "signature"),
        (_not_decided, ["watch-ends-*"], ["watch-ends-when-decided"], "RUNNING"),
        (_error, [HONEST], [HONEST], "out of luck"),
        (_lists_nothing, ["list-has-*"], ["list-has-the-audit"], "0 others"),
        (_lists_bundles, ["list-has-*"], ["list-has-the-audit"], "one of"),
        (_proves_another, ["log-has-*"], ["log-has-the-commitment", "log-has-the-verdict"], ""),
        (
            _heads_of_nobody,
            ["log-*"],
            ["log-has-the-commitment", "log-has-the-verdict", "log-only-grows"],
            "sign",
        ),
    ],
)
async def test_a_node_that_says_other_than_it_found_fails(
    tmp_path: Path, edit: Edit, tried: list[str], failed: list[str], came: str
) -> None:
    async with standing(tmp_path) as found, lying(found, edit) as target:
        results = await driven(target, found.setting(), only(*tried))
    assert named(results, Status.FAILED) == set(failed)
    assert all(came in results[name].came and results[name].advice for name in failed)


async def test_a_log_that_forks_fails(tmp_path: Path) -> None:
    async with standing(tmp_path) as found, lying(found, _forks) as target:
        results = await driven(target, found.setting(), only("log-only-grows"))
    assert named(results, Status.FAILED) == {"log-only-grows"}


async def test_a_node_that_believes_everything_fails_every_lie(tmp_path: Path) -> None:
    """It passes off the verdict on an honest reply as that of every other."""
    honest: list[pb.Audit] = []

    def always_the_first(reply: Any) -> None:
        if isinstance(reply, pb.GetAuditResponse) and reply.audit.HasField("bundle"):
            if not honest:
                honest.append(reply.audit)
            reply.audit.CopyFrom(honest[0])

    lies = only("honest-*") + only("client-a*", "lie-over-*", "lie-size-*", "lie-made-up-rows")
    async with standing(tmp_path) as found, lying(found, always_the_first) as target:
        results = await driven(target, found.setting(), lies)
    assert named(results, Status.PASSED) == {HONEST}
    assert results["lie-over-reported-bill"].came == "one whose receipt has another commitment"


# Editing receipts, and what replies are made of


def test_an_edit_that_no_receipt_takes_is_named() -> None:
    receipt = receipt_pb2.Receipt(format="coin.receipt.v1")
    edits: list[dict[str, Any]] = [
        {"move": {}},
        {"set": {"nothing": 1}},
        {"clear": ["nothing"]},
        {"flip": ["answer"]},
        {"flip": ["checkpoints.7.checkpoint"]},
        {"add": {"billed.nothing": 1}},
        {"copy": {"sent_at": "nothing"}},
    ]
    for edit in edits:
        with pytest.raises(InvalidInputError):
            edited(receipt, edit)
    assert receipt == receipt_pb2.Receipt(format="coin.receipt.v1")


def test_traces_are_those_that_ship_or_a_files(tmp_path: Path) -> None:
    assert len(read_samples(None)) > 3
    path = tmp_path / "traces"
    for text in ("", "{", '{"id": 1}', "[]", '{"id": "a"}'):
        path.write_text(text)
        with pytest.raises(InvalidInputError, match="traces"):
            read_samples(path)


async def test_a_provider_that_there_is_not_is_named(tmp_path: Path) -> None:
    async with standing(tmp_path) as found:
        with pytest.raises(InvalidInputError, match="no provider 'nobody'"):
            await found.own.reply("nobody")
