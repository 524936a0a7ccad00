"""Replies of the provider that is driven, and all that was asked of each so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from coin_protocol import envelope
from coin_protocol.checks import CHECKS, Case, Report, run_checks
from coin_protocol.checks.opened import refusal_ledger
from coin_protocol.conformance.judging import NotApplicable, NotMet
from coin_protocol.embedding import TextEmbedder
from coin_protocol.encoding import digest
from coin_protocol.errors import StatementError
from coin_protocol.exposure import ExposureLedger, affordable
from coin_protocol.statements import read_opening, read_refusal, read_whole_opening
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import opening_pb2, receipt_pb2

Installed = tuple[Tokenizer, TextEmbedder]
Rounds = Sequence[receipt_pb2.Round]

_FLIP: Final = "FLIP"
_PLACES: Final = {check.code: place for place, check in enumerate(CHECKS)}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a challenge asks for; the names are those of its fields."""

    blocks: int = 0
    token_blocks: int = 0
    tokens_per_block: int = 0


@dataclass
class Reply:
    """One reply.

    Attributes:
        bare: The receipt alone, as it came.
        evidence: The same with the manifest once it came, and the rounds that held.
        ledger: What was opened of it, as far as the provider has shown.
        problem: Why it cannot be challenged; empty while it can.
        used_up: Whether the provider showed that its hash chain is.
        fresh: Whether it was asked for now, so that nobody else can have challenged it.
        sent: Digests of the challenges that were sent of it.
    """

    bare: Case
    evidence: Case = field(init=False)
    ledger: ExposureLedger = field(default_factory=ExposureLedger)
    problem: str = ""
    used_up: bool = False
    fresh: bool = False
    sent: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin with the receipt."""
        self.evidence = self.bare

    def affords(self, asked: Asked) -> bool:
        """Whether the caps still allow all that is asked."""
        if self.problem or self.used_up or not self.evidence.blocks:
            return False
        wanted = asked.blocks, asked.token_blocks, asked.tokens_per_block
        return wanted == self.most(asked)

    def most(self, asked: Asked) -> tuple[int, int, int]:
        """Return the most up to what is asked that caps still allow."""
        return affordable(
            self.ledger,
            self.evidence.caps,
            blocks=asked.blocks,
            token_blocks=asked.token_blocks,
            tokens_per_block=asked.tokens_per_block,
        )

    def affords_whole(self, blocks: int) -> bool:
        """Whether so many blocks may still be opened whole."""
        if self.problem or self.used_up or not self.evidence.blocks:
            return False
        return len(self.ledger.whole_blocks) + blocks <= self.evidence.caps.whole_blocks

    def with_rounds(self, rounds: Rounds, *, whole: bool) -> Case:
        """Return the evidence with more rounds."""
        if whole:
            return replace(self.evidence, whole_rounds=(*self.evidence.whole_rounds, *rounds))
        return replace(self.evidence, rounds=(*self.evidence.rounds, *rounds))

    def enter(self, rounds: Rounds, *, whole: bool) -> None:
        """Keep rounds that hold, and what they show of what was opened."""
        self.evidence = self.with_rounds(rounds, whole=whole)
        for entry in rounds:
            if entry.HasField("refusal"):
                self._learn(read_refusal(entry.refusal.payload))
        shown = self.evidence.ledger
        self.ledger.tokens |= shown.tokens
        self.ledger.block_embeddings |= shown.block_embeddings
        self.ledger.whole_blocks |= shown.whole_blocks

    def require_own(self, rounds: Rounds) -> None:
        """Check that answers of a fresh reply show no challenge but those sent here.

        Raises:
            NotMet: One does: the provider made it up.
        """
        if not self.fresh:
            return
        for entry in rounds:
            if any(digest(one.challenge.payload) not in self.sent for one in _shown(entry)):
                raise NotMet(
                    wanted="an answer that shows the challenges sent before, and no others",
                    came="one that shows challenges of others, of a reply that is new",
                    advice="Show challenges that were truly answered.",
                )

    def _learn(self, refusal: opening_pb2.Refusal) -> None:
        shown = refusal_ledger(self.evidence, refusal)
        self.ledger.tokens |= shown.tokens
        self.ledger.block_embeddings |= shown.block_embeddings
        self.ledger.whole_blocks |= shown.whole_blocks
        self.used_up |= refusal.reason == opening_pb2.REFUSAL_REASON_FLIPS_USED_UP


def _shown(entry: receipt_pb2.Round) -> Sequence[opening_pb2.AnsweredChallenge]:
    """Return the challenges that an answer shows; none where it cannot be read."""
    kind = entry.challenge.payload_type
    try:
        if entry.HasField("refusal"):
            return read_refusal(entry.refusal.payload).answered
        if entry.HasField("opening") and kind == envelope.WHOLE_CHALLENGE:
            return read_whole_opening(entry.opening.payload).answered
        if entry.HasField("opening"):
            return read_opening(entry.opening.payload).answered
    except StatementError:
        # The checks say what is wrong with it.
        pass
    return ()


def require_sound(
    before: Case, after: Case, last: str, *, said: str = "", advice: str = ""
) -> None:
    """Check that evidence holds up to a check, where what was there before it does.

    Args:
        before: What other cases are about.
        after: The same and what this case is about.
        last: Code of the last check that looks at that.
        said: What the target said, for the message.
        advice: Where the case has none.

    Raises:
        NotMet: A check fails that did not before.
        NotApplicable: One fails already, so that those behind it cannot be looked at.
    """
    earlier = run_checks(before).failed
    report = run_checks(after)
    if report.failed is None:
        return
    failed = report.failed.code
    if failed == _FLIP and report.outcome == receipt_pb2.OUTCOME_INCONCLUSIVE:
        msg = f"{report.detail}: give replies that nobody else has challenged"
        raise NotApplicable(msg)
    if earlier is None or _PLACES[failed] < _PLACES[earlier.code]:
        raise failed_check(report, said=said, advice=advice)
    if _PLACES[failed] <= _PLACES[last]:
        raise _not_yet(failed)


def require_checks(evidence: Case, codes: Sequence[str]) -> None:
    """Check that none of these checks fails.

    Raises:
        NotMet: One does.
        NotApplicable: An earlier one does, so that they cannot be looked at.
    """
    report = run_checks(evidence)
    if report.failed is None:
        return
    failed = report.failed.code
    if failed in codes:
        raise failed_check(report)
    if _PLACES[failed] < max(_PLACES[code] for code in codes):
        raise _not_yet(failed)


def require_readable(evidence: Case) -> None:
    """Check that no check fails, where a case is about what no check looks at.

    Raises:
        NotApplicable: One does.
    """
    failed = run_checks(evidence).failed
    if failed is not None:
        raise _not_yet(failed.code)


def failed_check(report: Report, *, said: str = "", advice: str = "") -> NotMet:
    """Return what a failed check comes to."""
    failed = report.failed
    if failed is None:
        return NotMet(wanted="a check that fails", came="none")
    return NotMet(
        wanted=failed.claim or failed.code,
        came=f"{failed.code}: {report.detail}{said}",
        advice=advice,
        hint=f"Compare with check {failed.code} of the protocol, section 7.",
    )


Fits = Callable[[Reply], bool]


def fits(asked: Asked) -> Fits:
    """Return what says whether a reply affords a challenge."""
    return partial(Reply.affords, asked=asked)


def _not_yet(failed: str) -> NotApplicable:
    msg = f"{failed} fails before this can be looked at; another case is about that"
    return NotApplicable(msg)
