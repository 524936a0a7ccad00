"""What a log keeps to, whatever happens to it: a state machine over any implementation.

    class MyMachine(LogMachine):
        make = MyLog  # a `LogSystem`

    TestMyLog = MyMachine.TestCase

The model is written from docs/protocol.md, section 11, over the slow tree of
`coin_protocol.testing.reference`. Needs Hypothesis (extra `testing`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256, shake_256
from typing import Any, ClassVar, Final, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coin_protocol.checkpoint import Checkpoint, verify_checkpoint
from coin_protocol.errors import CoinError
from coin_protocol.note import NoteVerifier
from coin_protocol.testing import reference
from coin_protocol.testing.machines.rules import RuleBrokenError, require, tag

_BACKUPS: Final = 6


class LogStoppedError(Exception):
    """A system raises it where its log signs nothing more, until an operator has decided."""


class NotInLogError(Exception):
    """A system raises it where it is asked for what its log does not have, or not yet."""


class Moment(StrEnum):
    """When a log dies."""

    IDLE = "idle"
    """Between two calls."""
    PLACED = "placed"
    """What waited has its place in the tree, and no head over it is signed."""
    SIGNED = "signed"
    """A head over it is signed, and not all of that is written down."""
    WRITTEN = "written"
    """All of it is on disk, and nobody was told."""


class LogSystem(Protocol):
    """A log, as its machine drives it. Made without arguments: a new log, without an entry."""

    @property
    def key(self) -> NoteVerifier:
        """Checks its heads; named as its origin."""

    def say(self, entries: Sequence[bytes]) -> None:
        """Have the log say these: on disk when it returns. Never refused, also where it stopped.

        Args:
            entries: Data of leaves, of commitments and of verdicts.
        """

    def sign(self) -> bytes:
        """Give what waits its place, sign a head if anything is new, return the newest head.

        Raises:
            LogStoppedError: It signs nothing more; where nothing is new, it need not say so.
        """

    def head(self) -> bytes | None:
        """Return the newest head, a signed note; None where none was signed."""

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        """Return the data of the entries from `start` to before `stop`, all under a head."""

    def inclusion(self, leaf_hash: bytes, size: int) -> tuple[int, Sequence[bytes]]:
        """Return an entry's index, and the proof that it is in the tree of a head.

        Args:
            leaf_hash: 32 bytes.
            size: Of the head.

        Raises:
            NotInLogError: There is no such entry in it, or no such head.
        """

    def consistency(self, old_size: int, new_size: int) -> Sequence[bytes]:
        """Return the proof that the tree of one head is a prefix of another's; empty from size 0.

        Raises:
            NotInLogError: There is no such head.
        """

    def crash(self, moment: Moment) -> None:
        """Get to that moment, die there, and start again over what is on disk.

        A system that cannot get there dies where it is.
        """

    def back_up(self) -> Any:  # noqa: ANN401 - the system's own
        """Return a copy of the database, and of nothing that is kept out of its backups."""

    def restore(self, backup: Any) -> None:  # noqa: ANN401 - the system's own
        """Stop, put the log on this copy of its database, and start again."""

    def jump(self, seconds: float) -> None:
        """Set the log's clock, ahead or back; nothing where that cannot be done."""

    def close(self) -> None:
        """End it, and leave nothing behind."""


@dataclass(frozen=True)
class _Backup:
    """A copy of the database, and what the log had said by then.

    Attributes:
        copy: The system's.
        said: All that was acknowledged.
        kept: Sizes of the heads that are in it.
    """

    copy: Any
    said: tuple[bytes, ...]
    kept: frozenset[int]


def leaf_data(number: int) -> bytes:
    """Return the data of a leaf, another one for each number: of a commitment or of a verdict."""
    raw = shake_256(b"leaf %d" % number).digest(64)
    if number % 3 == 2:
        return tag("coin.log.verdict.v1") + raw
    name = b"provider %d" % (number % 5)
    return tag("coin.log.commitment.v1") + struct.pack(">H", len(name)) + name + raw[:48]


def _leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


