"""Limits on files, and on what a gateway hands over: before they are parsed, and after."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from coin_protocol import limits
from coin_protocol.collection import collected
from coin_protocol.delivery import DELIVERY_FORMAT, read_delivery, read_nonce_header
from coin_protocol.evidence import EVIDENCE_FORMAT, read_evidence
from coin_protocol.files import read_file
from coin_protocol.receipt import check_parts, check_receipt, check_rounds, read_receipt, to_json
from coin_protocol.testing.forgeries import audit, put
from coin_protocol.tokenizer import HuggingFaceTokenizer
from coin_protocol.v1 import receipt_pb2
from tests.support.limit_cases.case import Kind, LimitCase, RefusedError

RECEIPT: Final = "coin_protocol.receipt"
DELIVERY: Final = "coin_protocol.delivery"
COLLECTION: Final = "coin_protocol.collection"


@cache
def _audit() -> Any:
    return audit().ask()


def _receipt() -> receipt_pb2.Receipt:
    copy = receipt_pb2.Receipt()
    copy.CopyFrom(_audit().reply.receipt)
    return copy


def _padded(text: str, size: int) -> bytes:
    """Return JSON of a size: space after it says nothing."""
    return text.encode().ljust(size)


def _receipt_file(size: int) -> object:
    return read_receipt(_padded(to_json(_receipt()), size))


def _receipt_with(path: str) -> Callable[[int], object]:
    def reading(size: int) -> None:
        receipt = _receipt()
        put(path, bytes(size))(receipt)
        check_receipt(receipt)

    return reading


def _checkpoints(count: int) -> None:
    receipt = _receipt()
    put("checkpoints", [receipt.checkpoints[0]] * count)(receipt)
    check_receipt(receipt)


def _rounds(count: int) -> None:
    check_rounds([_audit().rounds[0]] * count)


def _parts(most: int) -> None:
    """Read as many parts as a file may have where a short one may have so many."""
    count = next(
        count
        for count in range(most, 2 * most)
        if count - count // limits.FILE_BYTES_A_PART >= most
    )
    check_parts(b"," * count)


def _bytes_a_part(size: int) -> None:
    """Read a file with more parts than a short one may have, and so many bytes for each more."""
    more = 1 << 14
    raw = b"," * (limits.MAX_SMALL_FILE_PARTS + more)
    check_parts(raw.ljust(more * size))


def _file(size: int) -> object:
    with TemporaryDirectory() as folder:
        path = Path(folder, "receipt.binpb")
        path.write_bytes(bytes(size))
        return read_file(path)


def _collected(text: bytes) -> object:
    with TemporaryDirectory() as folder:
        path = Path(folder, "receipt.json")
        path.write_bytes(text)
        (found,) = collected([path])
    if found.problem:
        raise RefusedError(found.problem)
    return found


def _collected_file(size: int) -> object:
    return _collected(_padded(to_json(_receipt()), size))


def _noted(size: int) -> object:
    noted = {"response_id": "x" * size, "receipt": json.loads(to_json(_receipt()))}
    return _collected(json.dumps(noted).encode())


def _delivered(**fields: object) -> object:
    return read_delivery({"format": DELIVERY_FORMAT, **fields})


def _delivered_nonce(size: int) -> object:
    return _delivered(client_nonce=b64encode(bytes(size)).decode())


def _delivered_bytes(size: int) -> object:
    return read_delivery(_padded(json.dumps({"format": DELIVERY_FORMAT}), size))


def _nonce_header(size: int) -> object:
    found = read_nonce_header(b"ab" * size)
    if found is None:
        msg = "it is no nonce"
        raise RefusedError(msg)
    return found


def _evidence(size: int) -> object:
    return read_evidence(_padded(json.dumps({"format": EVIDENCE_FORMAT, "heads": {}}), size))


def _vocabulary(ids: int) -> object:
    vocabulary = {chr(0x4E00 + number): number for number in range(ids)}
    document = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": chr(0x4E00)},
    }
    with TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        path.write_text(json.dumps(document))
        return HuggingFaceTokenizer(path)


KEPT: Final = (
    LimitCase(
        "MAX_FILE_BYTES", RECEIPT, "file", _receipt_file, "at most 20000 are read", lowered=20_000
    ),
    *(
        LimitCase(
            "MAX_TEXT_BYTES",
            RECEIPT,
            part,
            _receipt_with(part),
            f"{part} .* at most 100",
            lowered=100,
        )
        for part in ("request", "answer", "summary")
    ),
    LimitCase(
        "NONCE_MAX_BYTES", RECEIPT, "client_nonce", _receipt_with("client_nonce"), "at most 64"
    ),
    LimitCase(
        "MAX_CHECKPOINTS",
        RECEIPT,
        "checkpoints",
        _checkpoints,
        "checkpoints .* at most 5",
        lowered=5,
    ),
    LimitCase("FLIP_CHAIN_LENGTH", RECEIPT, "rounds", _rounds, "answers at most 64"),
    LimitCase("MAX_SMALL_FILE_PARTS", RECEIPT, "parts", _parts, "parts; at most .* are read"),
    LimitCase("FILE_BYTES_A_PART", RECEIPT, "parts", _bytes_a_part, "parts; at most", Kind.LEAST),
    LimitCase(
        "MAX_FILE_BYTES",
        "coin_protocol.files",
        "file",
        _file,
        "at most 1000 are read",
        lowered=1000,
    ),
    LimitCase(
        "MAX_COLLECTED_BYTES",
        COLLECTION,
        "file",
        _collected_file,
        "more than 20000 bytes",
        lowered=20_000,
    ),
    LimitCase("MAX_NOTED_CHARACTERS", COLLECTION, "response_id", _noted, "at most 512 characters"),
    LimitCase(
        "MAX_CHOICES",
        DELIVERY,
        "choices",
        lambda count: _delivered(choices=[{}] * count),
        "choices .* at most 1024 is read",
    ),
    LimitCase("NONCE_MAX_BYTES", DELIVERY, "client_nonce", _delivered_nonce, "at most 64 is read"),
    LimitCase(
        "MAX_NAME_BYTES",
        DELIVERY,
        "response_id",
        lambda size: _delivered(response_id="x" * size),
        "at most 256 is read",
    ),
    LimitCase(
        "MAX_MESSAGE_BYTES",
        DELIVERY,
        "delivery",
        _delivered_bytes,
        "at most 1000 are read",
        lowered=1000,
    ),
    LimitCase("NONCE_MIN_BYTES", DELIVERY, "header", _nonce_header, "no nonce", Kind.LEAST),
    LimitCase("NONCE_MAX_BYTES", DELIVERY, "header", _nonce_header, "no nonce"),
    LimitCase(
        "MAX_EVIDENCE_BYTES", "coin_protocol.evidence", "file", _evidence, "evidence has at most"
    ),
    LimitCase(
        "MAX_VOCABULARY",
        "coin_protocol.tokenizer",
        "ids of a file",
        _vocabulary,
        "at most 20 ids are read",
        lowered=20,
    ),
)
"""What must be refused before memory is spent on it."""
