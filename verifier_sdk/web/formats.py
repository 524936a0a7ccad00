"""How numbers, times and names look on the pages.

Names and sentences come from providers: characters that show nothing, or that turn the text
around them, are spelled out, so that what is read is what is there.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup, escape

NOTHING: Final = "\N{EN DASH}"
_MINUS: Final = "\N{MINUS SIGN}"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_NAME: Final = 96
_MAX_SENTENCE: Final = 2000
_FIRST: Final = datetime(1, 1, 2, tzinfo=UTC).timestamp()
_END: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_UNITS: Final = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_OURS: Final = "\u00a0\u202f"
"""Spaces that this module writes itself."""


def plain(text: str) -> str:
    """Return a text with every character spelled out that would not be seen."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in _OURS else f"⟨{ord(char):04X}⟩" for char in text
    )


def seen(value: object) -> object:
    """Return what Jinja is to write for a value: text is made plain, markup left as it is."""
    return plain(value) if type(value) is str else value


def name(text: str) -> Markup:
    """Return somebody's name as an isolated piece of text, cut where it is too long."""
    whole = plain(text)
    if not whole.strip():
        return Markup('<bdi class="name"><i>(empty)</i></bdi>')
    if len(whole) <= _MAX_NAME:
        return Markup('<bdi class="name">{}</bdi>').format(whole)
    cut = whole[:_MAX_NAME]
    return Markup('<bdi class="name" title="{}">{}…</bdi>').format(whole[:_MAX_SENTENCE], cut)


def sentence(text: str) -> Markup:
    """Return a sentence that may quote others, as an isolated piece of text."""
    whole = plain(text)
    cut = whole if len(whole) <= _MAX_SENTENCE else f"{whole[:_MAX_SENTENCE]}…"
    return Markup("<bdi>{}</bdi>").format(cut)


def raw(text: str) -> Markup:
    """Return a text for the value of a form's field: exactly as it is, only escaped."""
    return escape(text)


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with its thousands apart."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return _signed(f"{value:,.{digits}f}")


def figure(value: float | None) -> str:
    """Return a number to three digits, however large or small."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 11:
        # Beyond these nobody counts zeros.
        return _signed(f"{value:.2e}")
    text = f"{value:,.{min(6, max(0, 2 - size))}f}"
    return _signed(text.rstrip("0").rstrip(".") if "." in text else text)


def _signed(text: str) -> str:
    """Return a number with a minus sign in place of a hyphen."""
    return f"{_MINUS}{text[1:]}" if text.startswith("-") else text


def percent(value: float | None) -> str:
    """Return a share, 0 to 1, in percent."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{100 * value:,.1f}\u202f%"


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    sign, span = (_MINUS if seconds < 0 else ""), abs(seconds)
    if round(span * 1000) < 1000:
        return f"{sign}{span * 1000:.0f}\u202fms"
    if round(span, 1) < 60:
        return f"{sign}{span:.1f}\u202fs"
    whole = round(span)
    for size, large, rest, small in _UNITS:
        if whole >= size:
            first, left = divmod(whole, size)
            return f"{sign}{first:,}\u202f{large} {left // rest}\u202f{small}"
    return NOTHING


def moment(seconds: float | None, form: str = "second") -> Markup:
    """Return a time as an element that a script shows in the reader's zone; UTC without it.

    Args:
        seconds: Since 1970.
        form: How exact: `minute`, `second` or `millisecond`.
    """
    if seconds is None or not math.isfinite(seconds) or not _FIRST <= seconds < _END:
        return escape(NOTHING)
    at = _EPOCH + timedelta(milliseconds=round(seconds * 1000))
    exact = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = at.isoformat(
        " ", {"minute": "minutes", "millisecond": "milliseconds"}.get(form, "seconds")
    )
    return Markup('<time datetime="{}" data-form="{}">{} UTC</time>').format(
        exact, form, text.replace("+00:00", "")
    )


def day(seconds: float) -> Markup:
    """Return a day of UTC, which is the same day in every zone."""
    text = (_EPOCH + timedelta(seconds=seconds)).date().isoformat()
    return Markup('<time datetime="{}">{}</time>').format(text, text)


def count(value: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{value:,} {singular if value == 1 else plural or f'{singular}s'}"