class LogMachine(RuleBasedStateMachine):
    """Says, signs, asks, kills, restores and sets clocks; what the log shows must fit together.

    Attributes:
        make: Makes the system; a subclass sets it.
        most_entries: Of one run: what comes after so many leaves came before.
    """

    make: ClassVar[Callable[[], LogSystem]]
    most_entries: ClassVar[int] = 1_500

    def __init__(self) -> None:
        """Make a log."""
        super().__init__()
        self.numbers = 0
        self.said: dict[bytes, Any] = {}
        """Acknowledged, in order."""
        self.placed: list[bytes] = []
        """Leaf hashes under a head that was shown, in the log's order."""
        self.heads: dict[int, bytes] = {}
        """Roots of all heads that were ever shown, by size."""
        self.kept: set[int] = set()
        """Sizes of those that are in its database."""
        self.backups: list[_Backup] = []
        self.newer: _Backup | None = None
        """Where a head may be out there that this database does not know: the one that may."""
        self.latest: _Backup | None = None
        """Where the database is an old one: the one that it should be."""
        self.system = type(self).make()

    def teardown(self) -> None:
        """End the log."""
        self.system.close()

    # What it is told.

    @precondition(lambda self: len(self.said) < self.most_entries)
    @rule(power=st.integers(0, 8), more=st.sampled_from((0, -1, 1)), again=st.integers(0, 3))
    def say(self, power: int, more: int, again: int) -> None:
        """Say so many new things, some of them more than once, and some old ones again."""
        new = [leaf_data(self.numbers + number) for number in range(2**power + more)]
        self.numbers += len(new)
        self._say([*new, *list(self.said)[:again], *new[:again]])

    @rule(at=st.integers(0, 1 << 16), count=st.integers(0, 20))
    def say_again(self, at: int, count: int) -> None:
        """Say what was said before, or nothing at all."""
        start = at % (len(self.said) + 1)
        self._say(list(self.said)[start : start + count])

    @precondition(lambda self: len(self.said) < self.most_entries)
    @rule(more=st.sampled_from((0, -1, 1)), power=st.integers(0, 8))
    def fill(self, more: int, power: int) -> None:
        """Let the tree become as large as a whole number of subtrees, or one off."""
        there, width = len(self.said), 1 << power
        count = max(0, -(-(there + 1) // width) * width + more - there)
        self._say([leaf_data(self.numbers + number) for number in range(count)])
        self.numbers += count

    def _say(self, entries: list[bytes]) -> None:
        self.system.say(entries)
        if self.latest is None:
            self.said.update(dict.fromkeys(entries))

    # What it signs.

    @rule()
    def sign(self) -> None:
        """Sign: all that was acknowledged is under the head, each thing once."""
        try:
            note = self.system.sign()
        except LogStoppedError:
            require(
                self.latest is not None or self.newer is not None,
                "the log stopped, though its tree goes on from every head that was shown",
            )
            # A head that nobody saw goes on from another tree than this one.
            self.latest, self.newer = self.latest or self.newer, None
            return
        if self.latest is not None:
            head = self._opened(note)
            require(
                self.heads.get(head.size) == head.root,
                f"a head of {max(self.heads)} entries was shown, the database is older, and the "
                "log signs on: wanted it to stop",
            )
            return
        self.newer = None
        size = self._keep(note).size
        require(
            size == len(self.said),
            f"{len(self.said)} things were acknowledged, and {size} entries are under the head",
        )

    @invariant()
    def the_newest_head_goes_on_from_all_before(self) -> None:
        """Whoever asks for the newest head gets one that goes on from all others."""
        note = self.system.head()
        if self.latest is None and self.newer is None:
            require(note or not self.heads, "heads were shown, and the log says that it has none")
            if note is not None:
                self._require_newest(self._keep(note))
        elif note is not None and self.latest is None:
            self._keep(note)
        elif note is not None:
            head = self._opened(note)
            require(
                self.heads.get(head.size) == head.root,
                f"an old database shows a head of {head.size} entries that was never shown",
            )

    def _require_newest(self, head: Checkpoint) -> None:
        require(
            head.size == max(self.heads),
            f"a head of {max(self.heads)} entries was shown, and now the newest has {head.size}",
        )

    def _opened(self, note: bytes) -> Checkpoint:
        key = self.system.key
        try:
            return verify_checkpoint(note, key, origin=key.key.name).checkpoint
        except CoinError as error:
            msg = f"a head that nobody can check: {error}"
            raise RuleBrokenError(msg) from error

    def _keep(self, note: bytes) -> Checkpoint:
        """Check a head against all that the log has shown before."""
        head = self._opened(note)
        self.kept.add(head.size)
        known = self.heads.get(head.size)
        if known is not None:
            require(
                known == head.root,
                f"two heads of {head.size} entries, with roots {known.hex()} and {head.root.hex()}",
            )
            return head
        self._read_to(head.size)
        root = reference.root(self.placed[: head.size])
        require(
            head.root == root,
            f"the entries of a head of {head.size} give the root {root.hex()}, and the head says "
            f"{head.root.hex()}",
        )
        self.heads[head.size] = head.root
        return head

    def _read_to(self, size: int) -> None:
        """Read the entries that are new, each of which was said, and none of which is there."""
        start = len(self.placed)
        if size <= start:
            return
        found = self.system.entries(start, size)
        require(
            len(found) == size - start,
            f"{len(found)} entries from {start} to {size} are shown under a head of {size}",
        )
        there = set(self.placed)
        for data in found:
            require(data in self.said, "the log has an entry that nobody had it say")
            hashed = _leaf_hash(data)
            require(hashed not in there, "something was said twice and is in the log twice")
            there.add(hashed)
            self.placed.append(hashed)

    # What it is asked.

    @property
    def sizes(self) -> list[int]:
        """Sizes of the heads that the log has now, the smallest first."""
        return sorted(self.kept)

    @rule(at=st.integers(0, 1 << 16), which=st.integers(0, 1 << 16))
    def ask_where(self, at: int, which: int) -> None:
        """Ask for the proof that an entry is in the tree of any head that has it."""
        sizes = [size for size in self.sizes if size]
        if not sizes:
            return
        size = sizes[which % len(sizes)]
        index = at % size
        hashed = self.placed[index]
        found, proof = self._told(lambda: self.system.inclusion(hashed, size))
        require(found == index, f"entry {index} of {size} is said to be entry {found}")
        require(
            len(proof) == reference.inclusion_length(index, size)
            and reference.implied_root(hashed, index, size, proof) == self.heads[size],
            f"the proof of entry {index} does not lead to the head of {size} entries",
        )

    @rule(first=st.integers(0, 1 << 16), second=st.integers(0, 1 << 16))
    def ask_how_it_grew(self, first: int, second: int) -> None:
        """Ask for the proof between any two heads, and from the empty tree."""
        sizes = [0, *(size for size in self.sizes if size)]
        old, new = sorted((sizes[first % len(sizes)], sizes[second % len(sizes)]))
        if not new:
            return
        proof = self._told(lambda: self.system.consistency(old, new))
        if old in (0, new):
            require(not proof, f"the proof from {old} to {new} entries is not empty")
            return
        roots = self.heads[old], self.heads[new]
        require(
            len(proof) == reference.consistency_length(old, new)
            and reference.implied_roots(roots[0], old, new, proof) == roots,
            f"the proof from {old} to {new} entries does not lead to both heads",
        )

    @rule(at=st.integers(0, 1 << 16), count=st.integers(1, 40))
    def read_again(self, at: int, count: int) -> None:
        """Read entries once more."""
        most = max(self.sizes, default=0)
        if not most:
            return
        start = at % most
        stop = min(most, start + count)
        found = [_leaf_hash(data) for data in self._told(lambda: self.system.entries(start, stop))]
        require(
            found == self.placed[start:stop],
            f"entries {start} to {stop} are others than they were, or are not there any more",
        )

    @rule(number=st.integers(1, 1 << 16))
    def ask_in_vain(self, number: int) -> None:
        """Ask for an entry that nobody had it say, and for heads that it never signed."""
        most = max(self.sizes, default=0)
        beyond = most + len(self.said) + number
        stranger = sha256(b"stranger %d" % number).digest()
        asked: list[tuple[str, Callable[[], object]]] = [
            ("an entry that nobody had it say", lambda: self.system.inclusion(stranger, most)),
            ("a head of a size that it never had", lambda: self.system.consistency(0, beyond)),
        ]
        if most:
            hashed = self.placed[0]
            asked += [
                ("a head that it never signed", lambda: self.system.consistency(most, beyond)),
                ("a place under no head", lambda: self.system.inclusion(hashed, beyond)),
            ]
        for what, ask in asked:
            try:
                ask()
            except NotInLogError:
                continue
            msg = f"the log proves something of {what}"
            raise RuleBrokenError(msg)

    def _told(self, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - as asked
        try:
            return ask()
        except NotInLogError as error:
            msg = f"the log does not know any more what it has shown: {error}"
            raise RuleBrokenError(msg) from error

    # What happens to it.

    @rule(moment=st.sampled_from(Moment))
    def crash(self, moment: Moment) -> None:
        """Kill it; it loses nothing that it acknowledged."""
        self.system.crash(moment)

    @rule(seconds=st.sampled_from((-86_400, -60, -1, 1, 60, 86_400)))
    def jump(self, seconds: int) -> None:
        """Set its clock."""
        self.system.jump(seconds)

    @precondition(lambda self: self.latest is None and self.newer is None)
    @precondition(lambda self: len(self.backups) < _BACKUPS)
    @rule()
    def back_up(self) -> None:
        """Copy its database."""
        self.backups.append(self._backup())

    @precondition(lambda self: self.latest is None and self.newer is None)
    @precondition(lambda self: bool(self.backups))
    @rule(which=st.integers(0, _BACKUPS), goes_on=st.booleans())
    def restore_an_old_database(self, *, which: int, goes_on: bool) -> None:
        """Put it on an old copy: it stops where that lacks entries under a head that was shown."""
        old = self.backups[which % len(self.backups)]
        now = self._backup()
        self.system.restore(old.copy)
        self.said, self.kept = dict.fromkeys(old.said), set(old.kept)
        if not {*map(_leaf_hash, old.said)}.issuperset(self.placed):
            self.latest = now
        else:
            # All that is under a head is there, if perhaps without its place. A head that nobody
            # saw may be over more; what was said since is lost: the operator did that.
            self.newer = now
        if goes_on:
            self.say(power=0, more=0, again=0)
            self.sign()

    @precondition(lambda self: self.latest is not None)
    @rule()
    def restore_the_latest_database(self) -> None:
        """Put it back on the database that holds all heads: it goes on."""
        if self.latest is not None:
            self.system.restore(self.latest.copy)
            self.said, self.kept = dict.fromkeys(self.latest.said), set(self.latest.kept)
            self.latest = None
            self.sign()

    def _backup(self) -> _Backup:
        return _Backup(self.system.back_up(), tuple(self.said), frozenset(self.kept))
