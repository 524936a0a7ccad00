"""What an audit does next, and what it concludes, from its evidence alone. No I/O.

An auditor does what `Course.next` says until it decides; a replay asks the same of every step
that a bundle shows. So both reach the same verdict, or the auditor went another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from coin_protocol.checks import Case, Report, run_checks
from coin_protocol.errors import InvalidInputError, VerificationError
from coin_protocol.memory import Match
from coin_protocol.models import Models
from coin_protocol.v1 import opening_pb2, receipt_pb2
from verifier_sdk.rounds import affordable_round
from verifier_sdk.semantic import Judge, Judgement, OpenedEvidence, Visible
from verifier_sdk.semantic.visible import visible_of
from verifier_sdk.verdict import make_verdict

NEAR_DUPLICATE: Final = 0.995
"""Cosine from which a block of another session is noted as the same."""

NOTHING_OPENED: Final = Judgement(receipt_pb2.OUTCOME_INCONCLUSIVE, "nothing was opened")

_CAPS: Final = "The exposure caps of the profile allow no further opening."
_REFUSED: Final = "The provider refused, and shows that others have used up the caps."
_ZERO: Final = "The commitment is to zero reasoning tokens, and so is the bill."

_LIKE: Final = re.compile(
    r"Block (\d{1,9}) is like block (\d{1,9}) of commitment ([0-9a-f]{64}) "
    r"\(cosine (\d\.\d{4})\)\."
)


@dataclass(frozen=True, slots=True)
class AskManifest:
    """Ask for the manifest, and for the fingerprints if the receipt lacks them."""


@dataclass(frozen=True, slots=True)
class AskRound:
    """Send a challenge.

    Attributes:
        number: Of the round, from 1.
        blocks: To open with their embedding.
        token_blocks: To open tokens of, alone.
        tokens_per_block: The most to open in each.
        why: Why the audit is not decided.
    """

    number: int
    blocks: int
    token_blocks: int
    tokens_per_block: int
    why: str

    @property
    def asks(self) -> dict[str, int]:
        """Fields of its challenge."""
        return {
            "round": self.number,
            "blocks": self.blocks,
            "token_blocks": self.token_blocks,
            "tokens_per_block": self.tokens_per_block,
        }


@dataclass(frozen=True, slots=True)
class AskWhole:
    """Send a challenge, of round 1, to open blocks whole.

    Attributes:
        blocks: How many.
    """

    blocks: int

    @property
    def asks(self) -> dict[str, int]:
        """Fields of its challenge."""
        return {"round": 1, "blocks": self.blocks}


@dataclass(frozen=True, slots=True)
class Decided:
    """Ask no more.

    Attributes:
        report: Of the checks; a failed one decides.
        judgement: Of the graded evidence; None where nobody is asked for one.
        notes: Why it ends here, for people.
    """

    report: Report
    judgement: Judgement | None
    notes: tuple[str, ...] = ()


Step = AskManifest | AskRound | AskWhole | Decided


class Course:
    """The course of one audit under a policy, a judge and the profile's models.

    Attributes:
        judged: Whether the judge was asked.
        report: Of the checks on the evidence that was last at hand.
    """

    report: Report

    def __init__(self, *, models: Models, judge: Judge) -> None:
        """Take what decides; models are used once something was opened."""
        self._models = models
        self._judge = judge
        self._visible: Visible | None = None
        self.judged = False

    def next(self, case: Case) -> Step:
        """Return what comes after the evidence at hand.

        Raises:
            InvalidInputError: The verifier's own part of the evidence is malformed.
            ConfigurationError: The profile's models are not installed.
        """
        self.report = report = run_checks(case)
        if report.failed is not None:
            return Decided(report, None)
        if case.manifest is None:
            return AskManifest()
        if case.commitment.reasoning_tokens == 0:
            return Decided(report, None, (_ZERO,))
        if not case.rounds:
            return _round(case, 1, why="nothing was opened yet") or Decided(
                report, NOTHING_OPENED, (_CAPS,)
            )
        whole = _whole_blocks(case)
        if len(case.rounds) == 1 and not case.whole_rounds and whole:
            return AskWhole(whole)
        return self._judged(case, report)

    def _judged(self, case: Case, report: Report) -> Step:
        if not case.openings:
            return Decided(report, NOTHING_OPENED, (_REFUSED,))
        number, most = len(case.rounds), case.policy.message.rounds.max_rounds
        further = _round(case, number + 1, why="") if number < most else None
        evidence = OpenedEvidence.of(case, self._seen(case), last=further is None)
        judgement = self._judge.judge(evidence)
        self.judged = True
        if judgement.outcome != receipt_pb2.OUTCOME_INCONCLUSIVE or number >= most:
            return Decided(report, judgement)
        if further is None:
            return Decided(report, judgement, (_CAPS,))
        return replace(further, why=judgement.reason)

    def _seen(self, case: Case) -> Visible:
        if self._visible is None:
            self._visible = visible_of(
                case.receipt,
                case.profile.message.embedding,
                self._models.tokenizer,
                self._models.embedder,
            )
        return self._visible


def as_planned(case: Case) -> Case:
    """Return the case up to where its policy would have asked for something else.

    It may have been another one when an earlier attempt asked. Who replays the verdict knows one
    policy alone, and takes what another asked for as the verifier's fault.
    """
    at = replace(case, rounds=(), whole_rounds=())
    try:
        for number, entry in enumerate(case.rounds, 1):
            step = _round(at, number, why="")
            if step is None or not _asked(step, case.challenge(entry)):
                break
            at = replace(at, rounds=case.rounds[:number])
            if number == 1 and (whole := _whole_blocks(at)):
                if not case.whole_rounds:
                    break
                if not _asked(AskWhole(whole), case.whole_challenge(case.whole_rounds[0])):
                    break
                at = replace(at, whole_rounds=case.whole_rounds[:1])
            elif number == 1 and case.whole_rounds:
                break
    except (InvalidInputError, VerificationError):
        # Checks will say so, and whose fault it is.
        return case
    return at


def _asked(
    step: AskRound | AskWhole, challenge: opening_pb2.Challenge | opening_pb2.WholeBlockChallenge
) -> bool:
    return all(getattr(challenge, name) == value for name, value in step.asks.items())


def _round(case: Case, number: int, *, why: str) -> AskRound | None:
    """Return the round that the policy's plan and the profile's caps allow, if they do."""
    sample = affordable_round(
        case.ledger,
        case.caps,
        case.policy.message.rounds,
        number=number,
        block_size=case.profile.message.block_size,
    )
    return AskRound(number, *sample, why=why) if any(sample) else None


def _whole_blocks(case: Case) -> int:
    left = case.caps.whole_blocks - len(case.ledger.whole_blocks)
    return max(0, min(case.policy.message.rounds.whole_blocks, left))


def conclude(
    case: Case,
    decided: Decided,
    *,
    verifier: str,
    texts: Iterable[receipt_pb2.Score] = (),
    matches: Iterable[receipt_pb2.BlockMatch] = (),
    decided_at: Timestamp | None = None,
) -> receipt_pb2.Verdict:
    """Return the verdict of an audit that is decided.

    Args:
        case: The evidence.
        decided: What the course of the audit ended in.
        verifier: Name of who decides.
        texts: Scores of the text of blocks opened whole.
        matches: Opened blocks that other sessions showed, too.
        decided_at: When; now by default.
    """
    judgement, notes = decided.judgement, list(decided.notes)
    if judgement is not None:
        judgement = replace(judgement, scores=[*judgement.scores, *texts])
        notes += [match_sentence(match) for match in matches]
    return make_verdict(
        case,
        decided.report,
        verifier=verifier,
        judgement=judgement,
        notes=notes,
        decided_at=decided_at,
    )


def block_match(block_index: int, match: Match) -> receipt_pb2.BlockMatch:
    """Return what a bundle keeps of a match."""
    return receipt_pb2.BlockMatch(
        block_index=block_index,
        other_commitment_sha256=match.commitment_sha256,
        other_block_index=match.block_index,
        cosine=match.cosine,
    )


def match_sentence(match: receipt_pb2.BlockMatch) -> str:
    """Return the sentence that a verdict says of a match."""
    return (
        f"Block {match.block_index} is like block {match.other_block_index} of commitment "
        f"{match.other_commitment_sha256.hex()} (cosine {match.cosine:.4f})."
    )


def told_matches(reasons: Sequence[str]) -> list[receipt_pb2.BlockMatch]:
    """Return the matches that a verdict tells of, for bundles that do not keep them."""
    found = []
    for reason in reasons:
        told = _LIKE.fullmatch(reason)
        if told is not None:
            block, other, commitment, cosine = told.groups()
            found.append(
                receipt_pb2.BlockMatch(
                    block_index=int(block),
                    other_commitment_sha256=bytes.fromhex(commitment),
                    other_block_index=int(other),
                    cosine=float(cosine),
                )
            )
    return found
