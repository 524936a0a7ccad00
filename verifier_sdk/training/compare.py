"""What a report says beside the judge's own figures: digests, and how other judges do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coin_protocol.v1 import receipt_pb2
from verifier_sdk.semantic.judge import Judge, OpenedEvidence
from verifier_sdk.semantic.model_file import ModelFile
from verifier_sdk.training.card import file_digest
from verifier_sdk.training.results import SessionResult


@dataclass
class Comparison:
    """Other judges on the same openings, at the end of each audit of tier `committed`.

    Attributes:
        judges: By name. What they do not pass counts as noticed.
        noticed: By judge and family (`none` for honest sessions): noticed and all sessions.
    """

    judges: Mapping[str, Judge]
    noticed: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def observe(self, result: SessionResult, evidence: OpenedEvidence) -> None:
        """Judge a finished session of four original blocks or more, inflated by half or more."""
        wanted = result.tier == "committed" and result.block_size == 256
        if not wanted or result.original_blocks < 4 or 0 < result.rate < 1 or not evidence.blocks:
            return
        family = result.family or "none"
        own = {"learned": result.outcome == "FAIL"}
        for name, judge in self.judges.items():
            own[name] = judge.judge(evidence).outcome != receipt_pb2.OUTCOME_PASS
        for name, seen in own.items():
            count = self.noticed.setdefault(name, {}).setdefault(family, [0, 0])
            count[0] += seen
            count[1] += 1

    def document(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return the counts, ready for JSON."""
        return {
            name: {
                family: {"noticed": count[0], "sessions": count[1]}
                for family, count in sorted(families.items())
            }
            for name, families in self.noticed.items()
        }


def extras(
    file: ModelFile, data: Sequence[Path], comparison: Comparison, **settings: object
) -> dict[str, Any]:
    """Return what a report passes through: digests, settings, the comparison of judges."""
    return {
        "judge_sha256": file.digest.hex(),
        "data": [{"name": path.name, "sha256": file_digest(path)} for path in data],
        "settings": {name: str(value) for name, value in settings.items()},
        "judges": comparison.document(),
    }
