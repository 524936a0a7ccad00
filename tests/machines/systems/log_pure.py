"""A log of nothing but the rules of `coin_protocol`, in memory; and logs that break one each."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ed25519

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from coin_protocol.log_leaf import parse_leaf
from coin_protocol.merkle import IncrementalTree, leaf_hash
from coin_protocol.note import NoteSigner, NoteVerifier
from coin_protocol.signer import KeySigner
from coin_protocol.testing.machines.log import LogStoppedError, Moment, NotInLogError

ORIGIN = "example.org/coin-log"
SIGNER = NoteSigner(
    KeySigner(ORIGIN, ed25519.Ed25519PrivateKey.from_private_bytes(bytes(31) + b"L"))
)


@dataclass
class Database:
    """What is in the database of a log: entries with a place, those that wait, heads by size."""

    placed: list[bytes] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    notes: dict[int, bytes] = field(default_factory=dict)


class PureLog:
    """An honest log. All that it keeps is `database`, and `file` outside it."""

    def __init__(self) -> None:
        self.database = Database()
        self.file = b""
        self.clock = 0.0
        self.tree = IncrementalTree()
        self.start()

    def start(self) -> None:
        """Begin again with what is on disk."""
        self.tree = IncrementalTree(map(leaf_hash, self.database.placed))

    @property
    def key(self) -> NoteVerifier:
        return SIGNER.verifier

    def say(self, entries: Sequence[bytes]) -> None:
        known = {*self.database.placed, *self.database.waiting}
        for data in entries:
            parse_leaf(data)
            if data not in known:
                self.database.waiting.append(data)
                known.add(data)

    def place(self) -> None:
        """Give what waits its place."""
        self.require_prefix()
        self.tree.extend(map(leaf_hash, self.database.waiting))
        self.database.placed += self.database.waiting
        self.database.waiting = []

    def require_prefix(self) -> None:
        """Refuse to go on from a tree that a head which was signed is no prefix of."""
        for note in filter(None, (self.file, self.newest())):
            head = verify_checkpoint(note, SIGNER.verifier).checkpoint
            if head.size > len(self.tree) or self.tree.root(head.size) != head.root:
                msg = f"a head of {head.size} entries was signed"
                raise LogStoppedError(msg)

    def sign_head(self) -> bytes:
        """Return a head over the whole tree."""
        return sign_checkpoint(Checkpoint(ORIGIN, len(self.tree), self.tree.root()), [SIGNER])

    def sign(self) -> bytes:
        self.place()
        if len(self.tree) not in self.database.notes:
            self.file = self.sign_head()
            self.database.notes[len(self.tree)] = self.file
        return self.database.notes[len(self.tree)]

    def newest(self) -> bytes | None:
        """Return the newest head in the database."""
        notes = self.database.notes
        return notes[max(notes)] if notes else None

    def head(self) -> bytes | None:
        return self.newest()

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        return self.database.placed[start:stop]

    def inclusion(self, leaf_hash: bytes, size: int) -> tuple[int, Sequence[bytes]]:
        self.require_size(size)
        try:
            index = self.tree.leaf_hashes.index(leaf_hash)
            return index, self.tree.inclusion_proof(index, size)
        except ValueError as error:
            raise NotInLogError(str(error)) from error

    def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        for size in (old_size, new_size):
            self.require_size(size)
        return self.tree.consistency_proof(old_size, new_size) if old_size else []

    def require_size(self, size: int) -> None:
        """Refuse sizes of which no head was signed, but the empty tree's."""
        if size and size not in self.database.notes:
            msg = f"no head of {size} entries"
            raise NotInLogError(msg)

    def crash(self, moment: Moment) -> None:
        try:
            if moment is Moment.WRITTEN:
                self.sign()
            elif moment is not Moment.IDLE:
                self.place()
            if moment is Moment.SIGNED:
                self.file = self.sign_head()
        except LogStoppedError:
            pass
        self.start()

    def back_up(self) -> Database:
        return deepcopy(self.database)

    def restore(self, backup: Database) -> None:
        self.database = deepcopy(backup)
        self.start()

    def jump(self, seconds: float) -> None:
        self.clock += seconds

    def close(self) -> None:
        pass


# Logs that break a rule each.


class RewritesAnEntry(PureLog):
    """Replaces its first entry once it has ten, and signs on over what it has now."""

    def place(self) -> None:
        super().place()
        placed = self.database.placed
        if len(placed) > 10:
            placed[0] = placed[0][:-1] + bytes((placed[0][-1] ^ 1,))
            self.start()

    def require_prefix(self) -> None:
        pass


class ShowsOthers(PureLog):
    """Shows other entries than those that it has hashed, to whoever reads them again."""

    read = 0

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        again, self.read = start < self.read, max(self.read, stop)
        return (
            [b"other " + data for data in super().entries(start, stop)]
            if again
            else list(super().entries(start, stop))
        )


class ForgetsWhatWaits(PureLog):
    """Keeps what has no place yet in memory alone."""

    def start(self) -> None:
        self.database.waiting = []
        super().start()


class SaysTwice(PureLog):
    """Gives what is said twice two places."""

    def say(self, entries: Sequence[bytes]) -> None:
        self.database.waiting += entries


class ForksAfterRestore(PureLog):
    """Has no memory beside its database."""

    def require_prefix(self) -> None:
        pass


class StopsForNothing(PureLog):
    """Takes its own clock for a reason to stop."""

    def require_prefix(self) -> None:
        super().require_prefix()
        if self.clock < 0:
            msg = "the clock is behind the last head"
            raise LogStoppedError(msg)


class SignsASmallerHead(PureLog):
    """Goes back to an earlier head where its clock goes back."""

    def head(self) -> bytes | None:
        notes = self.database.notes
        return notes[min(notes)] if notes and self.clock < 0 else super().head()


class HidesTheLast(PureLog):
    """Keeps the last of several entries back."""

    def place(self) -> None:
        self.require_prefix()
        waiting = self.database.waiting
        kept = waiting.pop() if len(waiting) > 2 else None
        super().place()
        self.database.waiting = [] if kept is None else [kept]


class ProvesOtherPlaces(PureLog):
    """Gives the proof of the next entry."""

    def inclusion(self, leaf_hash: bytes, size: int) -> tuple[int, Sequence[bytes]]:
        index, proof = super().inclusion(leaf_hash, size)
        return index, self.tree.inclusion_proof((index + 1) % size, size) if size > 1 else proof


class ProvesForATreeOfItsOwn(PureLog):
    """Proves growth to the newest tree, whatever it was asked for."""

    def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        proof = super().consistency(old_size, new_size)
        return self.tree.consistency_proof(old_size) if old_size else proof


class ProvesTooMuch(PureLog):
    """Proves growth from heads that it never signed."""

    def require_size(self, size: int) -> None:
        pass

    def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        return super().consistency(min(old_size, len(self.tree)), min(new_size, len(self.tree)))


class AltersItsHeads(PureLog):
    """Adds to a head what its key never signed, once it was started again."""

    starts = 0

    def start(self) -> None:
        super().start()
        self.starts += 1

    def head(self) -> bytes | None:
        note = super().head()
        return note.replace(b"\n\n", b" \n\n") if note and self.starts > 2 else note


BROKEN = (
    RewritesAnEntry,
    ShowsOthers,
    ForgetsWhatWaits,
    SaysTwice,
    ForksAfterRestore,
    StopsForNothing,
    SignsASmallerHead,
    HidesTheLast,
    ProvesOtherPlaces,
    ProvesForATreeOfItsOwn,
    ProvesTooMuch,
    AltersItsHeads,
)
