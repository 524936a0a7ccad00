"""Decide an audit again from its bundle: the same verdict to the last bit, or where it differs.

found = replay_bundle(bundle, trust=trust, models=models, policy=policy)
assert found.difference is None

No network and no provider: what was opened stands in the bundle. Taken as given are the
verifier's name and clock, what it remembers of other sessions, and why no answer came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from coin_protocol.checks import Case, Trust
from coin_protocol.embedding import TextEmbedder, Vectors
from coin_protocol.limits import HASH_BYTES
from coin_protocol.models import Models
from coin_protocol.offline import case_of, signed_verdict
from coin_protocol.profile import Policy
from coin_protocol.replaying import Difference, Replayed, first_difference, judge_file
from coin_protocol.v1 import receipt_pb2
from verifier_sdk.deciding import NEAR_DUPLICATE, Course, Decided, conclude, told_matches
from verifier_sdk.retracing import retrace
from verifier_sdk.semantic import CosineJudge, Judge, Judgement, OpenedEvidence, textual_scores
from verifier_sdk.semantic.choose import judge_for
from verifier_sdk.semantic.textual import SURPRISE

if TYPE_CHECKING:
    # Loads torch, which a bundle without graded evidence is replayed without.
    from verifier_sdk.semantic.reader import ReferenceModel

SURPRISE_TOLERANCE: Final = 0.01
"""Nats by which a reference model may differ from itself on another machine."""

_MOST_COSINE: Final = 1.0 + 1e-6
"""Rounding brings a cosine past 1 by less."""


def replay(
    bundle: receipt_pb2.Bundle,
    *,
    trust: Trust,
    models: Models,
    policy: Policy,
    judge: str,
    reference: str | None,
) -> Replayed:
    """Replay as a `coin_protocol.replaying.Replayer`: what `coin bundle verify` finds."""
    return replay_bundle(
        bundle,
        trust=trust,
        models=models,
        policy=policy,
        judge=CosineJudge(policy.message.cosine_rules)
        if judge == "rules"
        else _Named(lambda: judge_for(policy, models, judge_file(judge))),
        reference=None if reference is None else _reference_model(reference),
    )


def replay_bundle(
    bundle: receipt_pb2.Bundle,
    *,
    trust: Trust,
    models: Models,
    policy: Policy,
    judge: Judge | None = None,
    reference: ReferenceModel | None = None,
) -> Replayed:
    """Decide an audit again and compare.

    Args:
        bundle: As `receipt.read_bundle` returns it.
        trust: Pinned roots of the provider, and keys of the verifier.
        models: Of the profile; loaded only where something was opened.
        policy: The verdict's.
        judge: By default the one that the policy names.
        reference: The reference model that the verifier used. Without it its scores are taken
            as given.

    Raises:
        VerificationError: The verdict is not signed by a known verifier.
        InvalidInputError: The verdict is under another profile or policy, or the verifier's part
            of the bundle is malformed.
        ConfigurationError: The judge or a model is not there, or not the one that is named.
    """
    verdict = signed_verdict(bundle, trust=trust, profile=models.profile, policy=policy)
    whole = (models.tokenizer, _Remembering(models.embedder)) if bundle.whole_rounds else None
    case = case_of(bundle, trust=trust, profile=models.profile, policy=policy, installed=whole)
    named = judge or _Named(lambda: judge_for(policy, models))
    course = Course(models=models, judge=named)
    end = retrace(case, course, verifier=verdict.verifier)
    surprising = [score for score in verdict.scores if score.name == SURPRISE]
    if not surprising:
        # The verifier used none: what one would say now is no fault of the verdict.
        reference = None
    matches = list(bundle.matches) or told_matches(verdict.reasons)
    if isinstance(end, Difference):
        difference: Difference | None = end
    else:
        difference = _strange_match(case, matches, end) or first_difference(
            verdict,
            conclude(
                case,
                end,
                verifier=verdict.verifier,
                texts=_texts(case, end, surprising, reference),
                matches=matches,
                decided_at=verdict.decided_at,
            ),
        )
    return Replayed(
        verdict=verdict,
        report=course.report,
        difference=difference,
        judge=True if course.judged else None,
        reference=True if reference is not None else False if surprising else None,
        matches=len(matches),
    )


class _Named:
    """A judge that is loaded once it is asked: most failed checks ask none."""

    def __init__(self, load: Callable[[], Judge]) -> None:
        self._load = load
        self._judge: Judge | None = None

    def judge(self, evidence: OpenedEvidence) -> Judgement:
        if self._judge is None:
            self._judge = self._load()
        return self._judge.judge(evidence)


class _Remembering:
    """An embedder that embeds what it is given once: checks run again after every step."""

    def __init__(self, embedder: TextEmbedder) -> None:
        self._embedder = embedder
        self._known: dict[tuple[int, ...], Vectors] = {}

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    @property
    def max_pieces(self) -> int:
        return self._embedder.max_pieces

    def pieces(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return self._embedder.pieces(texts)

    def encode(
        self,
        inputs: Sequence[tuple[int, ...]],
        progress: Callable[[int], None] | None = None,
    ) -> Vectors:
        new = [one for one in dict.fromkeys(inputs) if one not in self._known]
        if new:
            self._known.update(zip(new, self._embedder.encode(new, progress), strict=True))
        return np.array([self._known[one] for one in inputs]).reshape(-1, self.dimension)


def _reference_model(name: str) -> ReferenceModel:
    from verifier_sdk.semantic.reader import ReferenceModel

    return ReferenceModel(name)


def _texts(
    case: Case,
    decided: Decided,
    surprising: Sequence[receipt_pb2.Score],
    reference: ReferenceModel | None,
) -> list[receipt_pb2.Score]:
    """Return the scores of the text of blocks opened whole.

    Those of a reference model are the verifier's own where it is not at hand, or says about the
    same.
    """
    if decided.judgement is None or not case.whole_openings:
        return []
    given = {score.block_index: score.value for score in surprising}
    scores = textual_scores(case, reference)
    if reference is None:
        blocks = [block for whole in case.whole_openings for block in whole.opening.blocks]
        return scores + [
            receipt_pb2.Score(name=SURPRISE, block_index=index, value=given[index])
            for index in (block.block_index for block in blocks)
            if index in given
        ]
    for score in scores:
        told = given.get(score.block_index)
        if score.name == SURPRISE and told is not None:
            near = abs(told - score.value) <= SURPRISE_TOLERANCE
            score.value = told if near else score.value
    return scores


def _strange_match(
    case: Case, matches: Sequence[receipt_pb2.BlockMatch], decided: Decided
) -> Difference | None:
    """Return the first match that no opened block of this audit can have had."""
    shown = iter(
        []
        if decided.judgement is None
        else [block.block_index for answered in case.openings for block in answered.opening.blocks]
    )
    for number, match in enumerate(matches):
        path = f"matches[{number}]"
        # In the order of the openings, each at most once: what is passed over is used up.
        if match.block_index not in shown:
            return Difference(
                f"{path}.block_index", str(match.block_index), "a block opened with its embedding"
            )
        other = match.other_commitment_sha256
        if len(other) != HASH_BYTES or other == case.commitment_sha256:
            return Difference(
                f"{path}.other_commitment_sha256",
                other.hex(),
                "the digest of another commitment",
            )
        if not NEAR_DUPLICATE <= match.cosine <= _MOST_COSINE:
            return Difference(
                f"{path}.cosine", str(match.cosine), f"a cosine of {NEAR_DUPLICATE} or more"
            )
    return None
