"""The login as a browser meets it, and as an attacker does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.web_site import (
    ACCOUNT,
    PASSWORD,
    WebNode,
    browser,
    form_token,
    log_in,
    send,
)

OWN = {"sec-fetch-site": "same-origin"}


def _cookies(response: Any) -> list[str]:
    found: list[str] = response.headers.get_list("set-cookie")
    return found


def test_every_page_asks_for_a_login_and_comes_back_to_where_one_was_going(empty: WebNode) -> None:
    with browser(empty) as client:
        for path in ("/", "/audits?sort=tokens&id=ab", "/log", "/providers/a%2Fb", "/nothing"):
            response = client.get(path)
            assert response.status_code == 303
            assert response.headers["location"].startswith("/login")
            assert response.text == ""
        asked = client.get("/audits?sort=tokens&id=ab").headers["location"]
        assert asked == "/login?next=%2Faudits%3Fsort%3Dtokens%26id%3Dab"
        page = client.get(asked)
        token = form_token(page.text)
        assert 'name="next" value="/audits?sort=tokens&amp;id=ab"' in page.text
        answer = send(
            client, "/login", token=token, name=ACCOUNT, password=PASSWORD, next="/audits?id=ab"
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/audits?id=ab")
        assert client.get("/").status_code == 200
        assert client.get("/login").headers["location"] == "/"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(empty: WebNode) -> None:
    with browser(empty) as client:
        (session,) = [one for one in _cookies(log_in(client)) if one.startswith("coin_session=")]
        parts = {part.strip().lower() for part in session.split(";")[1:]}
        assert parts == {"httponly", "samesite=strict", "path=/", "max-age=43200"}
        assert len(session.split("=")[1].split(";")[0]) == 43


def test_over_https_the_cookie_is_bound_to_the_host(empty: WebNode) -> None:
    empty.settings = {"origins": ("https://audits.example.org",)}
    with browser(empty, "https://audits.example.org") as client:
        response = log_in(client)
        session = next(one for one in _cookies(response) if "session=" in one)
        assert session.startswith("__Host-coin_session=")
        assert "; secure" in session.lower()
        assert "domain" not in session.lower()
        assert response.headers["strict-transport-security"] == "max-age=31536000"
        page = client.get("/")
        assert page.status_code == 200
    with browser(empty, "https://audits.example.org") as other:
        # The same name without its prefix could be set by a neighbour host.
        other.cookies.set("coin_session", session.split("=")[1].split(";")[0])
        assert other.get("/").status_code == 303


def test_a_wrong_password_and_an_unknown_name_are_told_alike(empty: WebNode) -> None:
    with browser(empty) as client:
        token = form_token(client.get("/login").text)
        answers = [
            send(client, "/login", token=token, name=name, password=password)
            for name, password in ((ACCOUNT, "wrong password"), ("nobody", PASSWORD))
        ]
        assert [answer.status_code for answer in answers] == [403, 403]
        wrong, unknown = (answer.text.replace("nobody", ACCOUNT) for answer in answers)
        assert wrong == unknown
        assert "No account has this name and password" in wrong
        assert PASSWORD not in unknown
        assert client.get("/").status_code == 303


def test_a_login_gives_a_new_session_whatever_the_browser_had(empty: WebNode) -> None:
    with browser(empty) as client:
        client.cookies.set("coin_session", "f" * 43)
        log_in(client)
        first = client.cookies.get("coin_session", domain="127.0.0.1") or ""
        assert first
        assert first != "f" * 43
    with browser(empty) as client:
        client.cookies.set("coin_session", first)
        assert client.get("/").status_code == 200
        # Whoever is logged in logs in again: the old session is over.
        other = browser(empty)
        token = form_token(other.get("/login").text)
        other.cookies.set("coin_session", first)
        send(other, "/login", token=token, name=ACCOUNT, password=PASSWORD)
        assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "https://127.0.0.1"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1"},
    ],
)
def test_forms_of_other_sites_are_refused(empty: WebNode, headers: dict[str, str]) -> None:
    with browser(empty) as client:
        token = form_token(client.get("/login").text)
        fields = {"token": token, "name": ACCOUNT, "password": PASSWORD}
        assert client.post("/login", data=fields, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [OWN, OWN | {"origin": "null"}, {"origin": "http://127.0.0.1"}])
def test_forms_of_our_own_pages_are_taken(empty: WebNode, headers: dict[str, str]) -> None:
    with browser(empty) as client:
        token = form_token(client.get("/login").text)
        fields = {"token": token, "name": ACCOUNT, "password": PASSWORD}
        assert client.post("/login", data=fields, headers=headers).status_code == 303


def test_a_form_needs_the_token_of_its_own_cookie(empty: WebNode) -> None:
    with browser(empty) as other, browser(empty) as client:
        foreign = form_token(other.get("/login").text)
        own = form_token(client.get("/login").text)
        assert foreign != own
        for token in ("", foreign, own[:-1], own.upper(), "ä"):
            answer = send(client, "/login", token=token, name=ACCOUNT, password=PASSWORD)
            assert answer.status_code == 403
        client.cookies.clear()
        answer = send(client, "/login", token=own, name=ACCOUNT, password=PASSWORD)
        assert answer.status_code == 403


def test_logging_out_needs_the_token_and_ends_the_session(empty: WebNode) -> None:
    with browser(empty) as client:
        log_in(client)
        session = client.cookies.get("coin_session", domain="127.0.0.1") or ""
        token = form_token(client.get("/").text)
        assert send(client, "/logout", token="0" * 64).status_code == 403
        assert client.get("/").status_code == 200
        assert client.get("/logout").status_code == 405
        answer = send(client, "/logout", token=token)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        client.cookies.set("coin_session", session)
        assert client.get("/").status_code == 303


def test_a_login_survives_a_restart(empty: WebNode) -> None:
    with browser(empty) as client:
        log_in(client)
        session = client.cookies.get("coin_session", domain="127.0.0.1") or ""
    with browser(empty) as client:
        client.cookies.set("coin_session", session)
        assert client.get("/").status_code == 200
        empty.now += 12 * 3600
        assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/a\r\nset-cookie: x=y",
        "/" + "a" * 3000,
    ],
)
def test_a_login_leads_nowhere_else(empty: WebNode, target: str) -> None:
    with browser(empty) as client:
        assert log_in(client, target=target).headers["location"] == "/"
        assert "x" not in client.cookies


def test_guessing_is_slowed_down_for_an_address(empty: WebNode) -> None:
    with browser(empty) as client, browser(empty, client=("192.0.2.7", 1)) as other:
        token = form_token(client.get("/login").text)

        def guess(client: TestClient, name: str) -> Any:
            return send(client, "/login", token=token, name=name, password="wrong")  # noqa: S106

        statuses = [guess(client, f"name{number}").status_code for number in range(11)]
        assert statuses == [403] * 10 + [429]
        blocked = send(client, "/login", token=token, name=ACCOUNT, password=PASSWORD)
        assert blocked.status_code == 429
        assert 1 <= int(blocked.headers["retry-after"]) <= 10
        assert "Too many attempts" in blocked.text
        # Each application counts by itself; this one has not heard of the first address.
        assert log_in(other).status_code == 303


def test_addresses_of_one_ipv6_network_count_together(empty: WebNode) -> None:
    app = empty.app()
    codes = []
    for number in range(11):
        client = TestClient(
            app,
            base_url="http://127.0.0.1",
            client=(f"2001:db8:1:2:{number:x}::1", 1),
            follow_redirects=False,
        )
        codes.append(log_in(client, "wrong").status_code)
    assert codes[-2:] == [403, 429]


def test_bodies_are_bounded_and_of_one_kind(empty: WebNode) -> None:
    with browser(empty) as client:
        form_token(client.get("/login").text)
        big = client.post("/login", content=b"name=" + b"x" * 9000, headers=OWN | _FORM)
        assert big.status_code == 413
        odd = client.post("/login", content=b"{}", headers=OWN | {"content-type": "text/plain"})
        assert odd.status_code == 415
        many = client.post("/login", content=b"&".join([b"a=1"] * 99), headers=OWN | _FORM)
        assert many.status_code == 400
        bad = client.post("/login", content=b"name=\xff", headers=OWN | _FORM)
        assert bad.status_code == 400


_FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_without_accounts_nothing_is_shown(
    empty: WebNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    empty.accounts = None
    missing = tmp_path / "no such file"
    for accounts in (None, missing):
        empty.accounts = accounts
        with browser(empty) as client:
            for path in ("/", "/login", "/audits", "/log/checkpoint"):
                response = client.get(path)
                assert response.status_code == 503
                assert "coin verifier account NAME --file FILE" in response.text
                assert str(tmp_path) not in response.text
    assert "cannot read the file of accounts" in caplog.text


def test_accounts_that_others_can_read_count_as_none(empty: WebNode) -> None:
    assert empty.accounts is not None
    with browser(empty) as client:
        log_in(client)
        assert client.get("/").status_code == 200
        empty.accounts.chmod(0o644)
        assert client.get("/").status_code == 503


def test_what_htmx_fetches_without_a_login_sends_the_page_to_it(empty: WebNode) -> None:
    with browser(empty) as client:
        headers = {
            "hx-request": "true",
            "hx-current-url": "http://127.0.0.1/audits?sort=tokens",
        }
        response = client.get("/audits?sort=model", headers=headers)
        assert response.status_code == 401
        assert response.headers["hx-redirect"] == "/login?next=%2Faudits%3Fsort%3Dtokens"
        headers["hx-current-url"] = "https://evil.example//evil.example/x"
        response = client.get("/audits", headers=headers)
        assert response.headers["hx-redirect"] == "/login"


def test_logs_tell_no_password(empty: WebNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with browser(empty) as client:
        log_in(client, "wrong password 123")
        log_in(client)
        session = client.cookies.get("coin_session", domain="127.0.0.1") or "?"
    said = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "logged in" in said
    for secret in ("wrong password 123", PASSWORD, session):
        assert secret not in said
