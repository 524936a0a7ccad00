"""Providers that name themselves to do harm on the pages, and files that pages hand out."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from sqlalchemy import update

from coin_protocol.database.engine import writing
from tests.support.web_site import (
    HOSTILE,
    WebNode,
    add_audits,
    add_bundle,
    browser,
    bundle_of,
    decided_values,
    visiting,
)
from verifier_sdk.store.tables import AUDIT
from verifier_sdk.web.views.audit import as_file


class Harm(HTMLParser):
    """Collects what a page must not hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag in {"img", "iframe", "object", "embed", "base", "meta-refresh"}:
            self.found.append(tag)
        if tag == "script" and not names.get("src") and names.get("type") != "application/json":
            self.found.append("script")
        for name, value in attrs:
            if name.startswith("on") or name in {"style", "srcdoc"}:
                self.found.append(name)
            if name in {"href", "src", "action"} and not (value or "/").startswith(("/", "#", "?")):
                self.found.append(f"{name}={value}")


def test_harm_is_seen_where_there_is_some() -> None:
    page = "<script>x</script><img src=x onerror=y><a href='javascript:x'>"
    assert len(Harm(page).found) == 5


def test_hostile_names_are_text_on_every_page(pages: WebNode) -> None:
    names = (*HOSTILE, "javascript:alert(1)", "</script><script>alert(1)</script>", "' onx='")
    rows = [
        decided_values(
            number,
            provider=name,
            model=name,
            submitted_by=name,
            failed_check=name[:64],
            failure=name,
        )
        for number, name in enumerate(names)
    ]
    add_audits(pages.engine, rows)
    pages.providers = tuple(names)
    with visiting(pages) as client:
        addresses = ["/", "/audits", "/log", *(f"/audits/{row['audit_id'].hex()}" for row in rows)]
        for address in addresses:
            answer = client.get(address)
            assert answer.status_code == 200, address
            assert Harm(answer.text).found == []
            for sign in ("\x1b", "\u202e"):
                assert sign not in Harm(answer.text).text


def test_no_name_reaches_a_header(pages: WebNode) -> None:
    audit_id = add_bundle(pages, "pass", bundle_of())
    with writing(pages.engine) as connection:
        connection.execute(update(AUDIT).values(provider='a"\r\nx-evil: 1', model='"; y="'))
    with visiting(pages) as client:
        answer = client.get(f"/audits/{audit_id.hex()}/bundle.binpb")
        assert answer.status_code == 200
    assert "x-evil" not in answer.headers
    name = f'attachment; filename="coin-audit-{audit_id.hex()[:16]}'
    assert answer.headers["content-disposition"].startswith(name)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert as_file(b"", "application/json", "x.json").headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/", "/audits", "/log", "/login", "/providers/lab", "/nowhere"])
def test_no_page_can_be_framed_and_none_is_kept(pages: WebNode, path: str) -> None:
    with browser(pages) as client:
        answer = client.get(path)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "no-store" in answer.headers["cache-control"]


def test_no_host_of_a_stranger_is_answered(pages: WebNode) -> None:
    """A name that is pointed at this machine is another origin to browsers, and to the pages."""
    with browser(pages, "http://evil.example") as client:
        for path in ("/", "/login"):
            answer = client.get(path)
            assert answer.status_code in {400, 403, 421}
            assert "set-cookie" not in answer.headers


def test_methods_that_change_something_need_more_than_a_cookie(pages: WebNode) -> None:
    with visiting(pages) as client:
        for site in ("cross-site", "same-site", "none"):
            answer = client.post("/logout", data={}, headers={"sec-fetch-site": site})
            assert answer.status_code == 403
        answer = client.post("/logout", data={}, headers={"origin": "https://evil.example"})
        assert answer.status_code == 403
        assert client.get("/").status_code == 200
