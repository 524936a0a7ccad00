"""What goes between a log and its witness: `POST /add-checkpoint`. Pure.

Source: https://c2sp.org/tlog-witness v1.0.0.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from coin_protocol.checkpoint import parse_hash, parse_size
from coin_protocol.errors import InvalidInputError, LimitError, StatementError
from coin_protocol.limits import HASH_BYTES, MAX_NOTE_BYTES

PATH: Final = "/add-checkpoint"

SIZE_TYPE: Final = "text/x.tlog.size"
"""Content type of a refusal that tells the size of the witness's latest head."""

MAX_PROOF_LINES: Final = 63
"""Hashes in a proof: a tree has fewer than 2^63 leaves."""

_LINE_BYTES: Final = 4 * -(-HASH_BYTES // 3)
_HEAD_BYTES: Final = len("old \n") + 19 + MAX_PROOF_LINES * (_LINE_BYTES + 1) + 1

MAX_REQUEST_BYTES: Final = _HEAD_BYTES + MAX_NOTE_BYTES
"""The largest size, the longest proof, the largest note."""

MAX_ANSWER_BYTES: Final = 16 * 1024
"""What a log reads of an answer: some cosignatures, or a sentence."""


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request for a cosignature.

    Attributes:
        old_size: Of the witness's latest head of this log, as whoever asks believes.
        proof: Consistency proof from there to the checkpoint; hashes of 32 bytes.
        note: The checkpoint, as its log signed it.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes


def write_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Return the body of a request.

    Raises:
        InvalidInputError: The proof has too many hashes.
    """
    if len(proof) > MAX_PROOF_LINES:
        msg = f"a proof of {len(proof)} hashes; witnesses read at most {MAX_PROOF_LINES}"
        raise InvalidInputError(msg)
    lines = [b"old %d" % old_size, *map(base64.b64encode, proof), b"", b""]
    return b"\n".join(lines) + note


def parse_request(body: bytes) -> AddCheckpoint:
    """Parse the body of a request; the note in it stays as it is.

    Raises:
        StatementError: It is malformed.
        LimitError: It is too long, or has too many lines of proof.
    """
    if len(body) > MAX_REQUEST_BYTES:
        msg = f"a request of {len(body)} bytes; at most {MAX_REQUEST_BYTES} are read"
        raise LimitError(msg)
    head, separator, note = body.partition(b"\n\n")
    if not separator:
        msg = "the request has no empty line before its checkpoint"
        raise StatementError(msg)
    try:
        first, *hashes = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        msg = "the lines before the checkpoint are not ASCII"
        raise StatementError(msg) from error
    keyword, space, size = first.partition(" ")
    if keyword != "old" or not space:
        msg = "the first line is not `old`, a space and a size"
        raise StatementError(msg)
    if len(hashes) > MAX_PROOF_LINES:
        msg = f"a proof of {len(hashes)} lines; at most {MAX_PROOF_LINES} are read"
        raise LimitError(msg)
    return AddCheckpoint(parse_size(size), tuple(parse_hash(line) for line in hashes), note)


def parse_size_answer(body: bytes) -> int:
    """Parse the body of a refusal that tells a size.

    Raises:
        StatementError: It is malformed.
    """
    try:
        line = body.decode("ascii")
    except UnicodeDecodeError:
        line = ""
    if not line.endswith("\n"):
        msg = "the witness's size is not decimal digits and a newline"
        raise StatementError(msg)
    return parse_size(line.removesuffix("\n"))
