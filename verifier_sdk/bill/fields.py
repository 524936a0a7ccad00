"""Values out of a row of any form, each of its type or refused. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from coin_protocol.vendors import MAX_TOKENS
from verifier_sdk.bill.limits import MAX_NAME_CHARACTERS
from verifier_sdk.bill.line import Period

_MONEY: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_ZERO: Final = re.compile(r"-?0{1,15}(\.0{1,40})?([eE][+-]?[0-9]{1,6})?", re.ASCII)
"""OpenAI's costs API is reported to write nothing as `0E-6176`."""
_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MOST_MONEY: Final = Decimal(10) ** 15
_FINEST: Final = -60
_MILLISECONDS_FROM: Final = 10**11
"""In seconds that is the year 5138, in milliseconds 1973."""
YEARS: Final = range(1970, 2200)
"""In which replies are served: sums with a time never leave what a date can be."""
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False}
_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)


class UnreadableError(ValueError):
    """A line is not what its form says; the message says of which field."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and how finely it was written down."""

    at: datetime
    resolution: timedelta

    @property
    def period(self) -> Period:
        """When it may have been."""
        return Period(self.at, self.at + self.resolution)


class Fields:
    """A row's values by name: text out of CSV, anything out of JSON.

    Attributes:
        number: Of the row.
        values: By name.
    """

    __slots__ = ("number", "values")

    def __init__(self, number: int, values: Mapping[str, object]) -> None:
        """Wrap a row."""
        self.number = number
        self.values = values

    def stated(self, name: str) -> object | None:
        """Return a value; None where it is absent, null or empty."""
        value = self.values.get(name)
        return None if value == "" else value

    def text(self, name: str) -> str:
        """Return a text; empty where it is not stated."""
        value = self.stated(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _wrong(name, value, "a text")
        if len(value) > MAX_NAME_CHARACTERS:
            msg = f"`{name}` has {len(value)} characters; at most {MAX_NAME_CHARACTERS} are read"
            raise UnreadableError(msg)
        return value

    def count(self, name: str) -> int | None:
        """Return a count of tokens or requests; None where it is not stated."""
        value = self.stated(name)
        if value is None:
            return None
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        # JSON's true is an int to Python.
        if type(value) is not int or not 0 <= value <= MAX_TOKENS:
            raise _wrong(name, value, f"a whole number from 0 to {MAX_TOKENS}")
        return value

    def money(self, name: str) -> Decimal | None:
        """Return an amount; None where it is not stated."""
        value = self.stated(name)
        return None if value is None else read_money(name, value)

    def moment(self, name: str) -> Moment | None:
        """Return a time; None where it is not stated. Without a zone it is UTC."""
        value = self.stated(name)
        return None if value is None else _moment(name, value)

    def flag(self, name: str) -> bool:
        """Return whether something is so; not, where it is not stated."""
        value = self.stated(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        found = _FLAGS.get(str(value).lower()) if isinstance(value, (str, int)) else None
        if found is None:
            raise _wrong(name, value, "true or false")
        return found

    def group(self, name: str) -> Mapping[str, object]:
        """Return a JSON object, or the one that a CSV cell holds; empty where it is not stated."""
        value = self.stated(name)
        if isinstance(value, str):
            value = _json(name, value)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise _wrong(name, value, "a JSON object")
        return value

    def loose_group(self, name: str) -> Mapping[str, object]:
        """Return a JSON object as `group` does; empty where it is none: it was cut off, say."""
        try:
            return self.group(name)
        except UnreadableError:
            return {}

    def seconds(self, started: str, ended: str) -> float | None:
        """Return how long something took at most, as its two stamps are written.

        None where one is missing, where both are the same, or where they run backwards: then
        nobody measured it.
        """
        first, last = self.moment(started), self.moment(ended)
        if first is None or last is None or last.at < first.at:
            return None
        took = (last.at - first.at + last.resolution).total_seconds()
        return took if took > 0 else None


def read_money(name: str, value: object) -> Decimal:
    """Return an amount out of a JSON number or a text.

    Raises:
        UnreadableError: It is no plain number, or out of range.
    """
    if isinstance(value, str) and (_MONEY.fullmatch(value) or _ZERO.fullmatch(value)):
        value = Decimal(value)
    if type(value) is int:
        value = Decimal(value)
    if isinstance(value, Decimal) and value.is_finite():
        exponent = value.as_tuple().exponent
        fine = isinstance(exponent, int) and exponent >= _FINEST
        if fine and value.adjusted() < _MOST_MONEY.adjusted():
            return value
        if not value:
            return Decimal()
    raise _wrong(name, value, "a plain decimal number, such as 0.7923")


def read_json(text: str | bytes) -> object:
    """Parse JSON: money stays exact, and no name stands twice in an object.

    Raises:
        ValueError: It is not JSON, has NaN or Infinity, or is nested too deeply.
    """
    try:
        value: object = json.loads(
            text, parse_float=_decimal, parse_constant=_no_constant, object_pairs_hook=_distinct
        )
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise ValueError(msg) from error
    return value


def _json(name: str, text: str) -> object:
    try:
        return read_json(text)
    except ValueError as error:
        msg = f"`{name}` is no JSON: {_first_line(error)}"
        raise UnreadableError(msg) from error


def _first_line(error: ValueError) -> str:
    return str(error).splitlines()[0][:120]


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        msg = "a number is out of range"
        raise ValueError(msg) from error


def _no_constant(text: str) -> object:
    msg = f"{text} is no JSON number"
    raise ValueError(msg)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a name stands twice in one object"
        raise ValueError(msg)
    return found


def _moment(name: str, value: object) -> Moment:
    wanted = "a time: ISO 8601, or seconds since 1970"
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    try:
        if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
            return _since_1970(value)
        if isinstance(value, str) and len(value) <= MAX_NAME_CHARACTERS:
            return _written(value.strip().removesuffix(" UTC"))
    except (ValueError, OverflowError, OSError, InvalidOperation) as error:
        raise _wrong(name, value, wanted) from error
    raise _wrong(name, value, wanted)


def _since_1970(value: int | Decimal) -> Moment:
    scale = 1000 if value >= _MILLISECONDS_FROM else 1
    fine = scale > 1 or not isinstance(value, int)
    at = datetime.fromtimestamp(float(value) / scale, UTC)
    if at.year not in YEARS:
        msg = "out of range"
        raise ValueError(msg)
    return Moment(at, timedelta() if fine else _SECOND)


def _written(text: str) -> Moment:
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if at.year not in YEARS:
        msg = "out of range"
        raise ValueError(msg)
    if _DATE.fullmatch(text):
        return Moment(at, _DAY)
    return Moment(at, timedelta() if "." in text else _SECOND)


def _wrong(name: str, value: object, wanted: str) -> UnreadableError:
    """Say what is wrong without repeating what may be anything."""
    if isinstance(value, str):
        found = "another text"
    elif type(value) in {int, Decimal}:
        found = "another number, or out of range"
    else:
        found = f"of type {type(value).__name__}"
    return UnreadableError(f"`{name}` is {found}; wanted {wanted}")
