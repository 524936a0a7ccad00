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
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, ClassVar, Final, NamedTuple, Protocol

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

from coin_protocol.checks import Trust
from coin_protocol.errors import CoinError
from coin_protocol.models import Models
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy
from coin_protocol.receipt import read_bundle
from coin_protocol.replaying import Replayer
from coin_protocol.testing.machines.rules import RuleBrokenError, require, tag
from coin_protocol.v1 import receipt_pb2, statements_pb2

DAY: Final = 86_400

PASS: Final = receipt_pb2.OUTCOME_PASS
FAIL: Final = receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE: Final = receipt_pb2.OUTCOME_INCONCLUSIVE

HONEST: Final = "an honest receipt"

UNANSWERED: Final = "OPENING_PRESENT"
"""The check that fails where a provider does not answer."""

_ROUNDS: Final = 60
"""Of work, a day after each, until all that was handed in must be decided."""

_ATTEMPTS: Final = 10_000


class Mode(StrEnum):
    """How a provider meets its verifiers."""

    UP = "up"
    SLOW = "slow"
    """It answers in time, and no sooner than it must."""
    AWAY = "away"
    """It cannot be reached: UNAVAILABLE."""
    DENIED = "denied"
    """It says that it does not know this verifier: PERMISSION_DENIED."""
    MUTE = "mute"
    """It is there, and answers nothing about audits until the deadline is past."""


class State(StrEnum):
    """Where an audit stands."""

    WAITING = "waiting"
    """It is kept, waits or is under way."""
    DECIDED = "decided"
    ERROR = "error"
    """The verifier gave it up by its own fault. It can be asked for again."""


class Audit(NamedTuple):
    """An audit as the verifier shows it.

    Attributes:
        state: Where it stands.
        bundle: Exact bytes, once it is decided.
    """

    state: State
    bundle: bytes | None = None


class Hold(NamedTuple):
    """Where a worker stands still in the middle of an audit.

    Attributes:
        question: At which of its questions to the provider, counted from 1 in each attempt.
        answered: Whether the provider has answered it by then.
    """

    question: int
    answered: bool


@dataclass(frozen=True)
class Reader:
    """What whoever reads a verifier's bundles goes by.

    Attributes:
        trust: Pinned roots of the provider, and the verifier's keys.
        models: Of the profile.
        policy: Of the verifier.
        replayer: Decides again (`coin_protocol.replaying.judge_replayer`).
        judge: As `coin audit --judge` takes it.
    """

    trust: Trust
    models: Models
    policy: Policy
    replayer: Replayer
    judge: str = "policy"

    def read(self, raw: bytes) -> receipt_pb2.Verdict:
        """Return the verdict of a bundle, checked and decided again from its bytes alone.

        Raises:
            RuleBrokenError: The bundle does not bear it out.
        """
        given: dict[str, Any] = {"trust": self.trust, "policy": self.policy}
        try:
            verify_bundle(
                read_bundle(raw),
                profile=self.models.profile,
                installed=(self.models.tokenizer, self.models.embedder),
                **given,
            )
            found = self.replayer(
                read_bundle(raw), models=self.models, judge=self.judge, reference=None, **given
            )
        except CoinError as error:
            msg = f"a bundle does not bear out its verdict: {error}"
            raise RuleBrokenError(msg) from error
        other = found.difference
        if other is not None:
            msg = f"{other.path} is {other.found}, and the evidence gives {other.replayed}"
            raise RuleBrokenError(msg)
        return found.verdict


class VerifierSystem(Protocol):
    """A verifier and the provider that it audits, as their machine drives them.

    Made without arguments: nothing handed in yet, the provider up. Its policy is one that every
    honest reply satisfies, and no quota of clients is in the way.
    """

    @property
    def lies(self) -> Sequence[str]:
        """Names of the lies that the provider can tell, each caught by a deterministic check."""

    @property
    def modes(self) -> Sequence[Mode]:
        """In which the provider can be, `UP` among them."""

    @property
    def audits_per_day(self) -> int | None:
        """That may be begun in a day (UTC), if there is an end to them."""

    @property
    def reader(self) -> Reader:
        """What its bundles are read by."""

    def reply(self, lie: str) -> bytes:
        """Have the provider reply to a client, and return the client's receipt.

        Args:
            lie: Empty for none.
        """

    def meet(self, mode: Mode) -> None:
        """Have the provider meet all that comes from now on so."""

    def submit(self, receipts: Sequence[bytes]) -> Sequence[str | None]:
        """Hand receipts in, all at the same moment: what is acknowledged is on disk.

        Returns:
            The id of the audit of each; None for one that is not taken.
        """

    def look(self, audit_id: str) -> Audit | None:
        """Return an audit as it stands, None where the verifier knows none of this id."""

    def ask(self, audit_id: str) -> None:
        """Ask for an audit, drawn or not, also where it was given up."""

    def work(self, hold: Hold | None) -> bool:
        """Have a worker take an audit that is due, and make an attempt at it.

        Args:
            hold: Where the worker stands still, until `resume` or its death; None for nowhere.

        Returns:
            Whether there was one. A verifier whose workers are processes gives them time instead,
            and says whether anything came of it.
        """

    def resume(self) -> None:
        """Have all workers that stand still go on to the end."""

    def crash(self) -> None:
        """Kill it with all its workers, and start it again over what is on disk."""

    def jump(self, seconds: float) -> None:
        """Set the clock that its processes share; nothing where that cannot be done."""

    def day(self) -> int:
        """Return the day by that clock, counted from 1970."""

    def said(self) -> Sequence[bytes]:
        """Return all that its log says or is about to say: data of leaves."""

    def close(self) -> None:
        """End it, and leave nothing behind."""


