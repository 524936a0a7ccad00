"""One detector a family of filler: how much likelier each block is filler than reasoning.

A detector gives log likelihood ratios, one a block. Over the inflated share s of a session's
blocks, `max_s sum_b log(1 - s + s * exp(l_b))` is a generalised likelihood ratio: one number
however many blocks were opened, with the share that explains them best and an interval for it.
A small network over it and a few more statistics of the blocks then speaks for the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic import exact
from verifier_sdk.semantic.aggregate import (
    SESSION_COLUMNS,
    Ratios,
    extremes_of,
    session_inputs,
)
from verifier_sdk.semantic.families import FAMILIES
from verifier_sdk.semantic.measure import (
    BLOCK_COLUMNS,
    TOKEN_COLUMNS,
    WHOLE_COLUMNS,
    Measured,
)
from verifier_sdk.semantic.mlp import Floats, Mlp

SHARES: Final = np.linspace(0.0, 1.0, 41)
"""Inflated shares that are compared."""

_CLIP: Final = 6.0
"""No block speaks louder than e^6: detectors were trained on some thousand blocks."""

_FACTORS: Final = 64
"""Odds that are multiplied before a logarithm is taken: e^384 is still a number."""

_INTERVAL_DROP: Final = 1.92
"""Half the 95 % quantile of chi-squared with one degree of freedom."""

_COLUMNS: Final = {
    "block": len(BLOCK_COLUMNS),
    "tokens": len(TOKEN_COLUMNS),
    "whole": len(WHOLE_COLUMNS),
}


@dataclass(frozen=True)
class Detectors:
    """Networks from what was measured on a block to one logit a family.

    Attributes:
        networks: By kind of block.
        sessions: By family, from `session_inputs` to one logit.
    """

    networks: Mapping[str, Mlp]
    sessions: Mapping[str, Mlp]

    def ratios(self, measured: Measured) -> Ratios:
        """Return the log likelihood ratios of a session's blocks.

        A block that was opened whole is judged whole, and not a second time by its tokens.
        """
        whole = set(measured.whole_indices.tolist())
        values: list[Floats] = []
        kinds: list[int] = []
        for number, (kind, rows, indices) in enumerate(
            (
                ("block", measured.block, measured.block_indices),
                ("tokens", measured.tokens, measured.token_indices),
                ("whole", measured.whole, measured.whole_indices),
            )
        ):
            keep = [kind == "whole" or index not in whole for index in indices.tolist()]
            if any(keep):
                values.append(self.networks[kind](rows[keep]))
                kinds += [number] * sum(keep)
        found = np.concatenate(values) if values else np.empty((0, len(FAMILIES)), np.float32)
        return Ratios(
            values=np.clip(found, -_CLIP, _CLIP),
            kinds=np.array(kinds, np.int64),
            extremes=extremes_of(measured),
            block_size=measured.block_size,
            code=measured.code,
            subject=measured.subject,
        )

    def session_evidence(self, ratios: Ratios) -> Floats:
        """Return each family's logit for a session, float32 (families,)."""
        if not len(ratios):
            return np.zeros(len(FAMILIES), np.float32)
        return self.logits(session_inputs(ratios, evidence_for(ratios.values)))

    def logits(self, rows: Floats) -> Floats:
        """Return each family's logit, float32 (families,), from the rows of `session_inputs`."""
        return np.array(
            [self.sessions[family](rows[at : at + 1])[0, 0] for at, family in enumerate(FAMILIES)],
            np.float32,
        )

    def tensors(self) -> dict[str, Floats]:
        """Return all tensors, for a file."""
        found: dict[str, Floats] = {}
        for family, network in self.sessions.items():
            found.update(network.tensors(f"session.{family}"))
        for kind, network in self.networks.items():
            found.update(network.tensors(f"detector.{kind}"))
        return found

    @classmethod
    def read(cls, tensors: Mapping[str, Floats]) -> Detectors:
        """Take the detectors out of a file's tensors.

        Raises:
            ConfigurationError: One is missing, or measures something else.
        """
        return cls(
            {
                kind: Mlp.read(tensors, f"detector.{kind}", inputs=columns, outputs=len(FAMILIES))
                for kind, columns in _COLUMNS.items()
            },
            {
                family: Mlp.read(
                    tensors, f"session.{family}", inputs=len(SESSION_COLUMNS), outputs=1
                )
                for family in FAMILIES
            },
        )


@dataclass(frozen=True, slots=True)
class ShareEstimate:
    """What blocks say about the inflated share.

    Attributes:
        evidence: Generalised log likelihood ratio against no inflation, 0 or more.
        share: The likeliest share of inflated blocks.
        interval: Shares that are not much less likely (95 % by Wilks).
    """

    evidence: float
    share: float
    interval: tuple[float, float]


def evidence_for(ratios: Floats) -> npt.NDArray[np.float64]:
    """Return each family's generalised log likelihood ratio, float64 (families,)."""
    if not len(ratios):
        return np.zeros(ratios.shape[1])
    best: npt.NDArray[np.float64] = _likelihoods(ratios).max(axis=0)
    return best


def estimate_share(ratios: Floats, family: int) -> ShareEstimate:
    """Estimate the inflated share by one family's detector."""
    likelihood = _likelihoods(ratios[:, family : family + 1])[:, 0]
    best = int(likelihood.argmax())
    inside = SHARES[likelihood >= likelihood[best] - _INTERVAL_DROP]
    return ShareEstimate(
        float(likelihood[best]), float(SHARES[best]), (float(inside[0]), float(inside[-1]))
    )


def _likelihoods(ratios: Floats) -> npt.NDArray[np.float64]:
    """Return log likelihood ratios, float64 (shares, families)."""
    gains = exact.exps(ratios) - 1.0
    summed = np.zeros((len(SHARES), ratios.shape[1]))
    for start in range(0, len(gains), _FACTORS):
        mixed = 1.0 + SHARES[:, None, None] * gains[start : start + _FACTORS]
        # Products, since a logarithm of each would cost more; always in this order.
        while (half := mixed.shape[1] // 2) > 0:
            paired = mixed[:, :half] * mixed[:, half : 2 * half]
            mixed = np.concatenate([paired, mixed[:, 2 * half :]], axis=1)
        summed += exact.logs(mixed[:, 0])
    return summed
