"""Reasoning traces as JSON Lines, and their split by question."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from coin_protocol.errors import InvalidInputError

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""One trace: as much text as a receipt may hold."""

MAX_TRACES: Final = 1_000_000
"""Lines of all files together: they are held in memory."""

_TENTHS: Final = {
    "train": range(4),
    "detectors": range(4, 6),
    "calibration": range(6, 8),
    "test": range(8, 10),
}
_DEFAULTS: Final = {"domain": "unknown", "model": "unknown"}

SPLITS: Final = tuple(_TENTHS)
"""Readers and heads are trained on `train`, detectors on `detectors`: on text that their
inputs have not seen."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One real reply: question, hidden reasoning and visible answer.

    Attributes:
        id: Unique in its file.
        qid: Cluster of near-duplicate questions. Splits never cut one apart.
        domain: Such as math or code; free text.
        model: Who reasoned; free text.
        question: The prompt.
        reasoning: What is hidden from the client; never empty.
        answer: What the client saw; may be empty.
    """

    id: str
    qid: str
    domain: str
    model: str
    question: str
    reasoning: str
    answer: str


def read_traces(paths: Iterable[Path]) -> list[Trace]:
    """Read traces from JSON Lines files, gzipped where the name ends in `.gz`.

    Each line is an object with the strings `id`, `qid`, `domain`, `model`, `question`,
    `reasoning` and `answer` (null counts as empty). Without `qid` a trace is a question of its
    own, without `domain` or `model` these are unknown; other fields are ignored. Traces without
    any reasoning are left out: nothing was committed there.

    Raises:
        InvalidInputError: A file cannot be read, or a line is not such an object.
    """
    found: list[Trace] = []
    for path in paths:
        for number, line in _lines(path):
            if len(found) == MAX_TRACES:
                msg = f"more than {MAX_TRACES} traces: give fewer files"
                raise InvalidInputError(msg)
            try:
                trace = _trace(json.loads(line))
            except ValueError as error:
                msg = f"{path}, line {number}: {error}"
                raise InvalidInputError(msg) from error
            if trace.reasoning.strip():
                found.append(trace)
    if not found:
        msg = "no traces with reasoning in the files given"
        raise InvalidInputError(msg)
    return found


def split(traces: Sequence[Trace]) -> Mapping[str, list[Trace]]:
    """Split by question: four tenths to `train`, two each to the other parts of `SPLITS`.

    In each domain the questions stand in the order of their hash, and every tenth goes where
    its place says, so that no domain with ten questions is missing anywhere. The same traces
    are always split the same way.
    """
    domains: dict[str, set[str]] = {}
    home: dict[str, str] = {}
    for trace in traces:
        # A question that several domains claim belongs to the first by name.
        home[trace.qid] = min(home.get(trace.qid, trace.domain), trace.domain)
    for qid, domain in home.items():
        domains.setdefault(domain, set()).add(qid)
    part_of: dict[str, str] = {}
    for qids in domains.values():
        for place, qid in enumerate(sorted(qids, key=_hashed)):
            part_of[qid] = next(name for name, tenths in _TENTHS.items() if place % 10 in tenths)
    parts: dict[str, list[Trace]] = {name: [] for name in SPLITS}
    for trace in traces:
        parts[part_of[trace.qid]].append(trace)
    return parts


def _hashed(qid: str) -> bytes:
    return sha256(b"coin.split.v1" + qid.encode()).digest()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    msg = f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes"
                    raise InvalidInputError(msg)
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        msg = f"cannot read traces from {path}: {error}"
        raise InvalidInputError(msg) from error


def _trace(document: object) -> Trace:
    if not isinstance(document, dict):
        msg = f"wanted a JSON object, found {type(document).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - every wrong line is one kind of error
    values = {}
    for name in Trace.__dataclass_fields__:
        value = document.get(name, document.get("id") if name == "qid" else _DEFAULTS.get(name))
        if value is None and name == "answer":
            value = ""
        if not isinstance(value, str):
            msg = f"{name!r} must be a string; found {type(value).__name__}"
            raise ValueError(msg)  # noqa: TRY004
        # JSON can spell half of a surrogate pair, which no tokenizer takes.
        values[name] = value.encode(errors="replace").decode()
    return Trace(**values)
