"""A verdict in plain words: its checks, and its scores beside what they were held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coin_protocol.checks import CHECKS
from coin_protocol.profile import Policy
from coin_protocol.v1 import receipt_pb2 as pb

P_VALUE: Final = "p_value"
_OF_FAMILY: Final = "p_value_"
_COSINES: Final = ("tokens_to_block", "block_to_answer")

MOST_SCORES: Final = 400
"""Scores of single blocks on a page."""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One deterministic check and what came of it.

    Attributes:
        code: Its stable name.
        claim: What holds when it passes; empty for a check that this release does not know.
        status: As in the protocol.
        detail: What it found and wanted, where it failed.
    """

    code: str
    claim: str
    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class Family:
    """The p-value of one detector: the share of honest sessions that look as odd to it."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Limits:
    """When the policy decides by the p-value of a session.

    Attributes:
        policy: Its name.
        fail: FAIL at this p-value or less.
        clear: PASS above this one.
    """

    policy: str
    fail: float
    clear: float


@dataclass(frozen=True, slots=True)
class MeanScore:
    """A score over the opened blocks, beside the threshold of the plain cosine rule.

    Attributes:
        name: Of the score.
        blocks: How many blocks have it.
        mean: Over them.
        wanted: What the mean must be above; None where no rule says.
    """

    name: str
    blocks: int
    mean: float
    wanted: float | None


@dataclass(frozen=True, slots=True)
class Graded:
    """The graded evidence.

    Attributes:
        p_value: Of the session; None where no calibrated judge judged.
        limits: What it was held against; None where the policy is not known here.
        families: One for each detector, the oddest first.
        means: Scores of blocks, by name.
        blocks: Name, block and value of each score of a block, the first `MOST_SCORES`.
        left_out: How many more there are.
    """

    p_value: float | None
    limits: Limits | None
    families: Sequence[Family]
    means: Sequence[MeanScore]
    blocks: Sequence[tuple[str, int, float]]
    left_out: int


def check_lines(verdict: pb.Verdict) -> list[CheckLine]:
    """Return the verdict's checks, in the order in which they ran."""
    known = {check.code: check for check in CHECKS}
    lines = []
    for result in verdict.checks:
        check = known.get(result.code)
        lines.append(
            CheckLine(
                code=result.code,
                claim="" if check is None else check.claim,
                status=result.status,
                detail=result.detail,
            )
        )
    return lines


def graded(verdict: pb.Verdict, policies: Mapping[bytes, Policy]) -> Graded:
    """Return the verdict's scores beside the limits of the policy that it names.

    Args:
        verdict: Of an audit.
        policies: Those known here, by digest.
    """
    policy = policies.get(bytes(verdict.policy_sha256))
    session = next((score.value for score in verdict.scores if score.name == P_VALUE), None)
    families = [
        Family(score.name.removeprefix(_OF_FAMILY), score.value)
        for score in verdict.scores
        if score.name.startswith(_OF_FAMILY) and math.isfinite(score.value)
    ]
    families.sort(key=lambda family: family.value)
    blocks = [
        (score.name, score.block_index, score.value)
        for score in verdict.scores
        if score.name != P_VALUE and not score.name.startswith(_OF_FAMILY)
    ]
    return Graded(
        p_value=session,
        limits=_limits(policy),
        families=families,
        means=list(_means(blocks, policy)),
        blocks=blocks[:MOST_SCORES],
        left_out=max(0, len(blocks) - MOST_SCORES),
    )


def _limits(policy: Policy | None) -> Limits | None:
    if policy is None or not policy.message.HasField("learned_rules"):
        return None
    rules = policy.message.learned_rules
    return Limits(policy.message.name, rules.false_alarms, rules.guard)


def _means(blocks: Iterable[tuple[str, int, float]], policy: Policy | None) -> Iterable[MeanScore]:
    values: dict[str, list[float]] = {}
    for name, _, value in blocks:
        if math.isfinite(value):
            values.setdefault(name, []).append(value)
    learned = policy is not None and policy.message.HasField("learned_rules")
    for name, found in values.items():
        wanted = None
        if policy is not None and not learned and name in _COSINES:
            threshold = getattr(policy.message.cosine_rules, name)
            wanted = threshold.value + threshold.guard
        yield MeanScore(name, len(found), sum(found) / len(found), wanted)
