"""Matching heads: small networks over pairs of vectors (protocol, section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from verifier_sdk.semantic import exact
from verifier_sdk.semantic.copies import COPY_INPUTS
from verifier_sdk.semantic.mlp import Floats, Mlp

PAIR_HEADS: Final = ("tokens_to_block", "block_to_answer", "block_to_prompt", "block_to_block")
"""Do these tokens belong to this block; does the block bear on the answer, on the prompt; are
two blocks of one session."""

COPIES_HEAD: Final = "copies"
"""Is one of two blocks a copy of part of the other, as it is or lightly edited."""

SUBJECT_HEAD: Final = "subject"
"""Which domain of the training traces a prompt is most like."""

UNKNOWN_SUBJECT: Final = -1
"""Of a session whose prompt was not seen."""


def pair_inputs(left: Floats, right: Floats) -> Floats:
    """Return `(cosine, |a - b|, a * b)` of unit rows, float32 (n, 1 + 2 d)."""
    product = left * right
    cosine = exact.total(product, axis=-1)[..., None].astype(np.float32)
    return np.concatenate([cosine, np.abs(left - right), product], axis=-1)


@dataclass(frozen=True)
class Heads:
    """All matching heads of one embedding space.

    Attributes:
        pairs: By name, one logit each.
        copies: Of `copy_inputs`, one logit.
        subjects: Of a prompt, one logit a subject.
    """

    pairs: Mapping[str, Mlp]
    copies: Mlp
    subjects: Mlp

    def pair(self, name: str, left: Floats, right: Floats) -> Floats:
        """Return logits, float32 (n,), that pairs of unit rows (n, d) belong together."""
        logits: Floats = self.pairs[name](pair_inputs(left, right))[:, 0]
        return logits

    def subject_of(self, prompt: npt.NDArray[np.floating] | None) -> int:
        """Return the number of the subject that a prompt is most like.

        Args:
            prompt: Its unit embedding, (d,); None where it was not seen.
        """
        if prompt is None:
            return UNKNOWN_SUBJECT
        return int(self.subjects(prompt[None].astype(np.float32))[0].argmax())

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""
        return self.subjects.inputs

    def tensors(self) -> dict[str, Floats]:
        """Return all tensors, for a file."""
        found = self.copies.tensors(COPIES_HEAD)
        found.update(self.subjects.tensors(SUBJECT_HEAD))
        for name, head in self.pairs.items():
            found.update(head.tensors(name))
        return found

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], dimension: int) -> Heads:
        """Take the heads out of a file's tensors.

        Raises:
            ConfigurationError: One is missing or of another dimension.
        """
        width = 1 + 2 * dimension
        return cls(
            {name: Mlp.read(tensors, name, inputs=width, outputs=1) for name in PAIR_HEADS},
            Mlp.read(tensors, COPIES_HEAD, inputs=COPY_INPUTS, outputs=1),
            Mlp.read(tensors, SUBJECT_HEAD, inputs=dimension),
        )
