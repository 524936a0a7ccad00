"""Which convention a block follows, where the block itself settles it."""

from __future__ import annotations

from collections.abc import Mapping

from coin_protocol.vendors.codes import UsageCode, UsageError
from coin_protocol.vendors.conventions import CONVENTIONS, Convention
from coin_protocol.vendors.reading import read_usage
from coin_protocol.vendors.reported import Reported


def readings(block: object) -> dict[str, Reported]:
    """Return every reading of a block that adds up, by vendor.

    Where they agree on `generated` and `prompt_tokens`, the vendor's name does not matter to
    a bill. A rest that no field names is not taken for a convention here: every false total
    would be one.
    """
    found = {}
    for vendor in CONVENTIONS:
        try:
            reported = read_usage(vendor, block)
        except UsageError:
            continue
        if not reported.unnamed_tokens:
            found[vendor] = reported
    return found


def detect_vendor(block: object) -> str:
    """Return the one vendor whose convention a block follows.

    A field that only one vendor sends decides; without one, a block that adds up under one
    convention only.

    Raises:
        UsageError: AMBIGUOUS, with the vendors that fit; or what the marked vendor's
            convention has against the block; or MALFORMED, where nothing fits.
    """
    fitting = readings(block)
    marked = [c.vendor for c in CONVENTIONS.values() if _marked(c, block)]
    for names in ([vendor for vendor in marked if vendor in fitting], list(fitting)):
        if len(names) == 1:
            return names[0]
    if fitting:
        msg = f"the usage block fits {', '.join(fitting)}; say which of them sent it"
        raise UsageError(UsageCode.AMBIGUOUS, msg)
    if len(marked) == 1:
        read_usage(marked[0], block)
    msg = "the usage block adds up under no known convention; say which vendor sent it"
    raise UsageError(UsageCode.MALFORMED, msg)


def _marked(convention: Convention, block: object) -> bool:
    return any(_has(block, mark.split(".")) for mark in convention.marks)


def _has(block: object, path: list[str]) -> bool:
    for name in path:
        if not isinstance(block, Mapping) or name not in block:
            return False
        block = block[name]
    return True
