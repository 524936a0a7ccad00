"""What a gateway hands over with a reply, as whoever receives it reads it.

`protos/coin_protocol/v1/delivery.proto` has the messages. They come as JSON: in comments of a
stream, in a field `coin`, or from a path of their own. Nothing in them is believed here: what
counts in them is signed, and checked later.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TypeVar

from google.protobuf import json_format

from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.limits import (
    MAX_CHOICES,
    MAX_MESSAGE_BYTES,
    MAX_NAME_BYTES,
    NONCE_MAX_BYTES,
    NONCE_MIN_BYTES,
)
from coin_protocol.v1 import delivery_pb2 as pb

DELIVERY_FORMAT: Final = "coin.delivery.v1"

NONCE_HEADER: Final = "coin-nonce"
"""Of a request: the client's nonce, as hex or base64url."""

FIELD: Final = "coin"
"""Of a plain reply, or of a chunk: a delivery, or a delivered checkpoint."""

CHECKPOINT: Final = "coin.checkpoint"
RECEIPT: Final = "coin.receipt"
"""Names of the comments, each before its JSON."""

RECEIPTS_PATH: Final = "/coin/v1/receipts/"
"""Before a response id: where a delivery is had again."""

_COMMENT: Final = re.compile(
    rb"^: ?(" + b"|".join(re.escape(name.encode()) for name in (CHECKPOINT, RECEIPT)) + rb") (.+)$",
    re.MULTILINE,
)

D = TypeVar("D", pb.Delivery, pb.DeliveredCheckpoint)


def comments(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and JSON of each comment of ours in an event's bytes.

    Args:
        raw: Lines of a stream of server-sent events.
    """
    for found in _COMMENT.finditer(raw.replace(b"\r", b"\n")):
        yield found[1].decode(), found[2]


def read_nonce_header(text: bytes) -> bytes | None:
    """Return the nonce that a header holds; None where it is malformed.

    Args:
        text: Hex, or base64url with or without padding, of 16 to 64 bytes. What consists of hex
            digits is hex.
    """
    value = _decoded(text.strip())
    if value is None or not NONCE_MIN_BYTES <= len(value) <= NONCE_MAX_BYTES:
        return None
    return value


def read_delivery(document: object) -> pb.Delivery:
    """Parse a delivery.

    Args:
        document: Its JSON, as bytes or as the values that they stand for.

    Raises:
        InvalidInputError: It is none, or of another format version.
        LimitError: It passes a limit.
    """
    found = _parsed(pb.Delivery(), document)
    if found.format != DELIVERY_FORMAT:
        msg = f"found delivery format {found.format[:40]!r}, wanted {DELIVERY_FORMAT!r}"
        raise InvalidInputError(msg)
    for what, length, most in (
        ("choices", len(found.choices), MAX_CHOICES),
        ("client_nonce", len(found.client_nonce), NONCE_MAX_BYTES),
        ("response_id", len(found.response_id), MAX_NAME_BYTES),
    ):
        if length > most:
            msg = f"the delivery's {what} has length {length}; at most {most} is read"
            raise LimitError(msg)
    return found


def read_checkpoint(document: object) -> pb.DeliveredCheckpoint:
    """Parse a delivered checkpoint; arguments and errors as `read_delivery`."""
    found = _parsed(pb.DeliveredCheckpoint(), document)
    if not found.HasField("checkpoint"):
        msg = "a delivered checkpoint holds no envelope"
        raise InvalidInputError(msg)
    return found


def _decoded(text: bytes) -> bytes | None:
    with suppress(binascii.Error):
        return binascii.unhexlify(text)
    bare = text.rstrip(b"=")
    if len(text) - len(bare) not in {0, -len(bare) % 4} or b"+" in bare or b"/" in bare:
        return None
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return None


def _parsed(message: D, document: object) -> D:
    kind = type(message).DESCRIPTOR.name
    try:
        if isinstance(document, bytes):
            if len(document) > MAX_MESSAGE_BYTES:
                msg = f"a {kind} of {len(document)} bytes; at most {MAX_MESSAGE_BYTES} are read"
                raise LimitError(msg)
            document = json.loads(document)
        if not isinstance(document, dict):
            msg = f"a {kind} is a JSON {type(document).__name__}; wanted an object"
            raise InvalidInputError(msg)
        # Fields of a later gateway are none of this reader's, and nothing here is signed.
        json_format.ParseDict(document, message, ignore_unknown_fields=True, max_recursion_depth=20)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        msg = f"a {kind} that does not parse ({type(error).__name__})"
        raise InvalidInputError(msg) from error
    return message
