"""Around every request: known hosts only, headers that browsers keep to, errors as pages."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from coin_protocol.errors import TryLaterError
from verifier_sdk.web import problems
from verifier_sdk.web.origins import Origin, Origins, same_origin
from verifier_sdk.web.pages import problem_page
from verifier_sdk.web.problems import Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOG = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; "
    "script-src 'self'; "
    "style-src 'self'; "
    "img-src 'self' data:; "
    "connect-src 'self'; "
    "form-action 'self'; "
    "frame-ancestors 'none'; "
    "base-uri 'none'"
)

_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex, nofollow",
}
_HTTPS_ONLY: Final = "max-age=31536000"
_READS: Final = frozenset({"GET", "HEAD"})
_MAX_QUERY_BYTES: Final = 8192


class Guard:
    """The outermost layer: what is below answers browsers of our own origins only."""

    def __init__(self, app: App, origins: Origins) -> None:
        """Stand around an application."""
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = self._origins.find(Headers(scope=scope).get("host", ""))
        response = _Response(send, secure=origin is not None and origin.secure)
        if origin is None:
            # No page: it would hold links under that name.
            refusal = PlainTextResponse(problems.FOREIGN_HOST, 421)
            await refusal(scope, receive, response.send)
            return
        scope.setdefault("state", {})["origin"] = origin
        try:
            _require_ours(scope, origin)
            await self._app(scope, receive, response.send)
        except Exception as error:
            if response.started:
                raise
            page = problem_page(Request(scope), _problem(error))
            await page(scope, receive, response.send)


class _Response:
    """A response on its way out: every one has the headers."""

    def __init__(self, send: Send, *, secure: bool) -> None:
        self._send = send
        self._secure = secure
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            found = MutableHeaders(scope=message)
            found.update(_HEADERS)
            found.setdefault("cache-control", "no-store")
            if self._secure:
                found["strict-transport-security"] = _HTTPS_ONLY
        await self._send(message)


def _require_ours(scope: Scope, origin: Origin) -> None:
    """Refuse what no page of ours asks for."""
    query: bytes = scope["query_string"]
    if len(query) > _MAX_QUERY_BYTES:
        raise Problem(414, "The address is too long.")
    if "\0" in scope["path"] or b"%00" in query or b"\0" in query:
        # No name has one, and PostgreSQL takes none.
        raise Problem(400, "The address holds a character of value zero.")
    if scope["method"] not in _READS and not same_origin(Headers(scope=scope), origin):
        raise Problem(403, problems.FOREIGN_FORM)


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, TryLaterError):
        _LOG.warning("a page could not be made: %s", error)
        return Problem(503, problems.STORE_DOWN, {"retry-after": "5"})
    _LOG.error("a page could not be made", exc_info=error)
    return Problem(500, problems.INTERNAL)
