"""A case: what is asked of an implementation, and what must come of it.

A case is a folder named as the case, with a file `case.json` and the files that it refers to:

    {
      "name": "challenge-by-a-stranger",
      "about": "A challenge that no known verifier signed is not answered.",
      "kind": "provider",
      "operation": "call",
      "input": {"method": "AnswerChallenge", "signed_by": "stranger"},
      "expect": {"status": ["PERMISSION_DENIED"], "reason": "VERIFIER_UNKNOWN"},
      "advice": "Look for the signature's key id among the verifiers that you know."
    }

Anywhere in `input` and `expect`, `{"file": "NAME"}` stands for the bytes of a file in the folder,
in base64; `{"hex_file": "NAME"}` for the same in hex.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol

from coin_protocol.errors import InvalidInputError
from coin_protocol.files import read_file
from coin_protocol.receipt import check_parts

CASE_FILE: Final = "case.json"
SHIPPED: Final = Path(__file__).parent / "cases"
"""The folder of the live cases that ship."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_TEXTS: Final = ("name", "about", "kind", "operation")
_OBJECTS: Final = ("input", "expect")
_FIELDS: Final = frozenset({*_TEXTS, *_OBJECTS, "advice"})


class Kind(StrEnum):
    """What is driven."""

    PROVIDER = "provider"
    """A provider's challenge service, over gRPC."""
    VERIFIER = "verifier"
    """A verifier node, over gRPC."""
    PROVIDER_PROGRAM = "provider-program"
    """A program that makes what a provider makes."""
    VERIFIER_PROGRAM = "verifier-program"
    """A program that verifies."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: Unique among the cases of its kind.
        about: What must hold, in one sentence.
        kind: Of implementation.
        operation: What the runner does, or asks a program to do.
        given: What with.
        expect: What must come of it, in the operation's own terms.
        advice: What to look at where it does not; empty where the outcome says enough.
    """

    name: str
    about: str
    kind: Kind
    operation: str
    given: Mapping[str, Any] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""


class CaseSource(Protocol):
    """Where cases come from."""

    def cases(self) -> Iterable[Case]:
        """Give its cases, of whatever kinds."""


@dataclass(frozen=True, slots=True)
class FolderCases:
    """Cases in a folder, and in those below it."""

    folder: Path

    def cases(self) -> Iterator[Case]:
        """Read every case, in the order of the paths.

        Raises:
            InvalidInputError: The folder holds none, or one of them is malformed.
        """
        paths = sorted(self.folder.rglob(CASE_FILE))
        if not paths:
            msg = f"{self.folder} holds no cases: wanted folders with a file {CASE_FILE}"
            raise InvalidInputError(msg)
        for path in paths:
            yield read_case(path)


def read_case(path: Path) -> Case:
    """Read one `case.json`.

    Raises:
        InvalidInputError: It is malformed, or refers to what is not in its folder.
    """
    raw = read_file(path)
    check_parts(raw)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        msg = f"{path} is no JSON: {str(error).splitlines()[0][:120]}"
        raise InvalidInputError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path}: wanted one JSON object"
        raise InvalidInputError(msg)
    _require_fields(path, document)
    name, about, kind, operation = (document[part] for part in _TEXTS)
    if not _NAME.fullmatch(name) or name != path.parent.name:
        msg = f"{path}: a case is named as its folder, in small letters, digits and hyphens"
        raise InvalidInputError(msg)
    if kind not in list(Kind):
        msg = f"{path}: kind {kind!r} is none of {', '.join(Kind)}"
        raise InvalidInputError(msg)
    given, expect = (_resolved(document.get(part, {}), path.parent) for part in _OBJECTS)
    return Case(name, about, Kind(kind), operation, given, expect, document.get("advice", ""))


def selected(sources: Iterable[CaseSource], kind: Kind, only: Sequence[str] = ()) -> list[Case]:
    """Return the cases of a kind whose name fits one of the patterns, all where there are none.

    Raises:
        InvalidInputError: None fits, or two cases have one name.
    """
    cases: dict[str, Case] = {}
    for source in sources:
        for case in source.cases():
            if case.kind is not kind:
                continue
            if case.name in cases:
                msg = f"two cases of kind {kind} are named {case.name!r}: rename yours"
                raise InvalidInputError(msg)
            cases[case.name] = case
    wanted = [
        case
        for case in cases.values()
        if not only or any(fnmatchcase(case.name, pattern) for pattern in only)
    ]
    if not wanted:
        msg = f"no case of kind {kind} is named like {' or '.join(only)}; --list shows them all"
        raise InvalidInputError(msg)
    return wanted


def _require_fields(path: Path, document: dict[str, Any]) -> None:
    unknown = sorted(document.keys() - _FIELDS)
    if unknown:
        msg = f"{path} has {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}"
        raise InvalidInputError(msg)
    for part in _TEXTS:
        if not isinstance(document.get(part), str) or not document[part]:
            msg = f"{path}: {part!r} must be text"
            raise InvalidInputError(msg)
    if not isinstance(document.get("advice", ""), str):
        msg = f"{path}: 'advice' must be text"
        raise InvalidInputError(msg)
    for part in _OBJECTS:
        if not isinstance(document.get(part, {}), dict):
            msg = f"{path}: {part!r} must be an object"
            raise InvalidInputError(msg)
    if not document.get("expect"):
        msg = f"{path}: 'expect' must say what must come of it"
        raise InvalidInputError(msg)


def _resolved(value: Any, folder: Path) -> Any:  # noqa: ANN401 - JSON
    """Return JSON with the files that it refers to in their place."""
    if isinstance(value, list):
        return [_resolved(entry, folder) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"file"}:
        return b64encode(_referred(value["file"], folder)).decode()
    if value.keys() == {"hex_file"}:
        return _referred(value["hex_file"], folder).hex()
    return {name: _resolved(entry, folder) for name, entry in value.items()}


def _referred(name: object, folder: Path) -> bytes:
    if not isinstance(name, str) or Path(name).name != name:
        msg = f"{folder}: {name!r} is no file of the case's own folder"
        raise InvalidInputError(msg)
    return read_file(folder / name)
