"""What a verifier node keeps to, whatever happens to it: a state machine over any of them.

    class MyMachine(VerifierMachine):
        make = MyVerifier  # a `VerifierSystem`

    TestMyVerifier = MyMachine.TestCase

The system brings the provider that is audited, and can have it lie (`coin_protocol.testing.
adversaries`), stay away and come back. The model is written from docs/protocol.md, sections 6, 8
and 11. Needs Hypothesis (extra `testing`).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
)

from coin_protocol.testing.machines.rules import RuleBrokenError, require, tag
from coin_protocol.testing.machines.verifier_system import (
    ALTERATIONS,
    DAY,
    FAIL,
    HONEST,
    INCONCLUSIVE,
    PASS,
    UNANSWERED,
    Alteration,
    Audit,
    Hold,
    Known,
    Mode,
    Receipt,
    State,
    VerifierSystem,
)
from coin_protocol.v1 import receipt_pb2, statements_pb2

_ROUNDS: Final = 60
"""Of work, a day after each, until all that was handed in must be decided."""

_ATTEMPTS: Final = 10_000

_HOLDS: Final = st.builds(Hold, question=st.integers(1, 5), answered=st.booleans())

_LONG: Final = 600
"""Seconds: longer than a worker may show no sign of life."""


class VerifierMachine(RuleBasedStateMachine):
    """Hands receipts in, has them audited, and lets everything go wrong meanwhile.

    Attributes:
        make: Makes the system; a subclass sets it.
        most_receipts: Of one run: what comes after so many came before.
        alterations: That clients make.
    """

    make: ClassVar[Callable[[], VerifierSystem]]
    most_receipts: ClassVar[int] = 30
    alterations: ClassVar[Mapping[str, Alteration]] = ALTERATIONS

    receipts = Bundle("receipts")

    def __init__(self) -> None:
        """Make a verifier."""
        super().__init__()
        self.audits: dict[str, Known] = {}
        self.ids: dict[bytes, str] = {}
        self.commitments: Counter[bytes] = Counter()
        self.made = 0
        self.mode = Mode.UP
        self.ahead = 0.0
        self.farthest = 0.0
        self.turn = 0
        self.system = type(self).make()
        self.days = {self.system.day()}

    def teardown(self) -> None:
        """End the verifier."""
        self.system.close()

    # Receipts.

    @precondition(lambda self: self.made < self.most_receipts)
    @rule(target=receipts, count=st.integers(1, 3), soon=st.booleans())
    def reply_honestly(self, *, count: int, soon: bool) -> MultipleResults[Receipt]:
        """Have honest replies, whose receipts are handed in at once, or later."""
        return self._replied([""] * count, soon=soon)

    @precondition(lambda self: self.made < self.most_receipts)
    @rule(
        target=receipts,
        which=st.lists(st.integers(0, 99), min_size=1, max_size=3),
        soon=st.booleans(),
    )
    def reply_with_lies(self, *, which: list[int], soon: bool) -> MultipleResults[Receipt]:
        """Have replies with lies that deterministic checks catch."""
        lies = self.system.lies
        return self._replied([lies[one % len(lies)] for one in which], soon=soon)

    def _replied(self, lies: Sequence[str], *, soon: bool) -> MultipleResults[Receipt]:
        self.made += len(lies)
        replies = [Receipt(self.system.reply(lie), lie=lie) for lie in lies]
        if soon:
            self._submit(replies)
        return multiple(*replies)

    @precondition(lambda self: self.made < self.most_receipts)
    @rule(target=receipts, receipt=receipts, other=receipts, which=st.integers(0, 99))
    def alter(self, receipt: Receipt, other: Receipt, which: int) -> Receipt:
        """Have a client alter a receipt of an honest reply, by another one perhaps."""
        if receipt.what != HONEST or other.what != HONEST:
            return receipt
        self.made += 1
        how = list(self.alterations)[which % len(self.alterations)]
        message = receipt_pb2.Receipt.FromString(receipt.raw)
        self.alterations[how].edit(message, receipt_pb2.Receipt.FromString(other.raw))
        raw = message.SerializeToString(deterministic=True)
        return receipt if raw == receipt.raw else Receipt(raw, altered=how)

    @rule(receipt=receipts)
    def submit(self, receipt: Receipt) -> None:
        """Hand a receipt in, whether for the first time or not."""
        self._submit([receipt])

    @rule(several=st.lists(receipts, min_size=2, max_size=8))
    def submit_at_once(self, several: list[Receipt]) -> None:
        """Hand several in at the same moment, some of them twice."""
        self._submit(several)

    def _submit(self, several: Sequence[Receipt]) -> None:
        answers = self.system.submit([receipt.raw for receipt in several])
        for receipt, audit_id in zip(several, answers, strict=True):
            if audit_id is None:
                require(receipt.altered, f"{receipt.what} is not taken")
                require(receipt.raw not in self.ids, "what was acknowledged once is not taken now")
                continue
            known = self.ids.setdefault(receipt.raw, audit_id)
            require(known == audit_id, "one receipt handed in twice is two audits")
            if audit_id not in self.audits:
                self.audits[audit_id] = Known(audit_id, receipt)
                self.commitments[receipt.commitment] += 1
            require(self.audits[audit_id].receipt.raw == receipt.raw, "two receipts are one audit")
        self._note_trouble()

    # What comes of them.

    @rule(hold=st.none() | _HOLDS)
    def work(self, hold: Hold | None) -> None:
        """Have a worker make an attempt, and perhaps stand still in the middle of it."""
        self.system.work(hold)

    @rule(attempts=st.integers(2, 10))
    def work_on(self, attempts: int) -> None:
        """Have several attempts made, one after another."""
        for _ in range(attempts):
            self.system.work(None)

    @rule(hold=_HOLDS)
    def die_over_it(self, hold: Hold) -> None:
        """Have a worker die in the middle of an audit, and another one take it over."""
        self.system.work(hold)
        self.crash()
        self.jump(_LONG)
        self.system.work(None)

    @rule(hold=_HOLDS)
    def be_away(self, hold: Hold) -> None:
        """Have a worker stand still for so long that another one takes over, and then go on."""
        self.system.work(hold)
        self.jump(_LONG)
        self.system.work(None)
        self._look_at_all()
        self.system.resume()

    @precondition(lambda self: self.made < self.most_receipts)
    @rule(
        target=receipts,
        lie=st.none() | st.integers(0, 99),
        which=st.integers(0, 99),
        attempts=st.integers(1, 4),
    )
    def reply_in_vain(
        self, *, lie: int | None, which: int, attempts: int
    ) -> MultipleResults[Receipt]:
        """Have a reply audited while its provider does not answer as usual."""
        lies = self.system.lies
        self.meet(which)
        found = self._replied(["" if lie is None else lies[lie % len(lies)]], soon=True)
        for _ in range(attempts):
            self.system.work(None)
            self.jump(_LONG)
        self.meet_as(Mode.UP)
        return found

    @rule()
    def resume(self) -> None:
        """Have those go on that stand still, though others may have taken over since."""
        self.system.resume()

    @rule(which=st.integers(0, 1 << 16))
    def ask(self, which: int) -> None:
        """Ask for an audit, whether it is decided or not."""
        if self.audits:
            self.system.ask(list(self.audits)[which % len(self.audits)])

    @rule()
    def settle(self) -> None:
        """Let the provider be up, work and time pass: all that was acknowledged is decided."""
        self.system.resume()
        self.meet_as(Mode.UP)
        self.jump(self.farthest - self.ahead)
        for audit in self._undecided():
            self.system.ask(audit.audit_id)
        for _ in range(_ROUNDS):
            for _ in range(_ATTEMPTS):
                if not self.system.work(None):
                    break
            self._look_at_all()
            for audit in self._undecided():
                if self._shown(audit).state is State.ERROR:
                    self.system.ask(audit.audit_id)
            if not self._undecided():
                break
            self.jump(DAY)
        left = [audit.receipt.what for audit in self._undecided()]
        require(not left, f"it never came to a verdict on {left[:3]}")
        self._read_its_log()

    def _undecided(self) -> list[Known]:
        return [audit for audit in self.audits.values() if audit.bundle is None]

    # What happens meanwhile.

    @rule(which=st.integers(0, 99))
    def meet(self, which: int) -> None:
        """Have the provider come, go, or keep silent."""
        self.meet_as(self.system.modes[which % len(self.system.modes)])

    def meet_as(self, mode: Mode) -> None:
        """Have the provider meet all that comes so."""
        self._look_at_all()
        self.mode = mode
        self._note_trouble()
        self.system.meet(mode)

    def _note_trouble(self) -> None:
        """Note of all that is undecided what may keep it from being decided."""
        for audit in self._undecided():
            # What is opened for one receipt is spent for all others of the same commitment.
            shared = self.commitments[audit.receipt.commitment] > 1
            away = self.mode in {Mode.AWAY, Mode.DENIED}
            audit.troubled = audit.troubled or away or shared
            audit.unanswered = audit.unanswered or self.mode is Mode.MUTE

    @rule()
    def crash(self) -> None:
        """Kill it, with all that is under way."""
        self.system.crash()
        self._look_at_all()

    @rule(seconds=st.sampled_from((-DAY, -600, -40, 40, 600, DAY)))
    def jump(self, seconds: float) -> None:
        """Set its clock."""
        self.system.jump(seconds)
        self.ahead += seconds
        self.farthest = max(self.farthest, self.ahead)
        self.days.add(self.system.day())

    # What must hold.

    @invariant()
    def nothing_acknowledged_is_lost_and_no_verdict_changes(self) -> None:
        """Look at all that is undecided, and at one that is decided, each in its turn."""
        for audit in self._undecided():
            self._look(audit)
        if self.audits:
            self.turn += 1
            self._look(list(self.audits.values())[self.turn % len(self.audits)])

    @invariant()
    def no_day_has_more_audits_than_its_budget(self) -> None:
        """Compare what is decided with what may have been begun by now."""
        self.days.add(self.system.day())
        most = self.system.audits_per_day
        if most is not None:
            decided = len(self.audits) - len(self._undecided())
            require(
                decided <= most * len(self.days),
                f"{decided} audits are decided in {len(self.days)} days of {most} each",
            )

    def _look_at_all(self) -> None:
        for audit in self.audits.values():
            self._look(audit)

    def _shown(self, known: Known) -> Audit:
        found = self.system.look(known.audit_id)
        if found is None:
            msg = f"{known.receipt.what} was acknowledged, and now it is not there"
            raise RuleBrokenError(msg)
        return found

    def _look(self, known: Known) -> None:
        found = self._shown(known)
        if known.bundle is not None:
            require(
                found == Audit(State.DECIDED, known.bundle),
                f"a verdict was given on {known.receipt.what}, and now it is another one or none",
            )
            return
        if found.state is State.DECIDED:
            require(found.bundle, f"{known.receipt.what} is decided, and no bundle says how")
            known.bundle = found.bundle or b""
            self._judge(known, self.system.reader.read(known.bundle))

    def _judge(self, known: Known, verdict: receipt_pb2.Verdict) -> None:
        receipt, outcome = known.receipt, verdict.outcome
        failed = [
            check.code
            for check in verdict.checks
            if check.status == receipt_pb2.CHECK_STATUS_FAILED
        ]
        said = f"{receipt_pb2.Outcome.Name(outcome)} ({', '.join(failed) or 'no check failed'})"
        require(
            verdict.commitment_sha256 == sha256(receipt.commitment).digest(),
            f"the verdict on {receipt.what} is on another commitment",
        )
        if known.unanswered and failed == [UNANSWERED]:
            return
        if outcome == INCONCLUSIVE:
            require(known.troubled, f"{receipt.what} ends {said} though nothing was in the way")
        elif receipt.lie:
            require(outcome == FAIL, f"{receipt.what} ends {said}")
        elif receipt.altered:
            require(
                outcome == PASS or verdict.fault == receipt_pb2.FAULT_UNATTRIBUTED,
                f"{receipt.what} ends {said}, and the provider is accused of what its client did",
            )
            shows = self.alterations[receipt.altered].shows
            require(outcome == FAIL or not shows, f"{receipt.what} ends {said}")
        else:
            require(outcome == PASS, f"{receipt.what} ends {said}")

    def _read_its_log(self) -> None:
        """Compare the log with all that was handed in, and with the verdicts on it."""
        wanted = {_commitment_leaf(audit.receipt.commitment) for audit in self.audits.values()}
        for audit in self.audits.values():
            verdict = receipt_pb2.Bundle.FromString(audit.bundle or b"").verdict.payload
            wanted.add(_verdict_leaf(audit.receipt.commitment, verdict))
        found = Counter(self.system.said())
        require(
            found == Counter(wanted),
            f"the log says {found.total()} things where {len(wanted)} were to be said, once each",
        )


def _commitment_leaf(raw: bytes) -> bytes:
    commitment = statements_pb2.Commitment.FromString(raw)
    name = commitment.provider.encode()
    head = tag("coin.log.commitment.v1") + struct.pack(">H", len(name)) + name
    return head + commitment.session_id + sha256(raw).digest()


def _verdict_leaf(commitment: bytes, verdict: bytes) -> bytes:
    digests = sha256(commitment).digest() + sha256(verdict).digest()
    return tag("coin.log.verdict.v1") + digests
