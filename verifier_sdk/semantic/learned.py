"""The learned judge: detectors, calibrated, on all that was opened (protocol, sections 9, 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.profile import Profile
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.semantic.calibration import TIERS, Calibration
from verifier_sdk.semantic.detectors import Detectors, ShareEstimate, estimate_share
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.judge import Judgement, OpenedEvidence
from verifier_sdk.semantic.measure import measure
from verifier_sdk.semantic.mlp import Floats
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.semantic.reader import Readers

FALSE_ALARMS: Final = 0.04
"""Share of honest sessions that may be accused, overall; twice that in any one domain."""

GUARD: Final = 0.08
"""Above this p-value a session passes; between the two nothing is decided."""

EARLY_PASS: Final = (0.5, 0.35)
"""What the p-value must be above to pass while more rounds could be played."""

LEAST_BLOCKS: Final = 3
"""Fewer opened blocks than this, tokens alone counted too, pass nothing."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """All that the judge found in one session.

    Attributes:
        tier: `committed`, or `opened` where whole blocks were.
        p_value: Share of honest sessions with as much evidence, or half that of the domain
            with most of them.
        probability: Of inflation, had half of all sessions been inflated.
        family: That explains the blocks best.
        estimate: Of the inflated share, by that family's detector.
        p_values: Of each family by itself, float64 (families,).
        blocks: Opened, tokens alone counted too.
        statistic: That the p-value is of.
    """

    tier: str
    p_value: float
    probability: float
    family: str
    estimate: ShareEstimate
    p_values: Sequence[float]
    blocks: int
    statistic: float


@dataclass(frozen=True)
class LearnedJudge:
    """Judges one session by all detectors.

    Attributes:
        heads: Matching heads.
        readers: Of runs and whole blocks.
        detectors: One a family.
        calibrations: By tier.
        tokenizer: The profile's.
    """

    heads: Heads
    readers: Readers
    detectors: Detectors
    calibrations: dict[str, Calibration]
    tokenizer: Tokenizer

    @classmethod
    def load(cls, file: ModelFile, profile: Profile, tokenizer: Tokenizer) -> LearnedJudge:
        """Take a judge out of a model file.

        Raises:
            ConfigurationError: The file was trained for other windows, vectors or tokens than
                the profile's, or is altered or of another version.
        """
        file.require_profile(profile)
        tensors = file.tensors
        try:
            readers = Readers.from_tensors(tensors)
        except (KeyError, ValueError) as error:
            msg = f"the model file's readers are malformed: {error}"
            raise ConfigurationError(msg) from error
        return cls(
            heads=Heads.read(tensors, file.dimension),
            readers=readers,
            detectors=Detectors.read(tensors),
            calibrations={tier: Calibration.read(tensors, tier) for tier in TIERS},
            tokenizer=tokenizer,
        )

    def ratios(self, evidence: OpenedEvidence) -> Floats:
        """Return the log likelihood ratios of the opened blocks, float32 (blocks, families).

        Raises:
            InvalidInputError: The vectors are not of the dimension that the judge reads.
        """
        self._require_dimension(evidence)
        return self.detectors.ratios(measure(evidence, self.heads, self.readers, self.tokenizer))

    def assess(self, evidence: OpenedEvidence) -> Assessment:
        """Assess what was opened so far.

        Raises:
            InvalidInputError: The vectors are not of the dimension that the judge reads.
        """
        return self.assess_ratios(self.ratios(evidence), whole=len(evidence.whole_blocks))

    def assess_ratios(self, ratios: Floats, *, whole: int) -> Assessment:
        """Assess blocks whose log likelihood ratios are known, so many of them opened whole."""
        tier = TIERS[1] if whole else TIERS[0]
        calibration = self.calibrations[tier]
        evidence = self.detectors.session_evidence(ratios, whole=whole)
        p_values = calibration.family_p_values(evidence, len(ratios))
        statistic = calibration.statistic(p_values)
        best = int(np.argmin(p_values / calibration.weights))
        return Assessment(
            tier=tier,
            p_value=calibration.combined.p_value(statistic),
            probability=calibration.probability(statistic),
            family=FAMILIES[best],
            estimate=estimate_share(ratios, best),
            p_values=p_values.tolist(),
            blocks=len(ratios),
            statistic=statistic,
        )

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Judge what was opened so far."""
        if not evidence.blocks and not evidence.token_blocks and not evidence.whole_blocks:
            return Judgement(receipt_pb2.OUTCOME_INCONCLUSIVE, "nothing was opened")
        found = self.assess(evidence)
        outcome, reason = decide(found, evidence)
        scores = [
            receipt_pb2.Score(name=f"p_value_{family}", value=value)
            for family, value in zip(FAMILIES, found.p_values, strict=True)
        ]
        scores.append(receipt_pb2.Score(name="p_value", value=found.p_value))
        return Judgement(outcome, reason, scores, found.probability, found.estimate.interval)

    def _require_dimension(self, evidence: OpenedEvidence) -> None:
        wanted = self.heads.dimension
        texts = (evidence.visible.prompt, evidence.visible.answer, evidence.visible.summary)
        shapes = {
            vectors.shape[1:]
            for vectors in (
                *(block.windows for block in evidence.blocks),
                *(block.tokens for block in evidence.blocks),
                *(block.windows for block in evidence.whole_blocks),
                *(text.windows for text in texts if text is not None),
            )
        }
        if shapes - {(wanted,)}:
            msg = f"the judge reads vectors of {wanted} numbers; found {sorted(shapes)}"
            raise InvalidInputError(msg)


def decide(
    found: Assessment, evidence: OpenedEvidence
) -> tuple[receipt_pb2.Outcome.ValueType, str]:
    """Return the outcome of an assessment, and why."""
    seen = f"{found.blocks} opened block{'' if found.blocks == 1 else 's'}"
    if found.p_value <= FALSE_ALARMS:
        low, high = found.estimate.interval
        reason = (
            f"the blocks look like {_WORDS[found.family]}: {found.p_value:.2g} of honest sessions "
            f"look so at most, on {seen}; inflated share {low:.0%} to {high:.0%}"
        )
        return receipt_pb2.OUTCOME_FAIL, reason
    if found.blocks < LEAST_BLOCKS:
        return (
            receipt_pb2.OUTCOME_INCONCLUSIVE,
            f"it takes {LEAST_BLOCKS} to judge by; found {seen}",
        )
    wanted = GUARD
    if not evidence.last and evidence.rounds <= len(EARLY_PASS):
        wanted = EARLY_PASS[evidence.rounds - 1]
    if found.p_value > wanted:
        return receipt_pb2.OUTCOME_PASS, f"{seen} look like honest reasoning does"
    reason = (
        f"{found.p_value:.2g} of honest sessions look as much like {_WORDS[found.family]}, on "
        f"{seen}: too many to accuse, too few to pass"
    )
    return receipt_pb2.OUTCOME_INCONCLUSIVE, reason


_WORDS: Final = {
    "random": "random vocabulary",
    "bag": "a bag of the session's own tokens",
    "scattered": "reasoning with its own tokens scattered in",
    "retrieved": "text taken from other questions",
    "repeated": "its own blocks repeated",
    "echoed": "the prompt or answer repeated",
    "shuffled": "its own sentences in another order",
    "ngram": "n-gram text",
    "replayed": "another session's reasoning",
    "split": "a finer tokenization than the tokenizer's own",
}
