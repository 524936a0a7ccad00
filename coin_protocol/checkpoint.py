"""A log's heads as signed notes, and the cosignatures of witnesses. Pure: bytes in, values out.

Source: https://c2sp.org/tlog-checkpoint v1.0.0 and https://c2sp.org/tlog-cosignature
(cosignature/v1). A checkpoint's text is its origin, the size of the tree, the root in base64, and
lines of extension if there are any.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from coin_protocol.errors import InvalidInputError, SignatureError, StatementError
from coin_protocol.limits import HASH_BYTES, MAX_NOTE_NAME_BYTES
from coin_protocol.note import Note, open_note, sign_note, split_note
from coin_protocol.note_key import (
    NoteAlgorithm,
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    cosignature_time,
    decode_base64,
    require_text,
)

MAX_SIZE: Final = (1 << 63) - 1
"""Leaves in a tree."""

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log.

    Attributes:
        origin: Which log.
        size: Leaves in its tree.
        root: 32 bytes.
        extensions: Lines that follow; nobody audits them.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be written as a checkpoint.

        Raises:
            InvalidInputError: A field is malformed.
        """
        lines = (self.origin, *self.extensions)
        if not all(lines) or any("\n" in line for line in lines):
            msg = "origin and extensions of a checkpoint are lines that are not empty"
            raise InvalidInputError(msg)
        if len(self.origin.encode(errors="replace")) > MAX_NOTE_NAME_BYTES:
            msg = f"an origin has at most {MAX_NOTE_NAME_BYTES} bytes"
            raise InvalidInputError(msg)
        if not 0 <= self.size <= MAX_SIZE:
            msg = f"the size of a tree lies in [0, 2^63); found {self.size}"
            raise InvalidInputError(msg)
        if len(self.root) != HASH_BYTES:
            msg = f"a root has {HASH_BYTES} bytes; found {len(self.root)}"
            raise InvalidInputError(msg)
        require_text(self.text(), InvalidInputError)

    def text(self) -> str:
        """Return the text that is signed."""
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions))


@dataclass(frozen=True, slots=True)
class Cosignature:
    """What a witness says: it saw no larger head of this log at this time.

    Attributes:
        name: The witness's.
        at: POSIX time in seconds.
    """

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A head that its log signed, and a quorum of witnesses.

    Attributes:
        checkpoint: The head.
        cosignatures: One of each known witness that signed, its latest, sorted by name.
        note: All signatures.
    """

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    note: Note


def parse_size(text: str) -> int:
    """Parse a number of leaves: decimal, without leading zeros, below 2^63.

    Raises:
        StatementError: It is none.
    """
    if not _SIZE.fullmatch(text) or int(text) > MAX_SIZE:
        msg = f"found the size {text[:40]!r}; wanted decimal digits, no leading zero, below 2^63"
        raise StatementError(msg)
    return int(text)


def parse_hash(text: str) -> bytes:
    """Parse 32 bytes in base64.

    Raises:
        StatementError: It is something else.
    """
    raw = decode_base64(text, StatementError, "a hash")
    if len(raw) != HASH_BYTES:
        msg = f"a hash has {HASH_BYTES} bytes; found {len(raw)}"
        raise StatementError(msg)
    return raw


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint, that of a note whose signature was checked.

    Raises:
        StatementError: It is none.
        LimitError: It or one of its lines is too long.
    """
    require_text(text, StatementError)
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3:
        msg = f"a checkpoint has three lines at least: origin, size, root; found {len(lines)}"
        raise StatementError(msg)
    origin, size, root, *extensions = lines
    try:
        return Checkpoint(origin, parse_size(size), parse_hash(root), tuple(extensions))
    except InvalidInputError as error:
        msg = f"no checkpoint: {error}"
        raise StatementError(msg) from error


def sign_checkpoint(checkpoint: Checkpoint, signers: Iterable[NoteSigner]) -> bytes:
    """Return a checkpoint as a note, signed by its log.

    Raises:
        InvalidInputError: Nobody signs it, or with a key for cosignatures.
    """
    return sign_note(checkpoint.text(), signers)


def cosign(checkpoint: Checkpoint, signer: NoteSigner, at: int) -> NoteSignature:
    """Return a witness's signature over a checkpoint that it found consistent.

    Args:
        checkpoint: As its log signed it, extensions and all.
        signer: The witness's, `NoteAlgorithm.COSIGNATURE`.
        at: POSIX time in seconds.

    Raises:
        InvalidInputError: The signer is none of a witness, or the time out of range.
    """
    return signer.sign(checkpoint.text(), at)


def read_unverified(raw: bytes) -> Checkpoint:
    """Return the checkpoint in a note, no signature checked: to find whose it says it is.

    Raises:
        StatementError: It is no note, or no checkpoint.
        LimitError: It is too large.
    """
    text, _ = split_note(raw)
    return parse_checkpoint(text)


def verify_checkpoint(
    raw: bytes,
    log: NoteVerifier,
    witnesses: Sequence[NoteVerifier] = (),
    quorum: int = 0,
    *,
    origin: str | None = None,
) -> VerifiedCheckpoint:
    """Return a checkpoint that its log signed, and `quorum` of `witnesses` at least.

    Args:
        raw: A note.
        log: The log's key.
        witnesses: Keys for cosignatures. Each key counts once, whatever its names.
        quorum: How many of them must have signed.
        origin: The log's, by default the name of its key.

    Raises:
        SignatureError: The log did not sign it, too few witnesses did, or a signature of a
            known key is wrong.
        StatementError: It is no checkpoint, or one of another log.
        LimitError: It is too large.
        InvalidInputError: The witnesses can never be a quorum, or are no witnesses of this log.
    """
    own = _distinct(log, witnesses)
    if not 0 <= quorum <= len(own):
        msg = f"wanted {quorum} of {len(own)} witnesses; a quorum lies in [0, {len(own)}]"
        raise InvalidInputError(msg)
    note = open_note(raw, [log, *own])
    if not any(log.made(signature) for signature in note.verified):
        msg = f"the log {log.key.name!r} has not signed this checkpoint"
        raise SignatureError(msg)
    checkpoint = parse_checkpoint(note.text)
    wanted = log.key.name if origin is None else origin
    if checkpoint.origin != wanted:
        msg = f"the checkpoint is one of {checkpoint.origin[:80]!r}, wanted {wanted!r}"
        raise StatementError(msg)
    found = []
    for witness in own:
        times = [cosignature_time(one) for one in note.verified if witness.made(one)]
        if times:
            found.append(Cosignature(witness.key.name, max(times)))
    if len(found) < quorum:
        msg = f"{len(found)} of {len(own)} witnesses signed this checkpoint, wanted {quorum}"
        raise SignatureError(msg)
    return VerifiedCheckpoint(checkpoint, tuple(sorted(found, key=lambda one: one.name)), note)


def _distinct(log: NoteVerifier, witnesses: Sequence[NoteVerifier]) -> list[NoteVerifier]:
    keys = {log.public.spki}
    for witness in witnesses:
        if witness.key.algorithm is not NoteAlgorithm.COSIGNATURE:
            msg = f"{witness.vkey} is no key of a witness; wanted one for cosignatures (0x04)"
            raise InvalidInputError(msg)
        if witness.public.spki in keys:
            msg = f"the key of witness {witness.key.name!r} stands twice, or is the log's own"
            raise InvalidInputError(msg)
        keys.add(witness.public.spki)
    return list(witnesses)
