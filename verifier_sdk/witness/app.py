"""The witness over HTTP: `POST /add-checkpoint`, its key, its evidence, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Final, TypeVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coin_protocol.errors import TryLaterError
from coin_protocol.ops.address import network_of
from coin_protocol.transport.rate import RateLimiter
from coin_protocol.transport.work import PastDeadlineError, Workers
from verifier_sdk.witness import metrics as names
from verifier_sdk.witness.metrics import Metrics
from verifier_sdk.witness.rules import Refusal, Refused
from verifier_sdk.witness.wire import MAX_REQUEST_BYTES, PATH, SIZE_TYPE
from verifier_sdk.witness.witness import Answer, Witness

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

BODY_SECONDS: Final = 10.0
"""For a request's body to arrive: some kilobytes."""

STATUS: Final[Mapping[Refusal, int]] = {
    Refusal.MALFORMED: 400,
    Refusal.UNKNOWN_LOG: 404,
    Refusal.UNSIGNED: 403,
    Refusal.STALE: 409,
    Refusal.FORKED: 409,
    Refusal.UNPROVEN: 422,
}
WORK_SECONDS: Final = 15.0
"""For the database and the key; past it nobody waits, and what is on disk stays there."""

_LATER: Final = (TryLaterError, PastDeadlineError)
_PROTOBUF: Final = "application/x-protobuf"
_RETRY_SECONDS: Final = 5


class _TooLargeError(Exception):
    pass


class WitnessApp:
    """Answers logs. `app` is the ASGI application."""

    def __init__(self, witness: Witness, metrics: Metrics, limiter: RateLimiter) -> None:
        """Serve one witness; each address may ask as often as `limiter` says."""
        self._witness = witness
        self._metrics = metrics
        self._limiter = limiter
        self._workers = Workers()
        self.app = Starlette(
            routes=[
                Route("/", self._about),
                Route(PATH, self._add_checkpoint, methods=["POST"]),
                Route("/evidence", self._evidence),
                Route("/evidence/{sha256}", self._evidence_file),
                Route("/healthz", self._health),
                Route("/readyz", self._ready),
            ]
        )
        self.app.router.redirect_slashes = False

    async def _add_checkpoint(self, request: Request) -> Response:
        try:
            outcome, response = await self._answered(request)
        except Exception:  # noqa: BLE001 - a bug of ours, or a signer that gives no signature
            _LOG.exception("a request failed")
            outcome, response = names.FAILED, _text(500, "the witness failed; nothing was signed")
        self._metrics.requests.labels(outcome=outcome).inc()
        return response

    async def _answered(self, request: Request) -> tuple[str, Response]:
        too_many = self._too_many(request)
        if too_many is not None:
            return names.TOO_MANY, too_many
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
        except _TooLargeError:
            msg = f"a request has at most {MAX_REQUEST_BYTES} bytes"
            return names.TOO_LARGE, _text(413, msg, {"connection": "close"})
        except (TimeoutError, ClientDisconnect):
            return names.SLOW, _text(
                408, "the request did not end in time", {"connection": "close"}
            )
        try:
            answer = await self._work(partial(self._witness.add_checkpoint, body))
        except _LATER as error:
            _LOG.error("a checkpoint was not cosigned: %s", error)
            return names.UNAVAILABLE, _later()
        if answer.evidence is not None and answer.origin is not None:
            await self._convicted(answer.origin, answer.evidence)
        return self._said(answer)

    async def _work(self, call: Callable[[], T]) -> T:
        return await self._workers.run(call, seconds=WORK_SECONDS)

    def _said(self, answer: Answer) -> tuple[str, Response]:
        result = answer.result
        if not isinstance(result, Refused):
            at = result.at
            self._metrics.cosigned(result.checkpoint.origin, result.checkpoint.size, at)
            return names.COSIGNED, _text(200, result.line.removesuffix("\n"))
        if result.why is Refusal.STALE:
            # Exactly this type, without a character set: logs look for it.
            headers = {"content-type": SIZE_TYPE}
            return result.why, Response(f"{result.size}\n", STATUS[result.why], headers)
        if result.why in {Refusal.FORKED, Refusal.UNPROVEN}:
            _LOG.warning("a head of %s is not cosigned: %s", answer.origin, result.message)
        return result.why, _text(STATUS[result.why], result.message)

    async def _convicted(self, origin: str, evidence: bytes) -> None:
        digest = sha256(evidence).hexdigest()
        _LOG.critical("the log %s signed two heads of one size: /evidence/%s", origin, digest)
        try:
            await self._work(partial(self._metrics.count_evidence, self._witness.store))
        except _LATER:
            return  # counted again with the next, or at the next start

    def _too_many(self, request: Request) -> Response | None:
        wait = self._limiter.take(network_of(request.client.host if request.client else ""))
        if not wait:
            return None
        headers = {"retry-after": str(max(1, round(wait))), "connection": "close"}
        return _text(429, "too many requests; try again later", headers)

    async def _about(self, request: Request) -> Response:
        """Say who this is, and whom it follows."""
        too_many = self._too_many(request)
        if too_many is not None:
            return too_many
        witness = self._witness
        verifier = witness.verifier
        document = {"witness": verifier.key.name, "vkey": verifier.vkey, "logs": witness.origins}
        return JSONResponse(document)

    async def _evidence(self, request: Request) -> Response:
        """List the evidence, newest first."""
        too_many = self._too_many(request)
        if too_many is not None:
            return too_many
        try:
            found = await self._work(self._witness.store.evidence)
        except _LATER:
            return _later()
        rows = [
            {
                "sha256": entry.sha256.hex(),
                "origin": entry.origin,
                "size": entry.size,
                "found_at": entry.found_at,
            }
            for entry in found
        ]
        return JSONResponse({"evidence": rows})

    async def _evidence_file(self, request: Request) -> Response:
        """Hand out one file: `Evidence` of coin_protocol/v1/evidence.proto."""
        too_many = self._too_many(request)
        if too_many is not None:
            return too_many
        try:
            digest = bytes.fromhex(request.path_params["sha256"])
            found = await self._work(partial(self._witness.store.evidence_file, digest))
        except ValueError:
            found = None
        except _LATER:
            return _later()
        if found is None:
            return _text(404, "there is no such evidence")
        return Response(found, media_type=_PROTOBUF)

    async def _health(self, request: Request) -> Response:
        """Say that the process runs."""
        del request
        return _text(200, "ok")

    async def _ready(self, request: Request) -> Response:
        """Say whether the database answers."""
        del request
        try:
            await self._work(self._witness.store.require_answer)
        except _LATER:
            return _later()
        return _text(200, "ready")


async def _body(request: Request) -> bytes:
    """Return the body, never more than a request can have."""
    parts, length = [], 0
    async for piece in request.stream():
        length += len(piece)
        if length > MAX_REQUEST_BYTES:
            raise _TooLargeError
        parts.append(piece)
    return b"".join(parts)


def _text(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(f"{message}\n", status, headers, media_type="text/plain")


def _later() -> Response:
    headers = {"retry-after": str(_RETRY_SECONDS)}
    return _text(503, "the witness cannot answer now; try again later", headers)
