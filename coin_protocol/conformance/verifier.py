"""Drive a verifier node over gRPC, and hold what it says against the protocol.

Operations, with the fields of a case's `input` and `expect`:

* `health`: `service`; expects `status`. `reflection`: expects `services`.
* `call`: `method`, `fields` of its request in protobuf's JSON form or `request_hex`, `seconds`;
  expects `status`, and `reason` if given.
* `submit`: an honest receipt after `edit` (`editing`); expects `status`, and `reason`.
* `submit_again`: a receipt twice gives the `same` audit.
* `audit`: the reply of a provider of the runner's own (`reply`: `honest`, or a liar) after `edit`;
  expects any of `failed`, `outcome`, `fault`, `timed` (each may be a list). With `refusable` a
  receipt that is not taken in is met, too; `whole_blocks` and `token_blocks` say what the node's
  rules must ask for.
* `watch`: it `ends` decided; `listed`: the audit `is` in the list; `bundle`: it `holds`, offline.
* `inclusion`: `of` `commitment` or `verdict`, under a signed head; `consistency`: of two heads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from grpc import aio

from coin_protocol.checks import Trust
from coin_protocol.conformance.case import Case
from coin_protocol.conformance.editing import edited
from coin_protocol.conformance.judging import NotApplicable, NotMet
from coin_protocol.conformance.node_log import NodeLog
from coin_protocol.conformance.replies import Installed
from coin_protocol.conformance.wire import (
    OK,
    Answer,
    Wire,
    answer_of,
    parsed,
    require_health,
    require_services,
    require_status,
)
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError, InvalidInputError
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf
from coin_protocol.note import NoteVerifier
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy, Profile
from coin_protocol.receipt import read_bundle
from coin_protocol.statements import read_commitment, read_verdict
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["VerifierService"].full_name

_REQUESTS: Final[Mapping[str, type[Message]]] = {
    "SubmitReceipt": pb.SubmitReceiptRequest,
    "RunAudit": pb.RunAuditRequest,
    "GetAudit": pb.GetAuditRequest,
    "WatchAudit": pb.WatchAuditRequest,
    "ListAudits": pb.ListAuditsRequest,
}
_ENDED: Final = (pb.AUDIT_STATE_DECIDED, pb.AUDIT_STATE_ERROR)
_REFUSED: Final = ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
_LOOK_SECONDS: Final = 0.1
_REPEATS: Final = 100
_NO_PROVIDERS: Final = (
    "needs providers of the runner's own: give --keys and --verifier, and name them in the "
    "node's settings"
)


@dataclass(frozen=True, kw_only=True)
class VerifierSetting:
    """What the runner has beside the node.

    Attributes:
        trust: The root of the runner's providers, and the node's key.
        profile: The node's.
        policy: The node's.
        name: Of the runner's providers.
        reply: Has one of them answer; None where there are none.
        installed: Returns the profile's models, or raises `NotApplicable`.
        log_key: Of the node's log; None where its heads are not to be verified.
        audit_seconds: For one audit.
        settle: What to look at where the node does not reach the runner's providers.
    """

    trust: Trust
    profile: Profile
    policy: Policy
    name: str
    reply: Callable[[str], Awaitable[receipt_pb2.Receipt]] | None
    installed: Callable[[], Installed]
    log_key: NoteVerifier | None
    audit_seconds: float
    settle: str = ""


@dataclass(frozen=True, slots=True)
class _Audited:
    """An audit that was decided."""

    audit: pb.Audit
    receipt: receipt_pb2.Receipt
    verdict: receipt_pb2.Verdict


class VerifierDriver:
    """Performs cases of kind `verifier`."""

    def __init__(self, wire: Wire, setting: VerifierSetting) -> None:
        """Drive the target of a wire."""
        self._wire = wire
        self._setting = setting
        self._receipt: receipt_pb2.Receipt | None = None
        self._honest: _Audited | None = None
        self._log = NodeLog(wire, setting.log_key, setting.audit_seconds)

    async def perform(self, case: Case) -> None:
        """Put a case to the node.

        Raises:
            NotMet: The node does otherwise.
            NotApplicable: It cannot be put to this node, or with what was given.
        """
        await OPERATIONS[case.operation](self, case)

    async def health(self, case: Case) -> None:
        """Ask for a service's health."""
        await require_health(self._wire, case)

    async def reflection(self, case: Case) -> None:
        """Ask which services there are."""
        await require_services(self._wire, case)

    async def call(self, case: Case) -> None:
        """Send one request, malformed or not."""
        method = str(case.given.get("method", ""))
        kind = _REQUESTS.get(method)
        raw = case.given.get("request_hex")
        if kind is None and "/" not in method:
            msg = f"case {case.name}: `method` is one of {', '.join(_REQUESTS)}, or SERVICE/METHOD"
            raise InvalidInputError(msg)
        if raw is not None or kind is None:
            request = bytes.fromhex(raw or "")
        else:
            fields = dict(case.given.get("fields", {}))
            request = json_format.ParseDict(fields, kind()).SerializeToString()
        full = method if "/" in method else f"{SERVICE}/{method}"
        seconds = case.given.get("seconds", -1.0)
        if method == "WatchAudit":
            answer = await self._watched(request)
        else:
            answer = await self._wire.call(full, request, seconds=seconds)
        require_status(answer, case.expect, method)

    async def submit(self, case: Case) -> None:
        """Hand in a receipt after an edit."""
        receipt = edited(await self._some_receipt(), case.given.get("edit", {}))
        answer = await self._submit(receipt)
        require_status(answer, case.expect, "SubmitReceipt")

    async def submit_again(self, case: Case) -> None:
        """Hand in a receipt twice, and another of the same commitment."""
        del case
        receipt = await self._some_receipt()
        first, second = [await self._submitted(receipt) for _ in range(2)]
        if first.audit_id != second.audit_id:
            raise NotMet(
                wanted=f"audit {first.audit_id} again",
                came=f"audit {second.audit_id}",
                advice="An audit is named by the SHA-256 of the commitment's and the receipt.",
            )
        raw = receipt.SerializeToString()
        wanted = digest(digest(receipt.commitment.payload) + raw).hex()
        if first.audit_id != wanted:
            raise NotMet(
                wanted=f"audit id {wanted}: hex SHA-256 of the commitment and the receipt",
                came=first.audit_id,
            )

    async def audit(self, case: Case) -> None:
        """Have a reply audited to its end."""
        expect = case.expect
        self._require_reach(case)
        edit = case.given.get("edit", {})
        name = str(case.given.get("reply", "honest"))
        receipt = edited(await self._reply(name), edit)
        if case.given.get("refusable"):
            answer = await self._submit(receipt)
            if answer.status in _REFUSED:
                return
        found = await self._audited(receipt)
        verdict = found.verdict
        failed = [
            result.code
            for result in verdict.checks
            if result.status == receipt_pb2.CHECK_STATUS_FAILED
        ]
        shown = {
            "failed": failed[0] if failed else None,
            "outcome": receipt_pb2.Outcome.Name(verdict.outcome).removeprefix("OUTCOME_"),
            "fault": receipt_pb2.Fault.Name(verdict.fault).removeprefix("FAULT_"),
            "timed": receipt_pb2.TIER_TIMED in verdict.tiers,
        }
        for what, wanted in expect.items():
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if shown.get(what) not in allowed:
                raise NotMet(
                    wanted=f"{what} {' or '.join(map(_named, allowed))}",
                    came=f"{what} {_named(shown.get(what))}: {'; '.join(verdict.reasons)[:300]}",
                )
        if found.audit.failed_check != (shown["failed"] or ""):
            raise NotMet(
                wanted=f"an audit that names check {_named(shown['failed'])}, as its verdict does",
                came=f"failed_check {found.audit.failed_check!r}",
            )

    async def watch(self, case: Case) -> None:
        """Watch an audit to its end."""
        del case
        honest = await self._honest_audit()
        request = pb.WatchAuditRequest(audit_id=honest.audit.audit_id)
        last = pb.Audit()
        try:
            async for raw in self._wire.stream(f"{SERVICE}/WatchAudit", request):
                last = pb.WatchAuditResponse.FromString(raw).audit
        except aio.AioRpcError as error:
            raise NotMet(wanted="a stream that ends", came=str(answer_of(error))) from error
        except DecodeError as error:
            raise NotMet(wanted="an audit", came="bytes that do not parse") from error
        if last.state != pb.AUDIT_STATE_DECIDED:
            raise NotMet(wanted="a stream that ends when the audit is decided", came=_state(last))

    async def listed(self, case: Case) -> None:
        """Find an audit in the list."""
        del case
        honest = await self._honest_audit()
        wanted = honest.audit.audit_id
        token, seen = "", 0
        for _ in range(_REPEATS):
            request = pb.ListAuditsRequest(provider=self._setting.name, page_token=token)
            page = await self._wire.ask(f"{SERVICE}/ListAudits", request, pb.ListAuditsResponse())
            seen += len(page.audits)
            for audit in page.audits:
                if audit.HasField("bundle"):
                    raise NotMet(wanted="a list without bundles", came=f"one of {audit.audit_id}")
                if audit.audit_id == wanted and audit.outcome == honest.audit.outcome:
                    return
            token = page.next_page_token
            if not token:
                break
        raise NotMet(
            wanted=f"audit {wanted} in the list of {self._setting.name!r}, newest first",
            came=f"{seen} others",
        )

    async def bundle(self, case: Case) -> None:
        """Decide an honest audit's bundle again, offline, with the profile's models."""
        del case
        honest = await self._honest_audit()
        installed = await asyncio.to_thread(self._setting.installed)
        await asyncio.to_thread(self._require_borne_out, honest.audit.bundle, installed)

    async def inclusion(self, case: Case) -> None:
        """Have an entry proven to be in the log."""
        await self._log.require()
        honest = await self._honest_audit()
        commitment = read_commitment(honest.receipt.commitment.payload)
        named = digest(honest.receipt.commitment.payload)
        if case.given.get("of") == "verdict":
            verdict = VerdictLeaf(named, digest(honest.audit.bundle.verdict.payload))
            await self._log.require_entry(verdict.to_bytes())
            return
        entry = CommitmentLeaf(commitment.provider, commitment.session_id, named)
        await self._log.require_entry(entry.to_bytes())

    async def consistency(self, case: Case) -> None:
        """Have a head proven to continue an earlier one."""
        del case
        await self._log.require()
        await self._honest_audit()
        old = await self._log.head_past(0)
        await self._audited(await self._reply("honest"))
        await self._log.require_consistent(old, await self._log.head_past(old.size))

    # Audits

    async def _honest_audit(self) -> _Audited:
        if self._honest is None:
            self._honest = await self._audited(await self._reply("honest"))
        return self._honest

    async def _some_receipt(self) -> receipt_pb2.Receipt:
        if self._receipt is None:
            self._receipt = await self._reply("honest")
        return self._receipt

    async def _reply(self, name: str) -> receipt_pb2.Receipt:
        if self._setting.reply is None:
            raise NotApplicable(_NO_PROVIDERS)
        return await self._setting.reply(name)

    async def _audited(self, receipt: receipt_pb2.Receipt) -> _Audited:
        """Hand a receipt in, and wait for the verdict."""
        submitted = await self._submitted(receipt)
        asked = pb.RunAuditRequest(audit_id=submitted.audit_id)
        await self._wire.ask(f"{SERVICE}/RunAudit", asked, pb.RunAuditResponse())
        audit = await self._ended(submitted.audit_id)
        _require_of(receipt, audit, submitted.audit_id)
        await asyncio.to_thread(self._require_borne_out, audit.bundle, None)
        return _Audited(audit, receipt, read_verdict(audit.bundle.verdict.payload))

    async def _ended(self, audit_id: str) -> pb.Audit:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._setting.audit_seconds
        request = pb.GetAuditRequest(audit_id=audit_id)
        while True:
            reply = await self._wire.ask(f"{SERVICE}/GetAudit", request, pb.GetAuditResponse())
            audit = reply.audit
            if audit.state in _ENDED:
                break
            if loop.time() > end:
                raise NotMet(
                    wanted=f"a verdict within {self._setting.audit_seconds:g} s",
                    came=_state(audit),
                    advice=self._setting.settle,
                )
            await asyncio.sleep(_LOOK_SECONDS)
        if audit.state != pb.AUDIT_STATE_DECIDED or not audit.HasField("bundle"):
            raise NotMet(
                wanted="a decided audit, with its bundle for whoever handed the receipt in",
                came=_state(audit) if audit.error or audit.bundle is None else "no bundle",
                advice=self._setting.settle,
            )
        return audit

    async def _submitted(self, receipt: receipt_pb2.Receipt) -> pb.SubmitReceiptResponse:
        answer = await self._submit(receipt)
        if answer.status != OK:
            raise NotMet(
                wanted="a receipt that its provider signed is kept",
                came=str(answer),
                advice=self._setting.settle,
            )
        return parsed(answer, pb.SubmitReceiptResponse(), "SubmitReceipt")

    async def _submit(self, receipt: receipt_pb2.Receipt) -> Answer:
        request = pb.SubmitReceiptRequest(receipt=receipt)
        return await self._wire.call(
            f"{SERVICE}/SubmitReceipt", request.SerializeToString(), patient=True
        )

    async def _watched(self, raw: bytes) -> Answer:
        """Return how a stream ends."""
        try:
            request = pb.WatchAuditRequest.FromString(raw)
            async for _ in self._wire.stream(f"{SERVICE}/WatchAudit", request):
                pass
        except aio.AioRpcError as error:
            return answer_of(error)
        except DecodeError as error:
            msg = "WatchAudit takes `fields`, not bytes that do not parse"
            raise InvalidInputError(msg) from error
        return Answer(OK)

    def _require_borne_out(self, bundle: receipt_pb2.Bundle, installed: Installed | None) -> None:
        """Check that a bundle's evidence gives its verdict.

        Raises:
            NotMet: It does not, or the node decides by other rules than were given.
        """
        setting = self._setting
        try:
            verify_bundle(
                read_bundle(bundle.SerializeToString()),
                trust=setting.trust,
                profile=setting.profile,
                policy=setting.policy,
                installed=installed,
            )
        except InvalidInputError as error:
            raise NotMet(
                wanted="a bundle under the profile and the policy that were given",
                came=str(error),
                advice="Give --profile and --policy as the node has them.",
            ) from error
        except CoinError as error:
            raise NotMet(
                wanted="a bundle whose evidence gives its verdict, signed by the node",
                came=str(error),
                advice="`coin bundle verify` says more of it; --verifier must be the node's key.",
            ) from error

    def _require_reach(self, case: Case) -> None:
        """Check that the node's rules let it see a lie.

        Raises:
            NotApplicable: They do not.
        """
        caps, rounds = self._setting.profile.message.caps, self._setting.policy.message.rounds
        if case.given.get("whole_blocks") and not (caps.whole_blocks_ppm and rounds.whole_blocks):
            msg = "profile or policy agree to no blocks opened whole, in which this lie is"
            raise NotApplicable(msg)
        if case.given.get("token_blocks") and not rounds.token_blocks_first_round:
            msg = "the policy asks for no token blocks, in which this lie is"
            raise NotApplicable(msg)


