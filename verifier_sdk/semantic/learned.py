"""The learned judge: detectors, calibrated, on all that was opened (protocol, sections 9, 10)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import ConfigurationError, InvalidInputError
from coin_protocol.profile import Profile
from coin_protocol.tokenizer import Tokenizer
from coin_protocol.v1 import profile_pb2, receipt_pb2
from verifier_sdk.semantic import exact
from verifier_sdk.semantic.aggregate import Ratios
from verifier_sdk.semantic.calibration import TIERS, Calibration
from verifier_sdk.semantic.detectors import Detectors, ShareEstimate, estimate_share
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.heads import Heads
from verifier_sdk.semantic.judge import Judgement, OpenedEvidence
from verifier_sdk.semantic.measure import measure
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.semantic.reader import Readers

ANSWER_LIMIT: Final = "answer_limit"
"""Tensor of the file."""

_LEAST_ANSWER: Final = 96
_MOST_ANSWER: Final = 256
"""Tokens of an answer that tell whether the reader of blocks knows its style."""

_REAL_TEXT: Final = ("retrieved", "shuffled", "ngram", "replayed")
"""Families of filler that are made of real text, which real text of another style looks like."""


def answer_reading(readers: Readers, ids: npt.NDArray[np.uint32]) -> float | None:
    """Return how much an answer looks like filler to the reader of blocks, its mean logit.

    None for an answer that is too short to tell.
    """
    if len(ids) < _LEAST_ANSWER:
        return None
    return float(exact.mean(readers.blocks.read([ids[:_MOST_ANSWER]])))


@lru_cache(maxsize=16)
def _reading_of(readers: Readers, ids: bytes) -> float | None:
    """Return `answer_reading` of uint32 ids: an audit asks for it in every round."""
    return answer_reading(readers, np.frombuffer(ids, np.uint32))


@dataclass(frozen=True, slots=True)
class Assessment:
    """All that the judge found in one session.

    Attributes:
        tier: `committed`, or `opened` where whole blocks were.
        p_value: Share of honest sessions on like questions with as much evidence, or half that
            of the domain with most of them, or in code that of sessions about code: the greatest.
        probability: Of inflation, had half of all sessions been inflated.
        family: That explains the blocks best.
        estimate: Of the inflated share, by that family's detector.
        p_values: Of each family by itself, float64 (families,).
        statistic: That the p-value is of.
        accusable: Whether the p-value may accuse: enough questions like this one were calibrated
            on, or no honest session showed as much.
        ratios: Log likelihood ratios of the opened blocks.
    """

    tier: str
    p_value: float
    probability: float
    family: str
    estimate: ShareEstimate
    p_values: Sequence[float]
    statistic: float
    accusable: bool
    ratios: Ratios = field(repr=False, compare=False)

    @property
    def blocks(self) -> int:
        """How many blocks were opened, tokens alone counted too."""
        return len(self.ratios)


@dataclass(frozen=True)
class LearnedJudge:
    """Judges one session by all detectors.

    Attributes:
        heads: Matching heads.
        readers: Of runs and whole blocks.
        detectors: One a family.
        calibrations: By tier.
        tokenizer: The profile's.
        rules: When to decide, of the policy.
        answer_limit: Of `answer_reading`: above it an answer is of a style that the reader of
            blocks does not know.
    """

    heads: Heads
    readers: Readers
    detectors: Detectors
    calibrations: dict[str, Calibration]
    tokenizer: Tokenizer
    rules: profile_pb2.LearnedRules
    answer_limit: float

    @classmethod
    def load(
        cls,
        file: ModelFile,
        profile: Profile,
        tokenizer: Tokenizer,
        rules: profile_pb2.LearnedRules,
    ) -> LearnedJudge:
        """Take a judge out of a model file.

        Raises:
            ConfigurationError: The file was trained for other windows, vectors or tokens than
                the profile's, or is altered or of another version; or there are no rules.
        """
        file.require_profile(profile)
        if not rules.least_blocks:
            msg = "the policy has no learned_rules: a learned judge decides by them"
            raise ConfigurationError(msg)
        tensors = file.tensors
        try:
            readers = Readers.from_tensors(tensors)
        except (KeyError, ValueError) as error:
            msg = f"the model file's readers are malformed: {error}"
            raise ConfigurationError(msg) from error
        heads = Heads.read(tensors, file.dimension)
        calibrations = {tier: Calibration.read(tensors, tier) for tier in TIERS}
        if any(len(one.subjects) != heads.subjects.outputs for one in calibrations.values()):
            msg = "the model file tells other subjects apart than it is calibrated for"
            raise ConfigurationError(msg)
        return cls(
            heads=heads,
            readers=readers,
            detectors=Detectors.read(tensors),
            calibrations=calibrations,
            tokenizer=tokenizer,
            rules=rules,
            answer_limit=_answer_limit(tensors),
        )

    def ratios(self, evidence: OpenedEvidence) -> Ratios:
        """Return the log likelihood ratios of the opened blocks.

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
        if evidence.whole_blocks and self._unfamiliar(evidence):
            evidence = replace(evidence, whole_blocks=())
        return self.assess_ratios(self.ratios(evidence))

    def decide(
        self, found: Assessment, evidence: OpenedEvidence
    ) -> tuple[receipt_pb2.Outcome.ValueType, str]:
        """Return the outcome of an assessment, and why.

        Where the style of the answer is unknown, nobody is accused of other real text: what the
        other families say by themselves then decides whether anybody is.
        """
        outcome, reason = decide(found, evidence, self.rules)
        accused = outcome == receipt_pb2.OUTCOME_FAIL and found.family in _REAL_TEXT
        if not accused or not self._unfamiliar(evidence):
            return outcome, reason
        others = self.assess_ratios(found.ratios, spared=_REAL_TEXT)
        if others.p_value <= self.rules.false_alarms:
            return decide(others, evidence, self.rules)
        return (
            receipt_pb2.OUTCOME_INCONCLUSIVE,
            f"the answer is of a style that the judge does not know; else {reason}",
        )

    def _unfamiliar(self, evidence: OpenedEvidence) -> bool:
        """Return whether the answer, which nobody hid, reads like filler to the reader of blocks.

        It does not know the style then, and real reasoning in that style looks like other real
        text: hidden blocks are not read whole.
        """
        answer = evidence.visible.answer
        if answer is None:
            return False
        ids = answer.ids[:_MOST_ANSWER].astype(np.uint32, copy=False)
        reading = _reading_of(self.readers, ids.tobytes())
        return reading is not None and reading > self.answer_limit

    def assess_ratios(self, ratios: Ratios, *, spared: Collection[str] = ()) -> Assessment:
        """Assess blocks whose log likelihood ratios are known.

        Args:
            ratios: Of one session.
            spared: Families that nobody is accused of.
        """
        tier = TIERS[1] if len(ratios.of("whole")) else TIERS[0]
        calibration = self.calibrations[tier]
        evidence = self.detectors.session_evidence(ratios)
        p_values = calibration.family_p_values(evidence, len(ratios), ratios.block_size)
        p_values[[family in spared for family in FAMILIES]] = 1.0
        statistic = calibration.statistic(p_values)
        best = int(np.argmin(p_values / calibration.weights))
        size, code, subject = ratios.block_size, ratios.code, ratios.subject
        p_value = calibration.p_value(statistic, size, code=code, subject=subject)
        return Assessment(
            tier=tier,
            p_value=p_value,
            probability=calibration.probability(statistic),
            family=FAMILIES[best],
            estimate=estimate_share(ratios.values, best),
            p_values=p_values.tolist(),
            statistic=statistic,
            accusable=calibration.accusable(p_value, size, code=code, subject=subject),
            ratios=ratios,
        )

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        """Judge what was opened so far."""
        if not evidence.blocks and not evidence.token_blocks and not evidence.whole_blocks:
            return Judgement(receipt_pb2.OUTCOME_INCONCLUSIVE, "nothing was opened")
        found = self.assess(evidence)
        outcome, reason = self.decide(found, evidence)
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


