"""What every page is made from, and how a request's parameters are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import Engine
from starlette.requests import Request

from coin_protocol.limits import MAX_NAME_BYTES
from coin_protocol.profile import Policy
from verifier_sdk.web.log_reader import LogReader
from verifier_sdk.web.problems import Problem

_HEX: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Site:
    """One node's pages.

    Attributes:
        engine: Of the node's database.
        log: None where the node keeps none.
        providers: Names of those that are configured.
        policies: Those whose limits are known here, by digest.
        clock: Gives seconds since 1970.
    """

    engine: Engine
    log: LogReader | None
    providers: Sequence[str]
    policies: Mapping[bytes, Policy]
    clock: Callable[[], float]


def text_of(request: Request, name: str, *, most: int = MAX_NAME_BYTES) -> str | None:
    """Return a parameter of the address, None where it is not there or empty."""
    value = request.query_params.get(name, "")
    if len(value) > most:
        raise Problem(400, f"The parameter {name} has more than {most:,} characters.")
    return value or None


def choice_of(request: Request, name: str, choices: Collection[str]) -> str | None:
    """Return a parameter that must be one of some words."""
    value = text_of(request, name)
    if value is not None and value not in choices:
        raise Problem(400, f"The parameter {name} must be one of: {', '.join(choices)}.")
    return value


def digits_of(request: Request, name: str) -> str | None:
    """Return a parameter of 1 to 64 hexadecimal digits, in small letters."""
    value = (text_of(request, name) or "").strip().lower()
    if value and (not _HEX.fullmatch(value) or len(value) > 64):
        raise Problem(400, f"The parameter {name} must be 1 to 64 hexadecimal digits.")
    return value or None


def day_of(request: Request, name: str) -> float | None:
    """Return when a day begins in UTC, seconds since 1970."""
    value = text_of(request, name)
    if value is None:
        return None
    try:
        # Other forms of ISO 8601 are read, too, and are no harm.
        day = date.fromisoformat(value)
    except ValueError as error:
        raise Problem(400, f"The parameter {name} must be a day as YYYY-MM-DD.") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def digest_in_path(request: Request, name: str, what: str) -> bytes:
    """Return 32 bytes that the path names in hex.

    Args:
        request: That is answered.
        name: Of the path's part.
        what: Said where it is something else.
    """
    value: str = request.path_params[name]
    if len(value) != 64 or not _HEX.fullmatch(value):
        raise Problem(404, what)
    return bytes.fromhex(value)
