"""Both readers and the vocabulary that they share, as one table of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from coin_protocol.errors import ConfigurationError
from verifier_sdk.semantic.reader.block_reader import BlockReader
from verifier_sdk.semantic.reader.run_reader import RunReader
from verifier_sdk.semantic.reader.tensors import Tensors, taken
from verifier_sdk.semantic.reader.vocabulary import Vocabulary

FORMAT: Final = 1
"""Which tensors there are, and what they mean."""


@dataclass(frozen=True, eq=False)
class Readers:
    """What `train_readers` makes.

    Attributes:
        vocabulary: Rows and rarities of ids.
        runs: Reads runs of four tokens.
        blocks: Reads whole blocks.
    """

    vocabulary: Vocabulary
    runs: RunReader
    blocks: BlockReader

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return everything by name: float16, and integers for the vocabulary."""
        return {
            "format": np.array([FORMAT], np.uint32),
            **self.vocabulary.tensors(),
            **self.runs.tensors(),
            **self.blocks.tensors(),
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Readers:
        """Read them back.

        Raises:
            ConfigurationError: Tensors are missing, of another format, shape or kind, or not
                finite.
        """
        try:
            found = taken(tensors, "format")
            if found.shape != (1,) or int(found[0]) != FORMAT:
                msg = f"wanted format {FORMAT}; found {found.tolist()}"
                raise ValueError(msg)  # noqa: TRY301 - as everything that does not fit
            vocabulary = Vocabulary.from_tensors(tensors)
            return cls(
                vocabulary,
                RunReader.from_tensors(vocabulary, tensors),
                BlockReader.from_tensors(vocabulary, tensors),
            )
        except (ValueError, TypeError) as error:
            msg = f"these are no readers that can be used: {error}; train them again"
            raise ConfigurationError(msg) from error
