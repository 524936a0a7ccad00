"""A witness of nothing but its rules, in memory; and witnesses that break one each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coin_protocol.checkpoint import Checkpoint, cosign, read_unverified
from coin_protocol.errors import LimitError, SignatureError, StatementError
from coin_protocol.merkle import EMPTY_ROOT
from coin_protocol.note import NoteVerifier, open_note
from coin_protocol.testing.machines.witness_system import SIZE_TYPE, Answer
from tests.support.witnesses import NOW, cosigner
from verifier_sdk.witness.app import STATUS
from verifier_sdk.witness.rules import Head, Refusal, Refused, cosigning_time, judge
from verifier_sdk.witness.wire import AddCheckpoint, parse_request

KEY = cosigner()


def refused(why: Refusal, size: int = 0) -> Answer:
    """Return how a request is refused."""
    if why is Refusal.STALE:
        return Answer(STATUS[why], b"%d\n" % size, SIZE_TYPE)
    return Answer(STATUS[why], b"no\n")


class PureWitness:
    """An honest witness: `heads` is what it has on disk."""

    def __init__(self, logs: Mapping[str, str]) -> None:
        self.logs = {origin: NoteVerifier.from_vkey(vkey) for origin, vkey in logs.items()}
        self.heads = {origin: Head() for origin in logs}
        self.now = NOW

    @property
    def key(self) -> NoteVerifier:
        return KEY.verifier

    def ask(self, bodies: Sequence[bytes]) -> Sequence[Answer]:
        return [self.answer(body) for body in bodies]

    def answer(self, body: bytes) -> Answer:
        """Answer one request."""
        try:
            asked = parse_request(body)
            checkpoint = read_unverified(asked.note)
        except (StatementError, LimitError):
            return refused(Refusal.MALFORMED)
        if checkpoint.origin not in self.logs:
            return refused(Refusal.UNKNOWN_LOG)
        try:
            self.require_signed(asked.note, self.logs[checkpoint.origin])
        except SignatureError:
            return refused(Refusal.UNSIGNED)
        return self.decide(asked, checkpoint)

    def require_signed(self, note: bytes, log: NoteVerifier) -> None:
        """Check that the log signed a checkpoint."""
        open_note(note, [log])

    def decide(self, asked: AddCheckpoint, checkpoint: Checkpoint) -> Answer:
        """Cosign, or say why not."""
        head = self.heads[checkpoint.origin]
        why = self.judge(head, asked, checkpoint)
        if why is not None:
            return refused(why.why, why.size)
        at = self.time(head)
        if at is None:
            return Answer(503, b"later\n")
        self.keep(checkpoint, at)
        return Answer(200, cosign(checkpoint, KEY, at).line().encode())

    def judge(self, head: Head, asked: AddCheckpoint, checkpoint: Checkpoint) -> Refused | None:
        """Return why a head is not cosigned."""
        return judge(head, old_size=asked.old_size, proof=asked.proof, checkpoint=checkpoint)

    def time(self, head: Head) -> int | None:
        """Return the time to sign with."""
        return cosigning_time(head, self.now)

    def keep(self, checkpoint: Checkpoint, at: int) -> None:
        """Write a head down."""
        self.heads[checkpoint.origin] = Head(checkpoint.size, checkpoint.root, at)

    def ask_and_die(self, body: bytes) -> None:
        self.ask([body])
        self.restart()

    def restart(self) -> None:
        pass

    def jump(self, seconds: int) -> None:
        self.now += seconds

    def close(self) -> None:
        pass


# Witnesses that break a rule each.


class ForgetsOnRestart(PureWitness):
    """Has no disk."""

    def restart(self) -> None:
        self.heads = {origin: Head() for origin in self.logs}


class WritesLate(PureWitness):
    """Writes a head down with the next one."""

    def __init__(self, logs: Mapping[str, str]) -> None:
        super().__init__(logs)
        self.disk = dict(self.heads)

    def keep(self, checkpoint: Checkpoint, at: int) -> None:
        self.disk = dict(self.heads)
        super().keep(checkpoint, at)

    def restart(self) -> None:
        self.heads = dict(self.disk)


class AsksForNoProof(PureWitness):
    """Believes that whatever is larger goes on."""

    def judge(self, head: Head, asked: AddCheckpoint, checkpoint: Checkpoint) -> Refused | None:
        why = super().judge(head, asked, checkpoint)
        return None if why is not None and why.why is Refusal.UNPROVEN else why


class CosignsForks(PureWitness):
    """Cosigns any root of the size that it has cosigned."""

    def judge(self, head: Head, asked: AddCheckpoint, checkpoint: Checkpoint) -> Refused | None:
        why = super().judge(head, asked, checkpoint)
        return None if why is not None and why.why is Refusal.FORKED else why


class GoesBack(PureWitness):
    """Cosigns a smaller head where the proof starts from it."""

    def judge(self, head: Head, asked: AddCheckpoint, checkpoint: Checkpoint) -> Refused | None:
        if asked.old_size == checkpoint.size < head.size:
            return None
        return super().judge(head, asked, checkpoint)


class DecidesBesideItself(PureWitness):
    """Answers requests that come at once from what it knew when they came."""

    def ask(self, bodies: Sequence[bytes]) -> Sequence[Answer]:
        before, answers, after = dict(self.heads), [], dict(self.heads)
        for body in bodies:
            self.heads = dict(before)
            answers.append(self.answer(body))
            after.update({k: v for k, v in self.heads.items() if v != before[k]})
        self.heads = after
        return answers


class DatesBack(PureWitness):
    """Signs with its clock's time, whatever it signed with before."""

    def time(self, head: Head) -> int | None:
        del head
        return self.now


