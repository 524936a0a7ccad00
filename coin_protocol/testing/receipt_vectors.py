"""Test vectors of receipt files: both forms, what a reader takes and refuses (section 5).

The receipt is a `World`'s; its JSON forms are those of protobuf's own mapping, or written by
hand. What must come of each is stated by hand.
"""

from __future__ import annotations

import json
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.testing.forgeries import put, without
from coin_protocol.testing.statement_vectors import FIRST_SECOND, LAST_SECOND
from coin_protocol.testing.vector_documents import (
    Documents,
    accepted,
    by_file,
    in_base64,
    refused,
)
from coin_protocol.testing.world import Edit, World
from coin_protocol.v1 import receipt_pb2 as pb

_OPERATION: Final = "read_receipt"
_INVALID: Final = "InvalidInputError"
_LIMIT: Final = "LimitError"


def receipt_vectors() -> Documents:
    """Return all vectors."""
    honest = World().reply(tokens=9).receipt
    return by_file([*_read(honest), *_read_json(honest), *_refused(honest), *_refused_json(honest)])


def _raw(message: pb.Receipt) -> bytes:
    return message.SerializeToString(deterministic=True)


def _edited(honest: pb.Receipt, edit: Edit[Any]) -> pb.Receipt:
    found = pb.Receipt()
    found.CopyFrom(honest)
    edit(found)
    return found


def _given(raw: bytes) -> dict[str, object]:
    return {"file": in_base64(raw)}


def _value(message: pb.Receipt) -> dict[str, object]:
    return {"protobuf": in_base64(_raw(message))}


def _read(honest: pb.Receipt) -> list[dict[str, object]]:
    edits: tuple[tuple[str, str, Edit[Any]], ...] = (
        ("good", "A receipt.", lambda _: None),
        ("without-fingerprints", "They may come later.", without("fingerprints")),
        ("without-checkpoints", "The client may have seen none.", without("checkpoints")),
        ("without-a-bill", "The client may have been told none.", without("billed")),
        ("without-the-answer-s-times", "The client may have noted none.",
         lambda found: (found.ClearField("answer_first_at"), found.ClearField("answer_last_at"))),
        ("with-a-summary", "Providers may show a summary.", put("summary", b"short")),
        ("with-an-empty-summary", "An empty summary is one.", put("summary", b"")),
        ("of-a-nonce-of-64-bytes", "The longest nonce.", put("client_nonce", bytes(64))),
        ("of-an-answer-that-is-no-text", "Answers are bytes.", put("answer", b"\xff\x00")),
        ("of-the-last-second", "Times end with the year 9999.",
         put("sent_at", Timestamp(seconds=LAST_SECOND, nanos=999_999_999))),
        ("of-the-first-second", "Times begin with the year 1.",
         put("sent_at", Timestamp(seconds=FIRST_SECOND))),
    )  # fmt: skip
    found = []
    for name, about, edit in edits:
        message = _edited(honest, edit)
        given = _given(_raw(message))
        found.append(accepted(f"receipt-{name}", about, _OPERATION, given, _value(message)))
    return found


def _json(message: pb.Receipt, *, snake: bool = True) -> str:
    text: str = json_format.MessageToJson(message, preserving_proto_field_name=snake)
    return text


def _rewritten(honest: pb.Receipt, **change: Any) -> bytes:  # noqa: ANN401 - any JSON
    document = json.loads(_json(honest))
    for name, value in change.items():
        if value is None:
            del document[name]
        else:
            document[name] = value
    return json.dumps(document).encode()


def _read_json(honest: pb.Receipt) -> list[dict[str, object]]:
    snake, camel = _json(honest).encode(), _json(honest, snake=False).encode()
    billed = {
        "prompt_tokens": 7,
        "completion_tokens": "14",
        "reasoning_tokens": 9.0,
        "reasoning_counting": 1,
    }
    unbilled = _edited(honest, without("billed"))
    offset = "2026-01-01T14:00:00.000+02:00"
    cases: tuple[tuple[str, str, bytes, pb.Receipt], ...] = (
        ("with-names-as-in-the-proto", "The form that is written.", snake, honest),
        ("with-names-in-camel-case", "The other form of protobuf's mapping.", camel, honest),
        ("behind-white-space", "The first byte that is no space tells the forms apart.",
         b" \t\r\n" + snake, honest),
        ("on-one-line", "White space does not matter.", json.dumps(json.loads(snake)).encode(),
         honest),
        ("with-numbers-in-other-forms", "Counts may be strings, and names of a kind numbers.",
         _rewritten(honest, billed=billed), honest),
        ("with-null-for-what-is-absent", "Null is nothing.",
         json.dumps(json.loads(_json(unbilled)) | {"billed": None}).encode(), unbilled),
        ("with-a-time-in-another-zone", "Times are RFC 3339, with any offset.",
         _rewritten(honest, sent_at=offset), honest),
    )  # fmt: skip
    return [
        accepted(f"receipt-in-json-{name}", about, _OPERATION, _given(raw), _value(message))
        for name, about, raw, message in cases
    ]


