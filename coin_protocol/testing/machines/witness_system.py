"""What the machine of witnesses drives, its made-up logs, and how each request is judged."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric import ed25519

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint
from coin_protocol.note import NoteSigner, NoteVerifier
from coin_protocol.signer import KeySigner
from coin_protocol.testing import reference

LEAVES: Final = 20
"""Of each branch of each log."""

LOGS: Final = ("example.org/log", "example.com/other-log")
"""Logs that the witness follows."""

STRANGER: Final = "example.net/unknown-log"
"""One that it does not."""

OK: Final = 200
MALFORMED: Final = 400
UNSIGNED: Final = 403
UNKNOWN: Final = 404
CONFLICT: Final = 409
UNPROVEN: Final = 422
LATER: Final = 503

SIZE_TYPE: Final = "text/x.tlog.size"

FORKS: Final = (LEAVES, 3, 8, 0)
"""Leaves that each branch has in common with the first."""


class Answer(NamedTuple):
    """What `POST /add-checkpoint` was answered.

    Attributes:
        status: Of HTTP.
        body: As it came.
        kind: Content type.
    """

    status: int
    body: bytes
    kind: str = "text/plain"


class WitnessSystem(Protocol):
    """A witness that nobody asked before, as its machine drives it.

    Made with the verifier keys of the logs that it follows, by their origins.
    """

    @property
    def key(self) -> NoteVerifier:
        """Checks its cosignatures."""

    def ask(self, bodies: Sequence[bytes]) -> Sequence[Answer]:
        """Post bodies, all at the same moment, and return the answers in their order."""

    def ask_and_die(self, body: bytes) -> None:
        """Post a body, die before anybody hears the answer, and start again over what is on disk.

        A system may die as early or as late as it can.
        """

    def restart(self) -> None:
        """Die between two requests, and start again over what is on disk."""

    def jump(self, seconds: int) -> None:
        """Set the witness's clock, ahead or back; nothing where that cannot be done."""

    def close(self) -> None:
        """End it, and leave nothing behind."""


class Head(NamedTuple):
    """A head of a log.

    Attributes:
        size: Leaves.
        root: 32 bytes.
    """

    size: int
    root: bytes


class Request(NamedTuple):
    """A request that is well formed.

    Attributes:
        origin: The log that it names.
        old: Size where the proof starts.
        head: What is to be cosigned.
        proof: From `old` to it.
        signed: Whether the log signed it.
        body: All of it.
    """

    origin: str
    old: int
    head: Head
    proof: tuple[bytes, ...]
    signed: bool
    body: bytes

    @property
    def note(self) -> str:
        """The text of its checkpoint, which is what is cosigned."""
        return Checkpoint(self.origin, *self.head).text()


@dataclass(frozen=True)
class Branch:
    """A log that goes on from the first leaves of another one with leaves of its own."""

    origin: str
    number: int
    hashes: tuple[bytes, ...] = field(repr=False)
    roots: tuple[bytes, ...] = field(repr=False)

    def head(self, size: int) -> Head:
        """Return the head of a size."""
        return Head(size, self.roots[size])

    def proof(self, old: int, size: int) -> tuple[bytes, ...]:
        """Return the proof from one size to another; none where there is none."""
        if not 0 < old < size:
            return ()
        return tuple(reference.consistency_proof(self.hashes[:size], old))

    def has(self, head: Head) -> bool:
        """Whether a head is one of this branch."""
        return self.roots[head.size] == head.root


@cache
def branches(origin: str) -> tuple[Branch, ...]:
    """Return the branches of a log, the first without a fork."""
    found = []
    for number, common in enumerate(FORKS):
        words = [f"{origin} {0 if at < common else number} {at}" for at in range(LEAVES)]
        hashes = tuple(sha256(b"\x00" + word.encode()).digest() for word in words)
        roots = tuple(reference.root(hashes[:size]) for size in range(LEAVES + 1))
        found.append(Branch(origin, number, hashes, roots))
    return tuple(found)