class BelievesAnybody(PureWitness):
    """Takes a checkpoint for the log's that somebody else signed."""

    def require_signed(self, note: bytes, log: NoteVerifier) -> None:
        pass


class ForgetsTheOtherLog(PureWitness):
    """Has room for one log."""

    def keep(self, checkpoint: Checkpoint, at: int) -> None:
        super().keep(checkpoint, at)
        for origin in self.heads:
            if origin != checkpoint.origin:
                self.heads[origin] = Head(0, EMPTY_ROOT, at)


class SignsNothingNew(PureWitness):
    """Refuses an honest head once it has cosigned ten leaves."""

    def judge(self, head: Head, asked: AddCheckpoint, checkpoint: Checkpoint) -> Refused | None:
        if head.size > 10:
            return Refused(Refusal.UNPROVEN, "enough")
        return super().judge(head, asked, checkpoint)


class TellsAnotherSize(PureWitness):
    """Tells a wrong size to whoever does not know it."""

    def judge(self, head: Head, asked: AddCheckpoint, checkpoint: Checkpoint) -> Refused | None:
        why = super().judge(head, asked, checkpoint)
        if why is not None and why.why is Refusal.STALE:
            return Refused(why.why, why.message, why.size + 1)
        return why


class SignsSomethingElse(PureWitness):
    """Cosigns the head before the one that it says it does."""

    def decide(self, asked: AddCheckpoint, checkpoint: Checkpoint) -> Answer:
        before = self.heads[checkpoint.origin]
        answer = super().decide(asked, checkpoint)
        if answer.status != 200 or not before.size:
            return answer
        other = Checkpoint(checkpoint.origin, before.size, before.root)
        if other == checkpoint:
            return answer
        return Answer(200, cosign(other, KEY, self.now).line().encode())


BROKEN = (
    ForgetsOnRestart,
    WritesLate,
    AsksForNoProof,
    CosignsForks,
    GoesBack,
    DecidesBesideItself,
    DatesBack,
    BelievesAnybody,
    ForgetsTheOtherLog,
    SignsNothingNew,
    TellsAnotherSize,
    SignsSomethingElse,
)
