"""Templates to responses: everything is escaped, and no text hides a character."""

from __future__ import annotations

import json
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from verifier_sdk.web import formats, links, words
from verifier_sdk.web.problems import Problem
from verifier_sdk.web.static_files import static_files

_UNSAFE: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}

_HTMX: Final = {
    "allowEval": False,
    "allowScriptTags": False,
    "historyCacheSize": 0,
    "includeIndicatorStyles": False,
    "scrollIntoViewOnBoost": False,
    "refreshOnHistoryMiss": True,
    "selfRequestsOnly": True,
}
"""No code from pages, and no copy of a private page in the browser's storage."""


def render(request: Request, template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """Return a page.

    Args:
        request: That is answered; tells who is logged in.
        template: File in the folder `templates`.
        status: Of HTTP.
        values: For the template.
    """
    text = _ENVIRONMENT.get_template(template).render(
        visitor=request.scope.get("state", {}).get("visitor"),
        path=request.url.path,
        **values,
    )
    return HTMLResponse(text, status_code=status)


def problem_page(request: Request, problem: Problem) -> HTMLResponse:
    """Return the page that says why another is not shown."""
    response = render(request, "problem.html", status=problem.status, problem=problem)
    response.headers.update(problem.headers)
    return response


def data_block(value: object) -> Markup:
    """Return JSON for a block of data in a page: nothing in it ends the block."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup("".join(_UNSAFE.get(char, char) for char in text))  # noqa: S704 - made safe here


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("verifier_sdk.web"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=formats.seen,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    filters: dict[str, Any] = {
        name: getattr(formats, name)
        for name in (
            *("name", "sentence", "raw", "number", "figure", "percent", "duration"),
            *("moment", "day", "count"),
        )
    }
    environment.filters.update(filters, data_block=data_block)
    environment.globals.update(
        links=links, words=words, static=static_files().url, htmx=json.dumps(_HTMX)
    )
    return environment


_ENVIRONMENT: Final = _environment()
