"""What a witness keeps to, whoever asks it and whenever it dies: a state machine over any of them.

    class MyMachine(WitnessMachine):
        make = MyWitness  # a `WitnessSystem`, made with the logs that it follows

    TestMyWitness = MyMachine.TestCase

The model is written from https://c2sp.org/tlog-witness and docs/protocol.md, section 11, over the
slow tree of `coin_protocol.testing.reference`. Needs Hypothesis (extra `testing`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import permutations
from typing import ClassVar, Final, NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from coin_protocol.checkpoint import Checkpoint, sign_checkpoint
from coin_protocol.errors import CoinError
from coin_protocol.note import NoteSigner, NoteVerifier, parse_signatures
from coin_protocol.note_key import cosignature_time
from coin_protocol.signer import KeySigner
from coin_protocol.testing import reference
from coin_protocol.testing.machines.rules import Makes, RuleBrokenError, require

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

_FORKS: Final = (LEAVES, 3, 8, 0)
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
    for number, common in enumerate(_FORKS):
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


class WitnessMachine(RuleBasedStateMachine):
    """Logs that are honest or fork ask, in any order; the witness dies, and its clock is set.

    Attributes:
        make: Makes the system of verifier keys, by the origins of their logs; a subclass sets it.
    """

    make: ClassVar[Makes[Mapping[str, str], WitnessSystem]]

    held = Bundle("held")

    def __init__(self) -> None:
        """Make a witness."""
        super().__init__()
        empty = Head(0, reference.root([]))
        self.may_be: dict[str, set[Head]] = {origin: {empty} for origin in LOGS}
        """Latest heads that the witness can have, as far as is known: one but where answers are
        lost."""
        self.signed: dict[str, dict[int, bytes]] = {origin: {} for origin in LOGS}
        """Roots that were cosigned, by size."""
        self.at: dict[str, int] = dict.fromkeys(LOGS, 0)
        """Time of the last cosignature."""
        self.clock = 0
        self.signed_by_clock: dict[str, int] = {}
        """What the clock said then, in seconds from where it began."""
        keys = {origin: signer(origin).verifier.vkey for origin in LOGS}
        self.system = type(self).make(keys)

    def teardown(self) -> None:
        """End the witness."""
        self.system.close()

    # What logs ask.

    @rule(which=st.sampled_from(LOGS), leaves=st.integers(0, LEAVES))
    def grow(self, which: str, leaves: int) -> None:
        """Ask as an honest log does: what is right is cosigned."""
        self._mend_the_clock(which)
        head = self._latest(which)
        line, size = _line(which, head), min(LEAVES, head.size + leaves)
        self._ask([request(line, head.size, size)])
        require(self.may_be[which] == {line.head(size)}, "an honest head was not cosigned")

    @rule(
        which=st.sampled_from(LOGS),
        fork=st.integers(0, len(_FORKS) - 1),
        old=st.none() | st.integers(0, LEAVES),
        size=st.integers(0, LEAVES),
        spoilt=st.sampled_from(("", "", "", "", "none", "another", "longer", "first", "last")),
        forged=st.integers(0, 9),
    )
    def ask(
        self, *, which: str, fork: int, old: int | None, size: int, spoilt: str, forged: int
    ) -> None:
        """Ask for any head of any branch, most often from where the witness is."""
        self._ask(
            [self._request(which, fork, old=old, size=size, spoilt=spoilt, forged=not forged)]
        )

    @rule(
        which=st.sampled_from(LOGS),
        forks=st.lists(st.integers(0, len(_FORKS) - 1), min_size=2, max_size=3),
        leaves=st.lists(st.integers(0, 5), min_size=3, max_size=3),
        old=st.none() | st.integers(0, LEAVES),
    )
    def race(self, which: str, forks: list[int], leaves: list[int], old: int | None) -> None:
        """Ask for heads of several branches at the same moment."""
        size = min(head.size for head in self.may_be[which]) if old is None else old
        self._ask(
            [
                self._request(which, fork, old=size, size=min(LEAVES, size + more))
                for fork, more in zip(forks, leaves, strict=False)
            ]
        )

    @rule(
        target=held,
        which=st.sampled_from(LOGS),
        fork=st.integers(0, len(_FORKS) - 1),
        old=st.none() | st.integers(0, LEAVES),
        size=st.integers(0, LEAVES),
    )
    def hold_back(self, which: str, fork: int, old: int | None, size: int) -> Request:
        """Write a request that is delivered later, once or more often, in another order."""
        return self._request(which, fork, old=old, size=size)

    @rule(asked=held)
    def deliver(self, asked: Request) -> None:
        """Deliver a request that was held back, or deliver it again."""
        self._ask([asked])

    @rule(which=st.sampled_from(LOGS))
    def ask_again(self, which: str) -> None:
        """Ask for the latest head once more."""
        self.grow(which, 0)

    @rule(what=st.sampled_from(GARBAGE), which=st.sampled_from(LOGS), size=st.integers(1, LEAVES))
    def send_garbage(self, what: str, which: str, size: int) -> None:
        """Send what is no request."""
        (answer,) = self.system.ask([garbage(branches(which)[0], size)[what]])
        require(
            MALFORMED <= answer.status < 500,
            f"a request that is malformed ({what}) is answered by status {answer.status}",
        )

    @rule(size=st.integers(0, LEAVES), old=st.integers(0, LEAVES))
    def ask_for_a_stranger(self, size: int, old: int) -> None:
        """Ask for a head of a log that the witness does not follow."""
        asked = request(branches(STRANGER)[0], min(old, size), size)
        (answer,) = self.system.ask([asked.body])
        require(
            answer.status == UNKNOWN,
            f"a log that nobody follows is answered by status {answer.status}; wanted {UNKNOWN}",
        )

    # What happens to the witness.

    @rule(
        which=st.sampled_from(LOGS),
        fork=st.integers(0, len(_FORKS) - 1),
        old=st.none() | st.integers(0, LEAVES),
        leaves=st.integers(0, 5),
    )
    def die_while_asked(self, which: str, fork: int, old: int | None, leaves: int) -> None:
        """Kill it before its answer is heard: it may have cosigned, or not."""
        size = min(head.size for head in self.may_be[which]) if old is None else old
        asked = self._request(which, fork, old=size, size=min(LEAVES, size + leaves))
        self.system.ask_and_die(asked.body)
        heads = self.may_be[which]
        if any(OK in judge(head, asked) for head in heads):
            self.may_be[which] = heads | {asked.head}
            self._note_the_clock(which)

    @rule()
    def restart(self) -> None:
        """Kill it after its last answer: what it said by then, it knows for ever."""
        self.system.restart()

    @rule(seconds=st.sampled_from((-86_400, -90, -30, -1, 1, 600, 86_400)))
    def jump(self, seconds: int) -> None:
        """Set its clock."""
        self.system.jump(seconds)
        self.clock += seconds

    @invariant()
    def all_that_was_cosigned_lies_on_one_branch(self) -> None:
        """Of each log, one history was cosigned."""
        for origin, roots in self.signed.items():
            require(
                any(
                    all(branch.roots[size] == root for size, root in roots.items())
                    for branch in branches(origin)
                ),
                f"heads of {origin} were cosigned that no one history has",
            )

    # The model.

    def _request(
        self,
        which: str,
        fork: int,
        *,
        old: int | None,
        size: int,
        spoilt: str = "",
        forged: bool = False,
    ) -> Request:
        branch = branches(which)[fork]
        start = min(head.size for head in self.may_be[which]) if old is None else old
        proof: Sequence[bytes] | None = branch.proof(start, size)
        if spoilt == "none":
            proof = ()
        elif spoilt == "another":
            proof = branch.proof(start - 1, size) or (bytes(32),)
        elif spoilt == "longer":
            proof = (*branch.proof(start, size), bytes(32))
        elif spoilt == "first":
            proof = branch.proof(start, size)[1:]
        elif spoilt == "last":
            proof = branch.proof(start, size)[:-1]
        return request(branch, start, size, proof=proof, forged=forged)

    def _latest(self, which: str) -> Head:
        """Return the witness's latest head, and find it out where an answer was lost."""
        if len(self.may_be[which]) > 1:
            # From a size that it cannot have: it tells its own.
            taken = {head.size for head in self.may_be[which]}
            strange = next(size for size in range(LEAVES) if size not in taken)
            self._ask([request(branches(which)[0], strange, LEAVES)])
        for head in sorted(self.may_be[which])[1:]:
            # The same again is cosigned where it is the latest.
            self._ask([request(_line(which, head), head.size, head.size)])
        (head,) = self.may_be[which]
        return head

    def _mend_the_clock(self, which: str) -> None:
        behind = self.signed_by_clock.get(which, self.clock) - self.clock
        if behind > 0:
            self.jump(behind)

    def _ask(self, asked: Sequence[Request]) -> None:
        """Ask, and hold the answers against every order in which they can have been given."""
        which = asked[0].origin
        answers = self.system.ask([one.body for one in asked])
        late = self.signed_by_clock.get(which, self.clock) > self.clock
        ends: set[Head] = set()
        for head in self.may_be[which]:
            for order in permutations(zip(asked, answers, strict=True)):
                end = _end(head, order, late=late)
                ends |= set() if end is None else {end}
        sizes = sorted({head.size for head in self.may_be[which]})
        said = [f"{one.head.size} leaves from {one.old}" for one in asked]
        statuses = [answer.status for answer in answers]
        require(
            ends,
            f"the latest head has {sizes} leaves, asked for are {said}, answered is {statuses}",
        )
        self.may_be[which] = ends
        before = self.at[which]
        for one, answer in zip(asked, answers, strict=True):
            if answer.status == OK:
                self._cosigned(one, answer.body, before)

    def _cosigned(self, asked: Request, body: bytes, before: int) -> None:
        """Check a cosignature, and that there is no other root for its size."""
        origin, key, (size, root) = asked.origin, self.system.key, asked.head
        try:
            made = [one for one in parse_signatures(body.decode()) if key.made(one)]
            for signature in made:
                key.verify(asked.note, signature)
            times = [cosignature_time(signature) for signature in made]
        except (CoinError, UnicodeDecodeError) as error:
            msg = f"a cosignature that nobody can check: {error}"
            raise RuleBrokenError(msg) from error
        require(times, "the answer has no cosignature of the witness's key")
        known = self.signed[origin].setdefault(size, root)
        require(known == root, f"two roots of {origin} were cosigned for {size} leaves")
        require(
            min(times) >= before,
            f"a cosignature is dated {min(times)}, and an earlier one {before}",
        )
        self.at[origin] = max(self.at[origin], *times)
        self._note_the_clock(origin)

    def _note_the_clock(self, which: str) -> None:
        """Note what the clock said as something was signed."""
        self.signed_by_clock[which] = max(self.clock, self.signed_by_clock.get(which, self.clock))


def _line(which: str, head: Head) -> Branch:
    """Return the first branch that has a head."""
    return next(branch for branch in branches(which) if branch.has(head))


def _end(head: Head, order: Sequence[tuple[Request, Answer]], *, late: bool) -> Head | None:
    """Return the latest head after these answers, or None where they cannot be given in this order.

    Args:
        head: The latest before.
        order: Of the answers.
        late: Whether the witness's clock is behind its last cosignature.
    """
    for asked, answer in order:
        if answer.status == LATER and late:
            continue
        if answer.status not in judge(head, asked):
            return None
        if answer.status == CONFLICT and asked.old != head.size:
            told = answer.body == b"%d\n" % head.size and answer.kind == SIZE_TYPE
            if not told:
                return None
        if answer.status == OK:
            head = asked.head
    return head