_HOLDS: Final = st.builds(Hold, question=st.integers(1, 5), answered=st.booleans())
_LONG: Final = 600
"""Seconds: longer than a worker may show no sign of life."""


# What clients do to their receipts.


class Alteration(NamedTuple):
    """A change that a client makes to a receipt.

    Attributes:
        edit: Makes it, given the receipt and one of another honest reply.
        shows: Whether some check must notice, so that no PASS can come of it.
    """

    edit: Callable[[receipt_pb2.Receipt, receipt_pb2.Receipt], object]
    shows: bool


def _other_answer(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    receipt.answer += b" or not"


def _other_request(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    receipt.request += b" "


def _other_nonce(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    receipt.client_nonce = sha256(receipt.client_nonce).digest()


def _other_bill(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    receipt.billed.completion_tokens += 1


def _made_up_summary(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    receipt.summary = b"a summary that was never shown"


def _all_at_once(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    for seen in receipt.checkpoints:
        seen.seen_at.CopyFrom(receipt.sent_at)


def _flipped_commitment(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    raw = receipt.commitment.payload
    receipt.commitment.payload = raw[:-1] + bytes((raw[-1] ^ 1,))


def _flipped_signature(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    signature = receipt.commitment.signatures[0]
    signature.sig = bytes((signature.sig[0] ^ 1,)) + signature.sig[1:]


def _flipped_checkpoint(receipt: receipt_pb2.Receipt, _other: receipt_pb2.Receipt) -> None:
    for seen in receipt.checkpoints[:1]:
        seen.checkpoint.signatures[0].sig = bytes(64)


def _without(field: str) -> Callable[[receipt_pb2.Receipt, receipt_pb2.Receipt], object]:
    return lambda receipt, _: receipt.ClearField(field)  # type: ignore[arg-type]


def _anothers_commitment(receipt: receipt_pb2.Receipt, other: receipt_pb2.Receipt) -> None:
    receipt.commitment.CopyFrom(other.commitment)


def _anothers_fingerprints(receipt: receipt_pb2.Receipt, other: receipt_pb2.Receipt) -> None:
    receipt.fingerprints.CopyFrom(other.fingerprints)


def _anothers_checkpoint(receipt: receipt_pb2.Receipt, other: receipt_pb2.Receipt) -> None:
    for mine, seen in zip(receipt.checkpoints[:1], other.checkpoints[:1], strict=False):
        mine.checkpoint.CopyFrom(seen.checkpoint)


ALTERATIONS: Final[Mapping[str, Alteration]] = {
    "another answer": Alteration(_other_answer, shows=True),
    "another request": Alteration(_other_request, shows=True),
    "another nonce": Alteration(_other_nonce, shows=True),
    "another bill": Alteration(_other_bill, shows=True),
    "a summary that was never shown": Alteration(_made_up_summary, shows=True),
    "all checkpoints at once": Alteration(_all_at_once, shows=True),
    "a bit of the commitment": Alteration(_flipped_commitment, shows=True),
    "a bit of its signature": Alteration(_flipped_signature, shows=True),
    "a checkpoint that nobody signed": Alteration(_flipped_checkpoint, shows=True),
    "no checkpoints": Alteration(_without("checkpoints"), shows=False),
    "no fingerprints": Alteration(_without("fingerprints"), shows=False),
    "no bill": Alteration(_without("billed"), shows=False),
    "no time of the answer": Alteration(_without("answer_first_at"), shows=False),
    "another reply's commitment": Alteration(_anothers_commitment, shows=True),
    "another reply's fingerprints": Alteration(_anothers_fingerprints, shows=True),
    "another reply's checkpoint": Alteration(_anothers_checkpoint, shows=True),
}
"""Each of a receipt of an honest reply, and none of them a reason to accuse its provider."""


class Receipt(NamedTuple):
    """A receipt, and what is known of it.

    Attributes:
        raw: Its bytes.
        lie: Of the provider; empty for none.
        altered: By the client; empty for not at all.
    """

    raw: bytes
    lie: str = ""
    altered: str = ""

    @property
    def commitment(self) -> bytes:
        """The statement that the provider signed."""
        return receipt_pb2.Receipt.FromString(self.raw).commitment.payload

    @property
    def what(self) -> str:
        """For people."""
        if self.lie:
            return f"a receipt of a provider that lies ({self.lie})"
        return f"{HONEST} that was altered ({self.altered})" if self.altered else HONEST


@dataclass
class Known:
    """An audit that was acknowledged, and what the verifier may say of it.

    Attributes:
        audit_id: As acknowledged.
        receipt: What was handed in.
        bundle: The first that was shown.
        troubled: Whether there is a reason beside the receipt that nothing can be said.
        unanswered: Whether the provider has kept an answer back, so that it may be failed for it.
    """

    audit_id: str
    receipt: Receipt
    bundle: bytes | None = None
    troubled: bool = False
    unanswered: bool = False


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
