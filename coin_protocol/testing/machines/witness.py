"""What a witness keeps to, whoever asks it and whenever it dies: a state machine over any of them.

    class MyMachine(WitnessMachine):
        make = MyWitness  # a `WitnessSystem`, made with the logs that it follows

    TestMyWitness = MyMachine.TestCase

The model is written from https://c2sp.org/tlog-witness and docs/protocol.md, section 11, over the
slow tree of `coin_protocol.testing.reference`. Needs Hypothesis (extra `testing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from coin_protocol.errors import CoinError
from coin_protocol.note import parse_signatures
from coin_protocol.note_key import cosignature_time
from coin_protocol.testing import reference
from coin_protocol.testing.machines.rules import Makes, RuleBrokenError, require
from coin_protocol.testing.machines.witness_system import (
    CONFLICT,
    FORKS,
    GARBAGE,
    LATER,
    LEAVES,
    LOGS,
    MALFORMED,
    OK,
    SIZE_TYPE,
    STRANGER,
    UNKNOWN,
    Answer,
    Branch,
    Head,
    Request,
    WitnessSystem,
    branches,
    garbage,
    judge,
    request,
    signer,
)


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
        fork=st.integers(0, len(FORKS) - 1),
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
        forks=st.lists(st.integers(0, len(FORKS) - 1), min_size=2, max_size=3),
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
        fork=st.integers(0, len(FORKS) - 1),
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
        fork=st.integers(0, len(FORKS) - 1),
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
