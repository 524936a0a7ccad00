"""Reads runs of consecutive tokens: how much likelier as filler than as reasoning."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from verifier_sdk.semantic.reader.forward import RunForward
from verifier_sdk.semantic.reader.tensors import (
    Tensors,
    dimension,
    exported,
    imported,
    parameters,
)
from verifier_sdk.semantic.reader.vocabulary import PADDING, Rows, Vocabulary, checked_ids

RUN_TOKENS: Final = 4
"""Tokens of a run; a shorter one, at the edge of a block, is padded."""

RUN_FAMILIES: Final = ("random", "bag", "scattered", "split", "ngram", "shuffled", "retrieved")
"""One head each, in this order. What is real text of another kind leaves no trace in a run."""

MOST: Final = 6.0
"""Logits are cut off here: runs that were never seen say less than a model believes."""

_WIDTH: Final = 24
_HIDDEN: Final = 128
_PREFIX: Final = "runs."


class RunNet(nn.Module):
    """An embedding of each of four tokens, and two layers on all of them side by side."""

    def __init__(self, rows: int, *, width: int = _WIDTH, hidden: int = _HIDDEN) -> None:
        """Initialise at random.

        Args:
            rows: Of the embedding table, row 0 for padding.
            width: Of an embedding.
            hidden: Units of the first layer; the second has half of them.
        """
        super().__init__()
        self.embedding = nn.Embedding(rows, width, padding_idx=PADDING)
        self.first = nn.Linear(RUN_TOKENS * width, hidden)
        self.second = nn.Linear(hidden, hidden // 2)
        self.heads = nn.Linear(hidden // 2, len(RUN_FAMILIES))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (n, families), of rows, int64 (n, 4)."""
        found = torch.relu(self.first(self.embedding(rows).flatten(1)))
        logits: torch.Tensor = self.heads(torch.relu(self.second(found)))
        return logits


class RunReader:
    """Log density ratios of runs of four tokens: filler of a family over real reasoning.

    Trained on as many runs of each family as real ones, so that logits of independent runs
    add up.
    """

    families: Final = RUN_FAMILIES

    def __init__(self, vocabulary: Vocabulary, net: RunNet) -> None:
        """Take the network, which is not trained any more.

        Raises:
            ValueError: Its table has not as many rows as the vocabulary.
        """
        if net.embedding.num_embeddings != vocabulary.rows:
            msg = (
                f"the run reader's table has {net.embedding.num_embeddings} rows, "
                f"the vocabulary {vocabulary.rows}"
            )
            raise ValueError(msg)
        self._vocabulary = vocabulary
        self._net = net.eval()
        self._forward = RunForward.of(parameters(net))

    def read(
        self, ids: npt.ArrayLike, mask: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the logit of each run and family, float32 (n, families), within +-6.

        Args:
            ids: Token ids of the runs, integers (n, 4).
            mask: Where they are tokens, bool (n, 4); the rest is padding, whatever its id.
                Left out, all are tokens.

        Raises:
            ValueError: Shapes do not fit, or ids are no integers from 0 to 2^20 - 1.
        """
        found = checked_ids(ids)
        if found.ndim != 2 or found.shape[1] != RUN_TOKENS:
            msg = f"runs must be (n, {RUN_TOKENS}); found shape {found.shape}"
            raise ValueError(msg)
        rows = self._vocabulary.rows_of(found)
        if mask is not None:
            rows = _masked(rows, np.asarray(mask))
        return np.clip(self._forward(rows), -MOST, MOST).astype(np.float32)

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what `from_tensors` reads, float16, without the vocabulary."""
        return exported(_PREFIX, self._net)

    @classmethod
    def from_tensors(cls, vocabulary: Vocabulary, tensors: Tensors) -> RunReader:
        """Read a reader back.

        Raises:
            ValueError: Tensors are missing, not finite, or of other shapes.
        """
        width = dimension(tensors, _PREFIX + "embedding.weight", 1)
        hidden = dimension(tensors, _PREFIX + "first.weight", 0)
        net = RunNet(vocabulary.rows, width=width, hidden=hidden)
        imported(_PREFIX, net, tensors)
        return cls(vocabulary, net)


def _masked(rows: Rows, mask: npt.NDArray[np.generic]) -> Rows:
    if mask.shape != rows.shape or mask.dtype != np.bool_:
        msg = f"the mask of runs must be bool {rows.shape}; found {mask.dtype} {mask.shape}"
        raise ValueError(msg)
    return np.where(mask, rows, PADDING)
