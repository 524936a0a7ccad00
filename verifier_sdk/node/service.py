"""`VerifierService` over `grpc.aio`: what is said is in the database before the reply leaves."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Engine, Row

from coin_protocol import transport
from coin_protocol.errors import CoinError, InvalidInputError, LimitError, TryLaterError
from coin_protocol.limits import MAX_NAME_BYTES
from coin_protocol.v1 import receipt_pb2
from coin_protocol.v1 import verifier_service_pb2 as pb
from coin_protocol.v1 import verifier_service_pb2_grpc as pb_grpc
from coin_protocol.v1.log_service_pb2_grpc import add_LogServiceServicer_to_server
from verifier_sdk.log import Log
from verifier_sdk.log.service import SERVICE as LOG_SERVICE
from verifier_sdk.log.service import LogServicer
from verifier_sdk.node.intake import (
    CommitmentFullError,
    ForgedReceiptError,
    Intake,
    QuotaSpentError,
)
from verifier_sdk.node.providers import UnknownProviderError
from verifier_sdk.node.sampling import ASKED_PRIORITY
from verifier_sdk.store import tables
from verifier_sdk.store.reading import MOST_LISTED, Filter, find_audit, find_bundle, list_audits
from verifier_sdk.store.storable import storable
from verifier_sdk.store.submissions import ask_for

SERVICE: Final = pb.DESCRIPTOR.services_by_name["VerifierService"].full_name

STATES: Final = {
    tables.SUBMITTED: pb.AUDIT_STATE_SUBMITTED,
    tables.QUEUED: pb.AUDIT_STATE_QUEUED,
    tables.RUNNING: pb.AUDIT_STATE_RUNNING,
    tables.DECIDED: pb.AUDIT_STATE_DECIDED,
    tables.ERROR: pb.AUDIT_STATE_ERROR,
    tables.PURGED: pb.AUDIT_STATE_DECIDED,
}
"""What the wire says for each state of the table."""

MAX_WATCHED: Final = 64
"""Audits that one client watches at a time: each is looked up ten times a second."""

_NAMES: Final = {number: name for name, number in STATES.items() if name != tables.PURGED}
_NEVER_AUDITED: Final = "past its retention before it was audited; nothing is said of the provider"
_LISTED: Final = 100
_AUDIT_ID_CHARACTERS: Final = 64
_WATCH_SECONDS: Final = 0.1
_RETRY_SECONDS: Final = 1.0
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class NoSuchAuditError(CoinError):
    """Nothing was submitted under this id."""


class TooManyWatchedError(TryLaterError):
    """The client watches as many audits as one may."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """How a node meets its clients.

    Attributes:
        tokens: As `transport.Guard` takes them; None where certificates, or loopback, say who.
        rate: Calls of each client.
        threads: Calls worked on at a time.
        queue: Calls that may wait for a thread.
        observer: Told of every call.
    """

    tokens: transport.TokenFile | None = None
    rate: transport.RateLimit = field(
        default_factory=lambda: transport.RateLimit(per_second=1000.0, burst=2000)
    )
    threads: int = 4
    queue: int = 1024
    observer: transport.Observer = field(default_factory=transport.Unobserved)


class VerifierServicer(pb_grpc.VerifierServiceServicer):
    """Takes receipts and shows what came of them; audits are made by workers.

    Where a provider is reached is the verifier's own configuration: an address out of a
    receipt would let anyone send the verifier anywhere.
    """

    def __init__(
        self,
        engine: Engine,
        intake: Intake,
        workers: transport.Workers,
        asked: Callable[[], None],
    ) -> None:
        """Serve what is in the database.

        Args:
            engine: Of it.
            intake: Takes receipts.
            workers: Threads for hashing and reading.
            asked: Called when an audit was asked for.
        """
        self._asked = asked
        self._engine = engine
        self._intake = intake
        self._workers = workers
        self._watched: Counter[str] = Counter()

    async def SubmitReceipt(
        self, request: pb.SubmitReceiptRequest, context: transport.Context
    ) -> pb.SubmitReceiptResponse:
        """Keep a receipt; the same one again gives the same audit."""
        caller = transport.caller()
        submission = await self._run(context, lambda: self._intake.prepare(request.receipt, caller))
        try:
            kept = await self._intake.keep(submission)
        except QuotaSpentError as error:
            await transport.abort(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                str(error),
                transport.error_info("QUOTA_SPENT"),
                transport.quota_failure(f"client:{caller}", str(error)),
                transport.retry_info(error.seconds),
            )
        except CoinError as error:
            await _refused(context, error)
        return pb.SubmitReceiptResponse(audit_id=kept.audit_id.hex(), state=STATES[kept.state])

    async def RunAudit(
        self, request: pb.RunAuditRequest, context: transport.Context
    ) -> pb.RunAuditResponse:
        """Have an audit made, unless it is being made or is decided."""
        caller = transport.caller()

        def ask() -> pb.Audit:
            audit_id = parse_audit_id(request.audit_id)
            if not ask_for(self._engine, audit_id, priority=ASKED_PRIORITY):
                raise NoSuchAuditError(_no_such(request.audit_id))
            return self._audit(audit_id, caller)

        audit = await self._run(context, ask)
        self._asked()
        return pb.RunAuditResponse(audit=audit)

    async def GetAudit(
        self, request: pb.GetAuditRequest, context: transport.Context
    ) -> pb.GetAuditResponse:
        """Return an audit as it stands."""
        caller = transport.caller()
        audit = await self._run(
            context, lambda: self._audit(parse_audit_id(request.audit_id), caller)
        )
        return pb.GetAuditResponse(audit=audit)

    async def WatchAudit(
        self, request: pb.WatchAuditRequest, context: transport.Context
    ) -> AsyncIterator[pb.WatchAuditResponse]:
        """Send an audit as it stands, then each change, until it is decided or given up."""
        caller = transport.caller()
        sent: pb.AuditState.ValueType | None = None
        try:
            with self._watching(caller):
                while True:
                    audit = await self._run(
                        context, lambda: self._audit(parse_audit_id(request.audit_id), caller)
                    )
                    if audit.state != sent:
                        sent = audit.state
                        yield pb.WatchAuditResponse(audit=audit)
                    if sent in {pb.AUDIT_STATE_DECIDED, pb.AUDIT_STATE_ERROR}:
                        return
                    await asyncio.sleep(_WATCH_SECONDS)
        except TooManyWatchedError as error:
            await _unavailable(context, error)

    async def ListAudits(
        self, request: pb.ListAuditsRequest, context: transport.Context
    ) -> pb.ListAuditsResponse:
        """Return a page of audits, newest first."""
        return await self._run(context, lambda: self._list(request))

    @contextmanager
    def _watching(self, caller: str) -> Iterator[None]:
        """Count a client that watches, for as long as it does.

        Raises:
            TooManyWatchedError: It watches as many as it may already.
        """
        if self._watched[caller] >= MAX_WATCHED:
            msg = f"{MAX_WATCHED} audits are watched already; end one, or ask with GetAudit"
            raise TooManyWatchedError(msg)
        self._watched[caller] += 1
        try:
            yield
        finally:
            self._watched[caller] -= 1

    def _list(self, request: pb.ListAuditsRequest) -> pb.ListAuditsResponse:
        if request.page_size > MOST_LISTED:
            msg = f"page_size is {request.page_size}; at most {MOST_LISTED} are given"
            raise InvalidInputError(msg)
        if len(request.provider.encode()) > MAX_NAME_BYTES:
            msg = f"provider has more than {MAX_NAME_BYTES} bytes"
            raise LimitError(msg)
        size = request.page_size or _LISTED
        rows = list_audits(
            self._engine,
            Filter(
                provider=storable(request.provider) or None,
                state=_state_name(request.state) if request.state else None,
                outcome=request.outcome or None,
                below=_page(request.page_token),
            ),
            most=size,
        )
        more = str(rows[-1].number) if len(rows) == size else ""
        return pb.ListAuditsResponse(audits=map(as_message, rows), next_page_token=more)

    def _audit(self, audit_id: bytes, caller: str) -> pb.Audit:
        """Return an audit; with its bundle, which holds the conversation, to who submitted it.

        Raises:
            NoSuchAuditError: There is none.
        """
        row = find_audit(self._engine, audit_id)
        if row is None:
            raise NoSuchAuditError(_no_such(audit_id.hex()))
        message = as_message(row)
        if row.state == tables.DECIDED and row.submitted_by == caller:
            bundle = find_bundle(self._engine, audit_id)
            if bundle is not None:
                message.bundle.ParseFromString(bundle)
        return message

    async def _run(self, context: transport.Context, call: Callable[[], T]) -> T:
        """Run a call on a thread; errors become statuses with details."""
        try:
            return await self._workers.run(call, seconds=context.time_remaining())
        except CoinError as error:
            return await _refused(context, error)
        except Exception:  # noqa: BLE001 - answered as INTERNAL, logged here
            _LOG.exception("a request failed")
        return await transport.abort(
            context,
            grpc.StatusCode.INTERNAL,
            "internal error, see the log",
            transport.error_info("INTERNAL"),
        )


async def make_server(
    engine: Engine,
    intake: Intake,
    settings: ServiceSettings | None = None,
    *,
    asked: Callable[[], None] = lambda: None,
    log: Log | None = None,
) -> transport.Server:
    """Return a server with `VerifierService`, health and reflection, not yet bound.

    Args:
        engine: Of the node's database.
        intake: Takes receipts.
        settings: How clients are met.
        asked: Called when an audit was asked for.
        log: Served by `LogService`, where the node keeps one.
    """
    chosen = settings or ServiceSettings()
    guard = transport.Guard(
        tokens=chosen.tokens,
        rate=chosen.rate,
        max_call_seconds=transport.MAX_CALL_SECONDS,
        observer=chosen.observer,
    )
    workers = transport.Workers(threads=chosen.threads, queue=chosen.queue)
    services = (SERVICE,) if log is None else (SERVICE, LOG_SERVICE)
    server = await transport.make_server(*services, guard=guard)
    servicer = VerifierServicer(engine, intake, workers, asked)
    pb_grpc.add_VerifierServiceServicer_to_server(servicer, server)
    if log is not None:
        add_LogServiceServicer_to_server(LogServicer(log, workers), server)
    server.at_stop(workers.close)
    return server


def as_message(row: Row[Any]) -> pb.Audit:
    """Return the row of an audit as the wire says it, without its bundle."""
    message = pb.Audit(
        audit_id=row.audit_id.hex(),
        state=STATES[row.state],
        provider=row.provider,
        model=row.model,
        submitted_at=_stamp(row.submitted_at),
        outcome=row.outcome or receipt_pb2.OUTCOME_UNSPECIFIED,
        tier=row.tier or receipt_pb2.TIER_UNSPECIFIED,
        failed_check=row.failed_check or "",
    )
    if row.decided_at is not None:
        message.decided_at.CopyFrom(_stamp(row.decided_at))
    if row.failure is not None:
        message.error = row.failure
    if row.state == tables.PURGED and row.outcome is None:
        message.state, message.error = pb.AUDIT_STATE_ERROR, _NEVER_AUDITED
    return message


_CODES: Final[tuple[tuple[type[CoinError], grpc.StatusCode, str], ...]] = (
    (NoSuchAuditError, grpc.StatusCode.NOT_FOUND, "AUDIT_UNKNOWN"),
    (UnknownProviderError, grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_UNKNOWN"),
    (ForgedReceiptError, grpc.StatusCode.INVALID_ARGUMENT, "RECEIPT_NOT_SIGNED"),
    (CommitmentFullError, grpc.StatusCode.FAILED_PRECONDITION, "COMMITMENT_FULL"),
    (InvalidInputError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID"),
    (transport.PastDeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
)


def _code_of(error: CoinError) -> tuple[grpc.StatusCode, str]:
    for kind, code, reason in _CODES:
        if isinstance(error, kind):
            return code, reason
    return grpc.StatusCode.FAILED_PRECONDITION, "VERIFIER_NOT_ABLE"


async def _refused(context: transport.Context, error: CoinError) -> NoReturn:
    """End a call with the status of an error, and its details."""
    if isinstance(error, TryLaterError):
        await _unavailable(context, error)
    code, reason = _code_of(error)
    message = str(error)
    details = [transport.error_info(reason)]
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        details.append(transport.bad_request("request", message))
    await transport.abort(context, code, message, *details)


async def _unavailable(context: transport.Context, error: TryLaterError) -> NoReturn:
    await transport.abort(
        context,
        grpc.StatusCode.UNAVAILABLE,
        str(error),
        transport.error_info("TRY_LATER"),
        transport.retry_info(_RETRY_SECONDS),
    )


def parse_audit_id(text: str) -> bytes:
    """Return the bytes of an audit id in hex.

    Raises:
        NoSuchAuditError: It is no such id.
    """
    try:
        raw = bytes.fromhex(text) if len(text) == _AUDIT_ID_CHARACTERS else b""
    except ValueError:
        raw = b""
    if not raw or raw.hex() != text:
        raise NoSuchAuditError(_no_such(text))
    return raw


def _no_such(text: str) -> str:
    return f"no audit {text[:_AUDIT_ID_CHARACTERS]!r}: submit the receipt first"


def _state_name(state: pb.AuditState.ValueType) -> str:
    name = _NAMES.get(state)
    if name is None:
        msg = f"no audit is ever in state {state}"
        raise InvalidInputError(msg)
    return name


def _page(token: str) -> int | None:
    if not token:
        return None
    if not token.isascii() or not token.isdigit() or len(token) > 18:
        msg = "page_token is none that a reply gave"
        raise InvalidInputError(msg)
    return int(token)


def _stamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e6) * 1000)
    return stamp
