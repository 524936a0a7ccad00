"""Token counts out of a JSON block, each a whole number or not stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from coin_protocol.vendors.codes import UsageCode, UsageError

MAX_TOKENS: Final = 1 << 40
"""Over what a large customer uses in a month; a time in nanoseconds is no count of tokens."""


def count(block: Mapping[str, object], name: str) -> int | None:
    """Return the count under a dotted name; None where it is absent or null.

    Values that are no counts are not repeated in the error: they may be anything.

    Raises:
        UsageError: MALFORMED.
    """
    *groups, last = name.split(".")
    for group in groups:
        inner = block.get(group)
        if inner is None:
            return None
        if not isinstance(inner, Mapping):
            raise _malformed(group, inner, "an object of counts, or null")
        block = inner
    value = block.get(last)
    if value is None:
        return None
    # JSON's true is an int to Python, and 10.0 hides that something was divided on the way.
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise _malformed(name, value, f"a whole number from 0 to {MAX_TOKENS}")
    return value


def agreed(block: Mapping[str, object], names: Sequence[str]) -> int | None:
    """Return the count that stands under any of these names, which must say the same.

    Raises:
        UsageError: MALFORMED or FIELDS_DISAGREE.
    """
    stated = {name: value for name in names if (value := count(block, name)) is not None}
    if len(set(stated.values())) > 1:
        found = ", ".join(f"`{name}` {value}" for name, value in stated.items())
        msg = f"fields of one meaning differ: {found}; ask the vendor which one is billed"
        raise UsageError(UsageCode.FIELDS_DISAGREE, msg)
    return next(iter(stated.values()), None)


def needed(block: Mapping[str, object], names: Sequence[str]) -> int:
    """Return the count that must stand under one of these names.

    Raises:
        UsageError: As `agreed`, or MISSING_COUNT.
    """
    value = agreed(block, names)
    if value is None:
        wanted = " or ".join(f"`{name}`" for name in names)
        msg = (
            f"the usage block states no {wanted}; ask for usage in the request "
            f"(`stream_options.include_usage` in streams), or name the vendor that sent the block"
        )
        raise UsageError(UsageCode.MISSING_COUNT, msg)
    return value


def _malformed(name: str, value: object, wanted: str) -> UsageError:
    out_of_range = type(value) is int
    found = "out of range" if out_of_range else f"of type {type(value).__name__}"
    msg = f"`{name}` is {found}; wanted {wanted}: use the block as the vendor sent it"
    return UsageError(UsageCode.MALFORMED, msg)