def _refused(honest: pb.Receipt) -> list[dict[str, object]]:
    def raw(edit: Edit[Any]) -> bytes:
        return _raw(_edited(honest, edit))

    def seen(name: str) -> bytes:
        return raw(lambda found: found.checkpoints[0].ClearField(name))

    past = Timestamp(seconds=LAST_SECOND + 1)
    cases = (
        ("empty", "No bytes.", b"", _INVALID),
        ("garbage", "Bytes that are no message.", b"\xff\xff\xff", _INVALID),
        ("cut", "The last byte is missing.", _raw(honest)[:-1], _INVALID),
        ("of-version-2", "A file of a later version.", raw(put("format", "coin.receipt.v2")),
         _INVALID),
        ("of-no-format", "A file says what it is.", raw(without("format")), _INVALID),
        ("of-a-bundle-s-format", "A file says what it is.", raw(put("format", "coin.bundle.v1")),
         _INVALID),
        ("of-a-format-in-capitals", "A format is told to the letter.",
         raw(put("format", "COIN.RECEIPT.V1")), _INVALID),
        ("without-a-key-set", "Without it nothing can be checked.", raw(without("key_set")),
         _INVALID),
        ("without-a-commitment", "Without it there is nothing to check.",
         raw(without("commitment")), _INVALID),
        ("without-the-request-s-time", "Times are counted from it.", raw(without("sent_at")),
         _INVALID),
        ("of-a-nonce-of-65-bytes", "A nonce has 64 bytes at most.",
         raw(put("client_nonce", bytes(65))), _LIMIT),
        ("sent-past-the-year-9999", "Times lie in the years 1 to 9999.", raw(put("sent_at", past)),
         _INVALID),
        ("answered-past-the-year-9999", "Times lie in the years 1 to 9999.",
         raw(put("answer_last_at", past)), _INVALID),
        ("answered-in-no-second", "A second has 10^9 nanoseconds.",
         raw(put("answer_first_at.nanos", 1_000_000_000)), _INVALID),
        ("with-a-checkpoint-of-no-time", "A checkpoint has been seen at some time.",
         seen("seen_at"), _INVALID),
        ("with-a-checkpoint-of-nothing", "A checkpoint has an envelope.", seen("checkpoint"),
         _INVALID),
        ("with-a-checkpoint-past-the-year-9999", "Times lie in the years 1 to 9999.",
         raw(put("checkpoints.0.seen_at", past)), _INVALID),
    )  # fmt: skip
    return [
        refused(f"receipt-{name}", about, _OPERATION, _given(found), error)
        for name, about, found, error in cases
    ]


def _refused_json(honest: pb.Receipt) -> list[dict[str, object]]:
    text = _json(honest).rstrip()
    twice = text[:-1] + ', "format": "coin.receipt.v1"}'
    cases = (
        ("cut", "The last bracket is missing.", text[:-1].encode()),
        ("with-more-behind", "A file is one object.", f"{text} {{}}".encode()),
        ("of-a-list", "A file is an object.", f"[{text}]".encode()),
        ("not-utf-8", "JSON is UTF-8.", text.encode().replace(b"coin.receipt", b"coin.\xff")),
        ("behind-a-byte-order-mark", "A mark is no white space.", b"\xef\xbb\xbf" + text.encode()),
        ("of-version-2", "A file of a later version.",
         _rewritten(honest, format="coin.receipt.v2")),
        ("of-no-format", "A file says what it is.", _rewritten(honest, format=None)),
        ("without-a-commitment", "Without it there is nothing to check.",
         _rewritten(honest, commitment=None)),
        ("with-an-unknown-field", "A field that version 1 does not know.",
         _rewritten(honest, note="for people")),
        ("with-a-field-twice", "A field stands once.", twice.encode()),
        ("with-a-number-for-bytes", "Bytes are base64 in a string.",
         _rewritten(honest, answer=42)),
        ("with-a-text-for-a-message", "A message is an object.", _rewritten(honest, billed="7")),
        ("with-a-negative-count", "Counts are not negative.",
         _rewritten(honest, billed={"prompt_tokens": -1})),
        ("with-a-fraction-for-a-count", "Counts are whole.",
         _rewritten(honest, billed={"prompt_tokens": 1.5})),
        ("with-a-count-past-64-bits", "Counts have 64 bits.",
         _rewritten(honest, billed={"prompt_tokens": str(1 << 64)})),
        ("with-an-unknown-name-of-a-convention", "Enumerations have their names.",
         _rewritten(honest, billed={"reasoning_counting": "INSIDE"})),
        ("with-a-time-without-a-zone", "Times are RFC 3339.",
         _rewritten(honest, sent_at="2026-01-01T12:00:00")),
        ("with-a-time-of-no-day", "February has no 30th.",
         _rewritten(honest, sent_at="2026-02-30T12:00:00Z")),
        ("with-a-number-for-a-time", "Times are strings.", _rewritten(honest, sent_at=1_767_268)),
    )  # fmt: skip
    return [
        refused(f"receipt-in-json-{name}", about, _OPERATION, _given(raw), _INVALID)
        for name, about, raw in cases
    ]
