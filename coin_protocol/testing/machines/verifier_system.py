"""What the machine of verifiers drives, and what clients do to their receipts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

from coin_protocol.checks import Trust
from coin_protocol.errors import CoinError
from coin_protocol.models import Models
from coin_protocol.offline import verify_bundle
from coin_protocol.profile import Policy
from coin_protocol.receipt import read_bundle
from coin_protocol.replaying import Replayer
from coin_protocol.testing.machines.rules import RuleBrokenError
from coin_protocol.v1 import receipt_pb2

DAY: Final = 86_400

PASS: Final = receipt_pb2.OUTCOME_PASS
FAIL: Final = receipt_pb2.OUTCOME_FAIL
INCONCLUSIVE: Final = receipt_pb2.OUTCOME_INCONCLUSIVE

HONEST: Final = "an honest receipt"

UNANSWERED: Final = "OPENING_PRESENT"
"""The check that fails where a provider does not answer."""


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
