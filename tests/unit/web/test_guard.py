"""What stands around every page: hosts, headers, errors."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from coin_protocol.database.engine import writing
from tests.support.web_site import WebNode, browser, form_token, log_in, visiting
from verifier_sdk.store.tables import AUDIT
from verifier_sdk.web.origins import Origins

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
}


def test_every_answer_has_the_headers_and_is_kept_nowhere(empty: WebNode) -> None:
    with browser(empty) as client:
        answers = [client.get("/"), client.get("/login"), client.post("/login")]
        log_in(client)
        answers += [
            client.get(path) for path in ("/", "/audits", "/nothing", "/audits?sort=nothing")
        ]
        answers += [client.delete("/audits"), client.get("/", headers={"host": "evil.example"})]
        assert {answer.status_code for answer in answers} == {200, 303, 400, 403, 404, 421}
        for answer in answers:
            headers = answer.headers
            assert set(headers["content-security-policy"].split("; ")) == POLICY
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert "camera=()" in headers["permissions-policy"]
            assert headers["cache-control"] == "no-store"
            assert "etag" not in headers


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("127.0.0.1", True),
        ("localhost:8080", True),
        ("[::1]:1", True),
        ("LOCALHOST", True),
        ("example.org", False),
        ("127.0.0.1.example.org", False),
        ("127.0.0.1@example.org", False),
        ("localhost:", False),
        ("", False),
        ("localhost, example.org", False),
    ],
)
def test_without_settings_the_loopback_alone_is_served(host: str, served: bool) -> None:  # noqa: FBT001
    assert (Origins(()).find(host) is not None) is served


def test_with_settings_those_hosts_alone_are_served(empty: WebNode) -> None:
    empty.settings = {"origins": ("https://Audits.Example.org/", "https://b.example:8443")}
    with browser(empty) as client:
        codes = {
            host: client.get("/login", headers={"host": host}).status_code
            for host in ("audits.example.org", "b.example:8443", "b.example", "127.0.0.1")
        }
    assert codes == {
        "audits.example.org": 200,
        "b.example:8443": 200,
        "b.example": 421,
        "127.0.0.1": 421,
    }


@pytest.mark.parametrize(
    "origin",
    ["http://example.org", "https://", "example.org", "https://a/b", "ftp://a", "https://a b"],
)
def test_origins_that_would_be_less_safe_or_mean_nothing_are_refused(
    empty: WebNode, origin: str
) -> None:
    empty.settings = {"origins": (origin,)}
    with pytest.raises(ValueError, match=r"wanted https|plain http"):
        empty.app()


def test_addresses_that_there_are_not_are_told_in_a_page(empty: WebNode) -> None:
    with visiting(empty) as client:
        for path in (
            "/nothing",
            "/audits/",
            "/audits/zz",
            f"/audits/{'0' * 64}",
            f"/audits/{'0' * 64}/bundle.binpb",
            f"/log/evidence/{'0' * 64}.binpb",
            "/log/checkpoint",
            "/providers/nobody",
            "/static/nothing.js",
            "/static/../pages.py",
        ):
            response = client.get(path)
            assert response.status_code == 404, path
            assert "<h1>Not Found</h1>" in response.text


def test_other_methods_than_those_that_there_are_name_them(empty: WebNode) -> None:
    with visiting(empty) as client:
        response = client.post("/audits", headers={"sec-fetch-site": "same-origin"})
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_answers_as_get_without_the_body(reader: TestClient) -> None:
    for path in ("/", "/audits", "/log", "/nothing"):
        seen, asked = reader.get(path), reader.head(path)
        assert asked.status_code == seen.status_code
        assert asked.headers["content-type"] == seen.headers["content-type"]
        assert int(asked.headers["content-length"]) == len(seen.content)


def test_a_bug_is_a_page_without_details_and_a_line_in_the_log(
    empty: WebNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        msg = "the secret of the house"
        raise ZeroDivisionError(msg)

    with visiting(empty) as client:
        monkeypatch.setattr("verifier_sdk.web.queries.overview.counts", broken)
        with caplog.at_level(logging.ERROR):
            response = client.get("/")
    assert response.status_code == 500
    assert "a bug of the node" in response.text
    assert "secret of the house" not in response.text
    assert "Traceback" not in response.text
    assert "ZeroDivisionError" in caplog.text


def test_a_database_that_does_not_answer_is_told_as_such(empty: WebNode) -> None:
    with visiting(empty) as client:
        with writing(empty.engine) as connection:
            connection.execute(text(f"DROP TABLE {AUDIT.name}"))
        response = client.get("/")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert "does not answer" in response.text
    assert "sqlite" not in response.text


def test_zero_characters_and_endless_addresses_are_refused(reader: TestClient) -> None:
    assert reader.get("/audits?provider=a%00b").status_code == 400
    assert reader.get("/providers/a%00b").status_code == 400
    assert reader.get("/audits?provider=" + "x" * 9000).status_code == 414
    assert reader.get("/audits?provider=" + "x" * 300).status_code == 400


def test_a_page_names_who_is_logged_in_and_how_to_leave(reader: TestClient) -> None:
    page = reader.get("/nothing").text
    assert "<span>ada</span>" in page
    assert form_token(page)
