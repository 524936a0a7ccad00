"""The HTTP interface of a node: receipts in, audits out, health. Errors are RFC 9457 problems."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import json_format
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coin_protocol import transport
from coin_protocol.errors import CoinError, InvalidInputError, TryLaterError
from coin_protocol.limits import MAX_MESSAGE_BYTES
from coin_protocol.receipt import read_receipt
from coin_protocol.v1 import verifier_service_pb2 as pb
from verifier_sdk.node.hosts import Hosts
from verifier_sdk.node.intake import (
    CommitmentFullError,
    ForgedReceiptError,
    Intake,
    QuotaSpentError,
)
from verifier_sdk.node.providers import UnknownProviderError
from verifier_sdk.node.sampling import ASKED_PRIORITY
from verifier_sdk.node.service import STATES, NoSuchAuditError, as_message, parse_audit_id
from verifier_sdk.store.reading import find_audit, find_bundle
from verifier_sdk.store.submissions import ask_for

PREFIX: Final = "/coin/v1"

BODY_SECONDS: Final = 60.0
"""For the body of a request to arrive: the largest receipt at 9 Mbit/s."""

FOREIGN_HOST: Final = (
    "this node does not answer under that host name; whoever runs it names it in the setting "
    "http_hosts"
)

READY_SECONDS: Final = 1.0
"""For so long an answer to `/readyz` holds."""

_PROTOBUF: Final = "application/x-protobuf"
_RETRY_SECONDS: Final = "1"
_SECONDS: Final = 60.0


class _TooLargeError(InvalidInputError):
    """The body is larger than any receipt."""


class _UnwantedTypeError(InvalidInputError):
    """The body is neither of the two forms of a receipt."""


class _NobodyError(CoinError):
    """The call shows no token that is known here."""


class _BusyError(TryLaterError):
    """The caller calls too often."""


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """How the HTTP interface meets its clients.

    Attributes:
        tokens: Each call must show one; None where only this machine can call.
        rate: Calls of each client.
    """

    tokens: transport.TokenFile | None
    rate: transport.RateLimit = field(
        default_factory=lambda: transport.RateLimit(per_second=1000.0, burst=2000)
    )


class _Interface:
    def __init__(
        self,
        engine: Engine,
        intake: Intake,
        workers: transport.Workers,
        settings: HttpSettings,
        asked: Callable[[], None],
    ) -> None:
        self._asked = asked
        self._engine = engine
        self._intake = intake
        self._workers = workers
        self._tokens = settings.tokens
        self._limiter = transport.RateLimiter(settings.rate)

    async def submit(self, request: Request) -> Response:
        caller = self._caller(request)
        raw = await _body(request)

        def prepare() -> Any:  # noqa: ANN401 - a `Submission`
            return self._intake.prepare(read_receipt(raw), caller)

        kept = await self._intake.keep(await self._workers.run(prepare, seconds=_SECONDS))
        audit_id = kept.audit_id.hex()
        return JSONResponse(
            {"audit_id": audit_id, "state": pb.AuditState.Name(STATES[kept.state])},
            status_code=202,
            headers={"Location": f"{PREFIX}/audits/{audit_id}"},
        )

    async def show(self, request: Request) -> Response:
        self._caller(request)
        return await self._shown(request)

    async def run(self, request: Request) -> Response:
        self._caller(request)
        text = request.path_params["audit_id"]

        def ask() -> None:
            if not ask_for(self._engine, parse_audit_id(text), priority=ASKED_PRIORITY):
                raise NoSuchAuditError(_no_such(text))

        await self._workers.run(ask, seconds=_SECONDS)
        self._asked()
        return await self._shown(request, status=202)

    async def bundle(self, request: Request) -> Response:
        caller = self._caller(request)
        text = request.path_params["audit_id"]

        def find() -> bytes | None:
            audit_id = parse_audit_id(text)
            row = find_audit(self._engine, audit_id)
            # It holds the conversation, which is no other client's.
            if row is None or row.submitted_by != caller:
                return None
            return find_bundle(self._engine, audit_id)

        raw = await self._workers.run(find, seconds=_SECONDS)
        if raw is None:
            msg = (
                f"audit {text[:64]!r} has no bundle for you: it is not decided, past its "
                "retention, or another client's"
            )
            raise NoSuchAuditError(msg)
        return Response(raw, media_type=_PROTOBUF)

    async def _shown(self, request: Request, status: int = 200) -> Response:
        text = request.path_params["audit_id"]
        row = await self._workers.run(
            lambda: find_audit(self._engine, parse_audit_id(text)), seconds=_SECONDS
        )
        if row is None:
            raise NoSuchAuditError(_no_such(text))
        document = json_format.MessageToDict(as_message(row), preserving_proto_field_name=True)
        return JSONResponse(document, status_code=status)

    def _caller(self, request: Request) -> str:
        """Return who calls, if tokens say so.

        Raises:
            _NobodyError: No known token is shown.
            _BusyError: The caller calls too often.
        """
        name = ""
        if self._tokens is not None:
            found = self._tokens.name_of(request.headers.get("authorization", ""))
            if found is None:
                self._take("")
                msg = "show a bearer token that this node knows"
                raise _NobodyError(msg)
            name = found
        self._take(name)
        return name

    def _take(self, name: str) -> None:
        seconds = self._limiter.take(name)
        if seconds > 0:
            msg = f"too many calls; come again in {seconds:.2f} s"
            raise _BusyError(msg)


def interface_routes(
    engine: Engine,
    intake: Intake,
    workers: transport.Workers,
    settings: HttpSettings,
    *,
    asked: Callable[[], None] = lambda: None,
) -> list[Route]:
    """Return the routes of receipts and audits; `asked` is called when an audit was asked for."""
    interface = _Interface(engine, intake, workers, settings, asked)
    return [
        Route(f"{PREFIX}/receipts", interface.submit, methods=["POST"]),
        Route(f"{PREFIX}/audits/{{audit_id}}", interface.show, methods=["GET"]),
        Route(f"{PREFIX}/audits/{{audit_id}}/run", interface.run, methods=["POST"]),
        Route(f"{PREFIX}/audits/{{audit_id}}/bundle", interface.bundle, methods=["GET"]),
    ]


class _Readiness:
    """Whether the node can work, found out once a second at most: strangers ask as they like."""

    def __init__(self, ready: Callable[[], Awaitable[str]]) -> None:
        self._ready = ready
        self._turn = asyncio.Lock()
        self._why = ""
        self._holds_until = 0.0

    async def why_not(self) -> str:
        """Return why it cannot; empty where it can."""
        async with self._turn:
            if time.monotonic() >= self._holds_until:
                self._why = await self._ready()
                self._holds_until = time.monotonic() + READY_SECONDS
            return self._why


def health_routes(ready: Callable[[], Awaitable[str]]) -> list[Route]:
    """Return the routes by which an orchestrator sees that the node lives and is ready.

    Args:
        ready: Returns why the node cannot work now; empty where it can. Asked once a second at
            most, however many strangers ask.
    """
    found = _Readiness(ready)

    async def live(request: Request) -> Response:
        del request
        return PlainTextResponse("ok\n")

    async def readiness(request: Request) -> Response:
        del request
        why = await found.why_not()
        return PlainTextResponse(f"{why or 'ok'}\n", status_code=503 if why else 200)

    return [Route("/livez", live), Route("/readyz", readiness)]


def with_problems(app: Starlette) -> Starlette:
    """Have an app answer this project's errors as problems, and redirect nobody."""
    app.add_exception_handler(CoinError, _problem)
    app.router.redirect_slashes = False
    return app


