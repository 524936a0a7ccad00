"""What a witness may cosign: rules without I/O.

Two heads of one size never, a smaller one never, and a larger one only with proof that it goes on
from the last. Source: https://c2sp.org/tlog-witness v1.0.0, in the order of its text; that a head
of size 0 has the root of the empty tree is from its later drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from coin_protocol.checkpoint import Checkpoint
from coin_protocol.errors import ConsistencyProofError
from coin_protocol.merkle import EMPTY_ROOT, verify_consistency

MAX_CLOCK_STEP_SECONDS: Final = 60
"""By how much a witness's clock may be behind its own last cosignature: time servers do that."""


class Refusal(StrEnum):
    """Why a witness does not cosign."""

    MALFORMED = "malformed"
    UNKNOWN_LOG = "unknown_log"
    UNSIGNED = "unsigned"
    STALE = "stale"
    """The old size is not that of the latest head: what is asked may be good, the proof is not."""
    FORKED = "forked"
    """Another root for the size of the latest head."""
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal.

    Attributes:
        why: Its kind.
        message: A sentence for people.
        size: Of the latest head; for `STALE` alone.
    """

    why: Refusal
    message: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Head:
    """The latest head of a log that a witness cosigned; at first, that of the empty tree.

    Attributes:
        size: Leaves.
        root: 32 bytes.
        cosigned_at: POSIX time in seconds of the last cosignature; 0 for never.
    """

    size: int = 0
    root: bytes = EMPTY_ROOT
    cosigned_at: int = 0


def judge(
    head: Head, *, old_size: int, proof: Sequence[bytes], checkpoint: Checkpoint
) -> Refused | None:
    """Return why a checkpoint that its log signed is not cosigned; None where it is.

    Args:
        head: The latest that was cosigned.
        old_size: That the proof starts from.
        proof: Hashes of 32 bytes.
        checkpoint: Of `old_size` leaves at least.
    """
    if old_size > checkpoint.size:
        msg = f"the old size {old_size} is larger than the checkpoint's, {checkpoint.size}"
        return Refused(Refusal.MALFORMED, msg)
    if old_size != head.size:
        msg = f"the latest head has {head.size} leaves; prove from there"
        return Refused(Refusal.STALE, msg, head.size)
    if checkpoint.size == head.size and checkpoint.root != head.root:
        msg = f"another root was seen for {head.size} leaves"
        # Also where the only other root is that of no leaves, by its definition.
        return Refused(Refusal.FORKED if head.size else Refusal.UNPROVEN, msg)
    if old_size == 0:
        # Nothing came before: there is nothing that a proof could say.
        return Refused(Refusal.UNPROVEN, "a proof from size 0 is empty") if proof else None
    try:
        verify_consistency(
            old_size=old_size,
            new_size=checkpoint.size,
            old_root=head.root,
            new_root=checkpoint.root,
            proof=proof,
        )
    except ConsistencyProofError as error:
        return Refused(Refusal.UNPROVEN, str(error))
    return None


def cosigning_time(head: Head, now: int) -> int | None:
    """Return the time to cosign at; None where the clock has gone back, and must be mended.

    Times of one log never go back: a cosignature says that no larger head was seen by then.
    """
    if now < head.cosigned_at - MAX_CLOCK_STEP_SECONDS:
        return None
    return max(now, head.cosigned_at, 1)