def _answer_limit(tensors: Mapping[str, npt.NDArray[Any]]) -> float:
    found = tensors.get(ANSWER_LIMIT)
    if found is None or found.shape != (1,):
        msg = f"the model file has no tensor {ANSWER_LIMIT!r}: it is of another version"
        raise ConfigurationError(msg)
    return float(found[0])


def decide(
    found: Assessment, evidence: OpenedEvidence, rules: profile_pb2.LearnedRules
) -> tuple[receipt_pb2.Outcome.ValueType, str]:
    """Return the outcome of an assessment, and why."""
    seen = f"{found.blocks} opened block{'' if found.blocks == 1 else 's'}"
    if found.p_value <= rules.false_alarms:
        low, high = found.estimate.interval
        reason = (
            f"the blocks look like {_WORDS[found.family]}: {found.p_value:.2g} of honest sessions "
            f"look so at most, on {seen}; inflated share {low:.0%} to {high:.0%}"
        )
        if not found.accusable:
            return (
                receipt_pb2.OUTCOME_INCONCLUSIVE,
                f"the judge knows too few questions like this one to accuse by them; else {reason}",
            )
        return receipt_pb2.OUTCOME_FAIL, reason
    if found.blocks < rules.least_blocks:
        return (
            receipt_pb2.OUTCOME_INCONCLUSIVE,
            f"it takes {rules.least_blocks} to judge by; found {seen}",
        )
    wanted = rules.guard
    if not evidence.last and evidence.rounds <= len(rules.early_pass):
        wanted = rules.early_pass[evidence.rounds - 1]
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
