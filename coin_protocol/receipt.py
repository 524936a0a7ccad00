"""Receipts and bundles: one versioned file each, as protobuf or as JSON.

A receipt is what the client keeps of a reply, a bundle one audit with all its evidence.
Both are as private as the conversation they belong to: they hold its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from coin_protocol.errors import InvalidInputError, LimitError
from coin_protocol.files import replace_file
from coin_protocol.keys import read_time
from coin_protocol.limits import (
    FILE_BYTES_A_PART,
    FLIP_CHAIN_LENGTH,
    MAX_CHECKPOINTS,
    MAX_FILE_BYTES,
    MAX_SMALL_FILE_PARTS,
    MAX_TEXT_BYTES,
    NONCE_MAX_BYTES,
)
from coin_protocol.v1 import evidence_pb2
from coin_protocol.v1 import receipt_pb2 as pb

RECEIPT_FORMAT: Final = "coin.receipt.v1"
BUNDLE_FORMAT: Final = "coin.bundle.v1"

F = TypeVar("F", pb.Receipt, pb.Bundle, evidence_pb2.Evidence)


def read_receipt(raw: bytes) -> pb.Receipt:
    """Parse a receipt, protobuf or JSON (told apart by the first byte).

    Raises:
        InvalidInputError: It is neither, of another format version, or malformed.
        LimitError: It passes a limit.
    """
    receipt = parse_file(pb.Receipt(), raw, RECEIPT_FORMAT)
    check_receipt(receipt)
    return receipt


def read_bundle(raw: bytes) -> pb.Bundle:
    """Parse a bundle, protobuf or JSON (told apart by the first byte).

    Raises:
        InvalidInputError: It is neither, of another format version, or malformed.
        LimitError: It passes a limit.
    """
    bundle = parse_file(pb.Bundle(), raw, BUNDLE_FORMAT)
    if not bundle.HasField("receipt") or not bundle.HasField("verdict"):
        msg = "a bundle must hold a receipt and a verdict"
        raise InvalidInputError(msg)
    check_receipt(bundle.receipt)
    check_rounds(bundle.rounds)
    check_rounds(bundle.whole_rounds)
    return bundle


def to_json(message: Message) -> str:
    """Return the JSON form: protobuf's own mapping, bytes in base64."""
    text: str = json_format.MessageToJson(message, preserving_proto_field_name=True)
    return text


def write_file(path: Path, message: Message) -> None:
    """Write a receipt, bundle or evidence: JSON if the name ends in `.json`, else protobuf.

    The file is readable by its owner only, and replaced as a whole or not at all.

    Raises:
        InvalidInputError: The file cannot be written.
    """
    as_json = path.suffix == ".json"
    raw = to_json(message).encode() if as_json else message.SerializeToString()
    replace_file(path, raw)


def parse_file(message: F, raw: bytes, wanted: str) -> F:
    """Parse a file into `message`, protobuf or JSON (told apart by the first byte).

    Raises:
        InvalidInputError: It is neither, or its `format` is not `wanted`.
        LimitError: It is larger than any file of the protocol may be, or has more parts.
    """
    if len(raw) > MAX_FILE_BYTES:
        msg = f"{len(raw)} bytes; at most {MAX_FILE_BYTES} are read"
        raise LimitError(msg)
    kind = type(message).DESCRIPTOR.name.lower()
    try:
        if raw.lstrip()[:1] == b"{":
            check_parts(raw)
            json_format.Parse(raw, message)
        else:
            message.ParseFromString(raw)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        detail = str(error).partition("\n")[0]
        msg = f"not a {kind}: {detail[:200]}"
        raise InvalidInputError(msg) from error
    if message.format != wanted:
        msg = f"found {kind} format {message.format[:40]!r}, wanted {wanted!r}"
        raise InvalidInputError(msg)
    return message


def check_parts(raw: bytes) -> None:
    """Check that JSON does not consist of millions of parts, before they are made.

    Raises:
        LimitError: It does.
    """
    parts = raw.count(b"{") + raw.count(b"[") + raw.count(b",")
    most = MAX_SMALL_FILE_PARTS + len(raw) // FILE_BYTES_A_PART
    if parts > most:
        msg = f"{len(raw)} bytes of JSON have {parts} parts; at most {most} are read"
        raise LimitError(msg)


def check_receipt(receipt: pb.Receipt) -> None:
    """Check the parts of a receipt that the client wrote.

    Raises:
        InvalidInputError: It has another format version, a part is missing, or a time is out
            of range.
        LimitError: A part is too large.
    """
    if receipt.format != RECEIPT_FORMAT:
        msg = f"found receipt format {receipt.format[:40]!r}, wanted {RECEIPT_FORMAT!r}"
        raise InvalidInputError(msg)
    for name in ("key_set", "commitment", "sent_at"):
        if not receipt.HasField(name):
            msg = f"the receipt has no {name}"
            raise InvalidInputError(msg)
    for name, length, most in (
        ("request", len(receipt.request), MAX_TEXT_BYTES),
        ("answer", len(receipt.answer), MAX_TEXT_BYTES),
        ("summary", len(receipt.summary), MAX_TEXT_BYTES),
        ("client_nonce", len(receipt.client_nonce), NONCE_MAX_BYTES),
        ("checkpoints", len(receipt.checkpoints), MAX_CHECKPOINTS),
    ):
        if length > most:
            msg = f"the receipt's {name} has length {length}; at most {most} is read"
            raise LimitError(msg)
    for stamp in (receipt.sent_at, receipt.answer_first_at, receipt.answer_last_at):
        read_time(stamp)
    for seen in receipt.checkpoints:
        if not seen.HasField("checkpoint") or not seen.HasField("seen_at"):
            msg = "a checkpoint in the receipt has no envelope or no time"
            raise InvalidInputError(msg)
        read_time(seen.seen_at)


def check_rounds(rounds: Sequence[pb.Round]) -> None:
    """Check the parts of a bundle's rounds that the verifier wrote.

    Raises:
        InvalidInputError: A round has not exactly one of opening, refusal and no_answer, or
            no challenge, or a time is missing or out of range.
        LimitError: There are more rounds than a commitment can answer challenges.
    """
    if len(rounds) > FLIP_CHAIN_LENGTH:
        msg = f"{len(rounds)} rounds; a commitment answers at most {FLIP_CHAIN_LENGTH}"
        raise LimitError(msg)
    for number, entry in enumerate(rounds, 1):
        answers = sum(entry.HasField(name) for name in ("opening", "refusal", "no_answer"))
        if answers != 1 or not entry.HasField("challenge"):
            msg = f"round {number} must hold a challenge and exactly one answer"
            raise InvalidInputError(msg)
        if not entry.HasField("sent_at") or not entry.HasField("received_at"):
            msg = f"round {number} does not say when it was sent and answered"
            raise InvalidInputError(msg)
        read_time(entry.sent_at)
        read_time(entry.received_at)
