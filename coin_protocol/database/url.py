"""Database URLs: checked before they are used, and shown without what is secret in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from coin_protocol.errors import ConfigurationError

_SECRET_OPTIONS: Final = frozenset({"password", "passfile", "sslpassword", "sslkey"})


def check_database_url(url: str) -> None:
    """Check that a URL names a database that the store can use.

    Raises:
        ConfigurationError: It does not; the URL is not quoted.
    """
    _parsed(url)


def sqlite_path(url: str) -> Path | None:
    """Return the path of SQLite's file, None for another kind of database.

    Raises:
        ConfigurationError: The URL names no database that the store can use.
    """
    parsed = _parsed(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def shown_database_url(url: str) -> str:
    """Return a URL with its passwords masked."""
    parsed = _parsed(url)
    options = {
        name: "redacted" if name in _SECRET_OPTIONS else value
        for name, value in parsed.query.items()
    }
    return parsed.set(query=options).render_as_string(hide_password=True)


def database_passwords(url: str) -> Iterator[str]:
    """Give the passwords in a URL."""
    parsed = _parsed(url)
    if parsed.password:
        yield parsed.password
    for name in _SECRET_OPTIONS & parsed.query.keys():
        value = parsed.query[name]
        yield from (value,) if isinstance(value, str) else value


def _parsed(url: str) -> URL:
    wanted = "wanted sqlite:///PATH or postgresql://HOST/NAME"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        msg = f"not a database URL; {wanted}"
        raise ConfigurationError(msg) from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        # A word that was no scheme at all may be anything.
        msg = f"no store over this kind of database; {wanted}"
        raise ConfigurationError(msg)
    name = parsed.database or ":memory:"
    # A URI may name one in memory, or say how it is opened, which is the store's to say.
    is_uri = name.startswith("file:") or "uri" in parsed.query
    if backend == "sqlite" and (name == ":memory:" or is_uri):
        msg = "a store needs a file: sqlite:///PATH, or sqlite:////PATH for an absolute one"
        raise ConfigurationError(msg)
    return parsed