class Front:
    """One port for three applications, told apart by the path."""

    def __init__(
        self, *, interface: ASGIApp, log: ASGIApp | None, pages: ASGIApp, hosts: Hosts
    ) -> None:
        """Put these behind it.

        Args:
            interface: Receipts, audits and health.
            log: Without one its paths are the interface's, which knows none.
            pages: All other paths; they know their hosts themselves.
            hosts: Under which interface and log may be asked. Health tells nothing, and is asked
                by programs that know no name.
        """
        self._interface = interface
        self._log = interface if log is None else log
        self._pages = pages
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        receive = _in_time(receive)
        path = scope.get("path", "")
        if path in {"/livez", "/readyz"}:
            app = self._interface
        elif path == "/checkpoint" or path.startswith(("/tile/", "/coin/")):
            logged = not path.startswith("/coin/") or path.startswith(f"{PREFIX}/log/")
            app = self._log if logged else self._interface
            if not self._hosts.take(Headers(scope=scope).get("host", "")):
                app = _document(421, "not under this name", FOREIGN_HOST)
        else:
            app = self._pages
        await app(scope, receive, send)


_STATUSES: Final[tuple[tuple[type[CoinError], int, str], ...]] = (
    (NoSuchAuditError, 404, "no such audit"),
    (_NobodyError, 401, "not authenticated"),
    (_BusyError, 429, "too many calls"),
    (QuotaSpentError, 429, "the quota of the day is spent"),
    (CommitmentFullError, 409, "enough receipts of this commitment"),
    (_TooLargeError, 413, "too large"),
    (_UnwantedTypeError, 415, "another media type is wanted"),
    (ForgedReceiptError, 422, "the provider did not sign this"),
    (UnknownProviderError, 422, "a provider that is not audited here"),
    (InvalidInputError, 400, "malformed"),
    (TryLaterError, 503, "try again later"),
    (transport.PastDeadlineError, 503, "it waited for too long"),
)


async def _problem(request: Request, error: Exception) -> Response:
    del request
    status, title = 500, "not possible here"
    for kind, code, name in _STATUSES:
        if isinstance(error, kind):
            status, title = code, name
            break
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, QuotaSpentError):
        headers["Retry-After"] = str(math.ceil(error.seconds))
    elif status in {429, 503}:
        headers["Retry-After"] = _RETRY_SECONDS
    return _document(status, title, str(error), headers)


def _document(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return Response(body, status, headers, media_type="application/problem+json")


async def _body(request: Request) -> bytes:
    """Return the body of a request, within its limit.

    Raises:
        InvalidInputError: It is too large, of another type, compressed, or broke off.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"application/json", _PROTOBUF}:
        msg = f"wanted application/json or {_PROTOBUF}"
        raise _UnwantedTypeError(msg)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        msg = "wanted a body that is not compressed"
        raise _UnwantedTypeError(msg)
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_MESSAGE_BYTES:
                msg = f"a receipt has at most {MAX_MESSAGE_BYTES} bytes"
                raise _TooLargeError(msg)
            chunks.append(chunk)
    except ClientDisconnect as error:
        msg = "the request broke off"
        raise InvalidInputError(msg) from error
    return b"".join(chunks)


def _in_time(receive: Receive) -> Receive:
    """Have a body that does not end in time look like one whose sender has hung up."""
    end = time.monotonic() + BODY_SECONDS
    whole = False

    async def receive_in_time() -> Message:
        nonlocal whole
        if whole:
            return await receive()  # from here on, when the client hangs up
        try:
            async with asyncio.timeout(end - time.monotonic()):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        whole = not message.get("more_body", False)
        return message

    return receive_in_time


def _no_such(text: str) -> str:
    return f"no audit {text[:64]!r}: submit the receipt first"
