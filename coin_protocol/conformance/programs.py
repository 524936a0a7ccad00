"""Cases that are put to a program, and how its answers are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from coin_protocol.conformance.case import Case
from coin_protocol.conformance.judging import NotApplicable, NotMet
from coin_protocol.conformance.program import Program
from coin_protocol.replaying import first_difference
from coin_protocol.v1 import opening_pb2

SKIPPED: Final = "skipped"
"""The field by which a program says that it does not do this, and why."""

_VALUE: Final = "value"
_ERROR: Final = "error"
_NEVER: Final = "never"
_OPENING: Final = "opening"
_OPENINGS: Final[Mapping[str, type[opening_pb2.Opening | opening_pb2.WholeBlockOpening]]] = {
    "open": opening_pb2.Opening,
    "open_whole": opening_pb2.WholeBlockOpening,
}
_LONGEST: Final = 300
_DEEPEST: Final = 20


def perform(program: Program, case: Case) -> None:
    """Ask a program a case.

    Raises:
        NotMet: Its answer is another.
        NotApplicable: It says that it does not do this.
        ConfigurationError: It cannot be started.
    """
    answer = program.ask({**case.given, "operation": case.operation, "name": case.name})
    if SKIPPED in answer:
        msg = f"the program says: {str(answer[SKIPPED])[:_LONGEST]}"
        raise NotApplicable(msg)
    if _ERROR in case.expect:
        _require_error(answer)
        return
    for name, wanted in case.expect.items():
        if name == _NEVER:
            continue
        if name not in answer:
            raise _left_out(case, name, wanted, answer)
        if name == _OPENING and case.operation in _OPENINGS:
            kind = _OPENINGS[case.operation]
            _require_same_opening(kind(), kind(), wanted, answer[name])
        elif not _same(wanted, answer[name]):
            where, one, other = _difference(wanted, answer[name], name)
            raise NotMet(
                wanted=f"{where} {_shown(one)}",
                came=_shown(other) + _mistake(case, answer[name]),
            )


def _require_error(answer: Mapping[str, Any]) -> None:
    said = answer.get(_ERROR)
    if isinstance(said, str) and said:
        return
    came = f"{_VALUE} {_shown(answer[_VALUE])}" if _VALUE in answer else f"fields {list(answer)}"
    raise NotMet(wanted="an error", came=came)


def _left_out(case: Case, name: str, wanted: object, answer: Mapping[str, Any]) -> NotMet:
    came = f"no field {name!r}"
    if _ERROR in answer:
        came = f"error {_shown(answer[_ERROR])}"
    fields = [field for field in case.expect if field != _NEVER]
    return NotMet(
        wanted=f"{name} {_shown(wanted)}",
        came=came,
        advice=f"Answer with {', '.join(fields)}.",
    )


def _mistake(case: Case, found: object) -> str:
    """Return which known mistake gives what came, where one does."""
    for known in case.expect.get(_NEVER, ()):
        if _same(known.get(_VALUE), found):
            return f", which comes of: {known.get('about')}"
    return ""


def _require_same_opening(wanted: Message, found: Message, document: Any, answer: Any) -> None:  # noqa: ANN401 - JSON
    json_format.ParseDict(document, wanted)
    try:
        json_format.ParseDict(answer, found, max_recursion_depth=_DEEPEST)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
        raise NotMet(
            wanted=f"{found.DESCRIPTOR.name} in protobuf's JSON form",
            came=str(error).splitlines()[0][:_LONGEST] if str(error) else _shown(answer),
        ) from error
    for message in (wanted, found):
        # When it was signed is the program's own affair.
        message.ClearField("provider_time")
    difference = first_difference(found, wanted)
    if difference is not None:
        raise NotMet(wanted=f"{difference.path} {difference.replayed}", came=difference.found)


def _same(wanted: object, found: object) -> bool:
    """Compare JSON; unlike Python's own comparison 1 is not true."""
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_same, wanted, found))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(_same(wanted[k], found[k]) for k in wanted)
    return isinstance(wanted, bool) == isinstance(found, bool) and wanted == found


def _difference(wanted: object, found: object, path: str) -> tuple[str, object, object]:
    """Return the innermost place where two values differ, with both."""
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            if not _same(one, other):
                return _difference(one, other, f"{path}[{number}]")
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        for name in wanted:
            if not _same(wanted[name], found[name]):
                return _difference(wanted[name], found[name], f"{path}.{name}")
    return path, wanted, found


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
