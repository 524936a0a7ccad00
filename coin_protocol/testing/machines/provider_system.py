"""What the machine of providers drives, and what it knows of each reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Final, Protocol

from coin_protocol.checks.memo import Memo
from coin_protocol.keys import VerificationKey
from coin_protocol.keyset import SignedKeySet
from coin_protocol.signer import KeySigner
from coin_protocol.statements import read_commitment
from coin_protocol.testing.machines.rules import (
    Answer,
    Ledger,
    Opened,
    require,
    undated,
)
from coin_protocol.v1 import envelope_pb2, opening_pb2, receipt_pb2, statements_pb2

WHOLE: Final = statements_pb2.ABORT_REASON_UNSPECIFIED
CRASHED: Final = statements_pb2.ABORT_REASON_CRASHED
CANCELLED: Final = statements_pb2.ABORT_REASON_CANCELLED


class DiedError(Exception):
    """A system raises it where its process died before an answer came."""


@dataclass(frozen=True)
class Ended:
    """What a client is handed at the end of a reply.

    Attributes:
        commitment: As signed.
        checkpoints: Those that had not been handed over before.
    """

    commitment: envelope_pb2.Envelope
    checkpoints: Sequence[envelope_pb2.Envelope] = ()


class ProviderSystem(Protocol):
    """A provider named "provider" over the small models, with its store. Made of `Terms`.

    After `die`, and until `restart`, any method but `answer` may raise `DiedError`.
    """

    @property
    def keeps_open_replies(self) -> bool:
        """Whether what was handed over of a reply under way outlives its process."""

    @property
    def root(self) -> VerificationKey:
        """What clients pin."""

    def key_set(self) -> SignedKeySet:
        """Return the key set that is served now."""

    def rotate(self, overlap: timedelta) -> None:
        """Add a signing key; those in use stay valid for the overlap."""

    def open(self, name: str, request: bytes, client_nonce: bytes) -> None:
        """Begin a reply, to be known by its name."""

    def append(
        self, name: str, token_ids: Sequence[int], *, wait: bool
    ) -> Sequence[envelope_pb2.Envelope]:
        """Take reasoning tokens; return the checkpoints handed over now.

        Args:
            name: Of the reply.
            token_ids: As sampled.
            wait: Whether to wait until all that are due can be handed over.
        """

    def finish(self, name: str, answer: bytes) -> Ended:
        """End a reply with its answer, of as many tokens as it has bytes."""

    def abort(
        self, name: str, reason: statements_pb2.AbortReason.ValueType, answer: bytes
    ) -> Ended:
        """End a reply early."""

    def leave(self, name: str) -> None:
        """Have the task that makes a reply be cancelled: nobody waits for its end."""

    def find(self, name: str) -> envelope_pb2.Envelope | None:
        """Return the commitment of a reply that has ended; None where there is none."""

    def manifest(
        self, commitment_sha256: bytes
    ) -> tuple[envelope_pb2.Envelope, envelope_pb2.Envelope]:
        """Return manifest and fingerprints, once they are made."""

    def answer(
        self, commitment_sha256: bytes, challenges: Sequence[envelope_pb2.Envelope]
    ) -> Sequence[envelope_pb2.Envelope | None]:
        """Return what each challenge is answered with: an opening, a refusal, or nothing signed.

        Several come at the same time, in no order. Nothing is signed for what is no challenge, or
        none of this commitment, nor by a process that died before.
        """

    def pass_time(self, seconds: float) -> None:
        """Let time pass, on all clocks."""

    def set_clock(self, ahead: float) -> None:
        """Set the provider's wall clock to so many seconds ahead of the true time.

        A process that runs goes on with the clock that it began with, which never runs backwards.
        """

    def die(self, after: int) -> None:
        """Have the process die in what comes next: the smaller the number, the sooner."""

    def restart(self) -> None:
        """Die now, if not dead yet, and start again over what was on disk.

        Replies that were open are closed when it returns.
        """

    def close(self) -> None:
        """Let go of everything."""


@dataclass(eq=False)
class Reply:
    """A reply as its client, and both verifiers together, hold it.

    Attributes:
        name: Of the reply.
        receipt: What the client notes.
        tokens: Handed to the provider so far.
        ends: How its commitment may say that it ended.
        ended: Whether it takes nothing more.
        commitment: Once it is held.
        gone: Whether there is none, as nothing of it was handed over before a death.
        deaths: Of the provider, before it ended.
        manifest: Once it was asked for.
        rounds: Challenges and answers that count as evidence, in the order of answers.
        whole_rounds: The same of blocks opened whole.
        ledger: What is open by all answers.
        answers: All but the date of each opening, by digest of the challenge.
        refused: Digests of refused challenges.
        flips: Digest of the challenge that each flip was given to.
        memo: Of the checks.
    """

    name: str
    receipt: receipt_pb2.Receipt
    tokens: int = 0
    ends: set[int] = field(default_factory=lambda: {CRASHED})
    ended: bool = False
    commitment: envelope_pb2.Envelope | None = None
    gone: bool = False
    deaths: int = 0
    manifest: envelope_pb2.Envelope | None = None
    rounds: list[receipt_pb2.Round] = field(default_factory=list)
    whole_rounds: list[receipt_pb2.Round] = field(default_factory=list)
    ledger: Ledger | None = None
    answers: dict[bytes, bytes] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)
    flips: dict[int, bytes] = field(default_factory=dict)
    memo: Memo = field(default_factory=Memo)

    @property
    def statement(self) -> statements_pb2.Commitment:
        """The commitment, parsed."""
        held = self.commitment
        return read_commitment(b"" if held is None else held.payload)

    @property
    def key(self) -> bytes:
        """What names the commitment."""
        return b"" if self.commitment is None else sha256(self.commitment.payload).digest()

    @property
    def can_be_asked(self) -> bool:
        """Whether there is anything to challenge."""
        return self.ledger is not None

    def entered(self, answer: Answer, name: bytes) -> None:
        """Check an answer against all answers before, and enter what it opens."""
        require(answer.challenge_sha256 == name, "the answer is to another challenge")
        if isinstance(answer, opening_pb2.Refusal):
            require(name not in self.answers, "a challenge was answered, and refused later")
            self.refused.add(name)
            return
        require(name not in self.refused, "a challenge was refused, and answered later")
        given = self.answers.setdefault(name, undated(answer))
        require(given == undated(answer), "a challenge has two answers")
        first = self.flips.setdefault(answer.flip_index, name)
        require(first == name, f"flip {answer.flip_index} was given to two challenges")
        if self.ledger is not None:
            self.ledger.add(Opened.shown(answer))
            self.ledger.require_kept()


@dataclass(frozen=True)
class Sent:
    """A signed challenge to a reply's commitment.

    Attributes:
        reply: Whose commitment.
        signed: The challenge.
        key: Of the verifier.
        at: When the verifier sent it; it may arrive later.
    """

    reply: Reply = field(repr=False)
    signed: envelope_pb2.Envelope = field(repr=False)
    key: KeySigner
    at: int
