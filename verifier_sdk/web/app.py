"""The application: which page is where, and what stands around them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coin_protocol.profile import Policy
from verifier_sdk.web import problems
from verifier_sdk.web.accounts import AccountFile
from verifier_sdk.web.gate import LOGIN, Gate
from verifier_sdk.web.guard import Guard
from verifier_sdk.web.log_reader import LogReader
from verifier_sdk.web.login import Login
from verifier_sdk.web.origins import Origins
from verifier_sdk.web.problems import Problem
from verifier_sdk.web.sessions import Sessions
from verifier_sdk.web.settings import WebSettings
from verifier_sdk.web.site import Site
from verifier_sdk.web.static_files import PREFIX, static_files
from verifier_sdk.web.views import audit, audits, overview, provider
from verifier_sdk.web.views import log as log_page

_HOUR: Final = 3600.0


# The rest of a path whatever it holds: the router's own stops at line breaks.
register_url_convertor("anything", type("_Anything", (PathConvertor,), {"regex": "(?s:.*)"})())


def web_app(
    *,
    engine: Engine,
    log: LogReader | None,
    providers: Sequence[str],
    settings: WebSettings,
    policies: Sequence[Policy] = (),
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Return the pages of a node, to be mounted at `/`.

    Args:
        engine: Of the node's database, whose tables there are.
        log: The node's log; None where it keeps none.
        providers: Names of those that the node is set up to audit.
        settings: Who may read, and where browsers find the pages.
        policies: Whose limits are shown beside scores; those that ship are known.
        clock: Gives seconds since 1970.
    """
    known = (Policy.shipped("default"), Policy.shipped("rules"), *policies)
    site = Site(
        engine=engine,
        log=log,
        providers=tuple(providers),
        policies={policy.digest: policy for policy in known},
        clock=clock,
    )
    seconds = settings.session_hours * _HOUR
    sessions = Sessions(engine, clock, seconds)
    accounts = None if settings.accounts is None else AccountFile(settings.accounts)
    app = Starlette(
        routes=_routes(site, sessions, accounts, settings),
        middleware=[
            Middleware(Guard, origins=Origins(settings.origins)),
            Middleware(
                Gate, accounts=accounts, sessions=sessions, cookie_name=settings.cookie_name
            ),
        ],
        exception_handlers={HTTPException: _refused},
    )
    # A page has one address.
    app.router.redirect_slashes = False
    return app


def _routes(
    site: Site, sessions: Sessions, accounts: AccountFile | None, settings: WebSettings
) -> list[Route]:
    def page(path: str, view: Callable[[Site, Request], Response]) -> Route:
        return Route(path, partial(view, site), methods=["GET"])

    found = [
        page("/", overview.overview),
        page("/audits", audits.audits),
        page("/audits/{audit_id}", audit.audit),
        page("/audits/{audit_id}/bundle.binpb", audit.bundle),
        page("/audits/{audit_id}/bundle.json", audit.bundle_as_json),
        page("/providers/{name:anything}", provider.provider),
        page("/log", log_page.log),
        page("/log/checkpoint", log_page.checkpoint),
        page("/log/evidence/{evidence_id}.binpb", log_page.evidence),
        Route(PREFIX + "{name:path}", static_files().serve, methods=["GET"]),
    ]
    if accounts is not None:
        # Without, the gate answers everything.
        login = Login(
            accounts=accounts,
            sessions=sessions,
            name=settings.cookie_name,
            seconds=settings.session_hours * _HOUR,
        )
        found += [
            Route(LOGIN, login.show, methods=["GET"]),
            Route(LOGIN, login.log_in, methods=["POST"]),
            Route("/logout", login.log_out, methods=["POST"]),
        ]
    return found


def _refused(request: Request, error: Exception) -> Response:
    """Have the guard say that there is no such path, or none for this method."""
    del request
    status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
    raise Problem(status, problems.told(status), headers) from error
