"""The baseline of the CoIn paper: one verdict from the set of scores of all opened blocks.

A small network reads each block's scores, its outputs are pooled over the blocks by mean and by
maximum, and a second network makes one logit of the pools: whatever the number of blocks, and
whatever their order (Zaheer and others, "Deep Sets", 2017; CoIn, arXiv 2505.13778).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from coin_protocol.errors import ConfigurationError, InvalidInputError
from verifier_sdk.semantic import exact
from verifier_sdk.semantic.mlp import Floats, Mlp

BLOCK_NET: Final = "deepsets.block"
SET_NET: Final = "deepsets.set"


@dataclass(frozen=True)
class DeepSets:
    """Two networks with pooling between them.

    Attributes:
        block: From the scores of a block to what is pooled.
        whole: From means, then maxima, to one logit.
    """

    block: Mlp
    whole: Mlp

    @property
    def inputs(self) -> int:
        """Scores of one block."""
        return self.block.inputs

    def logits(self, sets: Sequence[Floats]) -> Floats:
        """Return one logit of inflation for each set, float32 (n,).

        Args:
            sets: Scores of the blocks of one session each, float32 (blocks, inputs), one block
                at least.

        Raises:
            InvalidInputError: A set is empty, or of another shape.
        """
        for scores in sets:
            if scores.ndim != 2 or scores.shape[1] != self.inputs or not len(scores):
                msg = f"wanted scores of shape (1 or more, {self.inputs}); found {scores.shape}"
                raise InvalidInputError(msg)
        if not sets:
            return np.empty(0, np.float32)
        lengths = np.array([len(scores) for scores in sets])
        starts = np.cumsum(lengths) - lengths
        read = exact.addends(self.block(np.concatenate(sets)), int(lengths.max()))
        means = np.add.reduceat(read, starts, axis=0) / lengths[:, None]
        tops = np.maximum.reduceat(read, starts, axis=0)
        logits: Floats = self.whole(np.concatenate([means, tops], axis=1).astype(np.float32))[:, 0]
        return logits

    def tensors(self) -> dict[str, Floats]:
        """Return all tensors, for a file."""
        return {**self.block.tensors(BLOCK_NET), **self.whole.tensors(SET_NET)}

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], inputs: int) -> DeepSets:
        """Take the networks out of a file's tensors.

        Args:
            tensors: By name.
            inputs: Scores of one block.

        Raises:
            ConfigurationError: One is missing, or reads another number of scores.
        """
        pooled = tensors.get(f"{SET_NET}.mean")
        if pooled is None or pooled.ndim != 1 or not len(pooled) or len(pooled) % 2:
            msg = f"the model file has no tensor '{SET_NET}.mean' of means and maxima"
            raise ConfigurationError(msg)
        return cls(
            Mlp.read(tensors, BLOCK_NET, inputs=inputs, outputs=len(pooled) // 2),
            Mlp.read(tensors, SET_NET, inputs=len(pooled), outputs=1),
        )
