"""The list of audits. Its state is its address: every view of it can be linked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from coin_protocol.checks import CHECKS
from coin_protocol.database.engine import reading
from coin_protocol.errors import InvalidInputError
from verifier_sdk.web import links, words
from verifier_sdk.web.formats import plain
from verifier_sdk.web.pages import render
from verifier_sdk.web.problems import Problem
from verifier_sdk.web.queries import audits as listing
from verifier_sdk.web.queries.audits import Order, Page, Place, Wanted
from verifier_sdk.web.site import Site, choice_of, day_of, digits_of, text_of

_DAY: Final = 86_400
_MAX_CHOICE: Final = 60
_OUTCOMES: Final = {name.lower(): value for value, name in words.OUTCOMES.items()}
_FAULTS: Final = {name: value for value, name in words.AT_FAULT.items()}
_TIERS: Final = {name: value for value, name in words.TIERS.items()}
_CHECKS: Final = tuple(check.code for check in CHECKS)
_DIRECTIONS: Final = ("asc", "desc")

COLUMNS: Final[tuple[tuple[str, str, str], ...]] = (
    ("outcome", "Outcome", ""),
    ("fault", "At fault", ""),
    ("submitted", "Submitted", ""),
    ("decided", "Decided", ""),
    ("provider", "Provider", ""),
    ("model", "Model", ""),
    ("tokens", "Tokens", "number"),
    ("tier", "Tier", ""),
)
"""Columns that sort: name, head, class."""


@dataclass(frozen=True)
class Listing:
    """One page of a list, and the addresses around it.

    Attributes:
        path: Of the page that it stands on.
        order: What it is sorted by.
        page: The rows.
        given: Parameters of the address that choose rows, as they were given.
        label: What the list is of, for those who do not see it.
        total: How many audits there are, at most one more than `most`.
        most: So many are counted.
        with_provider: Whether the rows name their provider.
        fixed: Parameters that every address of the list needs.
    """

    path: str
    order: Order
    page: Page
    given: Mapping[str, str]
    label: str
    total: int
    most: int = listing.COUNTED
    with_provider: bool = True
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """The columns that sort."""
        return [column for column in COLUMNS if self.with_provider or column[0] != "provider"]

    def sort_link(self, by: str) -> str:
        """Return the address of the list sorted by a column; the other way if it is already."""
        turned = self.order.by == by
        descending = not self.order.descending if turned else by not in {"provider", "model"}
        return self._link(sort=by, dir="desc" if descending else "asc")

    @property
    def previous_link(self) -> str:
        """Return the address of the page before, or nothing."""
        place = self.page.previous
        return "" if place is None else self._link(**self._sorted, before=place.to_text())

    @property
    def next_link(self) -> str:
        """Return the address of the page after, or nothing."""
        place = self.page.following
        return "" if place is None else self._link(**self._sorted, after=place.to_text())

    @property
    def first_link(self) -> str:
        """Return the address of the first page."""
        return self._link(**self._sorted)

    @property
    def _sorted(self) -> dict[str, str]:
        if self.order == Order():
            return {}
        return {"sort": self.order.by, "dir": "desc" if self.order.descending else "asc"}

    @property
    def kept(self) -> dict[str, str]:
        """Parameters that a form of filters keeps."""
        return self._sorted

    def _link(self, **values: str) -> str:
        return links.with_query(self.path, {**self.fixed, **self.given, **values})


def audits(site: Site, request: Request) -> Response:
    """Answer `GET /audits`."""
    wanted, given = _wanted(request)
    with reading(site.engine) as connection:
        found = read_listing(
            connection, request, wanted, path="/audits", given=given, label="Audits"
        )
        names = sorted({*listing.provider_names(connection), *site.providers})
    choices = (
        ("provider", "Provider", "all", [(name, _short(name)) for name in names]),
        ("state", "State", "all", list(words.STATES.items())),
        ("outcome", "Outcome", "all", [(name, name.upper()) for name in _OUTCOMES]),
        ("fault", "At fault", "any or none", [(name, name) for name in _FAULTS]),
        ("tier", "Tier", "all", [(name, name) for name in _TIERS]),
        ("check", "Failed check", "any or none", [(code, code) for code in _CHECKS]),
    )
    return render(request, "audits.html", listing=found, choices=choices)


def read_listing(
    connection: Connection,
    request: Request,
    wanted: Wanted,
    *,
    path: str,
    given: Mapping[str, str],
    label: str,
    with_provider: bool = True,
    fixed: Mapping[str, str] | None = None,
) -> Listing:
    """Return the page of a list that a request asks for.

    Args:
        connection: To read from.
        request: Whose address says how to sort, and where the page begins.
        wanted: Which audits.
        path: Of the page that the list stands on.
        given: Parameters that chose `wanted`.
        label: What the list is of.
        with_provider: Whether the rows name their provider.
        fixed: Parameters that every address of the list needs.
    """
    by = choice_of(request, "sort", tuple(listing.SORTS)) or "submitted"
    direction = choice_of(request, "dir", _DIRECTIONS) or "desc"
    order = Order(by, descending=direction == "desc")
    after, before = text_of(request, "after", most=2048), text_of(request, "before", most=2048)
    if after and before:
        raise Problem(400, "Give the parameter after or the parameter before, not both.")
    try:
        text = after or before
        place = None if text is None else Place.from_text(text, order, back=before is not None)
    except InvalidInputError as error:
        text = str(error)
        raise Problem(400, f"{text[:1].upper()}{text[1:]}.") from error
    return Listing(
        path=path,
        order=order,
        page=listing.page(connection, wanted, order, place),
        given=given,
        label=label,
        total=listing.count(connection, wanted),
        with_provider=with_provider,
        fixed=fixed or {},
    )


def _short(name: str) -> str:
    """Return a name for a list of choices, which shows no title where it is cut."""
    shown = plain(name)
    return shown if len(shown) <= _MAX_CHOICE else f"{shown[:_MAX_CHOICE]}…"


def _wanted(request: Request) -> tuple[Wanted, dict[str, str]]:
    """Return which audits an address asks for, and its parameters that say so."""
    outcome = choice_of(request, "outcome", _OUTCOMES)
    fault = choice_of(request, "fault", _FAULTS)
    tier = choice_of(request, "tier", _TIERS)
    until = day_of(request, "to")
    wanted = Wanted(
        provider=text_of(request, "provider"),
        state=choice_of(request, "state", words.STATES),
        outcome=None if outcome is None else _OUTCOMES[outcome],
        fault=None if fault is None else _FAULTS[fault],
        tier=None if tier is None else _TIERS[tier],
        check=choice_of(request, "check", _CHECKS),
        begins=digits_of(request, "id"),
        since=day_of(request, "from"),
        until=None if until is None else until + _DAY,
    )
    names = ("provider", "state", "outcome", "fault", "tier", "check", "id", "from", "to")
    given = {name: request.query_params.get(name, "") for name in names}
    return wanted, given
