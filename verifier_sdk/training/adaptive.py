"""The verifier's own judge in an attacker's hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verifier_sdk.lab.attack import Ids, Material
from verifier_sdk.semantic.judge import OpenedBlock, OpenedEvidence, OpenedTokens, WholeBlock
from verifier_sdk.semantic.learned import LearnedJudge
from verifier_sdk.training.workshop import Workshop

_OWN_BLOCKS = 4
"""Of the reasoning, beside which a candidate is judged."""

_RUNS = 2


@dataclass(frozen=True)
class Oracle:
    """Tells an attacker how suspicious candidates look to the judge.

    Attributes:
        workshop: Models.
        judge: The verifier's own.
    """

    workshop: Workshop
    judge: LearnedJudge

    def __call__(self, material: Material, candidates: Sequence[Ids]) -> npt.NDArray[np.float64]:
        """Return the greatest log likelihood ratio of any family, float64 (candidates,).

        Each candidate is judged opened and opened whole, among blocks of the reasoning.
        """
        size = self.workshop.models.profile.block_size
        space = self.workshop.space(size)
        own = [material.ids[start : start + size] for start in range(0, len(material.ids), size)]
        own = own[:: max(1, len(own) // _OWN_BLOCKS)][:_OWN_BLOCKS]
        self.workshop.cache.prepare(
            [text for block in (*own, *candidates) for text in space.block_texts(block)]
        )
        visible = self.workshop.visible(material.trace)
        rng = np.random.default_rng([material.seed, 7])

        def opened(index: int, ids: Ids) -> OpenedBlock:
            count = max(1, len(ids) // 4)
            cells = rng.choice(count, min(_RUNS, count), replace=False)
            at = np.sort((cells[:, None] * 4 + np.arange(4)).ravel())
            at = at[at < len(ids)]
            tokens = OpenedTokens(index, at, ids[at])
            windows = space.windows(space.block_texts(ids))
            return OpenedBlock(index, windows, tokens, space.rows(tokens.ids))

        beside = [opened(index, ids) for index, ids in enumerate(own)]
        worst = []
        for ids in candidates:
            block = opened(len(own), ids)
            evidence = OpenedEvidence(
                [*beside, block], visible, total_blocks=len(own) + 1, block_size=size
            )
            whole = WholeBlock(block.index, ids, block.windows)
            both = OpenedEvidence(
                beside, visible, total_blocks=len(own) + 1, block_size=size, whole_blocks=[whole]
            )
            worst.append(
                max(
                    float(self.judge.ratios(evidence).values[len(own)].max()),
                    float(self.judge.ratios(both).of("whole").max()),
                )
            )
        return np.array(worst)
