"""What a client may do to its receipt, as a case describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import json_format

from coin_protocol.errors import InvalidInputError
from coin_protocol.testing.forgeries import flipped, put
from coin_protocol.v1 import receipt_pb2

_VERBS: Final = ("set", "clear", "flip", "add", "copy")


def edited(receipt: receipt_pb2.Receipt, edit: Mapping[str, Any]) -> receipt_pb2.Receipt:
    """Return a changed copy of a receipt.

    Args:
        receipt: As it was kept.
        edit: `set`: fields in protobuf's JSON form, in place of those there; `clear`: names of
            fields; `flip`: paths, such as `commitment.signatures.0.sig`, one bit of whose bytes
            is flipped; `add`: numbers to add, by path; `copy`: the path of a message that is put
            at another path.

    Raises:
        InvalidInputError: There is no such field, or no such verb.
    """
    unknown = sorted(edit.keys() - set(_VERBS))
    if unknown:
        msg = f"an edit takes {', '.join(_VERBS)}; found {unknown[0]!r}"
        raise InvalidInputError(msg)
    made = receipt_pb2.Receipt()
    made.CopyFrom(receipt)
    try:
        for name in (*edit.get("clear", ()), *edit.get("set", {})):
            made.ClearField(name)
        json_format.ParseDict(dict(edit.get("set", {})), made)
        for path in edit.get("flip", ()):
            flipped(path)(made)
        for path, number in edit.get("add", {}).items():
            put(path, _at(made, path) + number)(made)
        for path, source in edit.get("copy", {}).items():
            put(path, _at(made, source))(made)
    except (AttributeError, IndexError, TypeError, ValueError, json_format.ParseError) as error:
        msg = f"a receipt cannot be edited like this: {str(error)[:200]}"
        raise InvalidInputError(msg) from error
    return made


def _at(message: Any, path: str) -> Any:  # noqa: ANN401 - a field of any type
    for part in path.split("."):
        message = message[int(part)] if part.isdigit() else getattr(message, part)
    return message
