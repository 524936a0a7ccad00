"""The log over HTTP: its checkpoint, proofs as JSON, and tiles for any client of tiled logs.

`/checkpoint` and `/tile/…` are those of https://c2sp.org/tlog-tiles. Errors are problem details
(RFC 9457) with a `reason` for programs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coin_protocol.checkpoint import MAX_SIZE, parse_size
from coin_protocol.errors import CoinError, InvalidInputError, StatementError
from coin_protocol.limits import MAX_LOG_ENTRIES
from coin_protocol.transport import Workers
from verifier_sdk.log.log import Log
from verifier_sdk.log.statuses import RETRY_SECONDS, status_of
from verifier_sdk.log.tiles import TILE_WIDTH

SECONDS: Final = 10.0
"""What a request may take."""

_FOR_EVER: Final = {"cache-control": "public, max-age=31536000, immutable"}
_NOT_KEPT: Final = {"cache-control": "no-cache"}
_LEAF_HASH: Final = re.compile(r"[0-9a-f]{64}")
_TILE: Final = re.compile(r"((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")

T = TypeVar("T")


def log_app(log: Log, workers: Workers | None = None) -> Starlette:
    """Return an ASGI application that serves a log; mount it where the log's URL points.

    Args:
        log: Whose heads and proofs.
        workers: Do the work; by default of this application's own.
    """
    return _Endpoints(log, workers or Workers()).app()


class _Endpoints:
    """What the paths answer."""

    def __init__(self, log: Log, workers: Workers) -> None:
        """Serve `log`, SQL on threads."""
        self._log = log
        self._workers = workers

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/checkpoint", self.checkpoint),
            Route("/tile/entries/{tile:path}", self.entry_bundle),
            Route("/tile/{level}/{tile:path}", self.tile),
            Route("/coin/v1/log/inclusion", self.inclusion),
            Route("/coin/v1/log/consistency", self.consistency),
            Route("/coin/v1/log/entries", self.entries),
        ]
        handlers = {HTTPException: _refused, CoinError: _failed, Exception: _failed}
        app = Starlette(routes=routes, exception_handlers=handlers)
        # A path has one form; a redirect would lead to whatever host the request names.
        app.router.redirect_slashes = False
        return app

    async def checkpoint(self, request: Request) -> Response:
        """Return the newest head, as a signed note."""
        _query(request, ())
        head = await self._run(self._log.head)
        tag = f'"{sha256(head.note).hexdigest()[:32]}"'
        headers = _NOT_KEPT | {"etag": tag}
        if _has(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(head.note, headers=headers, media_type="text/plain; charset=utf-8")

    async def inclusion(self, request: Request) -> Response:
        """Prove that an entry is in the tree of a head."""
        given = _query(request, ("leaf_hash", "index", "size"))
        if ("leaf_hash" in given) == ("index" in given):
            msg = "say which entry: leaf_hash=, 64 hex digits, or index="
            raise InvalidInputError(msg)
        entry: bytes | int
        entry = _number(given, "index") if "index" in given else _leaf_hash(given["leaf_hash"])
        size = _number(given, "size") if "size" in given else None
        found = await self._run(lambda: self._log.inclusion(entry, size))
        document = {"index": found.index, "size": found.size, "proof": _encoded(found.proof)}
        if found.head is not None:
            document["checkpoint"] = found.head.note.decode()
        return _json(document, _NOT_KEPT if size is None else _FOR_EVER)

    async def consistency(self, request: Request) -> Response:
        """Prove that the tree of one head is a prefix of that of another."""
        given = _query(request, ("old", "new"))
        sizes = _number(given, "old"), _number(given, "new")
        proof = await self._run(lambda: self._log.consistency(*sizes))
        return _json({"old": sizes[0], "new": sizes[1], "proof": _encoded(proof)}, _FOR_EVER)

    async def entries(self, request: Request) -> Response:
        """Return the data of entries."""
        given = _query(request, ("start", "count"))
        start, count = _number(given, "start"), _number(given, "count")
        found = await self._run(lambda: self._log.entries(start, count))
        whole = len(found) == min(count, MAX_LOG_ENTRIES)
        document = {"start": start, "entries": _encoded(found)}
        return _json(document, _FOR_EVER if whole else _NOT_KEPT)

    async def tile(self, request: Request) -> Response:
        """Return the hashes of a tile."""
        _query(request, ())
        level = _parsed(request.path_params["level"], "the level of a tile")
        index, width = _tile(request.path_params["tile"])
        found = await self._run(lambda: self._log.tile(level, index, width))
        return _bytes(found)

    async def entry_bundle(self, request: Request) -> Response:
        """Return the entries of a tile of level 0."""
        _query(request, ())
        index, width = _tile(request.path_params["tile"])
        return _bytes(await self._run(lambda: self._log.entry_bundle(index, width)))

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._workers.run(call, seconds=SECONDS)


async def _failed(_request: Request, error: Exception) -> Response:
    """Answer with what went wrong."""
    status = status_of(error)
    headers = {"retry-after": str(RETRY_SECONDS)} if status.later else {}
    return _problem(status.http, status.detail, status.reason, headers)


async def _refused(_request: Request, error: Exception) -> Response:
    """Answer to a path or method that there is not."""
    if not isinstance(error, HTTPException):
        raise error
    reason = HTTPStatus(error.status_code).name
    return _problem(error.status_code, error.detail, reason, error.headers or {})


def _problem(status: int, detail: str, reason: str, headers: Mapping[str, str]) -> Response:
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
    }
    return Response(
        json.dumps(document),
        status_code=status,
        headers=_NOT_KEPT | dict(headers),
        media_type="application/problem+json",
    )


def _json(document: dict[str, object], headers: dict[str, str]) -> Response:
    return Response(json.dumps(document), headers=headers, media_type="application/json")


def _bytes(found: bytes) -> Response:
    return Response(found, headers=_FOR_EVER, media_type="application/octet-stream")


def _has(request: Request, tag: str) -> bool:
    """Whether the client has this version already (RFC 9110, section 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    tags = [one.strip().removeprefix("W/") for one in given.split(",")]
    return "*" in tags or tag in tags


def _query(request: Request, known: Iterable[str]) -> dict[str, str]:
    """Return the parameters, each known and given once at most."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            msg = f"no parameter {name[:40]!r} here; there are: {', '.join(known) or 'none'}"
            raise InvalidInputError(msg)
        if name in found:
            msg = f"{name} is given twice"
            raise InvalidInputError(msg)
        found[name] = value
    return found


def _number(given: dict[str, str], name: str) -> int:
    if name not in given:
        msg = f"{name}= is missing"
        raise InvalidInputError(msg)
    return _parsed(given[name], name)


def _parsed(text: str, what: str) -> int:
    try:
        return parse_size(text)
    except StatementError as error:
        msg = f"{what} must be a decimal number without leading zeros, below 2^63"
        raise InvalidInputError(msg) from error


def _leaf_hash(text: str) -> bytes:
    if not _LEAF_HASH.fullmatch(text):
        msg = "leaf_hash must be 64 hex digits, in lower case"
        raise InvalidInputError(msg)
    return bytes.fromhex(text)


def _tile(path: str) -> tuple[int, int]:
    """Return index and width from `x001/x234/067` or `x001/x234/067.p/17`."""
    match = _TILE.fullmatch(path)
    if match is None or match[1].startswith("x000"):
        msg = "wanted a tile such as x001/x234/067, or 067.p/17 for one of 17 hashes"
        raise InvalidInputError(msg)
    index = int(match[1].replace("x", "").replace("/", ""))
    width = int(match[2]) if match[2] else TILE_WIDTH
    if index > MAX_SIZE or (match[2] and width >= TILE_WIDTH):
        msg = f"a tile's index lies below 2^63, and the width of a part below {TILE_WIDTH}"
        raise InvalidInputError(msg)
    return index, width


def _encoded(values: Iterable[bytes]) -> list[str]:
    return [base64.b64encode(value).decode() for value in values]
