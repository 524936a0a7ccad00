"""Reasoning traces: the ones that ship, and files of the same form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from coin_protocol.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Trace:
    """A question, the hidden reasoning about it, and the visible answer."""

    id: str
    domain: str
    question: str
    reasoning: str
    answer: str


def shipped_traces() -> list[Trace]:
    """Return the traces that ship with the package, written for it."""
    source = files("provider_sdk.replay").joinpath("traces.jsonl")
    return parse_traces(source.read_text(encoding="utf-8"))


def read_traces(path: Path) -> list[Trace]:
    """Read a JSONL file of traces.

    Raises:
        InvalidInputError: It cannot be read, or a line is not a trace.
    """
    try:
        return parse_traces(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read traces from {path}: {error}"
        raise InvalidInputError(msg) from error


def parse_traces(text: str) -> list[Trace]:
    """Parse JSONL, one trace a line.

    Raises:
        InvalidInputError: A line is not a trace, or there is none.
    """
    names = Trace.__dataclass_fields__.keys()
    traces = []
    # Not splitlines: JSON may hold U+2028 and other separators within a text.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            values = {name: document[name] for name in names}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            msg = f"line {number} is not a trace: wanted an object with {', '.join(names)}"
            raise InvalidInputError(msg) from error
        if not all(isinstance(value, str) for value in values.values()):
            msg = f"line {number} is not a trace: every field must be text"
            raise InvalidInputError(msg)
        traces.append(Trace(**values))
    if not traces:
        msg = "no traces: wanted one JSON object a line"
        raise InvalidInputError(msg)
    return traces
