"""`VerifierService` over `grpc.aio`: audits kept in memory, one task each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import grpc
from grpc import aio

from coin_protocol import transport
from coin_protocol.encoding import digest
from coin_protocol.errors import CoinError, InvalidInputError
from coin_protocol.receipt import check_receipt
from coin_protocol.statements import read_commitment
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1 import verifier_service_pb2_grpc as pb_grpc
from verifier_sdk.auditor import Auditor
from verifier_sdk.client import ProviderClient

SERVICE: Final = pb.DESCRIPTOR.services_by_name["VerifierService"].full_name
MAX_AUDITS: Final = 10_000
"""Audits kept at a time; more are refused, since nothing is written to disk."""

_LOG = logging.getLogger(__name__)


@dataclass
class _Audit:
    receipt: receipt_pb2.Receipt
    message: pb.Audit
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None


class VerifierServicer(pb_grpc.VerifierServiceServicer):
    """Runs audits with one `Auditor`, against providers that it was told of.

    Where a provider is reached is the verifier's own configuration: an address out of a
    receipt would let anyone send the verifier anywhere.
    """

    def __init__(self, auditor: Auditor, providers: Mapping[str, ProviderClient]) -> None:
        """Serve `auditor`, with a client for each provider's name."""
        self._auditor = auditor
        self._providers = providers
        self._audits: dict[str, _Audit] = {}

    async def SubmitReceipt(
        self, request: pb.SubmitReceiptRequest, context: transport.Context
    ) -> pb.SubmitReceiptResponse:
        """Keep a receipt; the same one again gives the same audit."""
        receipt = request.receipt
        try:
            check_receipt(receipt)
            name = read_commitment(receipt.commitment.payload).provider
        except CoinError as error:
            await transport.abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if name not in self._providers:
            known = ", ".join(self._providers) or "none"
            msg = f"provider {name!r} is not configured here; known: {known}"
            await transport.abort(context, grpc.StatusCode.FAILED_PRECONDITION, msg)
        key = digest(receipt.commitment.payload) + receipt.SerializeToString(deterministic=True)
        audit_id = sha256(key).hexdigest()
        if audit_id not in self._audits:
            if len(self._audits) >= MAX_AUDITS:
                msg = f"{MAX_AUDITS} audits are kept already; restart this verifier"
                await transport.abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, msg)
            message = pb.Audit(audit_id=audit_id, state=pb.AUDIT_STATE_SUBMITTED)
            self._audits[audit_id] = _Audit(receipt, message)
        return pb.SubmitReceiptResponse(audit_id=audit_id)

    async def RunAudit(
        self, request: pb.RunAuditRequest, context: transport.Context
    ) -> pb.RunAuditResponse:
        """Start an audit, unless it runs or is decided."""
        audit = await self._find(request.audit_id, context)
        if audit.task is None or audit.message.state == pb.AUDIT_STATE_ERROR:
            audit.message.ClearField("error")
            audit.task = asyncio.create_task(self._run(audit))
            await _change(audit, pb.AUDIT_STATE_RUNNING)
        return pb.RunAuditResponse(audit=audit.message)

    async def GetAudit(
        self, request: pb.GetAuditRequest, context: transport.Context
    ) -> pb.GetAuditResponse:
        """Return an audit as it stands."""
        return pb.GetAuditResponse(audit=(await self._find(request.audit_id, context)).message)

    async def WatchAudit(
        self, request: pb.WatchAuditRequest, context: transport.Context
    ) -> AsyncIterator[pb.WatchAuditResponse]:
        """Send an audit as it stands, then each change, until it is decided."""
        audit = await self._find(request.audit_id, context)
        sent: int | None = None
        while True:
            async with audit.changed:
                await audit.changed.wait_for(lambda: audit.message.state != sent)  # noqa: B023
            sent = audit.message.state
            yield pb.WatchAuditResponse(audit=audit.message)
            if sent in (pb.AUDIT_STATE_DECIDED, pb.AUDIT_STATE_ERROR):
                return

    async def _run(self, audit: _Audit) -> None:
        try:
            name = read_commitment(audit.receipt.commitment.payload).provider
            bundle = await self._auditor.audit(audit.receipt, self._providers[name])
            audit.message.bundle.CopyFrom(bundle)
            state = pb.AUDIT_STATE_DECIDED
        except InvalidInputError as error:
            audit.message.error = str(error)
            state = pb.AUDIT_STATE_ERROR
        except Exception:  # noqa: BLE001 - or it would be lost in the task
            _LOG.exception("audit %s failed", audit.message.audit_id)
            audit.message.error = "internal error; nothing is said of the provider"
            state = pb.AUDIT_STATE_ERROR
        await _change(audit, state)

    async def _find(self, audit_id: str, context: transport.Context) -> _Audit:
        audit = self._audits.get(audit_id)
        if audit is None:
            msg = f"no audit {audit_id[:64]!r}: submit the receipt first"
            await transport.abort(context, grpc.StatusCode.NOT_FOUND, msg)
        return audit


async def _change(audit: _Audit, state: pb.AuditState.ValueType) -> None:
    async with audit.changed:
        audit.message.state = state
        audit.changed.notify_all()


async def make_server(auditor: Auditor, providers: Mapping[str, ProviderClient]) -> aio.Server:
    """Return a server with `VerifierService`, health and reflection, not yet bound."""
    server = await transport.make_server(SERVICE)
    servicer = VerifierServicer(auditor, providers)
    pb_grpc.add_VerifierServiceServicer_to_server(servicer, server)
    return server
