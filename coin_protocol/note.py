"""Signed notes: text under the signatures of named keys. Pure: bytes in, values out.

raw = sign_note(text, [signer])
text = open_note(raw, [signer.verifier]).text

Source: https://c2sp.org/signed-note v1.0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coin_protocol.errors import InvalidInputError, LimitError, SignatureError, StatementError
from coin_protocol.limits import MAX_NOTE_BYTES, MAX_NOTE_LINE_BYTES, MAX_NOTE_SIGNATURES
from coin_protocol.note_key import (
    MARK,
    NoteAlgorithm,
    NoteKey,
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    decode_base64,
    is_key_name,
    require_text,
)

__all__ = [
    "Note",
    "NoteAlgorithm",
    "NoteKey",
    "NoteSignature",
    "NoteSigner",
    "NoteVerifier",
    "add_signatures",
    "open_note",
    "parse_signatures",
    "sign_note",
    "split_note",
    "write_note",
]


@dataclass(frozen=True, slots=True)
class Note:
    """A note of which at least one signature was checked, and none is wrong.

    Attributes:
        text: What is signed; it ends in a newline.
        verified: Signatures of keys that were known.
        unverified: Those of all other keys.
    """

    text: str
    verified: tuple[NoteSignature, ...]
    unverified: tuple[NoteSignature, ...]


def sign_note(text: str, signers: Iterable[NoteSigner], existing: bytes = b"") -> bytes:
    """Return a note over `text`.

    Args:
        text: It ends in a newline.
        signers: Sign it, in this order, after the signatures that there are.
        existing: A note over the same text; its signatures are kept, unchecked, but for those
            of the same keys.

    Raises:
        InvalidInputError: It is no text of a note, or that of `existing` is another.
        StatementError: `existing` is no note.
        LimitError: The note is too large, or has too many signatures.
    """
    fresh = [signer.sign(text) for signer in signers]
    if not existing:
        return write_note(text, fresh)
    return add_signatures(existing, fresh, text=text)


def add_signatures(
    raw: bytes, signatures: Iterable[NoteSignature], *, text: str | None = None
) -> bytes:
    """Return a note with more signatures; older ones of the same keys go.

    Args:
        raw: A note. Nothing of it is checked.
        signatures: To be added, in this order.
        text: What the note must say, by default whatever it does.

    Raises:
        InvalidInputError: It says something else.
        StatementError: It is no note.
        LimitError: The note is too large, or has too many signatures.
    """
    found, kept = split_note(raw)
    if text is not None and found != text:
        msg = "the note that has signatures already is over another text"
        raise InvalidInputError(msg)
    fresh = list(signatures)
    replaced = {(signature.name, signature.key_hash) for signature in fresh}
    old = [one for one in kept if (one.name, one.key_hash) not in replaced]
    return write_note(found, [*old, *fresh])


def write_note(text: str, signatures: Sequence[NoteSignature]) -> bytes:
    """Return a note with these signatures, unchecked.

    Raises:
        InvalidInputError: It is no text of a note.
        LimitError: The note is too large, or has no signature or too many.
    """
    require_text(text, InvalidInputError)
    if not 0 < len(signatures) <= MAX_NOTE_SIGNATURES:
        msg = f"a note has 1 to {MAX_NOTE_SIGNATURES} signatures; found {len(signatures)}"
        raise LimitError(msg)
    raw = (text + "\n" + "".join(signature.line() for signature in signatures)).encode()
    if len(raw) > MAX_NOTE_BYTES:
        msg = f"the note would have {len(raw)} bytes; at most {MAX_NOTE_BYTES} are allowed"
        raise LimitError(msg)
    return raw


def open_note(raw: bytes, verifiers: Iterable[NoteVerifier]) -> Note:
    """Return a note that one of `verifiers` signed at least.

    Signatures of other keys are kept aside, unchecked. Each of a known key must be good.

    Raises:
        SignatureError: No known key signed it, or a signature of one is wrong.
        StatementError: It is no note.
        LimitError: It is too large, or has too many signatures.
        InvalidInputError: Two verifiers share name and key hash, but not the key.
    """
    known: dict[tuple[str, int], NoteVerifier] = {}
    for verifier in verifiers:
        place = verifier.key.name, verifier.key.key_hash
        if known.setdefault(place, verifier) != verifier:
            msg = f"two keys of name {place[0]!r} and hash {place[1]:08x}; nobody can tell them"
            raise InvalidInputError(msg)
    text, signatures = split_note(raw)
    verified, unverified = [], []
    for signature in signatures:
        found = known.get((signature.name, signature.key_hash))
        if found is None:
            unverified.append(signature)
        else:
            found.verify(text, signature)
            verified.append(signature)
    if not verified:
        names = ", ".join(sorted({name for name, _ in known})) or "nobody"
        msg = f"none of the {len(signatures)} signatures is by a known key; known: {names}"
        raise SignatureError(msg)
    return Note(text, tuple(verified), tuple(unverified))


def split_note(raw: bytes) -> tuple[str, tuple[NoteSignature, ...]]:
    """Return text and signatures of a note, each signature once. Nothing is checked.

    Raises:
        StatementError: It is no note.
        LimitError: It is too large, or has too many signatures.
    """
    if len(raw) > MAX_NOTE_BYTES:
        msg = f"a note of {len(raw)} bytes; at most {MAX_NOTE_BYTES} are read"
        raise LimitError(msg)
    try:
        note = raw.decode()
    except UnicodeDecodeError as error:
        msg = "the note is not UTF-8"
        raise StatementError(msg) from error
    head, separator, lines = note.rpartition("\n\n")
    if not separator:
        msg = "the note has no empty line between text and signatures"
        raise StatementError(msg)
    text = head + "\n"
    require_text(text, StatementError)
    return text, parse_signatures(lines)


def parse_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Return the signatures in lines of a note, each once. Nothing is checked.

    Raises:
        StatementError: There is none, or a line is no signature.
        LimitError: There are too many, or a line is too long.
    """
    found: dict[NoteSignature, None] = {}
    *each, rest = lines.split("\n")
    if rest or not each:
        msg = "the note does not end in a signature line and its newline"
        raise StatementError(msg)
    if len(each) > MAX_NOTE_SIGNATURES:
        msg = f"a note with {len(each)} signatures; at most {MAX_NOTE_SIGNATURES} are read"
        raise LimitError(msg)
    for number, line in enumerate(each, start=1):
        found[_signature(line, number)] = None
    return tuple(found)


def _signature(line: str, number: int) -> NoteSignature:
    where = f"signature line {number}"
    if len(line.encode()) > MAX_NOTE_LINE_BYTES:
        msg = f"{where} has more than {MAX_NOTE_LINE_BYTES} bytes"
        raise LimitError(msg)
    name, separator, encoded = line.removeprefix(MARK).partition(" ")
    if not line.startswith(MARK) or not separator or not is_key_name(name):
        msg = f"{where} is not an em dash, a name and base64, parted by spaces"
        raise StatementError(msg)
    raw = decode_base64(encoded, StatementError, where)
    if len(raw) < 5:
        msg = f"{where} has {len(raw)} bytes; wanted a key hash of 4 and a signature"
        raise StatementError(msg)
    return NoteSignature(name, int.from_bytes(raw[:4]), raw[4:])
