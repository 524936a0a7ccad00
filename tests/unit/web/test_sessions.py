"""Logins in the database: they survive restarts, end in time, and end with their account."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from sqlalchemy import select

from coin_protocol.database.engine import reading
from tests.support.web_site import ACCOUNT, CHEAP, PASSWORD, WebNode
from verifier_sdk.web.accounts import Account, AccountFile, make_account_line
from verifier_sdk.web.sessions import Sessions, form_token
from verifier_sdk.web.tables import WEB_SESSION

HOUR = 3600.0


def _accounts(node: WebNode) -> AccountFile:
    assert node.accounts is not None
    return AccountFile(node.accounts)


def _ada(accounts: AccountFile) -> Account:
    return accounts.accounts()[ACCOUNT]


def _stored(node: WebNode) -> list[bytes]:
    with reading(node.engine) as connection:
        return [
            bytes(one) for one in connection.execute(select(WEB_SESSION.c.token_sha256)).scalars()
        ]


def _at(now: list[float]) -> Callable[[], float]:
    return lambda: now[0]


def test_a_login_is_found_by_any_process_until_it_ends(node: WebNode) -> None:
    accounts, now = _accounts(node), [1000.0]
    token = Sessions(node.engine, _at(now), HOUR).start(_ada(accounts))
    other = Sessions(node.engine, _at(now), HOUR)
    found = other.find(token, accounts)
    assert found is not None
    assert found.name == ACCOUNT
    assert found.form_token == form_token(token) != token
    now[0] += HOUR - 1
    assert other.find(token, accounts) is not None
    now[0] += 1
    assert other.find(token, accounts) is None


def test_the_token_itself_is_kept_nowhere(node: WebNode) -> None:
    accounts = _accounts(node)
    sessions = Sessions(node.engine, lambda: 0.0, HOUR)
    token = sessions.start(_ada(accounts))
    assert _stored(node) == [sha256(token.encode()).digest()]
    shown = sessions.find(token, accounts)
    assert token not in repr(shown)
    assert form_token(token) not in repr(shown)


def test_what_is_no_token_finds_nothing(node: WebNode) -> None:
    accounts = _accounts(node)
    sessions = Sessions(node.engine, lambda: 0.0, HOUR)
    token = sessions.start(_ada(accounts))
    for wrong in ("", "x" * 43, token[:-1], token + "x", token.swapcase(), "ä" * 43, "x" * 9999):
        assert sessions.find(wrong, accounts) is None


def test_a_new_login_ends_what_the_browser_had_and_what_is_over(node: WebNode) -> None:
    accounts, now = _accounts(node), [0.0]
    sessions = Sessions(node.engine, _at(now), HOUR)
    old = sessions.start(_ada(accounts))
    new = sessions.start(_ada(accounts), instead_of=old)
    assert new != old
    assert sessions.find(old, accounts) is None
    assert sessions.find(new, accounts) is not None
    now[0] = 2 * HOUR
    sessions.start(_ada(accounts))
    assert len(_stored(node)) == 1


def test_a_login_ends_with_the_password_or_the_account(node: WebNode) -> None:
    accounts = _accounts(node)
    assert node.accounts is not None
    sessions = Sessions(node.engine, lambda: 0.0, HOUR)
    token = sessions.start(_ada(accounts))
    kept = node.accounts.read_text()
    node.accounts.write_text(make_account_line(ACCOUNT, PASSWORD, cost=CHEAP))
    assert sessions.find(token, accounts) is None
    node.accounts.write_text(make_account_line("bob", PASSWORD, cost=CHEAP))
    assert sessions.find(token, accounts) is None
    node.accounts.write_text(kept)
    assert sessions.find(token, accounts) is not None
    sessions.end(token)
    assert sessions.find(token, accounts) is None
