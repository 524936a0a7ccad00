"""The forms that bills come in, and which one a file is of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from coin_protocol.errors import InvalidInputError
from verifier_sdk.bill.fields import Fields
from verifier_sdk.bill.formats import anthropic, coin, litellm, openai, openrouter
from verifier_sdk.bill.formats.shape import Shape
from verifier_sdk.bill.source import Row

__all__ = ["AUTO", "FORMATS", "SHAPES", "Shape", "find_shape"]

AUTO: Final = "auto"

SHAPES: Final = (
    *openai.SHAPES,
    *anthropic.SHAPES,
    *openrouter.SHAPES,
    *litellm.SHAPES,
    *coin.SHAPES,
)

FORMATS: Final = tuple(dict.fromkeys(shape.format for shape in SHAPES))
"""What `--format` takes, beside `auto`."""

_LOOKED_AT: Final = 100
"""Rows, at the beginning, of which the first that is readable tells the form."""


def find_shape(path: Path, rows: Iterable[Row], wanted: str = AUTO) -> Shape | None:
    """Return the form of a bill, by the names in its first readable row.

    Args:
        path: For messages.
        rows: From the beginning.
        wanted: One of `FORMATS`, or `AUTO`.

    Returns:
        None where there is no readable row.

    Raises:
        InvalidInputError: No form fits, or several do; the message says which, or what is missing.
    """
    if wanted not in {AUTO, *FORMATS}:
        msg = f"no format is called {wanted!r}; use one of {', '.join((AUTO, *FORMATS))}"
        raise InvalidInputError(msg)
    shapes = [shape for shape in SHAPES if wanted in {AUTO, shape.format}]
    names = _names(rows)
    if names is None:
        return None
    fitting = [shape for shape in shapes if shape.fits(names)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        found = ", ".join(shape.name for shape in fitting)
        formats = " or ".join(f"--format {name}" for name in _formats(fitting))
        msg = f"{path} fits the forms {found}; say which it is: {formats}"
        raise InvalidInputError(msg)
    nearest = min(shapes, key=lambda shape: len(shape.needs - names))
    missing = ", ".join(sorted(nearest.needs - names))
    msg = (
        f"{path} is of no known form; the nearest is {nearest.name}, for which it lacks "
        f"{missing}. docs/bill.md lists what each form needs"
    )
    raise InvalidInputError(msg)


def _names(rows: Iterable[Row]) -> frozenset[str] | None:
    for row, _ in zip(rows, range(_LOOKED_AT), strict=False):
        if isinstance(row, Fields):
            return frozenset(row.values)
    return None


def _formats(shapes: list[Shape]) -> list[str]:
    return list(dict.fromkeys(shape.format for shape in shapes))
