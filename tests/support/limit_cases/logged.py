"""Limits on notes, checkpoints, leaves and entries of a log, and on a witness's clock."""

from __future__ import annotations

import asyncio
import base64
from typing import Final

from coin_protocol.checkpoint import Checkpoint, cosign, parse_hash
from coin_protocol.errors import StatementError
from coin_protocol.limits import HASH_BYTES, SESSION_ID_BYTES
from coin_protocol.log_leaf import CommitmentLeaf, VerdictLeaf, parse_leaf
from coin_protocol.note import NoteSigner, split_note, write_note
from coin_protocol.note_key import NoteVerifier, require_text
from coin_protocol.signer import KeySigner
from tests.support.limit_cases.case import Kind, LimitCase
from tests.support.witness_answers import KEY, answer, answering, client_of
from tests.support.witnesses import NOW, Log

NOTE: Final = "coin_protocol.note"
NOTE_KEY: Final = "coin_protocol.note_key"
LEAF: Final = "coin_protocol.log_leaf"
CHECKPOINT: Final = "coin_protocol.checkpoint"
"""Modules."""

_MARK: Final = "\N{EM DASH} "


def _line(number: int, size: int = 100) -> str:
    """Return a signature line of a size in bytes, its newline not counted."""
    encoded = base64.b64encode(number.to_bytes(4) + bytes((size - 16) // 4 * 3 - 4)).decode()
    name = "n" * (size - len(_MARK.encode()) - 1 - len(encoded))
    return f"{_MARK}{name} {encoded}\n"


def _text(size: int) -> str:
    """Return a text of a size, in lines that are not long."""
    lines, rest = divmod(size, 1000)
    return ("x" * 999 + "\n") * lines + ("x" * (rest - 1) + "\n" if rest else "")


def _note(size: int) -> object:
    line = _line(1)
    return split_note((_text(size - len(line.encode()) - 1) + "\n" + line).encode())


def _note_to_write(size: int) -> object:
    (signature,) = split_note(("x\n\n" + _line(1)).encode())[1]
    return write_note(_text(size - len(signature.line().encode()) - 1), [signature])


def _note_line(size: int) -> object:
    return split_note(("x\n\n" + _line(1, size)).encode())


def _note_signatures(count: int) -> object:
    return split_note(("x\n\n" + "".join(map(_line, range(count)))).encode())


def _signer(name: str) -> NoteSigner:
    return NoteSigner(KeySigner.generate(name))


def _verifier_key(size: int) -> object:
    short = len(_signer("n").verifier.vkey) - 1
    return NoteVerifier.from_vkey(_signer("n" * (size - short)).verifier.vkey)


def _commitment_leaf(size: int) -> object:
    short = len(CommitmentLeaf("n", bytes(SESSION_ID_BYTES), bytes(HASH_BYTES)).to_bytes()) - 1
    leaf = CommitmentLeaf("n" * (size - short), bytes(SESSION_ID_BYTES), bytes(HASH_BYTES))
    return parse_leaf(leaf.to_bytes())


def _cosigned(ahead: int) -> object:
    async def asked() -> object:
        log = Log().grow(10)
        body = cosign(log.head(), KEY, NOW + ahead).line().encode()
        async with answering(answer(200, body)) as port, client_of(port) as client:
            return await client.cosign(log.note(), log.proof)

    return asyncio.run(asked())


LOGGED: Final = (
    LimitCase("MAX_NOTE_BYTES", NOTE, "note", _note, "at most 131072 are read"),
    LimitCase(
        "MAX_NOTE_BYTES", NOTE, "note to write", _note_to_write, "at most 131072 are allowed"
    ),
    LimitCase("MAX_NOTE_LINE_BYTES", NOTE, "signature line", _note_line, "more than 8192 bytes"),
    LimitCase("MAX_NOTE_SIGNATURES", NOTE, "signatures", _note_signatures, "at most 100 are read"),
    LimitCase(
        "MAX_NOTE_BYTES",
        NOTE_KEY,
        "text",
        lambda size: require_text(_text(size), StatementError),
        "of 131073 bytes",
    ),
    LimitCase(
        "MAX_NOTE_LINE_BYTES",
        NOTE_KEY,
        "line of a text",
        lambda size: require_text("x" * size + "\n", StatementError),
        "with a line of 8193",
    ),
    LimitCase(
        "MAX_NOTE_LINE_BYTES",
        NOTE_KEY,
        "verifier key",
        _verifier_key,
        "at most 100 are read",
        lowered=100,
    ),
    LimitCase(
        "MAX_NOTE_NAME_BYTES",
        NOTE_KEY,
        "name",
        lambda size: _signer("n" * size),
        "1 to 255 bytes",
    ),
    LimitCase(
        "MAX_NOTE_NAME_BYTES",
        CHECKPOINT,
        "origin",
        lambda size: Checkpoint("o" * size, 0, bytes(HASH_BYTES)),
        "an origin has at most 255",
    ),
    LimitCase(
        "HASH_BYTES",
        CHECKPOINT,
        "root",
        lambda size: Checkpoint("origin", 0, bytes(size)),
        "a root has 32",
        Kind.EXACT,
    ),
    LimitCase(
        "HASH_BYTES",
        CHECKPOINT,
        "hash in base64",
        lambda size: parse_hash(base64.b64encode(bytes(size)).decode()),
        "a hash has 32",
        Kind.EXACT,
    ),
    LimitCase(
        "MAX_LOG_LEAF_BYTES", LEAF, "leaf", _commitment_leaf, "the longest has 100", lowered=100
    ),
    LimitCase(
        "MAX_NAME_BYTES",
        LEAF,
        "provider",
        lambda size: CommitmentLeaf("n" * size, bytes(SESSION_ID_BYTES), bytes(HASH_BYTES)),
        "name has 1 to 256",
    ),
    LimitCase(
        "SESSION_ID_BYTES",
        LEAF,
        "session_id",
        lambda size: CommitmentLeaf("n", bytes(size), bytes(HASH_BYTES)),
        "session_id",
        Kind.EXACT,
    ),
    LimitCase(
        "HASH_BYTES",
        LEAF,
        "verdict_sha256",
        lambda size: VerdictLeaf(bytes(HASH_BYTES), bytes(size)),
        "verdict_sha256",
        Kind.EXACT,
    ),
    LimitCase(
        "CLOCK_SKEW_SECONDS",
        "verifier_sdk.witness.client",
        "cosignature ahead",
        _cosigned,
        "301 s into the future",
    ),
)
"""What must be refused before a log or a witness believes it."""
