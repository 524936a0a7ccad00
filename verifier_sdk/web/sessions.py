"""Logins, kept in the database by the digest of what the cookie holds."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sqlalchemy import Delete, Engine, delete, insert, select

from coin_protocol.database.engine import reading, writing
from coin_protocol.encoding import tag
from verifier_sdk.web.accounts import Account, AccountFile
from verifier_sdk.web.tables import WEB_SESSION

_TOKEN_BYTES: Final = 32
_TOKEN_CHARACTERS: Final = 43
_FORM_TAG: Final = tag("coin.web.form.v1")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is logged in.

    Attributes:
        name: Of the account.
        form_token: What every form that this visitor sends must hold.
    """

    name: str
    form_token: str = field(repr=False)


def new_token() -> str:
    """Return 256 random bits for a cookie."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def form_token(token: str) -> str:
    """Return what forms hold beside a cookie: it follows from it, and does not tell it."""
    return sha256(_FORM_TAG + token.encode()).hexdigest()


class Sessions:
    """Starts, finds and ends logins. Any number of processes may share the table."""

    def __init__(self, engine: Engine, clock: Callable[[], float], seconds: float) -> None:
        """Keep them in a database, each for so many seconds."""
        self._engine = engine
        self._clock = clock
        self._seconds = seconds

    def start(self, account: Account, *, instead_of: str | None = None) -> str:
        """Return the token of a new login; what the browser had before is ended.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        token, now = new_token(), self._clock()
        with writing(self._engine) as connection:
            connection.execute(delete(WEB_SESSION).where(WEB_SESSION.c.ends_at <= now))
            if instead_of is not None:
                connection.execute(_ended(instead_of))
            connection.execute(
                insert(WEB_SESSION).values(
                    token_sha256=_digest(token),
                    account=account.name,
                    account_sha256=account.sha256,
                    started_at=now,
                    ends_at=now + self._seconds,
                )
            )
        return token

    def find(self, token: str, accounts: AccountFile) -> Visitor | None:
        """Return whose login a token is; None where it ended, or its account is another now.

        Raises:
            StoreUnavailableError: The database does not answer.
            ConfigurationError: The accounts cannot be read.
        """
        if len(token) != _TOKEN_CHARACTERS or not token.isascii():
            return None
        known = accounts.accounts()
        table = WEB_SESSION.c
        query = select(table.account, table.account_sha256).where(
            table.token_sha256 == _digest(token), table.ends_at > self._clock()
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        account = None if row is None else known.get(row.account)
        if row is None or account is None or account.sha256 != bytes(row.account_sha256):
            return None
        return Visitor(account.name, form_token(token))

    def end(self, token: str) -> None:
        """Forget a login.

        Raises:
            StoreUnavailableError: The database does not answer.
        """
        with writing(self._engine) as connection:
            connection.execute(_ended(token))


def _ended(token: str) -> Delete:
    return delete(WEB_SESSION).where(WEB_SESSION.c.token_sha256 == _digest(token))


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