OPERATIONS: Final[Mapping[str, Callable[[VerifierDriver, Case], Awaitable[None]]]] = {
    "health": VerifierDriver.health,
    "reflection": VerifierDriver.reflection,
    "call": VerifierDriver.call,
    "submit": VerifierDriver.submit,
    "submit_again": VerifierDriver.submit_again,
    "audit": VerifierDriver.audit,
    "watch": VerifierDriver.watch,
    "listed": VerifierDriver.listed,
    "bundle": VerifierDriver.bundle,
    "inclusion": VerifierDriver.inclusion,
    "consistency": VerifierDriver.consistency,
}
"""In the order in which cases run."""


def _require_of(receipt: receipt_pb2.Receipt, audit: pb.Audit, audit_id: str) -> None:
    """Check that an audit is that of a receipt. Key set and fingerprints may be later ones.

    Raises:
        NotMet: It is another's.
    """
    kept = audit.bundle.receipt
    names = ("commitment", "checkpoints", "client_nonce", "request", "answer", "billed", "sent_at")
    for name in names:
        if getattr(kept, name) != getattr(receipt, name):
            raise NotMet(
                wanted="the bundle of the receipt that was handed in",
                came=f"one whose receipt has another {name}",
            )
    if audit.audit_id != audit_id:
        raise NotMet(wanted=f"audit {audit_id}", came=f"audit {audit.audit_id}")


def _state(audit: pb.Audit) -> str:
    said = f": {audit.error[:300]}" if audit.error else ""
    return f"state {pb.AuditState.Name(audit.state).removeprefix('AUDIT_STATE_')}{said}"


def _named(value: object) -> str:
    return "none" if value is None else str(value)
