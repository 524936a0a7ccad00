"""Nothing but the login is shown to who is not logged in."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from coin_protocol.errors import ConfigurationError
from verifier_sdk.web import links, problems
from verifier_sdk.web.accounts import AccountFile
from verifier_sdk.web.guard import App, Receive, Scope, Send
from verifier_sdk.web.origins import Origin
from verifier_sdk.web.problems import Problem
from verifier_sdk.web.sessions import Sessions, Visitor
from verifier_sdk.web.static_files import PREFIX

LOGIN: Final = "/login"

_LOG = logging.getLogger(__name__)


class Gate:
    """Lets requests with a login through, and everybody to the login itself.

    A page is behind the gate unless it is named here: none is open by being forgotten.
    """

    def __init__(
        self, app: App, *, accounts: AccountFile | None, sessions: Sessions, cookie_name: str
    ) -> None:
        """Stand before an application."""
        self._app = app
        self._accounts = accounts
        self._sessions = sessions
        self._cookie_name = cookie_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        visitor = await run_in_threadpool(self._visitor, request)
        if visitor is None and scope["path"] != LOGIN:
            await _to_login(request)(scope, receive, send)
            return
        scope["state"]["visitor"] = visitor
        await self._app(scope, receive, send)

    def _visitor(self, request: Request) -> Visitor | None:
        if self._accounts is None:
            _LOG.warning("nobody can log in: no setting names a file of accounts")
            raise Problem(503, problems.NO_ACCOUNTS)
        try:
            self._accounts.accounts()
            token = request.cookies.get(cookie_name(self._cookie_name, request.state.origin))
            return None if token is None else self._sessions.find(token, self._accounts)
        except ConfigurationError as error:
            _LOG.warning("nobody can log in: %s", error)
            raise Problem(503, problems.NO_ACCOUNTS) from error


def cookie_name(name: str, origin: Origin) -> str:
    """Return the cookie's name: the prefix keeps other hosts from setting one (RFC 6265bis)."""
    return f"__Host-{name}" if origin.secure else name


def _to_login(request: Request) -> Response:
    """Send a browser to the login, and from there to where it was going."""
    if request.headers.get("hx-request"):
        page = urlsplit(request.headers.get("hx-current-url", ""))
        target = links.with_query(LOGIN, {"next": _target(page.path, page.query)})
        return Response(status_code=401, headers={"hx-redirect": target})
    if request.method not in {"GET", "HEAD"}:
        return RedirectResponse(LOGIN, 303)
    path = request.scope.get("raw_path", b"").decode("ascii", "replace").partition("?")[0]
    target = _target(path, request.url.query)
    return RedirectResponse(links.with_query(LOGIN, {"next": target}), 303)


def _target(path: str, query: str) -> str:
    target = links.local(f"{path}?{query}" if query else path)
    return "" if target == "/" else target
