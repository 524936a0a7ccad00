"""Log in and out. The only pages that change anything."""

from __future__ import annotations

import hmac
import logging
import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from coin_protocol.ops.address import network_of
from coin_protocol.transport.rate import RateLimit, RateLimiter
from verifier_sdk.web import links, problems
from verifier_sdk.web.accounts import Account, AccountFile
from verifier_sdk.web.gate import LOGIN, cookie_name
from verifier_sdk.web.origins import Origin
from verifier_sdk.web.pages import render
from verifier_sdk.web.problems import Problem
from verifier_sdk.web.sessions import Sessions, form_token, new_token

_BY_ADDRESS: Final = RateLimit(per_second=0.1, burst=10)
"""Attempts of one address, whatever the name."""

_BY_NAME: Final = RateLimit(per_second=0.5, burst=50)
"""Attempts at one name from everywhere: wide, for whoever fills it keeps the owner out."""

_MAX_BODY_BYTES: Final = 8192
_MAX_FIELDS: Final = 8
_FORM_TOKEN_CHARACTERS: Final = 43
_AT_ONCE: Final = 2
"""Passwords hashed at a time: each takes some 32 MiB."""

_WRONG: Final = "No account has this name and password."
_FORM: Final = "application/x-www-form-urlencoded"

_LOG = logging.getLogger(__name__)


class Login:
    """The login page and the button that logs out."""

    def __init__(
        self, *, accounts: AccountFile, sessions: Sessions, name: str, seconds: float
    ) -> None:
        """Serve logins that last so many seconds, in a cookie of this name."""
        self._accounts = accounts
        self._sessions = sessions
        self._name = name
        self._seconds = math.ceil(seconds)
        self._by_address = RateLimiter(_BY_ADDRESS)
        self._by_name = RateLimiter(_BY_NAME)
        self._hashing = anyio.CapacityLimiter(_AT_ONCE)

    async def show(self, request: Request) -> Response:
        """Show the form."""
        target = links.local(request.query_params.get("next", ""))
        if request.state.visitor is not None:
            return RedirectResponse(target, 303)
        return self._page(request, target)

    async def log_in(self, request: Request) -> Response:
        """Take the form."""
        fields = await _fields(request)
        origin: Origin = request.state.origin
        shown = request.cookies.get(cookie_name(self._form_name, origin), "")
        _require_token(fields, form_token(shown) if shown else "")
        target = links.local(fields.get("next", ""))
        name, password = fields.get("name", "").strip(), fields.get("password", "")
        wait = self._wait(request, name)
        if wait:
            _LOG.warning("too many logins were tried")
            seconds = math.ceil(wait)
            text = f"Too many attempts. Try again in {seconds:,} seconds."
            response = self._page(request, target, name=name, wrong=text, status=429)
            response.headers["retry-after"] = str(seconds)
            return response
        account = await self._check(name, password)
        if account is None:
            _LOG.info("a login failed")
            return self._page(request, target, name=name, wrong=_WRONG, status=403)
        old = request.cookies.get(cookie_name(self._name, origin))
        token = await anyio.to_thread.run_sync(
            lambda: self._sessions.start(account, instead_of=old)
        )
        _LOG.info("logged in", extra={"account": account.name})
        response = RedirectResponse(target, 303)
        self._set(response, origin, self._name, token, self._seconds)
        self._drop(response, origin, self._form_name)
        return response

    async def log_out(self, request: Request) -> Response:
        """End the login that the cookie names."""
        _require_token(await _fields(request), request.state.visitor.form_token)
        origin: Origin = request.state.origin
        token = request.cookies[cookie_name(self._name, origin)]
        await anyio.to_thread.run_sync(self._sessions.end, token)
        response = RedirectResponse(LOGIN, 303)
        self._drop(response, origin, self._name)
        return response

    @property
    def _form_name(self) -> str:
        return f"{self._name}_form"

    def _page(
        self, request: Request, target: str, *, name: str = "", wrong: str = "", status: int = 200
    ) -> Response:
        origin: Origin = request.state.origin
        token = request.cookies.get(cookie_name(self._form_name, origin), "")
        fresh = len(token) != _FORM_TOKEN_CHARACTERS or not token.isascii()
        if fresh:
            token = new_token()
        response = render(
            request,
            "login.html",
            status=status,
            target=target,
            name=name[:64],
            wrong=wrong,
            form_token=form_token(token),
        )
        if fresh:
            self._set(response, origin, self._form_name, token, None)
        return response

    def _wait(self, request: Request, name: str) -> float:
        """Return for how many seconds an attempt is refused, and count it if it is not."""
        host = "" if request.client is None else request.client.host
        wait = self._by_address.take(network_of(host))
        return wait or self._by_name.take(name[:64])

    async def _check(self, name: str, password: str) -> Account | None:
        return await anyio.to_thread.run_sync(
            self._accounts.check, name, password, limiter=self._hashing
        )

    def _set(
        self, response: Response, origin: Origin, name: str, token: str, seconds: int | None
    ) -> None:
        response.set_cookie(
            cookie_name(name, origin),
            token,
            max_age=seconds,
            path="/",
            secure=origin.secure,
            httponly=True,
            samesite="strict",
        )

    def _drop(self, response: Response, origin: Origin, name: str) -> None:
        response.delete_cookie(
            cookie_name(name, origin),
            path="/",
            secure=origin.secure,
            httponly=True,
            samesite="strict",
        )


def _require_token(fields: Mapping[str, str], wanted: str) -> None:
    found = fields.get("token", "").encode()
    if not wanted or not hmac.compare_digest(found, wanted.encode()):
        raise Problem(403, problems.FOREIGN_FORM)


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of a form, the first of each name."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise Problem(415, f"Forms are taken as {_FORM} only.")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise Problem(413, f"The form has more than {_MAX_BODY_BYTES:,} bytes.")
    except ClientDisconnect as error:
        raise Problem(400, "The request broke off.") from error
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise Problem(400, "The form cannot be read.") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields.setdefault(name, value)
    return fields