@cache
def signer(origin: str, keyholder: str = "") -> NoteSigner:
    """Return what signs for a log, or who says so."""
    seed = sha256(f"{origin} {keyholder}".encode()).digest()
    return NoteSigner(KeySigner(origin, ed25519.Ed25519PrivateKey.from_private_bytes(seed)))


@cache
def _note(origin: str, head: Head, keyholder: str) -> bytes:
    return sign_checkpoint(Checkpoint(origin, *head), [signer(origin, keyholder)])


def write(old: int | str, proof: Iterable[bytes], note: bytes) -> bytes:
    """Return the body of a request."""
    lines = [f"old {old}".encode(), *map(base64.b64encode, proof)]
    return b"\n".join([*lines, b"", note])


def request(
    branch: Branch,
    old: int,
    size: int,
    *,
    proof: Sequence[bytes] | None = None,
    forged: bool = False,
) -> Request:
    """Return a request for a head of a branch.

    Args:
        branch: Of a log.
        old: Where the proof starts.
        size: Of the head.
        proof: Instead of the right one.
        forged: Whether another key than the log's signs, under its name.
    """
    head = branch.head(size)
    shown = branch.proof(old, size) if proof is None else tuple(proof)
    body = write(old, shown, _note(branch.origin, head, "forger" if forged else ""))
    return Request(branch.origin, old, head, shown, not forged, body)


def garbage(branch: Branch, size: int) -> dict[str, bytes]:
    """Return bodies that are no requests, by what is wrong with them."""
    head = branch.head(size)
    note = _note(branch.origin, head, "")
    text, _, signatures = note.partition(b"\n\n")
    root = base64.b64encode(head.root)
    return {
        "nothing": b"",
        "no checkpoint": b"old 0\n\n",
        "no old size": b"\n" + note,
        "an old size with a leading zero": write("01", (), note),
        "a negative old size": write("-1", (), note),
        "an old size past 2^63": write(1 << 63, (), note),
        "a word for a size": write("one", (), note),
        "a proof that is no base64": write("0\n*", (), note),
        "a proof of short hashes": write(0, (b"short",), note),
        "a proof without end": write(0, [bytes(32)] * 64, note),
        "no signature": write(0, (), text + b"\n\n"),
        "half a note": write(0, (), note[: len(note) // 2]),
        "a signature cut short": write(0, (), text + b"\n\n" + signatures[:-9] + b"\n"),
        "line ends of two bytes": write(0, (), note.replace(b"\n", b"\r\n")),
        "a size with a leading zero": write(
            0, (), note.replace(b"\n%d\n" % size, b"\n0%d\n" % size)
        ),
        "another size than was signed": write(0, (), note.replace(b"\n%d\n" % size, b"\n99\n")),
        "another root than was signed": write(
            0, (), note.replace(root, base64.b64encode(bytes(32)))
        ),
        "bytes that are no text": write(0, (), b"\xff" + note),
    }


GARBAGE: Final = tuple(garbage(branches(LOGS[0])[0], 5))


def judge(head: Head, asked: Request) -> frozenset[int]:
    """Return the statuses that a witness may answer with whose latest head of that log is `head`.

    Source: https://c2sp.org/tlog-witness. Where two things are wrong, it does not say which counts.
    """
    if asked.old > asked.head.size:
        return frozenset({MALFORMED} if asked.signed else {MALFORMED, UNSIGNED})
    if not asked.signed:
        return frozenset({UNSIGNED})
    if asked.old != head.size:
        return frozenset({CONFLICT})
    if asked.head.size == head.size and asked.head.root != head.root:
        return frozenset({CONFLICT})
    if not head.size and asked.proof:
        return frozenset({MALFORMED, UNPROVEN})
    return frozenset({OK if _proven(head, asked) else UNPROVEN})


def _proven(head: Head, asked: Request) -> bool:
    """Whether the proof shows that a head goes on from another one."""
    old, new, proof = head.size, asked.head.size, list(asked.proof)
    if old in (0, new):
        return not proof
    if len(proof) != reference.consistency_length(old, new):
        return False
    return reference.implied_roots(head.root, old, new, proof) == (head.root, asked.head.root)
